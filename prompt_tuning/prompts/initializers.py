"""Where a prompt starts: the strategies of Lester et al. 2021, section 3.2.

An initialiser is a function `(rng, shape) -> [P, H]` float32. One that also needs
the frozen model takes `embeddings` (its table, [V, H]) or `tokenize` (text to ids)
as keyword arguments, by these names, and `bind` supplies them; everything else a
configuration sets. Your own works the same way: write

    def my_initializer(rng, shape): ...

in my_package, and set `PROMPT_INITIALIZER = @my_package.my_initializer`.
"""

import functools
import inspect
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.prompts import files
from prompt_tuning.prompts.prompt import Initializer
from prompt_tuning.shapes import Array, Float

Tokenize = Callable[[str], Sequence[int]]


def bind(
    initializer: Callable, *, embeddings: Float[Array, "V H"], tokenize: Tokenize
) -> Initializer:
    """Binds what an initialiser takes from the frozen model.

    >>> def first_row(rng, shape, *, embeddings):
    ...     return jnp.broadcast_to(embeddings[:1], shape)
    >>> bind(first_row, embeddings=jnp.eye(2), tokenize=str.split)(jax.random.key(0), (3, 2))
    Array([[1., 0.],
           [1., 0.],
           [1., 0.]], dtype=float32)
    """
    offered = {"embeddings": embeddings, "tokenize": tokenize}
    asked = inspect.signature(initializer).parameters
    chosen = {name: value for name, value in offered.items() if name in asked}
    return functools.partial(initializer, **chosen)


def check(initializer: Callable) -> None:
    """Refuses what cannot be called with `(rng, shape)` and what `bind` supplies.

    Raises:
      ValueError: a setting has no value, or the function takes other arguments.

    >>> check(functools.partial(from_class_labels, labels=['yes', 'no']))
    """
    function = getattr(initializer, "func", initializer)
    name = getattr(function, "__name__", repr(function))
    try:
        signature = inspect.signature(initializer)
    except (ValueError, TypeError):  # some functions written in C have none
        return
    supplied = {"embeddings", "tokenize"} & signature.parameters.keys()
    try:
        signature.bind("rng", "shape", **dict.fromkeys(supplied))
    except TypeError as error:
        raise ValueError(
            f"The prompt initialiser {name} cannot be called as {name}(rng, shape): {error}. What "
            f"it takes besides is set in the configuration, as {name}.NAME = VALUE."
        ) from error


def initialize(
    initializer: Initializer, rng: jax.Array, shape: tuple[int, int]
) -> Float[Array, "P H"]:
    """Calls an initialiser and checks what it made.

    Raises:
      ValueError: the result has another shape, or is not finite.
    """
    prompt = jnp.asarray(initializer(rng, shape), jnp.float32)
    if prompt.shape != tuple(shape):
        raise ValueError(
            f"The prompt initialiser was asked for an array of shape {tuple(shape)} and made one "
            f"of shape {prompt.shape}."
        )
    if not bool(jnp.isfinite(prompt).all()):
        raise ValueError("The prompt initialiser made values that are not finite.")
    return prompt


def from_random_uniform(
    rng: jax.Array, shape: tuple[int, int], *, low: float = -0.5, high: float = 0.5
) -> Float[Array, "P H"]:
    """Draws uniformly from [low, high).

    The default is the paper's (section 3.2). The official code draws from [0, 0.5)
    instead: `low=0.0, high=0.5`.
    """
    if not low < high:
        raise ValueError(f"from_random_uniform needs low < high; got low={low} and high={high}.")
    return jax.random.uniform(rng, shape, jnp.float32, low, high)


def from_sampled_vocabulary(
    rng: jax.Array,
    shape: tuple[int, int],
    *,
    embeddings: Float[Array, "V H"],
    population_size: int = 5000,
    excluded_ids: Sequence[int] = (),
) -> Float[Array, "P H"]:
    """Copies the embeddings of randomly chosen common tokens, each at most once.

    Ids are sorted by frequency, so the first 5,000 are the most common (section 3.2).

    Args:
      embeddings: the frozen table.
      population_size: how many of the first ids to choose from.
      excluded_ids: ids never chosen. The official code excludes none; `(0, 1, 2)`
        leaves out padding, EOS and <unk>.

    Raises:
      ValueError: fewer candidates than prompt vectors.
    """
    candidates = np.setdiff1d(np.arange(min(population_size, len(embeddings))), excluded_ids)
    if len(candidates) < shape[0]:
        raise ValueError(
            f"A prompt of length {shape[0]} needs as many different tokens, but only "
            f"{len(candidates)} can be chosen. Raise population_size (now {population_size}) or "
            "shorten the prompt."
        )
    ids = jax.random.choice(rng, jnp.asarray(candidates), (shape[0],), replace=False)
    return jnp.asarray(embeddings)[ids].astype(jnp.float32)


