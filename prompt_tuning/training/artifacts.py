"""What training writes into MODEL_DIR, besides its state and metrics.

    config.gin                        the resolved configuration; loads as the same run
    versions.json                     of Python and the libraries
    prompts/step_001000.safetensors   what the method added, after every evaluation; a plain prompt
    prompts/best.safetensors          has a .npy beside it
    best/checkpoint_2000/             the best model in T5X's format, if parameters of it train
    checkpoint_1000/                  the model at the steps of Run.checkpoint_steps

Each is written atomically. Prompts and models are written before the state of their step is saved,
so a process that is killed in between writes them again.
"""

import glob
import json
import os
import shutil
from collections.abc import Mapping
from typing import Any

from prompt_tuning import folders, paths, trees
from prompt_tuning.checkpoints import t5x_native
from prompt_tuning.methods import tuned_file
from prompt_tuning.prompts.metadata import PromptMetadata, library_versions
from prompt_tuning.run import Run


def check_model_dir(run: Run) -> None:
    """Refuses a MODEL_DIR that a run cannot write to, before anything is loaded.

    Raises:
      ValueError: see `paths.check_folder`; or it is in a bucket, and a library is missing or more
        than a prompt trains.
    """
    paths.check_folder(run.model_dir, "MODEL_DIR")
    if not paths.is_remote(run.model_dir):
        return
    if not _has_cloud_storage():
        raise ValueError(
            f"MODEL_DIR {run.model_dir!r} is in a bucket, for which Orbax needs the library "
            "google-cloud-storage: pip install 'prompt-tuning[gcs]'."
        )
    if run.trains_model:
        raise ValueError(
            f"MODEL_DIR {run.model_dir!r} is in a bucket, where only a prompt can be written; a "
            "tuned model needs a local folder. Copy it to the bucket afterwards."
        )


def _has_cloud_storage() -> bool:
    try:
        from google.cloud import storage  # noqa: F401
    except ImportError:
        return False
    return True


def write_settings(folder: str, config_text: str) -> None:
    """Writes a run's resolved configuration and the library versions."""
    paths.make_folder(folder)
    texts = {
        "config.gin": config_text,
        "versions.json": json.dumps(library_versions(), indent=2) + "\n",
    }
    for name, text in texts.items():
        folders.replace_file(os.path.join(folder, name), text.encode())


def write_added(
    name: str,
    run: Run,
    fingerprint: str,
    arrays: Mapping[str, Any],
    step: int,
    dev_metrics: Mapping[str, float],
) -> None:
    """Writes what the method added, if anything.

    Args:
      name: of the file, in MODEL_DIR/prompts.
      run: the run.
      fingerprint: of the frozen model.
      arrays: all that the method added, by path.
      step: steps done.
      dev_metrics: at that step; empty between evaluations.
    """
    if not arrays:
        return
    about = PromptMetadata(
        model=run.model.name,
        model_fingerprint=fingerprint,
        length=0,
        width=run.model.emb_dim,
        task=run.task,
        step=step,
        dev_metrics=dev_metrics,
        config=run.config_text,
    )
    tuned_file.save(os.path.join(run.model_dir, "prompts", name), run.method, arrays, about)


def write_best_model(model_dir: str, params: trees.FlatTree, step: int) -> None:
    """Writes a tuned model, then removes the previous best; one of them is always whole."""
    folder = os.path.join(model_dir, "best")
    newest = write_model(folder, params, step)
    for former in glob.glob("checkpoint_*", root_dir=folder):
        if former != newest:
            shutil.rmtree(os.path.join(folder, former))


def write_model(folder: str, params: trees.FlatTree, step: int) -> str:
    """Writes a model and returns its name in the folder.

    One that is there was written by a process that was killed before it saved its state.
    """
    again = os.path.join(folder, f"checkpoint_{step}")
    if os.path.exists(again):
        folders.remove_folder(again)  # never an incomplete checkpoint under its name
    return os.path.basename(t5x_native.write(folder, params, step))


def best_path(run: Run, added: bool) -> str:
    """Where the best of a run is: the file of what was added, or else the tuned model."""
    return os.path.join(run.model_dir, "prompts/best.safetensors" if added else "best")


def remove_leftovers(model_dir: str) -> None:
    """Removes the unfinished files of processes that were killed."""
    for pattern in ("*.tmp-*", "prompts/*.tmp-*", "best/*.tmp-*", "state/*.tmp-*"):
        folders.remove_leftovers(glob.glob(os.path.join(glob.escape(model_dir), pattern)))
