"""Tasks, their text and their metrics; the one door to TensorFlow and seqio.

TensorFlow's libraries greet the user on the standard error stream before anything can
turn that off, so their first import happens here, with the stream put aside, and so does the
first look for GPUs, which complains where there is none.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Holds back what is written to file descriptor 2; an error gives it back."""
    with tempfile.TemporaryFile() as held:
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with _quiet():
    import seqio  # noqa: F401
    import tensorflow
    import tensorflow_text  # noqa: F401

    # JAX owns the accelerators: left alone, TensorFlow would claim all of a GPU's memory.
    tensorflow.config.set_visible_devices([], "GPU")
