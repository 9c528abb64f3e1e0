"""Writes the tables of README.md and the figure: `python -m experiments.speed.report`."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.speed import rows, summary
from experiments.speed.cells import NEWEST
from experiments.speed.summary import Compared, Measured

README = Path(__file__).with_name("README.md")
FIGURE = Path(__file__).with_name("figure.png")
BEGIN, END = "<!-- measured: written by report.py -->", "<!-- /measured -->"
KINDS = {
    "training": "Training",
    "rank": "Rank classification, two labels",
    "generation": "Greedy decoding of 8 tokens",
}


def cell_words(one: Compared) -> str:
    """The first columns of a row."""
    cell = one.cell
    width = f"{cell.task}, padded to {cell.inputs}" if cell.fixed else cell.task
    return (
        f"{cell.size} | {cell.dtype} | {width} | {cell.dropout:g} | {machine(one.hardware)} "
        f"| {one.ours.jax}"
    )


def machine(hardware: str) -> str:
    """A short name of a CPU or GPU.

    >>> machine('Intel(R) Xeon(R) Processor, 2 cores'), machine('AMD EPYC 25/17, 2 cores')
    ('Xeon', 'EPYC 25/17')
    >>> machine('NVIDIA H100 80GB HBM3')
    'H100'
    """
    found = re.search(r"(Xeon|EPYC|H100|H200)( \d+/\d+)?", hardware)
    return found[0] if found else hardware.partition(",")[0]


def speed(one: Measured) -> str:
    """Examples per second with the quartiles, or why there are none."""
    if one.error:
        return one.error.split(":")[0]
    return f"{one.speed:.2f} ({one.low:.2f} to {one.high:.2f})"


def gigabytes(one: Measured) -> str:
    """The most memory."""
    return f"{one.peak_bytes / 1e9:.1f}" if one.peak_bytes else "–"


def starts(one: Measured) -> str:
    """Seconds to the end of the first step."""
    return f"{one.first_seconds_again:.0f}" if one.first_seconds else "–"


def verdict(one: Compared) -> str:
    """The ratio and the one aimed for."""
    if one.ratio is None:
        return "–"
    wanted = summary.target(one.cell, one.hardware)
    if wanted is None:
        return f"{one.ratio:.2f} | –"
    return f"{one.ratio:.2f}{'' if one.ratio >= wanted else ' (missed)'} | {wanted:g}"


def table(compared: Sequence[Compared], other: str) -> list[str]:
    """A table of one kind of work; the other side's fastest variant counts."""
    lines = [
        "| size | precision | text | dropout | device | jax | ours | "
        + other
        + " | by | ratio | target "
        "| GB, ours | GB, " + other + " | first step, ours | " + other + " |",
        "| --- " * 6 + "| ---: | ---: | --- " + "| ---: " * 6 + "|",
    ]
    for one in with_newest(compared):
        best = one.others[0]
        memory = f"{gigabytes(one.ours)} | {gigabytes(best)}"
        lines.append(
            f"| {cell_words(one)} | {speed(one.ours)} | {speed(best)} | {best.variant} "
            f"| {verdict(one)} | {memory} | {starts(one.ours)} | {starts(best)} |"
        )
    return lines


def with_newest(compared: Sequence[Compared]) -> list[Compared]:
    """Each cell, and once more with the newest versions of ours."""
    return [one for each in compared for one in (each, each.newest()) if one]


def slower(compared: Sequence[Compared]) -> list[str]:
    """One line for each variant of the other side that was not the fastest, or failed."""
    return [line for one in compared for line in variant_lines(one, one.others[1:])]


def variant_lines(one: Compared, variants: Sequence[Measured]) -> list[str]:
    """A line of a list for each."""
    where = cell_words(one).replace(" | ", ", ")
    shown = [x for x in variants if x.variant != NEWEST.variant or x.error]
    return [f"- {where}: {x.variant} {speed(x)}, {gigabytes(x)} GB" for x in shown]


def peak_table(shares: Sequence[summary.Share]) -> list[str]:
    """The shares of the matmul peak."""
    lines = [
        "| step | CPU | jax | GFLOP | seconds | GFLOP/s | peak | share | target |",
        "| --- | --- | --- " + "| ---: " * 6 + "|",
    ]
    for one in shares:
        cell, rate = one.cell, one.operations / one.step_seconds
        lines.append(
            f"| {cell.size} {cell.dtype}, {cell.inputs} inputs, dropout {cell.dropout:g} "
            f"| {machine(one.hardware)} | {one.jax} "
            f"| {one.operations / 1e9:.0f} | {one.step_seconds:.2f} | {rate / 1e9:.0f} "
            f"| {one.peak_rate / 1e9:.0f} | {one.share:.2f} | {summary.PEAK_TARGET} |"
        )
    return lines


