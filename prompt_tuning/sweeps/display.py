"""What a worker shows: lines, and on a terminal a table that is kept up to date below them.

12 of 40 done   1 running   1 failed   26 left   ETA 0:41:07
━━━━━━━━━━━━━╸━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━
running            worker        step       steps/s   time
boolq-m-prompt-1   node7:4242    200/300    12.1      0:00:16
done               dev_score     seconds
boolq-m-prompt-0   96.22         18
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from prompt_tuning.sweeps import status
from prompt_tuning.training import progress

LAST = 5  # finished runs in the table
REFRESH_SECONDS = 1.0


class Mine(NamedTuple):
    """A cell that this worker runs.

    Attributes:
      folder: its MODEL_DIR, whose metrics say how far it is.
      steps: of the whole run; 0 if it is only evaluated.
      began: monotonic seconds.
    """

    folder: str
    steps: int
    began: float


class Snapshot(NamedTuple):
    """What a worker knows of its sweep at a moment.

    Attributes:
      total, done, failed: how many cells.
      mine: the cells that it runs, by key.
      others: the worker of each cell that others run, as last seen.
      finished: key, score and seconds of the last results, newest first.
      score: the name of the score.
      seconds_left: None without a result to go by.
    """

    total: int
    done: int
    failed: int
    mine: Mapping[str, Mine]
    others: Mapping[str, str]
    finished: Sequence[tuple[str, float, float]]
    score: str
    seconds_left: float | None


class Lines:
    """Where stdout is a file or a pipe: one line for each thing that happens."""

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def say(self, text: str) -> None:
        """Shows a line."""
        print(text, flush=True)


class Live:
    """On a terminal: the lines, and below them a table that is drawn anew every second.

    Args:
      snapshot: what to show.
      worker: the name of this one.
      console: rich's; None is stdout as it is now, whatever it is redirected to later.
    """

    def __init__(self, snapshot: Callable[[], Snapshot], worker: str, console: Any = None):
        from rich.console import Console
        from rich.live import Live as RichLive

        self._snapshot, self._worker = snapshot, worker
        self._first_steps: dict[str, tuple[int, float]] = {}
        self._live = RichLive(
            console=console or Console(file=sys.stdout),
            get_renderable=self.table,
            refresh_per_second=1 / REFRESH_SECONDS,
            redirect_stdout=False,  # runs print into their logs
            redirect_stderr=False,
        )

    def __enter__(self) -> "Live":
        self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._live.__exit__(*error)

    def say(self, text: str) -> None:
        """Shows a line above the table."""
        self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def table(self) -> Any:
        """The table, as rich draws it."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        now = self._snapshot()
        running = Table("running", "worker", "step", "steps/s", "time", box=None)
        for key, mine in now.mine.items():
            running.add_row(key, self._worker, *self._how_far(key, mine))
        for key, worker in now.others.items():
            running.add_row(key, worker)
        done = Table("done", now.score, "seconds", box=None)
        for key, score, seconds in now.finished:
            done.add_row(key, f"{score:.2f}", f"{seconds:.0f}")
        bar = Table.grid()  # a bar alone ends no line
        bar.add_row(ProgressBar(total=now.total, completed=now.done + now.failed, width=60))
        return Group(Text(counts(now)), bar, running, done)

    def _how_far(self, key: str, mine: Mine) -> tuple[str, str, str]:
        """Step, steps per second since the first step that was seen, and time."""
        now = time.monotonic()
        spent = progress.human_time(now - mine.began)
        step = status.step_of(mine.folder) if mine.steps else None
        if step is None:
            return "", "", spent
        first, at = self._first_steps.setdefault(key, (step, now))
        speed = f"{(step - first) / (now - at):.1f}" if step > first else ""
        return f"{step:,}/{mine.steps:,}", speed, spent


def counts(now: Snapshot) -> str:
    """How many cells are in which state, and when all are done.

    >>> counts(Snapshot(9, 3, 1, {}, {'k': 'node7:1'}, [], 'dev_score', 75.0))
    '3 of 9 done   1 running   1 failed   4 left   ETA 0:01:15'
    """
    running = len(now.mine) + len(now.others)
    left = now.total - now.done - now.failed - running
    eta = "–" if now.seconds_left is None else progress.human_time(now.seconds_left)
    return (
        f"{now.done:,} of {now.total:,} done   {running:,} running   {now.failed:,} failed   "
        f"{left:,} left   ETA {eta}"
    )


def choose(snapshot: Callable[[], Snapshot], worker: str) -> Lines | Live:
    """The table where stdout is a terminal, and lines elsewhere."""
    return Live(snapshot, worker) if sys.stdout.isatty() else Lines()
