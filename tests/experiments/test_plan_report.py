"""Tests of experiments/plan: the committed table is that of the committed rows, and is whole."""

from experiments.plan import report, run


def test_the_committed_table_is_that_of_the_rows(tmp_path):
    text = report.README.read_text(encoding="utf-8")
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    assert report.main(tmp_path / "README.md") == 0
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == text


def test_every_size_is_planned_on_every_slice():
    assert run.read().keys() == {(size, name) for size in run.SIZES for name in run.SLICES}
    assert "Not planned" not in report.table(run.read())


def test_three_digits():
    assert [report.digits(x) for x in (0.744123, 8.34267e-05, 24.8)] == [
        "0.744",
        "0.0000834",
        "24.8",
    ]
