"""The small training state on disk, saved asynchronously and atomically.

A state is what changes while a prompt trains, never the frozen model:

    {'trainable': {path: array}, 'opt_state': ..., 'step': int, 'rng': ...}

Any pytree of arrays and Python numbers will do. Orbax writes each state into a
temporary folder and renames it when it is complete, so a process killed at any moment
leaves complete states only:

    DIRECTORY/2000/                          the newest states, and
    DIRECTORY/1000/                          the best one by dev score
    DIRECTORY/3000.orbax-checkpoint-tmp-0/   cut short; the next run removes it

A state counts as saved when it was read back, see `StateStore.wait`. One that was complete and
cannot be read any more (a broken disk, an edited file) stops the run with the name of its folder
and what to do; an older one is never taken silently.

Orbax passes its folder to glob, so that a name such as `run[1]` would not match itself. Such a
folder is handed to it through a symbolic link, see `_literal`.
"""

import contextlib
import glob
import logging
import math
import os
import tempfile
import zlib
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from prompt_tuning.checkpoints.preemption import Preemption

_ITEM = "state"
_READ_BACK_BYTES = 64 * 2**20  # of larger states only the description is read back
_logger = logging.getLogger(__name__)


class _Saved(NamedTuple):
    """What a leaf was when it was saved; the checksum of a large state is not made."""

    shape: tuple[int, ...]
    dtype: np.dtype
    crc: int | None


