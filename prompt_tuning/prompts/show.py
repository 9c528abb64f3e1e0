"""Describes a prompt: its size, its range, and the vocabulary pieces nearest to it."""

import numpy as np

from prompt_tuning.prompts import files
from prompt_tuning.prompts.metadata import PLAIN, PromptMetadata
from prompt_tuning.shapes import Float


def summary(path: str) -> str:
    """Describes a prompt file, or that of another method, in a few lines.

    Raises:
      ValueError: the file cannot be read.
    """
    found = files.read(path)
    lines = [f"file     {found.path}"]
    if found.metadata is None or found.metadata.kind == PLAIN:
        lines += _prompt_lines(files.as_prompt(found).prompt)
    else:
        lines += [f"array    {name} {array.shape}" for name, array in found.arrays.items()]
    return "\n".join([*lines, *_origin_lines(found.metadata)])


def _prompt_lines(prompt: Float[np.ndarray, "P H"]) -> list[str]:
    norms = np.linalg.norm(prompt, axis=1)
    return [
        f"shape    {prompt.shape[0]} vectors of width {prompt.shape[1]}",
        f"RMS      {np.sqrt(np.mean(np.square(prompt))):.4g}",
        f"range    {prompt.min():.4g} to {prompt.max():.4g}",
        f"norms    {norms.min():.4g} to {norms.max():.4g}, mean {norms.mean():.4g}",
    ]


def _origin_lines(metadata: PromptMetadata | None) -> list[str]:
    if metadata is None:
        return ["model    unknown: the file has no metadata"]
    metrics = ", ".join(f"{name} {value:.2f}" for name, value in metadata.dev_metrics.items())
    versions = ", ".join(f"{name} {version}" for name, version in metadata.versions.items())
    return [
        f"method   {metadata.kind}" + f", {metadata.position}" * bool(metadata.position),
        f"model    {metadata.model or 'unknown'}, fingerprint "
        f"{metadata.model_fingerprint or 'unknown'}",
        f"task     {metadata.task}, step {metadata.step:,}, dev: {metrics or 'not measured'}",
        f"made     {metadata.created} with {versions}",
    ]


def nearest(
    prompt: Float[np.ndarray, "P H"], embeddings: Float[np.ndarray, "V H"], count: int = 5
) -> list[list[tuple[int, float]]]:
    """Finds the rows of the embedding table nearest to each prompt vector, by cosine.

    After Lester et al. 2021, section 7.

    Returns:
      For each position `count` pairs of id and cosine, the nearest first.

    Raises:
      ValueError: the widths differ, or count is out of range.

    >>> nearest(np.array([[2.0, 0.1]]), np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), 2)
    [[(1, 0.9988), (2, 0.7415)]]
    """
    check_table(prompt, embeddings, count)
    cosines = unit(prompt) @ unit(embeddings).T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return [
        [(int(token), round(float(cosines[position, token]), 4)) for token in row]
        for position, row in enumerate(order)
    ]


def check_table(
    prompt: Float[np.ndarray, "P H"], embeddings: Float[np.ndarray, "V I"], count: int
) -> None:
    """Refuses a table of another width, and a count that it does not have.

    Raises:
      ValueError: says which.
    """
    if prompt.shape[1] != embeddings.shape[1]:
        raise ValueError(
            f"The prompt has width {prompt.shape[1]}, the embedding table {embeddings.shape[1]}. "
            "Name the model that the prompt was made for."
        )
    if not 1 <= count <= len(embeddings):
        raise ValueError(f"The count must be between 1 and {len(embeddings)}; got {count}.")


def unit(rows: np.ndarray) -> np.ndarray:
    """The rows in float32, each of length 1; one of zeros stays."""
    rows = np.asarray(rows, np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(norms, np.finfo(np.float32).tiny)
