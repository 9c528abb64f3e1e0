"""From the records of a sweep to the numbers of a report: means and spreads over seeds.

    runs(...)       one row per run (and level): its axes, seed, score, and what else was measured
    summary(...)    one row per combination of the report's axes: n, mean, std, reference, ...
    shown(...)      the same as texts: a row per panel, rows and x, and a column per line

The mean over an axis is that of each seed (Lester et al. 2021: the score of SuperGLUE is the mean
over its tasks of the mean of a task's metrics), and exists for the seeds that all of its values
have. What is missing or failed stays missing and is never imputed. std is over seeds, with n - 1.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from prompt_tuning.sweeps import grid
from prompt_tuning.sweeps.layout import EVALUATED_ON, LEVEL, TRAINED, Report

MISSING = "–"
FLOOR = "majority"
NUMBERS = (
    "rank_accuracy", "floor", "model_parameters", "trainable_parameters", "steps", "seconds",
    "peak_memory_bytes", "device_peak_bytes", "tuned_bytes", "forgetting",
)  # fmt: skip
COSTS = {  # columns of the table of costs: number, unit, divisor, format
    "trainable parameters": ("trainable_parameters", 1, ",.0f"),
    "seconds": ("seconds", 1, ",.1f"),
    "peak memory, MB": ("peak_memory_bytes", 1e6, ",.0f"),
    "device peak, MB": ("device_peak_bytes", 1e6, ",.0f"),
    "tuned file, kB": ("tuned_bytes", 1e3, ",.1f"),
    "forgetting, nats": ("forgetting", 1, "+.3f"),
}
Record = Mapping[str, Any]


def runs(report: Report, records: Sequence[Record]) -> pd.DataFrame:
    """One row per run, or per run and part of a split; without a finite score it is left out."""
    rows = []
    for record in records:
        about = {**record["values"], "seed": record["seed"]}
        about |= {name: _number(record, name) for name in NUMBERS}
        about["floor"] = about["floor"] if report.has_floor else math.nan
        scores = _scores(report, record)
        rows += [about | place | {"score": score} for place, score in scores]
    columns = [*(rows[0] if rows else [*report.axes, *report.average, "seed", "score", *NUMBERS])]
    frame = pd.DataFrame(rows, columns=columns)
    numbers = [*NUMBERS, "score"]
    frame[numbers] = frame[numbers].astype(float)
    return frame[np.isfinite(frame["score"])].reset_index(drop=True)


def _scores(report: Report, record: Record) -> list[tuple[dict[str, str], float]]:
    """The scores of a run, each with its value of the axis of a split."""
    own = _number(record, report.score)
    if report.split == LEVEL:
        return [({LEVEL: level}, x) for level, x in record.get("levels", {}).items()]
    if report.split == EVALUATED_ON:
        others = record.get("evaluated", {})
        return [({EVALUATED_ON: TRAINED}, own)] + [
            ({EVALUATED_ON: name}, _float(scores.get(report.score)))
            for name, scores in others.items()
        ]
    return [({}, own)]


def _number(record: Record, name: str) -> float:
    """A number of a run, at the best step where it is measured there; NaN if it is missing."""
    return _float(record["best"].get(name, record.get(name)))


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)


def summary(
    sweep: grid.Sweep, report: Report, found: pd.DataFrame, reference: pd.DataFrame | None = None
) -> pd.DataFrame:
    """One row per combination that the sweep describes, in its order.

    Args:
      sweep: the sweep.
      report: one of its reports.
      found: see `runs`.
      reference: see `reference.read`.
    """
    names = value_names(sweep, found)
    if report.average:
        found = _mean_over(found, list(report.average), report.axes, names)
    if report.overall:
        others = [axis for axis in report.axes if axis != report.panels]
        mean = _mean_over(found, [report.panels], others, names)
        found = pd.concat([mean.assign(**{report.panels: report.overall}), found])
    grouped = found.groupby(report.axes, sort=False)
    scores = grouped["score"].agg(n="count", mean="mean", std="std")
    rows = scores.join(grouped[list(NUMBERS)].mean()).reset_index()
    rows = _described(sweep, report, names).merge(rows, "left", report.axes, validate="1:1")
    rows["n"] = rows["n"].fillna(0).astype(int)
    if reference is not None:
        rows = rows.merge(reference, "left", _shared(report, reference), validate="m:1")
        rows["difference"] = rows["mean"] - rows["reference"] if report.comparable else math.nan
    return rows


def unmatched(
    sweep: grid.Sweep, report: Report, found: pd.DataFrame, reference: pd.DataFrame
) -> pd.DataFrame:
    """The reference values of combinations that the sweep does not describe."""
    described = _described(sweep, report, value_names(sweep, found))
    shared = _shared(report, reference)
    ours = described[shared].drop_duplicates()
    joined = reference.merge(ours, "left", shared, indicator=True)
    return reference[(joined["_merge"] == "left_only").to_numpy()]


def value_names(sweep: grid.Sweep, found: pd.DataFrame) -> dict[str, list[str]]:
    """The names of the values of each axis; those of the levels are found in the results."""
    names = {axis: [value.name for value in values] for axis, values in sweep.axes.items()}
    if LEVEL in found and LEVEL not in names:
        names[LEVEL] = sorted(found[LEVEL].unique(), key=lambda name: (len(name), name))
    if sweep.evaluated_on and EVALUATED_ON not in names:
        names[EVALUATED_ON] = [TRAINED, *sweep.evaluated_on]
    return names


def panel_names(report: Report, names: Mapping[str, Sequence[str]]) -> list[str]:
    return [*([report.overall] if report.overall else []), *names[report.panels]]


def _shared(report: Report, reference: pd.DataFrame) -> list[str]:
    return [axis for axis in report.axes if axis in reference]


def _mean_over(
    found: pd.DataFrame, over: list[str], keys: list[str], names: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    """The mean over axes, for each seed that all of their values have."""
    grouped = found.groupby([*keys, "seed"], sort=False)
    everything = math.prod(len(names[axis]) for axis in over)
    return grouped[["score", *NUMBERS]].mean()[grouped.size() == everything].reset_index()


def _described(
    sweep: grid.Sweep, report: Report, names: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    """The combinations of the report's axes that the sweep has runs of, in order."""
    own = [axis for axis in report.axes if axis != LEVEL]
    has = {tuple(values[axis] for axis in own) for values in _places(sweep, report)}
    if report.overall:
        place = own.index(report.panels)
        has |= {(*key[:place], report.overall, *key[place + 1 :]) for key in has}
    choices = [
        panel_names(report, names) if axis == report.panels else names.get(axis, [])
        for axis in report.axes
    ]
    rows = pd.DataFrame(itertools.product(*choices), columns=report.axes, dtype=object)
    keys = rows[own].itertuples(index=False, name=None)
    return rows[[key in has for key in keys]].reset_index(drop=True)


