"""What a user reads who has no T5X."""

import subprocess
import sys

WITHOUT = "import sys; sys.modules['t5x'] = None; "


def test_the_import_says_how_to_install_t5x_and_which_commit():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT + "import prompt_tuning.bridge"],
        capture_output=True,
        text=True,
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: T5X cannot be imported (")
    assert "install the commit that was tested with `pip install --no-deps git+https://" in last
    assert "google-research/t5x@cc342d4 git+https://github.com/google/airio@69897df`" in last
