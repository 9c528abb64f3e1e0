"""Imports TensorFlow, seqio and TFDS for all other modules.

    from prompt_tuning.data.tensorflow_import import seqio, tf, tfds

Importing them takes seconds, so only modules that need them do. TensorFlow logs to file descriptor
2 before any of its settings takes effect, so the first import happens here with stderr captured.
Afterwards informational lines are dropped and everything else is written to stderr: a missing CUDA
library, a deprecation.
"""

import contextlib
import importlib.util
import os
import re
import tempfile
from collections.abc import Iterator

# Lines of level INFO, in both of TensorFlow's formats, and what accompanies them.
_GREETINGS = re.compile(
    r"WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR"
    r"|I\d{4} \d\d:\d\d:\d+\.\d+ .*"
    r"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: I .*"
    r"|To enable the following instructions: .*"
)
# TensorFlow looks for a GPU, which only JAX uses.
_NO_GPU = re.compile(r".*failed call to cuInit: .*|.*Could not find cuda drivers.*")


def without_greetings(text: str, *, expects_gpu: bool) -> str:
    """Drops the informational lines from what TensorFlow's import wrote to stderr.

    Args:
      text: the lines.
      expects_gpu: whether JAX is installed for GPUs; if so, a failing driver is kept.

    >>> text = 'I0000 00:00:17.7    1 port.cc:153] oneDNN is on.\\nW0000 00:00:17.8 No libcudnn.\\n'
    >>> without_greetings(text, expects_gpu=False)
    'W0000 00:00:17.8 No libcudnn.\\n'
    """
    kept = []
    for line in text.splitlines(keepends=True):
        is_greeting = _GREETINGS.fullmatch(line.rstrip("\r\n"))
        if not is_greeting and (expects_gpu or not _NO_GPU.fullmatch(line.rstrip("\r\n"))):
            kept.append(line)
    return "".join(kept)


@contextlib.contextmanager
def _greetings_dropped() -> Iterator[None]:
    """Captures stderr, then writes it without informational lines, or whole after an error."""
    try:
        stderr = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            text = held.read()
            if not failed:
                lines = text.decode(errors="replace")
                text = without_greetings(lines, expects_gpu=_jax_wants_gpu()).encode()
            os.write(2, text)


def _jax_wants_gpu() -> bool:
    plugins = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin")
    return any(importlib.util.find_spec(name) for name in plugins)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # as JAX has it: warnings and errors
with _greetings_dropped():
    import seqio
    import tensorflow as tf
    import tensorflow_datasets as tfds
    import tensorflow_text

    # JAX owns the accelerators: left alone, TensorFlow would claim all of a GPU's memory.
    tf.config.set_visible_devices([], "GPU")

__all__ = ["seqio", "tensorflow_text", "tf", "tfds"]
