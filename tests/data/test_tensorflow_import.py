"""What TensorFlow writes when it is imported: informational lines are dropped, warnings are not."""

import os
import subprocess
import sys

import pytest

from prompt_tuning.data import tensorflow_import

GREETINGS = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795656032.887381   10748 port.cc:153] oneDNN custom operations are on.
2026-11-26 01:20:35.226226: I external/local_xla/xla/tsl/cuda/cudart_stub.cc:31] Hello.
To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow.
"""
NO_GPU = """\
I0000 00:00:1795656032.888356   10748 cudart_stub.cc:31] Could not find cuda drivers here.
E0000 00:00:1795656035.176700   10748 cuda_platform.cc:52] failed call to cuInit: UNKNOWN (303)
"""
WARNINGS = """\
W0000 00:00:1795656035.176700   10748 gpu_device.cc:2365] Cannot dlopen some GPU libraries.
/x/y.py:3: FutureWarning: something goes away
Skipping registering GPU devices...
"""


@pytest.mark.parametrize("expects_gpu", [False, True])
def test_only_informational_lines_are_dropped(expects_gpu):
    kept = tensorflow_import.without_greetings(GREETINGS + WARNINGS, expects_gpu=expects_gpu)
    assert kept == WARNINGS


def test_a_failing_gpu_driver_is_reported_where_jax_needs_one():
    assert tensorflow_import.without_greetings(NO_GPU, expects_gpu=False) == ""
    kept = tensorflow_import.without_greetings(NO_GPU, expects_gpu=True)
    assert kept == NO_GPU.splitlines(keepends=True)[1]


# A module that is named like a library and writes to file descriptor 2 as C++ does.
NOISY = (
    "import os\nos.write(2, b'I0000 00:00:17.8 1 a.cc:1] Hi.\\nW0000 00:00:17.8 No libcudnn.\\n')\n"
)


@pytest.fixture
def libraries(tmp_path):
    """Code that imports fakes of the libraries; one of them writes to stderr."""
    (tmp_path / "seqio.py").write_text(NOISY)
    for name in ("tensorflow_datasets", "tensorflow_text"):
        (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "tensorflow.py").write_text(
        "class config:\n    set_visible_devices = lambda devices, kind: None\n"
    )
    return (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import prompt_tuning.data.tensorflow_import; print('imported')"
    )


@pytest.mark.parametrize("failing", [False, True])
def test_the_import_lets_warnings_through(tmp_path, libraries, failing):
    if failing:
        (tmp_path / "seqio.py").write_text(NOISY + "raise OSError('no such lib')")
    done = subprocess.run([sys.executable, "-c", libraries], capture_output=True, text=True)
    assert "W0000 00:00:17.8 No libcudnn.\n" in done.stderr
    if failing:  # then all of it may be the reason
        assert "I0000 00:00:17.8 1 a.cc:1] Hi." in done.stderr
        assert "OSError: no such lib" in done.stderr
    else:
        assert done.stderr == "W0000 00:00:17.8 No libcudnn.\n"


def test_a_closed_stderr_stops_nothing(tmp_path, libraries):
    (tmp_path / "seqio.py").write_text("")
    command = ["/bin/sh", "-c", '"$0" -c "$1" 2>&-', sys.executable, libraries]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "imported\n"


@pytest.mark.skipif(
    os.path.exists("/dev/nvidia0"), reason="TensorFlow rightly warns of a GPU that it cannot use"
)
def test_nothing_is_written_without_a_gpu():
    code = "import prompt_tuning.data.tensorflow_import"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
