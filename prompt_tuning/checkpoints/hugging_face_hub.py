"""Models on the Hugging Face Hub by name: 'hf://google/t5-base-lm-adapt@REVISION'.

REVISION is a commit, a tag, a branch or a pull request (refs/pr/1); without it main is
taken. The commit that a branch or tag points to is logged, so that it can be pinned.
huggingface_hub (`pip install 'prompt-tuning[hf]'`) fetches the files once and keeps them
in its cache, HF_HOME; with HF_HUB_OFFLINE=1, or where the Hub cannot be reached, only the
cache is used.
"""

import logging
import os
from typing import NoReturn

from prompt_tuning.checkpoints import hugging_face

PREFIX = "hf://"
_FILES = (
    hugging_face.CONFIG_FILE,
    hugging_face.SINGLE_FILE,
    hugging_face.INDEX_FILE,
    "model-*-of-*.safetensors",
)

_logger = logging.getLogger(__name__)


def is_name(path: str) -> bool:
    """Whether a checkpoint is asked for by its name on the Hub.

    >>> is_name('hf://google/mt5-small'), is_name('google/mt5-small')
    (True, False)
    """
    return path.startswith(PREFIX)


def fetch(name: str) -> str:
    """Downloads a model's files, unless they are in the cache.

    Returns:
      The folder in the cache.

    Raises:
      ValueError: huggingface_hub is not installed; the model or the revision does not
        exist or is not open to you; the Hub cannot be reached; there are no safetensors.
    """
    repo, _, revision = name.removeprefix(PREFIX).strip("/").partition("@")
    if not repo or (not revision and "@" in name):
        raise ValueError(
            f"A model on the Hub is named hf://OWNER/NAME or hf://OWNER/NAME@REVISION; got "
            f"{name!r}."
        )
    try:
        import huggingface_hub
    except ImportError as error:
        raise ValueError(
            f"{name!r} is fetched with the library huggingface_hub, which is not installed: pip "
            f"install 'prompt-tuning[hf]'. Or download the model yourself and name its folder."
        ) from error
    try:
        folder = huggingface_hub.snapshot_download(
            repo, revision=revision or None, allow_patterns=list(_FILES)
        )
    except Exception as error:  # of the library, of its HTTP client, of the system
        _explain(error, name, repo, revision or "main")
    commit = os.path.basename(folder)
    if commit != revision:
        _logger.warning(
            "%s is at commit %s now; to pin it, name %s%s@%s.",
            name,
            commit,
            PREFIX,
            repo,
            commit,
        )
    inside = set(os.listdir(folder))
    if not any(entry.endswith(".safetensors") for entry in inside):
        raise ValueError(hugging_face.without_safetensors(name.removeprefix(PREFIX), inside))
    return folder


def _explain(error: Exception, name: str, repo: str, revision: str) -> NoReturn:
    """Describes in one sentence why a model could not be fetched."""
    from huggingface_hub import errors

    reason = (str(error).strip().splitlines() or [""])[0][:200]
    if isinstance(error, errors.GatedRepoError):
        what = (
            f"{repo} is gated: accept its terms at "
            f"https://huggingface.co/{repo}, then `hf auth login`."
        )
    elif isinstance(error, errors.RepositoryNotFoundError):
        what = (
            f"the Hub has no model {repo!r}, or a private one: `hf auth login` shows who you are."
        )
    elif isinstance(error, errors.RevisionNotFoundError):
        what = (
            f"{repo} has no revision {revision!r}; https://huggingface.co/{repo}/commits lists all."
        )
    elif isinstance(error, errors.HFValidationError):
        what = "a model is named OWNER/NAME."
    elif isinstance(error, errors.LocalEntryNotFoundError):
        what = (
            f"the Hub cannot be reached (or HF_HUB_OFFLINE is set), and revision {revision!r} is "
            f"not complete in the cache. Fetch it where there is a network: `hf download {repo} "
            f"--revision {revision}`."
        )
    else:
        what = f"{type(error).__name__}: {reason}."
    raise ValueError(f"{name!r} cannot be fetched: {what}") from error
