"""One HTML page of a sweep that can be sent around: no script, and nothing is loaded."""

import base64
import html
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 70em; margin: 2em auto;
       padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; }
p.origin { color: #555; }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.2em 0.8em; border-bottom: 1px solid #ddd; text-align: right;
         white-space: nowrap; }
thead th { border-bottom: 2px solid #888; }
th.text, td.text { text-align: left; }
img { max-width: 100%; height: auto; }
"""


class Section(NamedTuple):
    """A part of the page.

    Attributes:
      title: its heading; '' for none.
      paragraphs: texts above the table.
      table: texts; None for none.
      texts: how many of its first columns are words, the others being numbers.
      figure: an SVG, None for none.
    """

    title: str
    paragraphs: Sequence[str] = ()
    table: pd.DataFrame | None = None
    texts: int = 0
    figure: bytes | None = None


def page(title: str, sections: Sequence[Section]) -> str:
    """The page.

    >>> print(page('A & B', [Section('', ['1 < 2'])]).splitlines()[-3])
    <p>1 &lt; 2</p>
    """
    body = "\n".join(_section(section) for section in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def _section(section: Section) -> str:
    parts = [f"<h2>{html.escape(section.title)}</h2>"] if section.title else []
    parts += [f"<p>{html.escape(text)}</p>" for text in section.paragraphs]
    if section.figure is not None:
        data = base64.b64encode(section.figure).decode()
        alt = html.escape(f"Figure: {section.title or 'the scores of the table below'}")
        parts.append(f'<img alt="{alt}" src="data:image/svg+xml;base64,{data}">')
    if section.table is not None:
        parts.append(f'<div class="wide">{_table(section.table, section.texts)}</div>')
    return "\n".join(parts)


def _table(table: pd.DataFrame, texts: int) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        kinds = [' class="text"' if place < texts else "" for place in range(len(cells))]
        shown = (
            f"<{tag}{kind}>{html.escape(cell)}</{tag}>"
            for kind, cell in zip(kinds, cells, strict=True)
        )
        return f"<tr>{''.join(shown)}</tr>"

    rows = "\n".join(row(cells, "td") for cells in table.itertuples(index=False, name=None))
    head = row(list(table.columns), "th")
    return f"<table>\n<thead>{head}</thead>\n<tbody>\n{rows}\n</tbody>\n</table>"
