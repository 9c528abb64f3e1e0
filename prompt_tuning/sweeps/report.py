"""From a sweep's results to tables, figures and one page: mean and spread over seeds.

    table.md      one row per panel and x, one column per line: 91.2 ± 0.8 (3)
    table.csv     the same numbers for other tools, one row per combination
    figure.png    one panel per task, score against size, one line per method; figure.svg
    report.html   all of it in one file

± is the standard deviation over the seeds (n - 1), (3) their number. Runs that are missing or
failed are shown as missing. The same rows and libraries give the same bytes.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from prompt_tuning.checkpoints import shared_files
from prompt_tuning.sweeps import figure, grid, page, reference, results, table
from prompt_tuning.sweeps.layout import LEVEL, Report

PAGE = "report.html"
COSTS = "What a run took: means over the runs of a row."
NOT_COMPARABLE = (
    "The models and data here are not the paper's, so differences from its values are not shown."
)


class Section(NamedTuple):
    """One report of a sweep, made.

    Attributes:
      rows: the numbers, see `table.summary`.
      table: the same as texts.
      costs: what a run took, as texts.
      paper: reference values of other combinations, None if there are none.
      notes: what the columns of references mean; '' without references.
      figures: contents, by kind.
    """

    report: Report
    rows: pd.DataFrame
    table: pd.DataFrame
    costs: pd.DataFrame
    paper: pd.DataFrame | None
    notes: str
    figures: Mapping[str, bytes]


def write_report(path: str) -> list[str]:
    """Writes the tables, the figures and the page of a sweep next to its file.

    Args:
      path: the sweep's file, or its folder.

    Returns:
      The paths written: Markdown, CSV, PNG and SVG of each report, and the page.

    Raises:
      ValueError: the sweep or its reference values cannot be read, or there are no results yet.
    """
    sweep = grid.read_sweep(path)
    records = list(results.read_results(sweep).values())
    if not records:
        raise ValueError(
            f"There are no results of {path} yet; run `prompt-tuning sweep run {path}` first."
        )
    sections = [make(sweep, report, records) for report in sweep.reports]
    files: dict[str, bytes] = {}
    for section in sections:
        name = section.report.file
        files[name("table.md")] = markdown(sweep, section, records).encode()
        files[name("table.csv")] = csv(section).encode()
        files |= {name(f"figure.{kind}"): content for kind, content in section.figures.items()}
    files[PAGE] = html(sweep, sections, records).encode()
    for name, content in files.items():
        shared_files.replace(os.path.join(sweep.folder, name), content)
    return [os.path.join(sweep.folder, name) for name in files]


def make(sweep: grid.Sweep, report: Report, records: Sequence[Mapping[str, Any]]) -> Section:
    """Makes one report of a sweep.

    Args:
      sweep: the sweep.
      report: one of its reports.
      records: see `results.read_results`.

    Raises:
      ValueError: see `reference.read`.
    """
    found = table.runs(report, records)
    names = table.value_names(sweep, found)
    if report.split == LEVEL and not names.get(LEVEL):
        raise ValueError(
            f"{sweep.path}, [report] splits by {LEVEL}, but no result has levels: the rows of its "
            f"tasks need the feature {LEVEL!r}."
        )
    values = reference.read(sweep, report)
    rows = table.summary(sweep, report, found, values)
    columns = names[report.lines] if report.lines else [report.score]
    paper = None if values is None else table.unmatched(sweep, report, found, values)
    notes = "" if values is None else _notes(report, values)
    sizes = _sizes(report, found)
    places = figure.Places(names.get(report.x, []), sizes)
    figures = figure.draw(report, rows, places, columns, paper)
    shown = table.shown(report, rows, columns)
    costs = table.costs(report, found)
    return Section(report, rows, shown, costs, paper, notes, figures)


def _sizes(report: Report, found: pd.DataFrame) -> dict[str, float]:
    """The parameters of the models of each x, NaN where they are of several sizes."""
    by_x = found.groupby(report.x)["model_parameters"]
    return {x: sizes.iloc[0] if sizes.nunique() == 1 else math.nan for x, sizes in by_x}


def _notes(report: Report, values: pd.DataFrame) -> str:
    text = f"Reference values, 'paper', with their source: {reference.legend(values)}."
    return text if report.comparable else f"{text} {NOT_COMPARABLE}"


def markdown(sweep: grid.Sweep, section: Section, records: Sequence[Mapping[str, Any]]) -> str:
    """The tables of a report, below a line on the origin of its numbers."""
    parts = [origin(sweep, section.report, records)]
    parts.append(_markdown_table(section.table, len(section.report.row_axes)))
    if section.notes:
        parts.append(section.notes)
    if _has(section.paper):
        parts += ["Reference values:", _markdown_table(*_paper_table(section))]
    parts += [COSTS, _markdown_table(section.costs, _cost_texts(section))]
    return "\n\n".join(parts) + "\n"


def _has(rows: pd.DataFrame | None) -> bool:
    return rows is not None and len(rows) > 0


def _cost_texts(section: Section) -> int:
    return 2 if section.report.lines else 1


def _markdown_table(rows: pd.DataFrame, texts: int) -> str:
    lines = [
        list(rows.columns),
        ["---"] * texts + ["---:"] * (len(rows.columns) - texts),
        *rows.itertuples(index=False, name=None),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _paper_table(section: Section) -> tuple[pd.DataFrame, int]:
    """The reference values of other combinations than ours, and how many columns are texts."""
    report, paper = section.report, section.paper
    axes = [axis for axis in report.axes if axis in paper and axis != report.lines]
    texts = paper.assign(text=[table.reference_text(row) for _, row in paper.iterrows()])
    if report.lines not in paper:
        return texts[[*axes, "text"]].rename(columns={"text": figure.PAPER}), len(axes)
    lines = list(dict.fromkeys(paper[report.lines]))
    wide = []
    for key, group in texts.groupby(axes, sort=False) if axes else [((), texts)]:
        values = dict(zip(group[report.lines], group["text"], strict=True))
        row = dict(zip(axes, key, strict=True))
        wide.append(row | {name: values.get(name, table.MISSING) for name in lines})
    return pd.DataFrame(wide, dtype=object), len(axes)


def csv(section: Section) -> str:
    """The numbers of a report; an empty cell is missing."""
    rows, report = section.rows, section.report
    rows = rows.drop(columns="reference_parameters", errors="ignore")
    rows.insert(len(report.axes), "score", report.score)
    return rows.to_csv(index=False, float_format="%.10g", lineterminator="\n")


def html(
    sweep: grid.Sweep, sections: Sequence[Section], records: Sequence[Mapping[str, Any]]
) -> str:
    """The page of a sweep."""
    parts = []
    for section in sections:
        report = section.report
        title = "" if len(sections) == 1 else (report.name or report.score).replace("_", " ")
        texts = [origin(sweep, report, records), *([section.notes] if section.notes else [])]
        parts.append(
            page.Section(title, texts, section.table, len(report.row_axes), section.figures["svg"])
        )
        if _has(section.paper):
            parts.append(page.Section("Reference values", [], *_paper_table(section)))
    costs = sections[0].costs
    parts.append(page.Section("Cost", [COSTS], costs, _cost_texts(sections[0])))
    return page.page(sweep.title, parts)


def origin(sweep: grid.Sweep, report: Report, records: Sequence[Mapping[str, Any]]) -> str:
    """Where the numbers of a report come from."""
    commits = sorted({str(record["commit"]) for record in records})
    machines = sorted({record["hardware"] for record in records})
    seeds = sorted({record["seed"] for record in records})
    hours = sum(record["seconds"] for record in records) / 3600
    return (
        f"{report.score} at the best evaluation, mean ± standard deviation (number of seeds); "
        f"{len(records):,} of {len(sweep.cells):,} runs, seeds {', '.join(map(str, seeds))}, "
        f"{hours:.1f} hours on {'; '.join(machines)}; commit {', '.join(commits)}."
    )
