"""The [report] of a sweep's file: what each axis is in the table and in the figure.

See `grid.py` for the format, and `table.py` for what becomes of it.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

LEVEL = "level"  # the axes that `split` adds
EVALUATED_ON = "evaluated_on"
SPLITS = (LEVEL, EVALUATED_ON)
TRAINED = "trained"  # on the axis EVALUATED_ON: the task that was trained on
DEV_SCORE = "dev_score"
KEYS = {
    "name", "score", "digits", "panels", "x", "lines", "rows", "average", "overall", "split",
    "reference", "comparable",
}  # fmt: skip
TEXTS = ("name", "score", "panels", "x", "lines", "overall", "split", "reference")


@dataclasses.dataclass(frozen=True)
class Report:
    """One table and its figure.

    Attributes:
      score: what is reported, a name in a record's 'best' or in the record itself.
      x: the axis from left to right.
      digits: of a score, after the point.
      panels, lines: the axes of the panels and of the lines, if there are any.
      rows: axes that make further rows of the table, and further panels of the figure.
      average: axes that are averaged over.
      overall: the name of one more panel, the mean of the others.
      split: `LEVEL` for the scores of each level, or `EVALUATED_ON` for those on each task, which
        make an axis of that name.
      reference: the file of reference values, beside the sweep's.
      comparable: whether the difference from a reference value means something.
      name: part of the names of its files; None for the only or the first one.
    """

    score: str
    x: str
    digits: int = 1
    panels: str | None = None
    lines: str | None = None
    rows: tuple[str, ...] = ()
    average: tuple[str, ...] = ()
    overall: str | None = None
    split: str | None = None
    reference: str | None = None
    comparable: bool = False
    name: str | None = None

    @property
    def has_floor(self) -> bool:
        """Whether the score of a constant answer, which a record has, is one of this score."""
        return self.score == DEV_SCORE and self.split is None

    @property
    def row_axes(self) -> list[str]:
        """The axes whose values begin a row of the table."""
        return [*([self.panels] if self.panels else []), *self.rows, self.x]

    @property
    def axes(self) -> list[str]:
        """The axes of the table: those of its rows, then that of its columns."""
        return [*self.row_axes, *([self.lines] if self.lines else [])]

    def file(self, name: str) -> str:
        """The name of one of its files: 'table.md', or 'table_NAME.md'."""
        stem, _, kind = name.rpartition(".")
        return f"{stem}_{self.name}.{kind}" if self.name else name


def read(path: str, found: Any, axes: Mapping[str, Sequence[str]]) -> tuple[Report, ...]:
    """Reads [report], or several [[report]].

    Args:
      path: of the sweep's file, for messages.
      found: the table, or the list of tables.
      axes: the names of each axis's values.

    Raises:
      ValueError: a key is unknown or malformed, or an axis has no place or several.
    """
    listed = found if isinstance(found, list) else [found]
    if not listed or not all(isinstance(one, dict) for one in listed):
        raise ValueError(f"{path}: report is a table, [report] or [[report]]; got {found!r}.")
    reports = tuple(_report(f"{path}, [report]", dict(one), axes) for one in listed)
    names = [report.name for report in reports]
    if len(set(names)) < len(names):
        raise ValueError(
            f"{path}, [report]: of several reports, all but the first need a name, each another "
            f"one; got {', '.join(str(name) for name in names)}."
        )
    return reports


def _report(where: str, found: dict[str, Any], axes: Mapping[str, Sequence[str]]) -> Report:
    _check_types(where, found)
    known = list(axes)
    if found.get("split") is not None:
        if found["split"] not in SPLITS or found["split"] in axes:
            raise ValueError(
                f"{where}: split is {' or '.join(map(repr, SPLITS))}, which adds an axis of that "
                f"name; got {found['split']!r}, with the axes {', '.join(axes)}."
            )
        known.append(found["split"])
    lists = {key: tuple(found.pop(key, ())) for key in ("rows", "average")}
    report = Report(**found, **lists)
    placed = [*report.axes, *report.average]
    for axis in placed:
        if axis not in known:
            raise ValueError(f"{where} names the axis {axis!r}; there are {', '.join(known)}.")
        if placed.count(axis) > 1:
            raise ValueError(
                f"{where} names the axis {axis!r} more than once; each axis is panels, x or lines, "
                "or in rows or average."
            )
    rest = tuple(axis for axis in known if axis not in placed)
    report = dataclasses.replace(report, rows=report.rows + rest)
    _check_overall(where, report, axes)
    return report


def _check_overall(where: str, report: Report, axes: Mapping[str, Sequence[str]]) -> None:
    if report.overall is None:
        return
    if report.panels is None or report.overall in axes.get(report.panels, ()):
        raise ValueError(
            f"{where}: overall is one more panel, so it needs panels and must not be a value of "
            f"{report.panels}; got {report.overall!r}."
        )


def _check_types(where: str, found: Mapping[str, Any]) -> None:
    unknown, missing = sorted(set(found) - KEYS), sorted({"score", "x"} - set(found))
    if unknown or missing:
        problem = f"has the unknown key {unknown[0]!r}" if unknown else f"lacks {missing[0]!r}"
        raise ValueError(f"{where} {problem}; known keys: {', '.join(sorted(KEYS))}.")
    for key in set(TEXTS) & set(found):
        if not isinstance(found[key], str):
            raise ValueError(f"{where}: {key} is a text; got {found[key]!r}.")
    for key in {"rows", "average"} & set(found):
        if not isinstance(found[key], list) or not all(isinstance(x, str) for x in found[key]):
            raise ValueError(f"{where}: {key} is a list of axes; got {found[key]!r}.")
    if type(found.get("comparable", False)) is not bool:
        raise ValueError(f"{where}: comparable is true or false; got {found['comparable']!r}.")
    if type(found.get("digits", 1)) is not int or found.get("digits", 1) < 0:
        raise ValueError(f"{where}: digits is a whole number; got {found['digits']!r}.")
    if not re.fullmatch(r"\w+", found.get("name", "a")):
        raise ValueError(f"{where}: name is letters, digits and '_'; got {found['name']!r}.")
