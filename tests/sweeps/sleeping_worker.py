"""A worker of a sweep whose runs only count to ten: python sleeping_worker.py SETTINGS (JSON).

file             of the sweep, local or gs://
lease_seconds    see `run_sweep`
events           a file; 'begin KEY PROCESS FROM' and 'end KEY PROCESS' are appended to it
options          further ones of `sweep run`
fails            the key of a run that fails
bucket           a folder that stands in for gs://
server           of the API of that bucket; it is the one place where conditions are checked
"""

import json
import os
import pathlib
import sys
import time

import pytest

from prompt_tuning import cli, folders, paths
from prompt_tuning.sweeps import measure, resolved

STEPS = 10
STEP_SECONDS = 0.05


def note(path, *words):
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, (" ".join(map(str, words)) + "\n").encode())
    os.close(handle)


def count(settings, run):
    """A run that saves its step and resumes from it."""
    key = os.path.basename(run.model_dir)
    saved = os.path.join(run.model_dir, "step")
    first = int(paths.read_bytes(saved)) if paths.is_file(saved) else 0
    note(settings["events"], "begin", key, os.getpid(), first)
    for step in range(first + 1, STEPS + 1):
        time.sleep(STEP_SECONDS)
        folders.replace_file(saved, str(step).encode())
        if key == settings["fails"] and step == 3:
            raise FloatingPointError("the loss\nis nan")
    note(settings["events"], "end", key, os.getpid())
    return {"best": {"dev_score": 50.0}}


def main(settings):
    patch = pytest.MonkeyPatch()
    if settings["bucket"]:
        sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        import buckets

        installed = buckets.installed(patch, pathlib.Path(settings["bucket"]))
        next(installed)
        os.environ["TENSORSTORE_GCS_HTTP_URL"] = settings["server"]
    patch.setattr(measure, "measure", lambda run, train: count(settings, run))
    patch.setattr(resolved, "_read_fingerprint", lambda *_: "0123")
    options = ["--keep=all", f"--lease_seconds={settings['lease_seconds']}"]
    options += settings.get("options", [])
    return cli.main(["sweep", "run", settings["file"], *options])


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
