"""Draws a report: a panel per task, score from left to right, a line per method, bands over seeds.

    ┌ CB ───────────┐ ┌ paper ─────────┐     a line has its own marker and dashes, so that it is
    │        ●──●── │ │          ●──●─ │     found without colours; the band is ± std over seeds;
    │   ●╱ ▒▒▒▒▒▒▒▒ │ │   ●──●╱ ▒▒▒▒▒▒ │     sizes are on a log axis, by their parameters
    │ ■─ ─ ■─ ─ ■─  │ │ ■─ ─ ■─ ─ ■─   │     reference values of other combinations than ours
    └───────────────┘ └────────────────┘     have panels, and an axis, of their own

The same rows give the same bytes: no date, and ids that depend on the content alone.
"""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from prompt_tuning.sweeps.layout import Report
from prompt_tuning.sweeps.table import FLOOR

PAPER = "paper"
COLUMNS = (4, 3)  # panels side by side, whichever leaves fewer panels empty
PANEL_INCHES = (3.0, 2.6)
LOG_FROM = 30.0  # largest / smallest of numbers on a log axis
STYLES = (  # colours of Okabe and Ito, of different brightness
    ("#0072B2", "o", "-"),
    ("#D55E00", "s", "--"),
    ("#000000", "^", "-."),
    ("#009E73", "D", (0, (1, 1))),
    ("#CC79A7", "v", (0, (5, 1, 1, 1, 1, 1))),
    ("#56B4E9", "P", (0, (8, 2))),
    ("#E69F00", "X", (0, (3, 3))),
    ("#7F7F7F", "*", (0, (2, 2, 6, 2))),
)
SETTINGS = {"svg.hashsalt": "prompt-tuning", "font.size": 10, "axes.titlesize": 10}
METADATA = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


class Places:
    """Where the values of an axis stand: at their parameters, at their number, or one by one.

    Args:
      names: of the values, in their order.
      sizes: the parameters of the models of each, if each has models of one size.
    """

    def __init__(self, names: Sequence[str], sizes: Mapping[str, float]):
        numbers = {name: sizes[name] for name in names if not math.isnan(sizes.get(name, math.nan))}
        self.are_sizes = len(set(numbers.values())) == len(numbers) > 1
        if not self.are_sizes:
            numbers = _numbers(names) or {name: float(i) for i, name in enumerate(names)}
        self.of = numbers
        smallest, largest = min(numbers.values()), max(numbers.values())
        self.is_log = self.are_sizes or (smallest > 0 and largest / smallest >= LOG_FROM)


def _numbers(names: Sequence[str]) -> dict[str, float] | None:
    try:
        return {name: float(name) for name in names}
    except ValueError:
        return None


