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

import functools
import glob
import json
import os
import shutil
from collections.abc import Mapping
from typing import NamedTuple

from prompt_tuning import folders, paths, trees
from prompt_tuning.checkpoints import t5x_native
from prompt_tuning.checkpoints.leaves import Leaf
from prompt_tuning.methods import tuned_file
from prompt_tuning.model import stacking
from prompt_tuning.parallel import placing, processes
from prompt_tuning.prompts.metadata import PromptMetadata, library_versions
from prompt_tuning.run import Run
from prompt_tuning.training.step import TrainState


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


def trained(
    run: Run,
    fingerprint: str,
    state: TrainState,
    frozen: trees.FlatTree,
    added: frozenset[str],
) -> "Trained":
    """What trained until a step; parameters of stacked layers are taken apart if they are written.

    Args:
      run, fingerprint, added: see `Trained`.
      state: the step, and what trains.
      frozen: what does not.
    """
    params = trees.merge(state.trainable, frozen)
    trains_model = bool(state.trainable.keys() - added)
    if trains_model or not added <= params.keys():
        params = stacking.unstack(params)
    return Trained(run, fingerprint, state.step, params, added, trains_model)


class Trained(NamedTuple):
    """What trained until a step, to be written.

    Attributes:
      run: the run.
      fingerprint: of the frozen model.
      step: steps done.
      params: all parameters, by path.
      added: the paths of those that the method added.
      trains_model: whether others train.
    """

    run: Run
    fingerprint: str
    step: int
    params: trees.FlatTree
    added: frozenset[str]
    trains_model: bool

    def write(self, dev_metrics: Mapping[str, float], is_best: bool = False) -> None:
        """Writes what the method added; if it is the best, also as such, or the model if it trains.

        Args:
          dev_metrics: at this step; empty if it is not evaluated.
          is_best: no earlier dev score is higher.
        """
        if processes.is_first():
            self._write_added(f"step_{self.step:06d}", dev_metrics)
        if is_best:
            if processes.is_first():
                self._write_added("best", dev_metrics)
            if self.trains_model:
                write_best_model(self.run.model_dir, self._model(), self.step)

    def write_checkpoint(self) -> None:
        """Writes the model as `Run.checkpoint_steps` asks for it."""
        write_model(self.run.model_dir, self._model(), self.step)

    def _model(self) -> trees.FlatTree:
        """The parameters of the T5 alone."""
        return {path: leaf for path, leaf in self.params.items() if path not in self.added}

    def _write_added(self, name: str, dev_metrics: Mapping[str, float]) -> None:
        if not self.added:
            return
        about = PromptMetadata(
            model=self.run.model.name,
            model_fingerprint=self.fingerprint,
            length=0,
            width=self.run.model.emb_dim,
            task=self.run.task,
            step=self.step,
            dev_metrics=dev_metrics,
            config=self.run.config_text,
        )
        arrays = {path: self.params[path] for path in sorted(self.added)}
        place = os.path.join(self.run.model_dir, "prompts", name)
        tuned_file.save(place, self.run.method, arrays, about)


def write_best_model(model_dir: str, params: trees.FlatTree, step: int) -> None:
    """Writes a tuned model, then removes the previous best; one of them is always whole."""
    folder = os.path.join(model_dir, "best")
    newest = write_model(folder, params, step)
    if not processes.is_first():
        return
    for former in glob.glob("checkpoint_*", root_dir=folder):
        if former != newest:
            shutil.rmtree(os.path.join(folder, former))


def write_model(folder: str, params: trees.FlatTree, step: int) -> str:
    """Writes a model and returns its name in the folder.

    One that is there was written by a process that was killed before it saved its state. Of several
    processes the first one writes, and the others help to gather each parameter.
    """
    leaves = {
        path: Leaf(leaf.shape, leaf.dtype, functools.partial(placing.on_host, leaf))
        for path, leaf in params.items()
    }
    if not processes.is_first():
        for path in sorted(leaves):  # in the order of `t5x_native.write`
            leaves[path].read()
        return f"checkpoint_{step}"
    again = os.path.join(folder, f"checkpoint_{step}")
    if os.path.exists(again):
        folders.remove_folder(again)  # never an incomplete checkpoint under its name
    return os.path.basename(t5x_native.write(folder, leaves, step))


def best_path(run: Run, added: bool) -> str:
    """Where the best of a run is: the file of what was added, or else the tuned model."""
    return os.path.join(run.model_dir, "prompts/best.safetensors" if added else "best")


def remove_leftovers(model_dir: str) -> None:
    """Removes the unfinished files of processes that were killed."""
    if not processes.is_first():
        return
    for pattern in ("*.tmp-*", "prompts/*.tmp-*", "best/*.tmp-*", "state/*.tmp-*"):
        folders.remove_leftovers(glob.glob(os.path.join(glob.escape(model_dir), pattern)))