class StateStore:
    """Training states in one folder: the newest few, and the best by dev score.

    Of equal dev scores the earliest is the best. A save without a score, between two
    evaluations, never displaces the best.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        *,
        newest: int = 2,
        read_only: bool = False,
        listens: bool = True,
    ):
        """Opens the folder, and listens for signals from then on, see `reached_preemption`.

        Args:
          directory: is made if it does not exist.
          newest: how many of the newest states are kept; the best is kept as well.
          read_only: look at the states of a run, perhaps one that is still running, and
            change nothing: nothing is cleaned up and SIGTERM stays as it was.
          listens: for signals; of several stores in one process one is enough.

        Raises:
          ValueError: a read-only folder that does not exist, or `newest` below 1.
        """
        directory = os.fspath(directory)
        if "://" not in directory:
            directory = os.path.abspath(directory)
        if newest < 1:
            raise ValueError(f"newest must be at least 1, got {newest}: no run could resume.")
        if read_only and "://" not in directory and not os.path.isdir(directory):
            raise ValueError(
                f"{directory!r} holds no training states: there is no such folder. Name the "
                f"folder into which the training run saves."
            )
        self.directory = directory
        self._unverified: tuple[int, dict[str, _Saved]] | None = None
        self._links = contextlib.ExitStack()
        self._manager = ocp.CheckpointManager(
            _literal(directory, self._links, create=not read_only),
            item_handlers={_ITEM: ocp.StandardCheckpointHandler()},
            options=_options(newest=newest, read_only=read_only),
        )
        self._scores = {step: self._read_score(step) for step in self.steps()}
        self._is_read_only = read_only
        self._preemption = Preemption() if listens and not read_only else None

    def steps(self) -> list[int]:
        """The steps of all states, oldest first; one that is being written counts."""
        return sorted(self._manager.all_steps())

    @property
    def newest_step(self) -> int | None:
        """The step of the newest state, None without any."""
        return max(self.steps(), default=None)

    @property
    def best_step(self) -> int | None:
        """The step with the best dev score, None if no state has a score."""
        scored = {step: score for step, score in self._scores.items() if score is not None}
        return max(scored, key=lambda step: (scored[step], -step), default=None)

    @property
    def best_score(self) -> float | None:
        """The best dev score, None if no state has a score."""
        return self._scores.get(self.best_step)

    def save(self, step: int, tree: Any, dev_score: float | None = None) -> bool:
        """Starts to save a state and returns; the writing continues in the background.

        The values are copied before this returns, so the caller may donate or
        overwrite its arrays. A failure of the writing raises at the next `save` or `wait`.

        Args:
          step: the step just done. A step that is saved already is left as it is.
          tree: the state; arrays and Python numbers.
          dev_score: the mean of the task's dev metrics at this step, more is better;
            None between evaluations. A score that is not finite is warned of and
            counts as none.

        Returns:
          False if the step was saved already.

        Raises:
          ValueError: the step was saved already, with another score.
        """
        self._check_writable()
        score = _usable_score(step, dev_score)
        if step in self.steps():
            if score is None or score == self._scores[step]:
                return False
            raise ValueError(
                f"The state of step {step} is saved already, with dev score {self._scores[step]}; "
                f"it cannot be changed to {score}. Evaluate first, then save."
            )
        state = {name: _to_save(leaf) for name, leaf in _named_leaves(tree).items()}
        self._verify()
        self._manager.save(
            step,
            args=ocp.args.Composite(**{_ITEM: ocp.args.StandardSave(state)}),
            metrics={"dev_score": score, "step": step},
            force=True,
        )
        self._scores[step] = score
        if not any(map(_is_shared, state.values())):  # no process alone could compare it
            self._unverified = step, _described(state)
        return True

    def restore_newest(self, template: Any) -> tuple[int, Any] | None:
        """Reads the newest complete state, or returns None if there is none.

        Args:
          template: a tree of the same structure; each leaf's shape and dtype must fit,
            and its value is returned as the same kind: a `jax.Array` with its sharding, a
            numpy array, or a Python number.

        Raises:
          ValueError: the state does not fit the template, or cannot be read.
        """
        self.wait()
        step = self.newest_step
        return None if step is None else (step, self.restore(step, template))

    def restore_best(self, template: Any) -> tuple[int, Any] | None:
        """Reads the state with the best dev score; see `restore_newest`."""
        self.wait()
        step = self.best_step
        return None if step is None else (step, self.restore(step, template))

    def restore(self, step: int, template: Any) -> Any:
        """Reads the state of one step; see `restore_newest`."""
        self.wait()
        if step not in self.steps():
            raise ValueError(
                f"{self.directory!r} holds no state of step {step}, only of {self.steps()}."
            )
        expected = _named_leaves(template)
        self._check_fits(step, self._description(step), expected)
        read = self._read(step, expected)
        leaves = [_as_kind_of(leaf, read[name]) for name, leaf in expected.items()]
        return jax.tree.unflatten(jax.tree.structure(template), leaves)

    def _description(self, step: int) -> dict[str, Any]:
        """The shape and dtype of every leaf of a saved state, by name."""
        try:
            saved = self._manager.item_metadata(step)[_ITEM].tree
        except Exception as error:
            raise self._unreadable(step, error) from error
        if saved is None:
            raise self._unreadable(step, "its description is missing")
        return saved

    def _read(self, step: int, expected: dict[str, Any]) -> dict[str, Any]:
        """The leaves of a saved state, by name."""
        abstract = {name: _to_restore(leaf) for name, leaf in expected.items()}
        try:
            return self._manager.restore(
                step, args=ocp.args.Composite(**{_ITEM: ocp.args.StandardRestore(abstract)})
            )[_ITEM]
        except Exception as error:
            raise self._unreadable(step, error) from error

    def reached_preemption(self, step: int) -> int | None:
        """The signal, SIGTERM or SIGINT (Ctrl-C), after which to save this step and exit.

        To be asked after every step, by every process.
        """
        self._check_writable()
        return None if self._preemption is None else self._preemption.reached(step)

    def discard_after(self, step: int) -> None:
        """Removes the states of later steps."""
        self._check_writable()
        self.wait()
        for later in [each for each in self.steps() if each > step]:
            self._manager.delete(later)
            del self._scores[later]

    def wait(self) -> None:
        """Waits until no save is in progress and the last one was read back.

        Raises:
          ValueError: it cannot be read back, or differs; and what a save ran into.
        """
        self._verify()

    def close(self) -> None:
        """Finishes saving and restores the signal handlers."""
        if self._preemption is not None:
            self._preemption.close()
        self._manager.close()
        self._links.close()

    def _verify(self) -> None:
        """Reads back the state that was saved last."""
        self._manager.wait_until_finished()
        self._manager.check_for_errors()
        if self._unverified is None:
            return
        step, state = self._unverified
        self._unverified = None
        if step not in self.steps():
            raise self._not_saved(step, "it is not listed")
        self._check_fits(step, self._description(step), state)
        if any(leaf.crc is None for leaf in state.values()):
            return
        read = self._read(step, state)
        differs = [
            name
            for name, leaf in state.items()
            if leaf.crc != zlib.crc32(np.asarray(read[name]).tobytes())
        ]
        if differs:
            raise self._not_saved(step, f"{differs[0]} is not what was saved")

    def _not_saved(self, step: int, reason: str) -> ValueError:
        return ValueError(
            f"The training state of step {step} was written to {self.directory!r} but cannot be "
            f"read back: {reason}. Check the disk and the file system, then run again."
        )

    def _check_writable(self) -> None:
        if self._is_read_only:
            raise ValueError(
                f"The training states in {self.directory!r} were opened read-only: they can be "
                f"restored, but nothing can be saved, and SIGTERM is not noticed."
            )

    def _read_score(self, step: int) -> float | None:
        metrics = self._manager.metrics(step)
        return None if metrics is None else metrics["dev_score"]

    def _check_fits(self, step: int, saved: dict[str, Any], expected: dict[str, Any]) -> None:
        wrong = [
            f"{name}: saved {_describe(saved[name])}, this run has {_describe(expected[name])}"
            for name in sorted(saved.keys() & expected.keys())
            if _describe(saved[name]) != _describe(expected[name])
        ]
        wrong += [f"{name}: only saved" for name in sorted(saved.keys() - expected.keys())]
        wrong += [f"{name}: only in this run" for name in sorted(expected.keys() - saved.keys())]
        if wrong:
            more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            raise ValueError(
                f"The training state of step {step} in {self.directory!r} is that of another "
                f"run: {'; '.join(wrong[:5])}{more}. To start a new run, choose another MODEL_DIR; "
                f"to resume, set what was changed (prompt length, model, optimizer, what trains) "
                f"back to what it was."
            )

    def _unreadable(self, step: int, reason: Exception | str) -> ValueError:
        older = [other for other in self.steps() if other < step]
        then = f"resume from step {older[-1]}" if older else "start from the beginning"
        first_line = (str(reason).splitlines() or [""])[0]
        return ValueError(
            f"The training state {os.path.join(self.directory, str(step))!r} is complete but "
            f"cannot be read ({type(reason).__name__}: {first_line[:300]}). Check the disk; "
            f"without that folder the run will {then}."
        )


def _literal(directory: str, links: contextlib.ExitStack, create: bool) -> str:
    """A path to the same folder that is not a glob pattern, until `links` is closed."""
    is_literal = glob.escape(directory) == directory and "\\" not in directory
    if "://" in directory or is_literal:
        return directory
    if create:
        os.makedirs(directory, exist_ok=True)
    folder = links.enter_context(tempfile.TemporaryDirectory(prefix="prompt-tuning-"))
    link = os.path.join(folder, "state")
    os.symlink(directory, link)
    return link


def _options(*, newest: int, read_only: bool) -> ocp.CheckpointManagerOptions:
    kept = ocp.checkpoint_managers.AnyPreservationPolicy(
        [
            ocp.checkpoint_managers.LatestN(newest),
            ocp.checkpoint_managers.BestN(
                get_metric_fn=_rank, n=1, keep_checkpoints_without_metrics=False
            ),
        ]
    )
    return ocp.CheckpointManagerOptions(
        best_fn=_rank,
        preservation_policy=kept,
        # Otherwise a folder that cannot be made is reported after minutes of waiting.
        async_options=ocp.options.AsyncOptions(create_directories_asynchronously=False),
        cleanup_tmp_directories=not read_only,
        read_only=read_only,
        create=not read_only,
    )


def _rank(metrics: dict[str, Any]) -> tuple[float, int]:
    """Orders states by score; without any score the newest, which is kept anyway, is best."""
    if metrics["dev_score"] is None:
        return -math.inf, metrics["step"]
    return metrics["dev_score"], -metrics["step"]


def _usable_score(step: int, dev_score: float | None) -> float | None:
    if dev_score is None or math.isfinite(dev_score):
        return None if dev_score is None else float(dev_score)
    _logger.warning(
        "The dev score of step %d is %s; this state cannot become the best one.", step, dev_score
    )
    return None


def _named_leaves(tree: Any) -> dict[str, Any]:
    """Every leaf under a readable name, `trainable/encoder/scale`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    assert len(named) == len(leaves), "two leaves of the state share a name"
    return named


