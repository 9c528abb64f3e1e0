"""From rows to what is compared: for every cell, each side's speed, memory and start."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from experiments.speed import cells, flops
from experiments.speed.cells import MATMUL, NEWEST, OURS, PROMPT, TARGETS, Cell

FIXED_TARGET = 1.0
T5X_TARGETS = {"multirc": 1.4, "rte": 4.0}
PEAK_TARGET = 0.65


class Measured(NamedTuple):
    """One side of one cell, over its rounds.

    Attributes:
      variant: how it was run.
      jax: its version, where it uses it.
      speed: examples per second, by the median step.
      low, high: the quartiles.
      peak_bytes: the most memory of a round.
      first_seconds: from the start of the process to the end of the first step, the median round.
      first_seconds_again: the shortest round.
      error: why there are no numbers.
    """

    variant: str
    jax: str | None = None
    speed: float = 0.0
    low: float = 0.0
    high: float = 0.0
    peak_bytes: int = 0
    first_seconds: float = 0.0
    first_seconds_again: float = 0.0
    error: str | None = None


class Compared(NamedTuple):
    """One cell on one machine: ours, each variant of another side, the fastest first, and ours run
    otherwise."""

    cell: Cell
    hardware: str
    ours: Measured
    others: list[Measured]
    variants: list[Measured]

    def newest(self) -> "Compared | None":
        """The same with the newest versions of ours, if they were measured."""
        found = [one for one in self.variants if one.variant == NEWEST.variant and not one.error]
        return self._replace(ours=found[0], variants=[]) if found else None

    @property
    def ratio(self) -> float | None:
        """Our examples per second by those of the other side's fastest variant."""
        best = self.others[0] if self.others else None
        return self.ours.speed / best.speed if best and best.speed else None


def compare(rows: Sequence[dict], against: str) -> list[Compared]:
    """All cells of one comparison with a row of ours and one of the other side, as in the grid.

    Only rows of one machine are compared with each other.
    """
    found = []
    for name, hardware in dict.fromkeys((row["name"], row["hardware"]) for row in rows):
        of_cell = [row for row in rows if (row["name"], row["hardware"]) == (name, hardware)]
        cell = Cell(**of_cell[0]["cell"])
        if cell.against != against:
            continue
        by_side: dict[tuple[str, str], list[dict]] = {}
        for row in of_cell:
            by_side.setdefault((row["side"], row["variant"]), []).append(row)
        common = min((len(row["seconds"]) for row in of_cell if not row["error"]), default=0)
        measured = {key: _measured(one, common) for key, one in by_side.items()}
        ours = measured.pop(("ours", OURS.variant), None)
        variants = [one for (side, _), one in measured.items() if side == "ours"]
        others = [one for (side, _), one in measured.items() if side != "ours"]
        if ours and others:
            others.sort(key=lambda one: -one.speed)
            found.append(Compared(cell, hardware, ours, others, variants))
    order = [cell.name for cell in cells.grid() + cells.gpu()]
    return sorted(found, key=lambda one: order.index(one.cell.name))


def _measured(rows: Sequence[dict], common: int) -> Measured:
    """Only the steps that every side did count: the same batches."""
    good = [row for row in rows if not row["error"]]
    if not good:
        return Measured(rows[0]["variant"], error=rows[0]["error"])
    seconds = [spent for row in good for spent in row["seconds"][:common]]
    speeds = [good[0]["examples_per_step"] / spent for spent in seconds]
    low, middle, high = statistics.quantiles(speeds, n=4) if len(speeds) > 1 else speeds * 3
    first = [row["first_step_seconds"] for row in good]
    return Measured(
        good[0]["variant"], good[0].get("versions", {}).get("jax"),
        middle, low, high, max(row["peak_bytes"] for row in good),
        statistics.median(first), min(first),
    )  # fmt: skip


def target(cell: Cell, hardware: str) -> float | None:
    """The ratio that is aimed for; on a GPU there is none."""
    if "cores" not in hardware:
        return None
    if cell.against == "t5x":
        return T5X_TARGETS[cell.task]
    if cell.fixed:
        return FIXED_TARGET
    return 1.5 if cell.kind == "training" and cell.dtype == "bfloat16" else 2.0


class Share(NamedTuple):
    """The share of the matmul peak that a step reaches."""

    cell: Cell
    hardware: str
    jax: str
    operations: int  # of a step
    step_seconds: float
    peak_rate: float  # operations per second

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.operations / self.step_seconds / self.peak_rate


def shares(rows: Sequence[dict]) -> list[Share]:
    """The shares of the cells that are compared with the peak of their machine."""
    rows = [row for row in rows if row["cell"]["against"] == "peak" and not row["error"]]
    found = []
    for hardware in dict.fromkeys(row["hardware"] for row in rows):
        here = [row for row in rows if row["hardware"] == hardware]
        peaks = [
            flops.peak_rate(row["seconds"])
            for row in here
            if (row["side"], row["variant"]) == (MATMUL.name, MATMUL.variant)
        ]
        by_version: dict[tuple[str, str], list[dict]] = {}
        for row in here:
            if row["side"] == "ours" and row["variant"] in (OURS.variant, NEWEST.variant):
                by_version.setdefault((row["name"], row["versions"]["jax"]), []).append(row)
        for (_, jax), ours in by_version.items() if peaks else ():
            cell = Cell(**ours[0]["cell"])
            step = statistics.median(spent for row in ours for spent in row["seconds"])
            operations = flops.training(
                flops.SIZES[cell.size], P=PROMPT, T=cell.inputs, L=TARGETS,
                rows=ours[0]["examples_per_step"],
            )  # fmt: skip
            found.append(Share(cell, hardware, jax, operations, step, max(peaks)))
    return found


def product_rates(rows: Sequence[dict]) -> dict[tuple[str, str, str], float]:
    """Operations per second of the best product, by machine, library and precision."""
    found: dict[tuple[str, str, str], float] = {}
    for row in rows:
        if row["side"] != MATMUL.name or row["error"]:
            continue
        library = "torch" if row["variant"].endswith("/torch") else "jax"
        name = f"{library} {row['versions'][library]}"
        key = (row["hardware"], name, row["variant"].partition("/")[0])
        found[key] = max(found.get(key, 0.0), flops.peak_rate(row["seconds"]))
    return found
