"""How long the cells of a sweep will take, and what training some together has saved."""

from collections.abc import Mapping, Sequence

import numpy as np

from prompt_tuning.sweeps import grid, results
from prompt_tuning.training import progress


def seconds_left(cells: Sequence[grid.Cell], done: Sequence[results.Record]) -> float:
    """Estimates how long runs will take: each as long as the most similar ones that are done."""
    return sum(_similar_seconds(cell.values, done) for cell in cells) if done else 0.0


def compare_together(done: Sequence[results.Record]) -> str | None:
    """A line on what training runs together has saved; None if none were.

    Compares with the most similar runs that were made alone.
    """
    joint = [record for record in done if "together" in record]
    alone = [record for record in done if "together" not in record and record["best"].get("step")]
    if not joint:
        return None
    took = sum(record["seconds"] for record in joint)
    line = f"{len(joint)} runs were trained together, {took / len(joint):.0f} s each"
    if not alone:
        return f"{line}; none was made alone, to compare with"
    similar = [_similar_seconds(record["values"], alone) for record in joint]
    saved = sum(similar) - took
    return (
        f"{line}; similar ones alone took {np.mean(similar):.0f} s, {sum(similar) / took:.2f} "
        f"times as long: {progress.human_time(abs(saved))} {'saved' if saved > 0 else 'lost'}"
    )


def _similar_seconds(values: Mapping[str, str], done: Sequence[results.Record]) -> float:
    """The mean time of the runs that have the most values in common."""
    alike = [sum(values[a] == record["values"].get(a) for a in values) for record in done]
    return float(
        np.mean([r["seconds"] for r, n in zip(done, alike, strict=True) if n == max(alike)])
    )
