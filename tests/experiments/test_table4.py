"""Tests of experiments/table4_parameters: the counts are the paper's, but for its misprints."""

import pytest

from experiments.table4_parameters import report

MISPRINTS = {
    ("small", 20): (10_240, 76_971_392),
    ("xxl", 50): (204_800, 11_135_537_152),
}


@pytest.mark.parametrize("size", report.SIZES)
def test_the_counts_are_those_of_the_paper(size):
    for length in report.LENGTHS:
        expected = MISPRINTS.get((size, length), report.PRINTED[size, length])
        assert report.count(size, length) == expected


def test_the_table_is_the_committed_one():
    written = report.README.read_text(encoding="utf-8")
    assert report.replace_between_marks(written, report.table()) == written
    assert written.count(" | 0 |\n") == len(report.PRINTED) - len(MISPRINTS)
