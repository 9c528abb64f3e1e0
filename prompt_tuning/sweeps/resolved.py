"""The resolved configuration of a sweep's cell, its digest, and its frozen model's fingerprint.

A result is valid as long as both are those that it was made with, whatever the gin files are
called. The settings behind the digest are in the run's config.gin. Data is not compared: its
folder may be another one on another machine.
"""

import functools
import json
from collections.abc import Iterable, Mapping

from prompt_tuning import config, trees
from prompt_tuning.checkpoints import checkpoint
from prompt_tuning.inference.frozen import load_parameters
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.run import MACRO_OF_FIELD, Run
from prompt_tuning.sweeps import commands
from prompt_tuning.sweeps.grid import Cell
from prompt_tuning.training import settings

OF_WHAT_WAS_TRAINED = (
    "model", "initial_checkpoint_path", "param_dtype", "vocabulary_file", "prompt_file",
    "prompt_length", "prompt_position", "trainable", "layers", "remat", "attention", "mesh",
)  # fmt: skip
Loaded = dict[tuple[tuple[str, ...], tuple[str, ...]], Run]  # by gin files and bindings


def load_run(cell: Cell, folder: str = "unused") -> Run:
    """Loads the configuration of a cell.

    Args:
      cell: a cell of a sweep.
      folder: its MODEL_DIR.

    Raises:
      ValueError: see `config.load`.
    """
    return config.load(cell.gin_files, commands.bindings(cell, folder))


def load_runs(cells: Iterable[Cell], loaded: Loaded) -> dict[str, Run]:
    """The run of each cell, by key; cells that differ only in the seed share one.

    Args:
      cells: cells of a sweep.
      loaded: configurations loaded earlier; new ones are added.

    Raises:
      ValueError: names the cell whose configuration cannot be loaded, and why.
    """
    runs = {}
    for cell in cells:
        combination = (cell.gin_files, cell.bindings)
        if combination not in loaded:
            try:
                loaded[combination] = load_run(cell)
            except ValueError as error:
                raise ValueError(f"{cell.key}: {error}") from error
        runs[cell.key] = loaded[combination]
    return runs


def load_evaluations(
    cell: Cell, folder: str = "unused", loaded: Loaded | None = None
) -> dict[str, Run]:
    """The configurations of a cell's evaluations on other tasks, by their names.

    Args:
      cell: a cell of a sweep.
      folder: its MODEL_DIR.
      loaded: configurations loaded earlier, whatever their folder and seed; new ones are added.

    Raises:
      ValueError: names the evaluation that cannot be loaded, or changes what was trained.
    """
    runs = {}
    if not cell.evaluated:
        return runs
    loaded = {} if loaded is None else loaded
    run = load_runs([cell], loaded)[cell.key]
    for name, other in cell.evaluated.items():
        combination = (other.gin_files, other.bindings)
        try:
            if combination not in loaded:
                loaded[combination] = load_run(other, folder)
            check_same_model(run, loaded[combination])
        except ValueError as error:
            raise ValueError(f"{cell.key}, [evaluate.{name}]: {error}") from error
        runs[name] = loaded[combination]
    return runs


def check_same_model(run: Run, other: Run) -> None:
    """Refuses an evaluation on another task that changes what was trained.

    Raises:
      ValueError: names the setting.
    """
    for name in OF_WHAT_WAS_TRAINED:
        a, b = getattr(run, name), getattr(other, name)
        if a != b:
            raise ValueError(
                f"It says what a trained run is evaluated on, so it leaves "
                f"{MACRO_OF_FIELD.get(name, f'Run.{name}')} as it is, {a!r}; got {b!r}."
            )


def digest(run: Run, train: bool, others: Mapping[str, Run] | None = None) -> str:
    """A digest of the settings that affect the result of a run, except the seed.

    Args:
      run: see `load_run`.
      train: whether it trains or is only evaluated.
      others: its evaluations on other tasks, see `load_evaluations`.
    """
    content = [_chosen(run), train]
    if others:
        content.append({name: _chosen(other) for name, other in others.items()})
    return settings.digest(json.dumps(content, sort_keys=True).encode())


def _chosen(run: Run) -> list[tuple[str, str]]:
    chosen = settings.settings(run).chosen
    chosen.pop(MACRO_OF_FIELD["seed"], None)
    return sorted(chosen.items())


def fingerprint(run: Run, *, reads: bool) -> str | None:
    """The fingerprint of a run's frozen model, see `trees.fingerprint`.

    Args:
      run: names the model and its checkpoint.
      reads: read the parameters, once per process, where the fingerprint is not known without.

    Returns:
      None if it is not known without reading and `reads` is False.

    Raises:
      ValueError: they cannot be read.
    """
    stated = checkpoint.stated_fingerprint(run.initial_checkpoint_path)
    if stated is None and reads:
        return _read_fingerprint(run.model, run.initial_checkpoint_path)
    return stated


@functools.cache
def _read_fingerprint(model: T5Config, path: str) -> str:
    return trees.fingerprint(load_parameters(model, path, dtype="bfloat16"))
