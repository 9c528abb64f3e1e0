"""Writes the table of rows.jsonl into README.md, between its marks.

python -m experiments.plan.report
"""

from pathlib import Path

import numpy as np

from experiments.plan.run import ROWS, SIZES, SLICES, read
from experiments.speed.report import replace_between_marks
from prompt_tuning.planning.chips import GIB

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- table: written by report.py -->", "<!-- /table -->"
HEADER = (
    "| size | slice | chips | data x model | GiB a device, of usable | arguments | temporaries "
    "| fits | largest batch | compile s | step s, at least | bound by | hours | chip-hours |\n"
    "| --- | --- | ---: | --- | --- | ---: | ---: | --- | ---: | ---: | ---: | --- | ---: | ---: |"
)


def table(rows: dict[tuple[str, str], dict]) -> str:
    """The table of the newest row of each cell, and what has none."""
    order = [(size, name) for size in SIZES for name in SLICES]
    lines = [_line(rows[key]) for key in order if key in rows]
    text = "\n".join([HEADER, *lines])
    if missing := [" on ".join(key) for key in order if key not in rows]:
        text += f"\n\nNot planned yet ({len(missing)}): {', '.join(missing)}."
    made = {(row["commit"], row["jax"], row["libtpu"]) for row in rows.values()}
    by = "; ".join(f"{commit}, jax {jax}, libtpu {tpu}" for commit, jax, tpu in sorted(made))
    return f"{text}\n\nMade by {by}."


def _line(row: dict) -> str:
    if row["error"]:
        return f"| {row['size']} | {row['slice']} | {row['error']} |" + " |" * 11
    axes, memory = row["axes"], row["memory"]
    usable = f"{row['usable_bytes'] / GIB:.2f}"
    if memory:
        used = f"{memory['total'] / GIB:.2f} of {usable}"
        parts = [f"{memory[name] / GIB:.2f}" for name in ("arguments", "temporaries")]
    else:
        needed = row["needed"] and f"{row['needed'] / GIB:.2f}"
        used, parts = f"{needed or 'more'} of {usable}", ["", ""]
    hours = row["steps"] * row["step_seconds"] / 3600
    cells = [
        row["size"],
        row["slice"],
        row["chips"],
        f"{axes['data']} x {axes['model']}",
        used,
        *parts,
        "yes" if row["fits"] else "no",
        row["largest_batch"] or "",
        f"{row['compile_seconds']:.0f}",
        digits(row["step_seconds"]),
        row["bound"],
        digits(hours),
        digits(hours * row["chips"]),
    ]
    return f"| {' | '.join(map(str, cells))} |"


def digits(number: float) -> str:
    """Three significant digits.

    >>> digits(0.744123), digits(0.0000834267), digits(24.8)
    ('0.744', '0.0000834', '24.8')
    """
    return np.format_float_positional(number, precision=3, fractional=False, trim="-")


def main(readme: Path = README, rows: Path = ROWS) -> int:
    """Replaces the table."""
    text = readme.read_text(encoding="utf-8")
    text = replace_between_marks(text, table(read(rows)), BEGIN, END)
    readme.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
