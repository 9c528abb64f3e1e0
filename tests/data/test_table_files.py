"""Tests of prompt_tuning/data/table_files.py, on files as users have them."""

import csv
import json
import re
from pathlib import Path

import pytest

from prompt_tuning.data import table_files

STRANGERS = Path(__file__).parent / "strangers"


def stranger(name):
    return table_files.read(STRANGERS / name)


@pytest.fixture
def write(tmp_path):
    """Writes a file: write('a.csv', 'text'); line ends stay as they are."""

    def make(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return make


def rows(table):
    return [(row.line, *row.cells.values()) for row in table.rows]


def notes(table):
    return [note.split("': ", 1)[1] for note in table.notes]


def test_csv():
    table = stranger("09-infer-own-table/new.csv")
    assert table.columns == ("text", "stars")
    assert table.rows == (
        table_files.Row(2, {"text": "nice food, friendly people 3", "stars": "1"}),
    )
    assert table.notes == ()


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_a_cell_of_any_length(write, ending):
    """150,000 characters, which is more than Python's csv reads by default."""
    long = "word " * 30_000
    if ending == "jsonl":
        content = json.dumps({"text": long, "label": "1"}) + "\n"
    else:
        separator = "," if ending == "csv" else "\t"
        content = f"text{separator}label\n{long}{separator}1\n"
    limit = csv.field_size_limit()
    table = table_files.read(write(f"train.{ending}", content))
    assert [row.cells for row in table.rows] == [{"text": long, "label": "1"}]
    assert csv.field_size_limit() == limit


READ = {
    "26-tsv-quotes/bare_quote.csv": [(2, "5'9\" tall", "0"), (3, 'he said "hi" loudly', "1")],
    "26-tsv-quotes/multi.csv": [(2, "two\r\nlines", "0"), (4, 'a "quote", and a comma', "1")],
    "26-tsv-quotes/oldmac.csv": [(2, "one", "0"), (3, "two", "1")],
    "26-tsv-quotes/sep.csv": [(3, "one", "0"), (4, "two", "1")],
    "26-tsv-quotes/spaces.csv": [(2, "one", " 1"), (3, "two", " 0")],
    "26-tsv-quotes/trailing_delim.csv": [(2, "one", "0"), (3, "two", "1")],
    "09-infer-own-table/new.tsv": [(2, "nice food", "1")],
}


@pytest.mark.parametrize("name", READ)
def test_what_a_spreadsheet_reads(name):
    """Lines are those that a row begins on; spaces around a column's name are not part of it."""
    table = stranger(name)
    assert rows(table) == READ[name]
    assert [column.strip() for column in table.columns] == list(table.columns)
    assert table.notes == ()


QUOTED = [(2, 'he said "hi" loudly', "1"), (3, "5'9\" tall", "0"), (4, "plain", "1")]
AS_IN_CSV = "quotes around a cell are not part of its text, as in CSV"
AS_TEXT = "quotes are part of the text, because not all are as in CSV"


def test_tsv_as_pandas_writes_it_has_quotes_around_cells():
    table = stranger("26-tsv-quotes/pandas.tsv")
    assert rows(table) == [*QUOTED, (5, '"all quoted"', "0")]
    assert notes(table) == [AS_IN_CSV]
    table = stranger("26-tsv-quotes/pandas_tabs.tsv")
    more = [(5, "tab\there", "0"), (6, "line\nbreak", "1"), (8, '"all quoted"', "0")]
    assert rows(table) == [*QUOTED, *more]


def test_tsv_with_one_quote_that_is_text_has_only_such_quotes():
    table = stranger("26-tsv-quotes/raw.tsv")
    assert rows(table) == [*QUOTED, (5, '"all quoted"', "0")]
    assert notes(table) == [AS_TEXT]


@pytest.mark.parametrize("cell", ['"a" b', 'a "b"', '"a', 'a"', '"a"b"', '"""'])
def test_quotes_that_are_no_quoting(write, cell):
    table = table_files.read(write("a.tsv", f'text\tlabel\n{cell}\t1\n"c"\t0\n'))
    assert rows(table) == [(2, cell, "1"), (3, '"c"', "0")]
    assert notes(table) == [AS_TEXT]


def test_semicolons_where_the_header_has_no_comma(write):
    table = stranger("26-tsv-quotes/semicolon.csv")
    assert table.columns == ("text", "label")
    assert rows(table) == [(2, "schön, gut", "1"), (3, "schlecht", "0")]
    assert notes(table) == ["cells are separated by ';'"]
    named = table_files.read(write("a.csv", "sep=;\r\na,b;label\r\nx,y;1\r\n"))
    assert (named.columns, rows(named)) == (("a,b", "label"), [(3, "x,y", "1")])
    tabs = table_files.read(write("b.csv", "text\tlabel\nx, y\t1\n"))
    assert rows(tabs) == [(2, "x, y", "1")]


def test_blank_rows_are_left_out_and_counted(write):
    table = stranger("26-tsv-quotes/blank_mid.csv")
    assert rows(table) == [(2, "one", "0"), (5, "two", "1")]
    assert notes(table) == ["2 blank rows left out, the first on line 3"]
    table = table_files.read(write("a.jsonl", '{"a": "1"}\n\n{"a": "2"}\n\n\n'))
    assert rows(table) == [(1, "1"), (3, "2")]
    assert notes(table) == ["a blank row left out, the first on line 2"]


def test_columns_without_a_name():
    """Empty ones are not columns; others have the names that pandas gives them."""
    table = stranger("02-spam-csv/spam.utf-8.csv")
    assert table.columns == ("v1", "v2", "Unnamed: 2", "Unnamed: 3")
    assert table.rows[0].cells["v2"] == "see you at the café at 0"
    spilt = [row for row in table.rows if row.cells["Unnamed: 2"]]
    assert rows(table_files.Table("", (), tuple(spilt))) == [
        (5, "spam", 'text \\WIN" to 85000', " PO BOX 1", " 150p")
    ]
    table = stranger("03-unnamed-index-column/train.csv")
    assert table.columns == ("Unnamed: 0", "text", "label")


def test_an_index_that_was_written_twice(write):
    table = table_files.read(write("a.csv", ",Unnamed: 0,text\n0,0,a\n1,1,b\n"))
    assert table.columns == ("Unnamed: 0.1", "Unnamed: 0", "text")


def test_cells_that_only_unnamed_columns_lack(write):
    table = table_files.read(write("a.csv", "v1,v2,,\nham,hi\nspam,ho,x,\nham,hu,,,,\n"))
    assert rows(table) == [(2, "ham", "hi", ""), (3, "spam", "ho", "x"), (4, "ham", "hu", "")]


def test_jsonl_columns_are_those_of_all_rows():
    for name in ("train", "later"):  # the null is in row 1, or in row 8
        table = stranger(f"06-jsonl-first-row-null/{name}.jsonl")
        assert table.columns == ("question", "context", "label")
    assert table_files.text_of(table, table.rows[7], "context") == ""
    assert table_files.text_of(table, table.rows[0], "context") == "it is number 0"


def test_json_values_as_text(write):
    line = (
        '{"a": 1, "b": 1.0, "c": true, "d": null, "e": NaN, "f": " x ", "g": 12345678901234567890}'
    )
    table = table_files.read(write("a.json", line))
    (row,) = table.rows
    found = [table_files.text_of(table, row, column) for column in "abcdefgh"]
    assert found == ["1", "1.0", "True", "", "", " x ", "12345678901234567890", ""]


def test_a_byte_order_mark_is_no_text():
    assert stranger("08-infer-bom/new.jsonl").columns == ("input",)
    lines = table_files.read_lines(STRANGERS / "08-infer-bom" / "new.txt")
    assert lines == ["text: nice food", "text: cold food"]


def test_lines_keep_their_spaces_and_lose_their_ends(write):
    """Unicode line separators such as U+2028 do not end a line."""
    assert table_files.read_lines(write("a.txt", " a b \r\n\n\u2028c\x0bd\r\n")) == [
        " a b ",
        "",
        "\u2028c\x0bd",
    ]


REFUSED = {
    "02-spam-csv/spam.latin-1.csv": (
        "Line 2 of .* not UTF-8 text: it has the byte 0xE9, which is 'é' in LATIN1, the likely "
        "encoding. .* iconv -f LATIN1 -t UTF-8"
    ),
    "07-lone-surrogate/train.jsonl": r"Line 6 of .*train.jsonl' has half a character, \\ud83d",
    "07-lone-surrogate/new.jsonl": r"Line 2 of .*new.jsonl' has half a character, \\ud83d",
    "26-tsv-quotes/backslash.csv": (
        "begins on line 2 of .*backslash.csv' is malformed: the quote that closes a cell "
        "is followed by neither ',' nor .* a quote is written twice: \"\""
    ),
    "26-tsv-quotes/nul.csv": "Line 2 of .*nul.csv' holds a NUL character; remove it",
    "26-tsv-quotes/ragged.csv": (
        "Line 3 of .* has 3 cells for the 2 columns text, label. A cell that holds ',' is written "
        "in double quotes"
    ),
    "26-tsv-quotes/unclosed.csv": "begins on line 2 of .*unclosed.csv' .* quote .* never closed",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_with_its_line(name):
    with pytest.raises(ValueError, match=REFUSED[name]):
        stranger(name)


def test_text_files_are_refused_in_the_same_way(write):
    with pytest.raises(ValueError, match="utf16.txt' is UTF-16 text; .* iconv -f UTF-16 -t UTF-8"):
        table_files.read_lines(STRANGERS / "08-infer-bom" / "utf16.txt")
    with pytest.raises(ValueError, match="Line 3 of .* 0xE9, which is 'é' in LATIN1"):
        table_files.read_lines(write("a.txt", b"a\r\nb\r\ncaf\xe9"))


OTHERS = {
    "utf16.csv": ("text,label\né,1\n".encode("utf-16"), "is UTF-16 text"),
    "utf16_no_bom.csv": ("text,label\né,1\n".encode("utf-16-le"), "is UTF-16LE text"),
    "utf16_be.csv": ("text,label\né,1\n".encode("utf-16-be"), "is UTF-16BE text"),
    "utf32.csv": ("text,label\né,1\n".encode("utf-32"), "is UTF-32 text"),
    "windows.csv": (b"text\n\x93hi\x94 \xe9\n", "0x93, which is '“' in WINDOWS-1252"),
    "cyrillic.csv": ("текст,1\n".encode("cp1251"), "Line 1 of .* 0xF2. .* such as GB18030"),
    "workbook.csv": (b"PK\x03\x04\x14\x00\x06\x00", "is a zip archive .an Excel workbook is one"),
    "packed.jsonl": (b"\x1f\x8b\x08\x00", "is compressed with gzip; expected text"),
    "cut.csv": (
        b"text\n\xc3\xa9caf\xc3",
        "ends inside a character, in line 2: the file was cut off",
    ),
    "short.csv": (b"a,b\n1\n", "Line 2 of .* 1 cells for the 2 columns a, b. An empty cell needs"),
    "twice.csv": (b"a,b,a\n1,2,3\n", "has a column name twice: a, b, a"),
    "lines.csv": (b'a\n"1\n2\n3\n"x\n', "begins on line 2 of .* the quote that closes"),
    "empty.csv": (b"", "is empty; it needs at least one row"),
    "header.csv": (b"a,b\n\n", "is empty; it needs at least one row"),
    "twice.jsonl": (b'{"a": 1, "a": 2}', "Line 1 of .* has the column 'a' twice"),
    "nul.jsonl": (b'{"a": "x\\u0000"}', "Line 1 of .* holds a NUL character"),
    "broken.jsonl": (
        b'{"a": 1}\n\n{"a": ',
        "Line 3 of .* is not JSON: Expecting value at character 7. Expected one",
    ),
    "array.json": (b'[{"a": 1},\n{"a": 2}]', "Line 1 of .* is not JSON.*jq -c '.\\[\\]'"),
    "list.jsonl": (b'["a"]', 'Line 1 of .* must be an object like {"text": .*; got \\["a"\\]'),
    "deep.jsonl": (b"[" * 100_000, "Line 1 of .* is not JSON"),
    "long.jsonl": (b'{"a": ' + b"1" * 5000 + b"}", "Line 1 of .* is not JSON: .*4300 digits"),
    "a.xlsx": (b"a", "A table is a .jsonl, .csv or .tsv file; got '.*a.xlsx'"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_refused(write, name):
    content, message = OTHERS[name]
    with pytest.raises(ValueError, match=re.compile(message, re.DOTALL)):
        table_files.read(write(name, content))


def test_a_missing_file(tmp_path):
    with pytest.raises(ValueError, match="no.csv' cannot be read: No such file or directory"):
        table_files.read(tmp_path / "no.csv")
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        table_files.read_lines(tmp_path)


def test_a_value_that_is_no_text(write):
    table = table_files.read(write("a.jsonl", '{"text": "a"}\n{"text": ["a"]}\n'))
    with pytest.raises(ValueError, match="Line 2 of .* column 'text' must hold text .* got a list"):
        table_files.text_of(table, table.rows[1], "text")


def test_a_message_lists_the_columns(write):
    """The advice that a file without a header, or with other separators, needs."""
    listed = table_files.listed(stranger("26-tsv-quotes/noheader.csv"))
    assert listed.startswith("its columns are one nice thing, 1 (taken from its first line;")
    commas = table_files.read(write("a.tsv", "text,label\none,1\n"))
    assert table_files.listed(commas).endswith("; it looks separated by ','")
    assert table_files.listed(stranger("08-infer-bom/new.jsonl")) == "its columns are input"


def test_the_home_folder(write, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write("a.csv", "text\na\n")
    assert table_files.read("~/a.csv").columns == ("text",)
