"""The metadata of a file of what was tuned: its header, and its checks."""

import dataclasses
import datetime
import importlib.metadata
import json
import platform
import re
from collections.abc import Callable, Mapping
from typing import Any

PLAIN = "prompt_tuning"
"""The kind of a plain prompt, also of files that were written before there were kinds."""

_PACKAGES = ("prompt_tuning", "jax", "jaxlib", "flax", "optax", "numpy")


@dataclasses.dataclass(frozen=True)
class PromptMetadata:
    """The origin of a prompt, or of what another method added to a model.

    Attributes:
      model: name of the frozen model, 't5_1_1_small'.
      model_fingerprint: of the frozen model's parameters, see `trees.fingerprint`; empty
        where another tool made the prompt and did not record it.
      length: P, the number of vectors of a plain prompt; 0 for another kind.
      width: H, the model's width.
      task: the task or mixture it was trained on.
      step: training steps done.
      dev_metrics: the dev metrics at that step, by name; empty if none were measured.
      config: the run's resolved gin configuration, as text.
      versions: of the libraries, by package name.
      created: date and time in UTC, ISO 8601.
      kind: the method, see `methods/method.py`.
      position: of a plain prompt, 'prefix' or 'suffix'; empty if unknown.
      settings: what the method was made with, as far as JSON can express it.
    """

    model: str
    model_fingerprint: str
    length: int
    width: int
    task: str = ""
    step: int = 0
    dev_metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    config: str = ""
    versions: Mapping[str, str] = dataclasses.field(default_factory=lambda: library_versions())
    created: str = dataclasses.field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    )
    kind: str = PLAIN
    position: str = ""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def library_versions() -> dict[str, str]:
    """The installed versions of what a prompt's values depend on."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def header(metadata: PromptMetadata) -> dict[str, str]:
    """Writes metadata as text, as in the header of a file."""
    values = {field.name: getattr(metadata, field.name) for field in dataclasses.fields(metadata)}
    return {
        name: value if isinstance(value, str) else _json(value) for name, value in values.items()
    }


def _json(value: Any) -> str:
    return json.dumps(
        dict(value) if isinstance(value, Mapping) else value, sort_keys=True, default=float
    )


def read_header(path: str, found: Mapping[str, str] | None) -> PromptMetadata | None:
    """Reads a header; a file of another tool has none of our names and counts as bare.

    Raises:
      ValueError: it has some of our names, but not as `header` writes them.
    """
    fields = {field.name: field for field in dataclasses.fields(PromptMetadata)}
    known = {name: text for name, text in (found or {}).items() if name in fields}
    if not known:
        return None
    try:
        metadata = PromptMetadata(
            **{
                name: text if fields[name].type is str else json.loads(text)
                for name, text in known.items()
            }
        )
    except (TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"The metadata of {path!r} cannot be understood: {error}. They were not written by "
            f"prompt_tuning, or were edited."
        ) from error
    if "position" in known:
        return metadata
    return dataclasses.replace(metadata, position=_position_in(metadata.config))


def _position_in(config: str) -> str:
    """The position of a prompt whose file is too old to have it: from its configuration."""
    is_suffix = re.search(r"\bprompt_position\s*=\s*['\"]suffix['\"]", config)
    return "suffix" if is_suffix else "prefix"


def check_kind(path: str, metadata: PromptMetadata | None, kind: str) -> None:
    """Refuses the file of another method; one without metadata is a plain prompt.

    Raises:
      ValueError: names both methods.
    """
    found = metadata.kind if metadata else PLAIN
    if found != kind:
        raise ValueError(
            f"{path!r} holds what the method {found} trained, but the method of this run is "
            f"{kind}. Set Run.method to {found}, or name a file that {kind} trained."
        )


def check_settings(path: str, metadata: PromptMetadata | None, settings: Mapping[str, Any]) -> None:
    """Refuses a file whose method was made with other settings.

    Raises:
      ValueError: names the setting, and both values.
    """
    if metadata is None:
        return
    for name, value in metadata.settings.items():
        if name in settings and settings[name] != value:
            raise ValueError(
                f"{path!r} was trained with {metadata.kind}.{name} = {value!r}, but this run has "
                f"{settings[name]!r}. Set it to {value!r}, or name another file."
            )


def check_position(path: str, metadata: PromptMetadata | None, position: str) -> None:
    """Refuses a prompt that was trained at another position; a bare file has none.

    Raises:
      ValueError: names both positions.
    """
    found = metadata.position if metadata else ""
    if found and found != position:
        raise ValueError(
            f"The prompt {path!r} was trained as a {found} of the input, but is used here as a "
            f"{position}. Set Run.prompt_position='{found}'."
        )


def check_model(
    path: str,
    metadata: PromptMetadata | None,
    *,
    model_name: str,
    fingerprint: Callable[[], str],
) -> None:
    """Refuses a file that was made for other parameters.

    A file without metadata (.npy) or without a fingerprint (imported from peft) is not checked.

    Raises:
      ValueError: names both models and fingerprints.
    """
    if metadata is None or not metadata.model_fingerprint:
        return
    found = fingerprint()
    if metadata.model_fingerprint == found:
        return
    raise ValueError(
        f"The prompt {path!r} was made for {made_for(metadata)}, but the model given is "
        f"{model_name} with fingerprint {found}. A prompt works only with the "
        f"parameters it was trained with. Load that model, or pass --allow_other_model to use the "
        f"prompt all the same."
    )


def made_for(metadata: PromptMetadata | None) -> str:
    """The model that a file was made for, in words."""
    if metadata is None or not metadata.model:
        return "a model that the file does not name"
    if not metadata.model_fingerprint:
        return metadata.model
    return f"{metadata.model} with fingerprint {metadata.model_fingerprint}"
