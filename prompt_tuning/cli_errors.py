"""Reports errors that a user can fix in one sentence; a bug keeps its traceback."""

import errno
import re

BUG = (
    "Unless it comes from your own code, this is a bug in prompt-tuning; please report it with all "
    "the lines above."
)
_OUT_OF_MEMORY = (
    "Out of memory{device}. Lower BATCH_SIZE (while training) or Run.eval_batch_size (while "
    "decoding), keep the frozen parameters with --gin.Run.param_dtype=bfloat16, or shorten "
    "TASK_FEATURE_LENGTHS."
)
_NO_DEVICE = (
    "JAX cannot start on this device: {reason}. Set JAX_PLATFORMS to cpu, cuda or tpu, or unset "
    "it, and install the jax of that device."
)
_SYSTEM = {
    errno.ENOSPC: "the disk is full. Free some space and run the same command again: a run resumes "
    "from its last saved state",
    errno.EDQUOT: "the disk quota is used up. Free some space and run the same command again: a "
    "run resumes from its last saved state",
    errno.EROFS: "the disk is read-only; choose another folder",
    errno.EACCES: "permission denied; check who owns it, or choose another place",
    errno.EPERM: "permission denied; check who owns it, or choose another place",
    errno.ENOENT: "there is no such file or folder",
    errno.EISDIR: "it is a folder; expected a file",
    errno.ENOTDIR: "a part of the path is a file; expected a folder",
    errno.EEXIST: "a file of that name exists already",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}


def explain(error: BaseException) -> str | None:
    """Describes in one sentence an error that a user can fix.

    Args:
      error: what a command raised.

    Returns:
      The sentence, or None where only a traceback helps: the error is a bug.
    """
    if isinstance(error, UnicodeError):
        return f"A text is not UTF-8: {_one_line(error)}."
    if isinstance(error, ValueError | FloatingPointError):
        full = _full_disk(error)
        return full or _one_line(str(error).split("\n  In call to configurable")[0])  # gin's
    if isinstance(error, OSError):
        return _system(error)
    if isinstance(error, MemoryError):
        return _OUT_OF_MEMORY.format(device="")
    if isinstance(error, ModuleNotFoundError):
        return _module(error)
    if type(error).__module__.startswith("tensorflow."):
        return _full_disk(error) or f"{type(error).__name__}: {_first_line(error)}"
    if isinstance(error, RuntimeError):
        return _runtime(error)
    if isinstance(error, AssertionError):
        return _no_device()
    return None


def _system(error: OSError) -> str:
    reason = _SYSTEM.get(error.errno)
    if reason is None:
        return _one_line(error)
    if not error.filename:
        return f"A file cannot be written: {reason}."
    name = re.sub(r"\.tmp-[^/]+$", "", str(error.filename))  # see folders.py
    return f"{name!r} cannot be used: {reason}."


def _module(error: ModuleNotFoundError) -> str | None:
    name = (error.name or "").partition(".")[0]
    if not name or name == "prompt_tuning":
        return None
    return f"The library {name!r} is needed for this and is not installed: pip install {name}."


def _runtime(error: RuntimeError) -> str | None:
    """Describes JAX's RuntimeErrors about memory and devices; any other one is a bug."""
    text = str(error)
    if "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower():
        return _OUT_OF_MEMORY.format(device=f" on the accelerator ({_first_line(error)[:200]})")
    if "Unable to initialize backend" in text or "Unknown backend" in text:
        reason = _one_line(text).split(" (set JAX_PLATFORMS")[0].rstrip(".")
        return _NO_DEVICE.format(reason=reason[:300])
    return _full_disk(error)


def _no_device() -> str | None:
    """With JAX_PLATFORMS=cuda and no CUDA, JAX fails with an assertion that says nothing."""
    import jax

    try:
        jax.devices()
    except AssertionError:
        kind = jax.config.jax_platforms
        return _NO_DEVICE.format(reason=f"it finds no {kind} device" if kind else "it finds none")
    except RuntimeError as error:
        return _runtime(error)
    return None


def _full_disk(error: BaseException) -> str | None:
    """Describes a full disk, which Orbax and tensorstore report at length and not as an OSError."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if "No space left on device" in str(cause) or getattr(cause, "errno", 0) == errno.ENOSPC:
            path = re.search(r"['\"](/[^'\"]+)['\"]", str(cause))
            where = f"{path[1]!r} cannot be written" if path else "A file cannot be written"
            return f"{where}: {_SYSTEM[errno.ENOSPC]}."
        cause = cause.__cause__ or cause.__context__
    return None


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _one_line(text: object) -> str:
    return " ".join(str(text).split())