def _places(sweep: grid.Sweep, report: Report) -> list[dict[str, str]]:
    """The values of the axes that the sweep has a score for."""
    if report.split != EVALUATED_ON:
        return [dict(cell.values) for cell in sweep.cells]
    return [
        {**cell.values, EVALUATED_ON: name}
        for cell in sweep.cells
        for name in (TRAINED, *cell.evaluated)
    ]


def shown(report: Report, rows: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The table as texts.

    Args:
      report: the report.
      rows: see `summary`.
      columns: the values of the axis of the lines; `[report.score]` if there is none.
    """
    lines = report.lines or "score"
    rows = rows if report.lines else rows.assign(score=report.score)
    texts = []
    for place, group in rows.groupby(report.row_axes, sort=False):
        by_line = {row[lines]: row for _, row in group.iterrows()}
        row = dict(zip(report.row_axes, place, strict=True))
        for name in columns:
            has_reference = _has_reference(rows, lines, name)
            row |= _line_texts(name, by_line.get(name), has_reference, report.digits)
        if report.has_floor:
            row[FLOOR] = _text(group["floor"].mean(), f".{report.digits}f")
        texts.append(row)
    return pd.DataFrame(texts, dtype=object)


def _has_reference(rows: pd.DataFrame, lines: str, name: str) -> bool:
    return "reference" in rows and rows.loc[rows[lines] == name, "reference"].notna().any()


def _line_texts(
    name: str, row: pd.Series | None, has_reference: bool, digits: int
) -> dict[str, str]:
    """The cells of a line: ours, and the reference and the difference if there are any."""
    texts = {name: MISSING if row is None else mean_text(row["mean"], row["std"], row["n"], digits)}
    if has_reference:
        missing = row is None or pd.isna(row["reference"])
        texts[f"{name}, paper"] = MISSING if missing else reference_text(row)
        texts[f"{name}, difference"] = (
            MISSING if missing else _text(row["difference"], f"+.{digits}f")
        )
    return texts


def mean_text(mean: float, std: float, n: int, digits: int = 1) -> str:
    """A mean over seeds.

    >>> mean_text(91.25, 0.81, 3), mean_text(91.25, math.nan, 1), mean_text(math.nan, math.nan, 0)
    ('91.2 ± 0.8 (3)', '91.2 (1)', '–')
    """
    if math.isnan(mean):
        return MISSING
    spread = "" if math.isnan(std) else f" ± {std:.{digits}f}"
    return f"{mean:.{digits}f}{spread} ({n})"


def reference_text(row: Mapping[str, Any]) -> str:
    """A reference value with its source, '59.8 ± 0.8 [S]'."""
    spread = "" if pd.isna(row["reference_std"]) else f" ± {row['reference_std']:g}"
    return f"{row['reference']:g}{spread} [{row['source']}]"


def costs(report: Report, found: pd.DataFrame) -> pd.DataFrame:
    """What a run took, on average over the runs of each x and line; only what was measured."""
    keys = [report.x, *([report.lines] if report.lines else [])]
    means = found.groupby(keys, sort=False)[list(NUMBERS)].mean().reset_index()
    texts = means[keys].astype(object)
    for column, (number, unit, form) in COSTS.items():
        if means[number].notna().any():
            texts[column] = [_text(value / unit, form) for value in means[number]]
    return texts


def _text(value: float, form: str) -> str:
    return MISSING if math.isnan(value) else format(value, form)