def _token_ids(text: str, tokenize: Tokenize) -> list[int]:
    ids = list(tokenize(text))
    if not ids:
        raise ValueError(f"The text {text!r} has no tokens to start a prompt from.")
    return ids


def from_class_labels(
    rng: jax.Array,
    shape: tuple[int, int],
    *,
    labels: Sequence[str],
    embeddings: Float[Array, "V H"],
    tokenize: Tokenize,
    fallback: Callable = from_sampled_vocabulary,
) -> Float[Array, "P H"]:
    """Starts one vector at each class label, the rest from another initialiser.

    A label of several tokens gives the mean of their embeddings (section 3.2).

    Args:
      labels: the label strings, in order; position i of the prompt starts at label i.
      embeddings: the frozen table.
      tokenize: text to ids, without EOS.
      fallback: an initialiser for the positions that are left.

    Raises:
      ValueError: no labels, more labels than positions, or a label without tokens.
    """
    if isinstance(labels, str) or not labels:
        raise ValueError(
            "from_class_labels needs a list of label strings, such as ['True', 'False']; got "
            f"{labels!r}. Set CLASS_LABELS."
        )
    if len(labels) > shape[0]:
        raise ValueError(
            f"There are {len(labels)} class labels but only {shape[0]} prompt positions. "
            "Raise PROMPT_LENGTH or choose another initialiser."
        )
    table = jnp.asarray(embeddings)
    rows = [
        table[jnp.asarray(_token_ids(label, tokenize))].astype(jnp.float32).mean(axis=0)
        for label in labels
    ]
    rest = (shape[0] - len(rows), shape[1])
    if rest[0]:
        fill = bind(fallback, embeddings=embeddings, tokenize=tokenize)
        rows.extend(initialize(fill, rng, rest))
    return jnp.stack(rows)


def from_embedded_string(
    rng: jax.Array,
    shape: tuple[int, int],
    *,
    text: str,
    embeddings: Float[Array, "V H"],
    tokenize: Tokenize,
    fallback: Callable = from_sampled_vocabulary,
) -> Float[Array, "P H"]:
    """Starts the prompt at the embeddings of a text, the rest from another initialiser.

    Raises:
      ValueError: the text has no tokens, or more than the prompt has positions.
    """
    ids = _token_ids(text, tokenize)
    if len(ids) > shape[0]:
        raise ValueError(
            f"The text to start the prompt from has {len(ids)} tokens, but the prompt only "
            f"{shape[0]} positions. Raise PROMPT_LENGTH or shorten the text."
        )
    rows = jnp.asarray(embeddings)[jnp.asarray(ids)].astype(jnp.float32)
    rest = (shape[0] - len(ids), shape[1])
    if not rest[0]:
        return rows
    fill = bind(fallback, embeddings=embeddings, tokenize=tokenize)
    return jnp.concatenate([rows, initialize(fill, rng, rest)])


def from_file(rng: jax.Array, shape: tuple[int, int], *, path: str | None) -> Float[Array, "P H"]:
    """Starts at a saved prompt, .safetensors or .npy; the shape must be the same.

    Raises:
      ValueError: no path, the file cannot be read, or it holds a prompt of another shape.
    """
    del rng
    if path is None:
        raise ValueError("from_file needs the path of a saved prompt. Set PROMPT_FILE.")
    prompt = files.read_prompt(path).prompt
    if prompt.shape != tuple(shape):
        raise ValueError(
            f"The prompt in {path} has shape {prompt.shape}, length by width; this run needs "
            f"{tuple(shape)}. Set PROMPT_LENGTH={prompt.shape[0]} for its length; its width must "
            "be the model's emb_dim."
        )
    return jnp.asarray(prompt, jnp.float32)