def draw(
    report: Report,
    rows: pd.DataFrame,
    places: Places,
    lines: Sequence[str],
    paper: pd.DataFrame | None = None,
) -> dict[str, bytes]:
    """Draws the figure of a report.

    Args:
      report: the report.
      rows: see `table.summary`.
      places: of the values of x.
      lines: names of the lines, in their order.
      paper: reference values that have panels of their own, see `table.unmatched`.

    Returns:
      The file's content, for 'png' and for 'svg'.
    """
    import matplotlib
    from matplotlib.figure import Figure  # needs no display; slow to import

    panels = _panels(report, rows, places)
    if paper is not None and len(paper):
        lines = [*lines, *(name for name in _lines(report, paper) if name not in lines)]
        at = 1 if report.overall else len(panels)  # beside what it is to be compared with
        panels[at:at] = _paper_panels(report, paper)
    columns = min(min(COLUMNS, key=lambda count: -len(panels) % count), len(panels))
    n_rows = -(-len(panels) // columns)
    size = (max(PANEL_INCHES[0] * columns, 4.0), PANEL_INCHES[1] * n_rows + 0.5)
    styles = {name: STYLES[i % len(STYLES)] for i, name in enumerate(lines)}
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        all_axes = figure.subplots(n_rows, columns, squeeze=False, sharey=True).flatten()
        for axes, (title, part, at) in zip(all_axes, panels):
            _draw_panel(axes, report, title, part, at, styles)
        for axes in all_axes[len(panels) :]:
            axes.set_visible(False)
        _label(figure, report, places, all_axes[: len(panels)])
        return {kind: _saved(figure, kind) for kind in ("png", "svg")}


def _lines(report: Report, rows: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(rows[report.lines])) if report.lines in rows else []


def _panels(report: Report, rows: pd.DataFrame, places: Places) -> list[Any]:
    """(title, rows, places) of each panel: one for each value of panels and of the row axes."""
    axes = report.row_axes[:-1]
    if not axes:
        return [("", rows, places)]
    groups = rows.groupby(axes, sort=False)
    return [(_title(report, axes, key), part, places) for key, part in groups]


def _title(report: Report, axes: Sequence[str], key: Sequence[str]) -> str:
    named = zip(axes, key, strict=True)
    texts = (name if axis == report.panels else f"{_words(axis)} {name}" for axis, name in named)
    return ", ".join(texts)


def _words(axis: str) -> str:
    return axis.replace("_", " ")


def _paper_panels(report: Report, paper: pd.DataFrame) -> list[Any]:
    paper = paper.rename(columns={"reference": "mean", "reference_std": "std"})
    axes = [axis for axis in report.row_axes[:-1] if axis in paper]
    groups = paper.groupby(axes, sort=False) if axes else [((), paper)]
    panels = []
    for key, part in groups:
        names = list(dict.fromkeys(part[report.x])) if report.x in part else []
        sizes = part.get("reference_parameters")
        has_sizes = sizes is not None and sizes.notna().all()
        found = dict(zip(part[report.x], sizes, strict=True)) if has_sizes else {}
        title = _title(report, axes, key)
        if names:
            panels.append((f"{PAPER}: {title}" if title else PAPER, part, Places(names, found)))
    return panels


def _draw_panel(axes, report: Report, title: str, rows: pd.DataFrame, places: Places, styles):
    for name, (colour, marker, dashes) in styles.items():
        line = rows[rows[report.lines] == name] if report.lines in rows else rows
        line = line[line[report.x].isin(places.of)]  # a missing one breaks the line
        x, mean = line[report.x].map(places.of).to_numpy(), line["mean"].to_numpy()
        spread = line["std"].fillna(0.0).to_numpy()
        axes.plot(
            x, mean, color=colour, marker=marker, linestyle=dashes, label=name,
            markersize=5, markeredgecolor="white", markeredgewidth=0.5,
        )  # fmt: skip
        if line["mean"].count() > 1:
            axes.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)
        else:
            axes.errorbar(x, mean, yerr=spread, color=colour, capsize=3, linestyle="none")
    if "floor" in rows and rows["floor"].notna().any():
        axes.axhline(rows["floor"].mean(), color="gray", linestyle=":", label=FLOOR)
    if places.is_log:
        axes.set_xscale("log")
    axes.set_xticks([*places.of.values()], [*places.of], minor=False)
    axes.minorticks_off()
    axes.tick_params(axis="x", labelsize=8)
    axes.set_title(title)
    axes.grid(alpha=0.3)


def _label(figure, report: Report, places: Places, all_axes) -> None:
    figure.supylabel(report.score)
    figure.supxlabel(f"{report.x}, by parameters" if places.are_sizes else report.x)
    found = {}
    for axes in all_axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.legend(
        found.values(), found, loc="outside upper center", ncols=min(len(found), 4),
        handlelength=3.5,
    )  # fmt: skip


def _saved(figure, kind: str) -> bytes:
    with io.BytesIO() as file:
        figure.savefig(file, format=kind, dpi=120, metadata=METADATA[kind])
        return file.getvalue()