def _described(state: dict[str, np.ndarray]) -> dict[str, _Saved]:
    is_small = sum(leaf.nbytes for leaf in state.values()) <= _READ_BACK_BYTES
    crcs = {name: zlib.crc32(leaf.tobytes()) if is_small else None for name, leaf in state.items()}
    return {name: _Saved(leaf.shape, leaf.dtype, crcs[name]) for name, leaf in state.items()}


def _is_shared(leaf: Any) -> bool:
    """Whether the array is spread over several processes, so that no one of them can copy it."""
    return isinstance(leaf, jax.Array) and not leaf.is_fully_addressable


def _to_save(leaf: Any) -> Any:
    return leaf if _is_shared(leaf) else np.asarray(leaf)  # Orbax copies


def _to_restore(leaf: Any) -> Any:
    if _is_shared(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    shape, dtype = _describe_parts(leaf)
    return np.empty(shape, dtype)


def _as_kind_of(leaf: Any, value: Any) -> Any:
    if _is_shared(leaf):
        return value
    if isinstance(leaf, jax.Array):
        return jax.device_put(value, leaf.sharding)
    if isinstance(leaf, np.ndarray):
        return value
    return type(leaf)(value)


def _describe_parts(leaf: Any) -> tuple[tuple[int, ...], np.dtype]:
    if isinstance(leaf, bool | int | float):
        return (), np.array(leaf).dtype
    return tuple(leaf.shape), np.dtype(leaf.dtype)


def _describe(leaf: Any) -> str:
    shape, dtype = _describe_parts(leaf)
    return f"{dtype} {list(shape)}"