def product_table(rates: dict[tuple[str, str, str], float]) -> list[str]:
    """The best rate of each library's products."""
    lines = ["| CPU | library | precision | GFLOP/s |", "| --- | --- | --- | ---: |"]
    for (hardware, library, dtype), rate in rates.items():
        lines.append(f"| {machine(hardware)} | {library} | {dtype} | {rate / 1e9:.0f} |")
    return lines


def origin(stored: Sequence[dict]) -> str:
    """Where and with what the rows were measured."""

    def all_of(name: str) -> str:
        return "; ".join(sorted({str(row[name]) for row in stored}))

    versions: dict[str, set[str]] = {}
    for row in stored:
        for name, version in row.get("versions", {}).items():
            versions.setdefault(name, set()).add(version)
    listed = ", ".join(f"{name} {' and '.join(sorted(v))}" for name, v in versions.items())
    rounds = 1 + max(row["round"] for row in stored)
    return (
        f"{len(stored)} rows, up to {rounds} rounds. Hardware: {all_of('hardware')}. "
        f"Commit: {all_of('commit')}. Versions: {listed}."
    )


def markdown(stored: Sequence[dict]) -> str:
    """All tables.

    Raises:
      ValueError: there are no rows.
    """
    if not stored:
        raise ValueError("There are no rows to report; run `python -m experiments.speed.run`.")
    lines = [origin(stored)]
    compared = summary.compare(stored, "peft")
    for kind, title in KINDS.items():
        of_kind = [one for one in compared if one.cell.kind == kind]
        if of_kind:
            lines += ["", f"### {title}", "", *table(of_kind, "peft")]
    if others := slower(compared):
        lines += ["", "peft's other variant:", "", *others]
    if ours := [line for one in compared for line in variant_lines(one, one.variants)]:
        lines += ["", "Ours run otherwise:", "", *ours]
    if t5x := summary.compare(stored, "t5x"):
        lines += ["", "### Against T5X's step", "", *table(t5x, "T5X")]
        if others := slower(t5x):
            lines += ["", "T5X's other variant:", "", *others]
    if shares := summary.shares(stored):
        lines += ["", "### Share of the matmul peak", "", *peak_table(shares)]
    if rates := summary.product_rates(stored):
        lines += ["", "The best product of each library:", "", *product_table(rates)]
    return "\n".join(lines)


def replace_between_marks(text: str, new: str, begin: str = BEGIN, end: str = END) -> str:
    """Puts the tables between the marks.

    Raises:
      ValueError: a mark is missing.
    """
    before, has_begin, rest = text.partition(begin)
    _, has_end, after = rest.partition(end)
    if not (has_begin and has_end):
        raise ValueError(f"README.md must have the lines {begin!r} and {end!r}, in this order.")
    return f"{before}{begin}\n\n{new}\n\n{end}{after}"


def draw(compared: Sequence[Compared], path: Path) -> None:
    """Bars of our speed by peft's on CPUs, one panel for each kind, with the targets as marks."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds = [kind for kind in KINDS if any(one.cell.kind == kind for one in compared)]
    counts = [sum(one.cell.kind == kind and bool(one.ratio) for one in compared) for kind in kinds]
    figure, axes = pyplot.subplots(
        len(kinds), 1, figsize=(7, 1.2 * len(kinds) + 0.24 * sum(counts)), sharex=True,
        squeeze=False, height_ratios=[max(1, count) for count in counts], layout="constrained",
    )  # fmt: skip
    for axis, kind in zip(axes[:, 0], kinds, strict=True):
        shown = [one for one in compared if one.cell.kind == kind and one.ratio][::-1]
        names = [cell_words(one).replace(" | ", ", ") for one in shown]
        names = [name.replace(", 0.1,", ", dropout,").replace(", 0, ", ", ") for name in names]
        axis.barh(names, [one.ratio for one in shown], color="tab:blue", height=0.7)
        targets = [summary.target(one.cell, one.hardware) for one in shown]
        axis.plot(targets, names, "|", color="black", markersize=10)
        axis.axvline(1, color="grey", linewidth=0.8)
        axis.set_title(KINDS[kind], fontsize=9)
        axis.tick_params(labelsize=7)
    axes[-1, 0].set_xlabel(
        "examples per second, ours by peft's; the mark is the target", fontsize=8
    )
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the rows and writes both."""
    parser = argparse.ArgumentParser(prog="python -m experiments.speed.report", description=__doc__)
    parser.add_argument("--rows", default=rows.STORED, type=Path)
    parser.add_argument("--readme", default=README, type=Path)
    parser.add_argument("--figure", default=FIGURE, type=Path)
    options = parser.parse_args(arguments)
    stored = rows.read(options.rows)
    text = options.readme.read_text(encoding="utf-8")
    options.readme.write_text(replace_between_marks(text, markdown(stored)), encoding="utf-8")
    compared = with_newest(summary.compare(stored, "peft"))
    if on_cpus := [one for one in compared if summary.target(one.cell, one.hardware)]:
        draw(on_cpus, options.figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
