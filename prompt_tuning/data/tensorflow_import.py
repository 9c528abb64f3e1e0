"""The one door to TensorFlow, seqio and TFDS: `from ...tensorflow_import import seqio, tf, tfds`.

It takes seconds, so only modules that need them import it. TensorFlow's libraries write
greetings to file descriptor 2 before any setting of theirs could stop it. So the first import
happens here, with the stream held back; afterwards the lines that mean nothing are dropped and the
others are written out: a missing CUDA library, a deprecation, whatever else was found.
"""

import contextlib
import importlib.util
import os
import re
import tempfile
from collections.abc import Iterator

# Information (level I, as TF_CPP_MIN_LOG_LEVEL=1 would have it), with its second line.
_GREETINGS = re.compile(
    r"WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR"
    r"|I\d{4} \d\d:\d\d:\d+\.\d+ .*"
    r"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: I .*"
    r"|To enable the following instructions: .*"
)
# TensorFlow looks for a GPU itself, although JAX alone uses one.
_NO_GPU = re.compile(r".*failed call to cuInit: .*|.*Could not find cuda drivers.*")


def without_greetings(text: str, *, expects_gpu: bool) -> str:
    """Drops TensorFlow's greetings from what its import wrote, and keeps everything else.

    Args:
      text: the lines.
      expects_gpu: JAX is installed for GPUs, so a driver that fails is worth a line.

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
    """Holds back file descriptor 2, and lets through what is no greeting; of an error, all."""
    with tempfile.TemporaryFile() as held:
        stderr = os.dup(2)
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
