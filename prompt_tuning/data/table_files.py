"""Reads the rows of CSV, TSV and JSONL files, and the lines of text files.

    text,stars               Table(columns=('text', 'stars'),
    "Fine food.",1      ->         rows=[Row(line=2, cells={'text': 'Fine food.', 'stars': '1'})])

    encoding   UTF-8, with or without a BOM; others are refused by name
    .csv       RFC 4180; ';' or a tab where the header has no comma, or as given by a line 'sep=;'
    .tsv       quotes are read as in CSV if every cell with a quote is quoted as RFC 4180 has it,
               as pandas and Excel write it; else quotes are text
    .jsonl     one object per line (.json too); null, NaN and a missing key are an empty cell, true
    is
               'True', and a number is as Python writes it: 1 is '1', 1.0 is '1.0'

A column without a name is called as in pandas, 'Unnamed: 0', and is ignored if it is empty. Rows
without any text are left out, with a note. Whatever cannot be read is refused with its line.
"""

import codecs
import csv
import dataclasses
import io
import json
import os
import re
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from prompt_tuning import paths

ENDINGS = (".jsonl", ".json", ".csv", ".tsv")
LONGEST_CELL = 2**31 - 1  # characters; csv's default is 131,072
UNNAMED = re.compile(r"Unnamed: \d+(\.\d+)*")  # what pandas calls a column without a name
SHOWN = 60  # characters of a line in a message
BOMS = {  # UTF-32 first: its BOM begins with that of UTF-16
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
NO_TEXT = {
    b"PK\x03\x04": "a zip archive (an Excel workbook is one)",
    b"\x1f\x8b": "compressed with gzip",
    b"PAR1": "a Parquet file",
}
# From one quote to the next: a quoted cell from its separator to the next one, or no quote at all.
QUOTED_TSV = re.compile(r'(?:(?<![^\t\r\n])"(?:[^"]++|"")*+"(?![^\t\r\n])|[^"]++)*+')

_csv_limit = threading.Lock()


class Row(NamedTuple):
    """One row: the line that it begins on, and its values by column."""

    line: int
    cells: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Table:
    """The rows of a file.

    Attributes:
      path: the file.
      columns: the names, in the order of the header; of JSONL, all keys of all rows.
      rows: there is at least one; values of JSONL are as JSON has them.
      notes: sentences on what was left out or had to be decided.
    """

    path: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def read(path: str | os.PathLike) -> Table:
    """Reads a table; the file's ending selects the format.

    Raises:
      ValueError: no such file, another ending or encoding, no rows, or a row that is malformed.
    """
    path = paths.expand(path)
    ending = os.path.splitext(path)[1].lower()
    if ending not in ENDINGS:
        raise ValueError(f"A table is a .jsonl, .csv or .tsv file; got {path!r}.")
    text = _read_text(path)
    table = _read_csv(path, text) if ending in (".csv", ".tsv") else _read_jsonl(path, text)
    if not table.rows:
        raise ValueError(f"The table {path!r} is empty; it needs at least one row.")
    return table


def read_lines(path: str | os.PathLike) -> list[str]:
    """Reads the lines of a text file, blank ones included, without their ends.

    Raises:
      ValueError: no such file, or another encoding.
    """
    text = _read_text(paths.expand(path))
    return [line.removesuffix("\n") for line in io.StringIO(text, newline=None)]


def text_of(table: Table, row: Row, column: str) -> str:
    """A value as text; the empty text where there is none.

    Raises:
      ValueError: the value is a list or an object.
    """
    value = row.cells.get(column)
    if isinstance(value, list | dict):
        raise ValueError(
            f"Line {row.line} of {table.path!r}: the column {column!r} must hold text or a number; "
            f"got a {type(value).__name__}. Name the columns to read without it, or write it as "
            "text."
        )
    return "" if value is None else str(value)


def listed(table: Table) -> str:
    """The columns of a table, for a message that misses one."""
    names = f"its columns are {', '.join(table.columns)}"
    if table.path.lower().endswith((".jsonl", ".json")):
        return names
    names += " (taken from its first line; a CSV or TSV file begins with the names of its columns)"
    others = [mark for mark in ",;|\t" if len(table.columns) == 1 and mark in table.columns[0]]
    return names + "".join(f"; it looks separated by {mark!r}" for mark in others[:1])


def _read_text(path: str) -> str:
    try:
        data = paths.read_bytes(path)
    except OSError as error:
        raise ValueError(f"The file {path!r} cannot be read: {error.strerror or error}.") from error
    for start, kind in NO_TEXT.items():
        if data.startswith(start):
            raise ValueError(
                f"{path!r} is {kind}; expected text. Unpack it, or save it as UTF-8 text."
            )
    encoding = _utf_16_or_32(data)
    if encoding:
        raise ValueError(
            f"{path!r} is {encoding} text; expected UTF-8. Save it as UTF-8, or convert it: "
            f"iconv -f {encoding} -t UTF-8 OLD > NEW."
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(_not_utf_8(path, data, error)) from error
    if "\0" in text:
        line = _line_at(text[: text.index("\0")])
        raise ValueError(f"Line {line} of {path!r} holds a NUL character; remove it.")
    return text


def _utf_16_or_32(data: bytes) -> str | None:
    for bom, encoding in BOMS.items():
        if data.startswith(bom):
            return encoding
    start = data[:2000]  # without a BOM: every other byte of Western text is 0
    if start and max(start[::2].count(0), start[1::2].count(0)) > len(start) / 4:
        return "UTF-16LE" if start[1::2].count(0) > start[::2].count(0) else "UTF-16BE"
    return None


def _not_utf_8(path: str, data: bytes, error: UnicodeDecodeError) -> str:
    line = _line_at(data[: error.start].decode("latin-1"))
    ends_early = error.reason == "unexpected end of data" and error.end == len(data)
    if ends_early and not data[: error.start].removeprefix(codecs.BOM_UTF8).isascii():
        return f"{path!r} ends inside a character, in line {line}: the file was cut off."
    where = f"Line {line} of {path!r} is not UTF-8 text: it has the byte 0x{data[error.start]:02X}"
    if len(re.findall(rb"[\x80-\xff]", data)) > len(data) / 4:  # more than the accents of a text
        return (
            f"{where}. Save it as UTF-8, or convert it from its encoding, such as GB18030, "
            "SHIFT-JIS or WINDOWS-1251: iconv -f ENCODING -t UTF-8 OLD > NEW."
        )
    # These bytes are control characters in Latin-1 and letters and quotes in Windows-1252.
    likely = "WINDOWS-1252" if re.search(rb"[\x80-\x9f]", data) else "LATIN1"
    character = data[error.start : error.start + 1].decode(likely, "replace")
    return (
        f"{where}, which is {character!r} in {likely}, the likely encoding. Save it as UTF-8, or "
        f"convert it: iconv -f {likely} -t UTF-8 OLD > NEW."
    )


def _line_at(before: str) -> int:
    return 1 + len(re.findall(r"\r\n?|\n", before))


def _read_jsonl(path: str, text: str) -> Table:
    rows, notes = [], _BlankRows(path)
    for number, line in enumerate(io.StringIO(text, newline=""), start=1):
        if not line.strip():
            notes.blank(number)
            continue
        notes.row()
        rows.append(Row(number, _json_object(path, number, line)))
    columns = dict.fromkeys(column for row in rows for column in row.cells)
    return Table(path, tuple(columns), tuple(rows), notes.sentences())


def _json_object(path: str, number: int, line: str) -> dict[str, Any]:
    where = f"Line {number} of {path!r}"
    try:
        value = json.loads(line, parse_constant=_constant, object_pairs_hook=_pairs)
        if re.search(r"\\u[dD][89a-fA-F]", line):  # else there is no half of a character
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise ValueError(
            f"{where} has half a character, {half}: an emoji that was cut in two. Remove it."
        ) from error
    except _TwiceError as error:
        raise ValueError(f"{where} has the column {error.args[0]!r} twice.") from error
    except (ValueError, RecursionError) as error:
        what = error
        if isinstance(error, json.JSONDecodeError):
            what = f"{error.msg} at character {error.colno}"
        raise ValueError(
            f"{where} is not JSON: {what}. Expected one object per line; `jq -c '.[]' OLD > NEW` "
            "makes that of an array, `jq -c . OLD > NEW` of objects."
        ) from error
    if not isinstance(value, dict):
        raise ValueError(
            f'{where} must be an object like {{"text": "...", "label": "..."}}; got '
            f"{line.strip()[:SHOWN]}"
        )
    if any("\0" in text for text in (*value, *value.values()) if isinstance(text, str)):
        raise ValueError(f"{where} holds a NUL character; remove it.")
    return value


class _TwiceError(ValueError):
    pass


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(next(name for name in names if names.count(name) > 1))
    return made


def _constant(name: str) -> str | None:
    return None if name == "NaN" else name


def _read_csv(path: str, text: str) -> Table:
    separator, lines_before, notes = _separator(path, text)
    quoting: dict[str, Any] = {"strict": True}
    if path.lower().endswith(".tsv") and '"' in text:
        if QUOTED_TSV.fullmatch(text):
            notes.append(f"{path!r}: quotes around a cell are not part of its text, as in CSV")
        else:
            quoting = {"quoting": csv.QUOTE_NONE}
            notes.append(f"{path!r}: quotes are part of the text, because not all are as in CSV")
    lines = io.StringIO(text, newline="")
    for _ in range(lines_before):
        next(lines)
    header, rows, blank = None, [], _BlankRows(path)
    for line, values in _csv_rows(path, lines, lines_before, separator, quoting):
        if not any(value.strip() for value in values):
            blank.blank(line)
            continue
        blank.row()
        if header is None:
            header = _header(path, values)
        else:
            rows.append(Row(line, _cells(path, line, header, values, separator)))
    columns = _columns(header or (), rows)
    rows = [Row(line, {name: cells[name] for name in columns}) for line, cells in rows]
    return Table(path, columns, tuple(rows), (*notes, *blank.sentences()))


def _separator(path: str, text: str) -> tuple[str, int, list[str]]:
    """The separator, the number of lines before the header, and a note on it."""
    named = re.match(r'"?sep=([^\r\n])"?[,;\t]*(?:\r\n|\r|\n)', text, re.IGNORECASE)  # Excel's
    if named:
        return named[1], 1, []
    if path.lower().endswith(".tsv"):
        return "\t", 0, []
    header = re.match(r"[^\r\n]*", text.lstrip())[0]
    for separator in ";\t":
        if "," not in header and separator in header:
            return separator, 0, [f"{path!r}: cells are separated by {separator!r}"]
    return ",", 0, []


def _csv_rows(
    path: str, lines: Iterator[str], lines_before: int, separator: str, quoting: dict[str, Any]
) -> list[tuple[int, list[str]]]:
    """All rows with the lines that they begin on, blank rows included."""
    with _csv_limit:  # the limit belongs to the whole process
        before = csv.field_size_limit(LONGEST_CELL)
        try:
            reader = csv.reader(lines, delimiter=separator, **quoting)
            found, start = [], lines_before + 1
            for values in reader:
                found.append((start, values))
                start = lines_before + reader.line_num + 1
            return found
        except csv.Error as error:
            raise ValueError(_malformed(path, start, separator, error)) from error
        finally:
            csv.field_size_limit(before)


def _malformed(path: str, line: int, separator: str, error: csv.Error) -> str:
    where = f"The row that begins on line {line} of {path!r} is malformed:"
    advice = 'Inside quotes, a quote is written twice: "".'
    if "end of data" in str(error):
        return f"{where} a quote that opens there is never closed. Close it. {advice}"
    if "expected after" in str(error):
        return (
            f"{where} the quote that closes a cell is followed by neither {separator!r} nor the "
            f'end of the line. {advice} Backslashes (\\") and unclosed quotes are not understood.'
        )
    return f"{where} {error}."


def _header(path: str, values: Sequence[str]) -> tuple[str, ...]:
    names = [value.strip() for value in values]
    named = [name for name in names if name]
    if len(set(named)) < len(named):
        raise ValueError(f"The table {path!r} has a column name twice: {', '.join(named)}.")
    for place, name in enumerate(names):
        if not name:
            name = f"Unnamed: {place}"
            while name in names:  # an index that was written and read before
                name += ".1"
            names[place] = name
    return tuple(names)


def _cells(
    path: str, line: int, header: Sequence[str], values: list[str], separator: str
) -> dict[str, str]:
    missing = header[len(values) :]
    if any(value.strip() for value in values[len(header) :]):
        advice = f"A cell that holds {separator!r} is written in double quotes"
    elif any(not UNNAMED.fullmatch(name) for name in missing):
        advice = f"An empty cell needs its {separator!r}, too"
    else:
        return dict(zip(header, [*values, *[""] * len(missing)], strict=False))
    raise ValueError(
        f"Line {line} of {path!r} has {len(values)} cells for the {len(header)} columns "
        f"{', '.join(header)}. {advice}."
    )


def _columns(header: Sequence[str], rows: Sequence[Row]) -> tuple[str, ...]:
    """The columns of a header but those that have neither a name nor any text."""
    return tuple(
        name
        for name in header
        if not UNNAMED.fullmatch(name) or any(row.cells[name].strip() for row in rows)
    )


class _BlankRows:
    """Counts the blank rows of a file, save those at its end."""

    def __init__(self, path: str):
        self._path = path
        self._lines: list[int] = []
        self._latest: list[int] = []

    def blank(self, line: int) -> None:
        self._latest.append(line)

    def row(self) -> None:
        self._lines += self._latest
        self._latest = []

    def sentences(self) -> tuple[str, ...]:
        if not self._lines:
            return ()
        many = f"{len(self._lines):,} blank rows" if len(self._lines) > 1 else "a blank row"
        return (f"{self._path!r}: {many} left out, the first on line {self._lines[0]}",)
