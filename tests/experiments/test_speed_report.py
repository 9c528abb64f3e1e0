"""Tests of experiments/speed: the matmul peak, and the report of stored rows."""

import dataclasses

import pytest

from experiments.speed import cells, flops, report, rows, summary
from experiments.speed.cells import COMPILED, EAGER, MATMUL, NEWEST, OURS, SMALL_PAGES, Cell

RTE = Cell("training", "small", "float32", "rte", 0.1)
HERE = report.machine(rows.hardware())


def row(cell, side, seconds, number=0, error=None, first=5.0, peak=2_000_000_000, jax="1"):
    values = {"seconds": seconds, "first_step_seconds": first, "peak_bytes": peak}
    return rows.make(cell, side, number, {"error": error, "versions": {"jax": jax}, **values})


def test_the_peak_is_the_best_shape():
    seconds = [2 * m * k * n / 1e9 for m, k, n in flops.PEAK_SHAPES]
    seconds[1] /= 3
    assert flops.peak_rate(seconds) == pytest.approx(3e9)


def test_only_steps_that_all_sides_did_count():
    found = summary.compare(
        [row(RTE, OURS, [1.0, 2.0, 100.0]), row(RTE, EAGER, [4.0, 4.0])], "peft"
    )
    (one,) = found
    assert one.ours.speed == pytest.approx((16 / 1 + 16 / 2) / 2)
    assert one.ratio == pytest.approx(12 / 4)


def test_the_faster_variant_counts_and_a_failure_does_not():
    stored = [
        row(RTE, OURS, [2.0, 2.0], first=9.0), row(RTE, OURS, [2.0, 2.0], 1, first=4.0),
        row(RTE, EAGER, [4.0, 4.0]), row(RTE, COMPILED, [3.0, 3.0], peak=3_000_000_000),
    ]  # fmt: skip
    (one,) = summary.compare(stored, "peft")
    assert [x.variant for x in one.others] == ["compile", "eager"]
    assert one.ratio == pytest.approx(1.5)
    assert (one.ours.first_seconds, one.ours.first_seconds_again) == (6.5, 4.0)
    stored[3] = row(RTE, COMPILED, [], error="not done after 300 s")
    (one,) = summary.compare(stored, "peft")
    assert (one.others[0].variant, one.ratio) == ("eager", 2.0)
    text = report.markdown(stored)
    assert f"- small, float32, rte, 0.1, {HERE}, 1: compile not done after 300 s, – GB" in text


def test_ours_run_otherwise_is_listed_and_counts_in_no_ratio():
    stored = [
        row(RTE, SMALL_PAGES, [4.0, 4.0]), row(RTE, OURS, [2.0, 2.0]), row(RTE, EAGER, [8.0, 8.0]),
    ]  # fmt: skip
    (one,) = summary.compare(stored, "peft")
    assert (one.ratio, one.ours.variant, len(one.others)) == (4.0, "default", 1)
    text = report.markdown(stored).partition("Ours run otherwise:")[2]
    assert f"- small, float32, rte, 0.1, {HERE}, 1: small-pages 4.00 (4.00 to 4.00), 2.0 GB" in text


def test_ours_with_the_newest_versions_has_a_row_of_its_own():
    peak = cells.peak()[0]
    stored = [
        row(RTE, OURS, [2.0, 2.0]), row(RTE, EAGER, [8.0, 8.0]),
        row(RTE, NEWEST, [1.0, 1.0], jax="2"), row(peak, OURS, [8.0]),
        row(peak, NEWEST, [4.0], jax="2"), row(peak, MATMUL, [1.0] * len(flops.PEAK_SHAPES)),
    ]  # fmt: skip
    text = report.markdown(stored)
    lines = [line for line in text.splitlines() if line.startswith("| small")]
    assert [line.split(" | ")[5] for line in lines[:2]] == ["1", "2"]
    assert ["| eager | 4.00 |" in lines[0], "| eager | 8.00 |" in lines[1]] == [True, True]
    shares = [line.split(" | ") for line in lines[2:]]
    assert [one[2] for one in shares] == ["1", "2"]
    assert float(shares[1][7]) == pytest.approx(2 * float(shares[0][7]), rel=0.1)
    assert "run otherwise" not in text


def test_rows_of_two_machines_are_not_compared_with_each_other():
    stored = [row(RTE, OURS, [2.0, 2.0]), row(RTE, EAGER, [8.0, 8.0])]
    stored += [row(RTE, OURS, [1.0, 1.0]), row(RTE, EAGER, [2.0, 2.0])]
    stored[2]["hardware"] = stored[3]["hardware"] = "a fast one, 2 cores"
    found = summary.compare(stored, "peft")
    assert [(one.hardware, one.ratio) for one in found] == [
        (rows.hardware(), 4.0), ("a fast one, 2 cores", 2.0)
    ]  # fmt: skip


def test_targets_of_the_issue():
    bf16 = dataclasses.replace(RTE, dtype="bfloat16")
    cpu = "a CPU, 2 cores"
    assert [summary.target(cell, cpu) for cell in (RTE, bf16)] == [2.0, 1.5]
    assert summary.target(dataclasses.replace(bf16, fixed=True), cpu) == 1.0
    assert summary.target(dataclasses.replace(bf16, kind="rank"), cpu) == 2.0
    of_t5x = {cell.task: summary.target(cell, cpu) for cell in cells.against_t5x()}
    assert of_t5x == {"multirc": 1.4, "rte": 4.0}
    assert summary.target(bf16, "NVIDIA H100 80GB HBM3") is None


def stored_rows():
    at_128 = cells.against_t5x()[0]
    peak = cells.peak()[0]
    fixed = dataclasses.replace(RTE, fixed=True)
    ranked = dataclasses.replace(RTE, kind="rank", dropout=0.0)
    return [
        row(RTE, OURS, [2.0, 2.0]), row(RTE, EAGER, [6.0, 6.0]),
        row(fixed, OURS, [8.0, 8.0]), row(fixed, EAGER, [4.0, 4.0]),
        row(ranked, OURS, [8.0, 8.0]), row(ranked, EAGER, [32.0, 32.0]),
        row(at_128, OURS, [2.0]), row(at_128, cells.T5X_PROMPT, [5.0]),
        row(at_128, cells.T5X_TRAINER, [4.0]),
        row(peak, OURS, [2.0]), row(peak, MATMUL, [1.0, 0.1, 1.0, 1.0, 1.0]),
    ]  # fmt: skip


def test_the_report(tmp_path):
    (tmp_path / "README.md").write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    for one in stored_rows():
        rows.append(tmp_path / "rows", one)
    names = [f"--{name}={tmp_path}/{file}" for name, file in
             (("rows", "rows"), ("readme", "README.md"), ("figure", "f.png"))]  # fmt: skip
    assert report.main(names) == 0
    text = (tmp_path / "README.md").read_text()
    assert text.startswith(f"before\n{report.BEGIN}")
    assert text.endswith(f"{report.END}\nafter\n")
    assert "old" not in text
    lines = [line for line in text.splitlines() if line.startswith("| small")]
    rate = "8.00 (8.00 to 8.00) | 2.67 (2.67 to 2.67) | eager | 3.00 | 2 | 2.0 | 2.0 | 5 | 5 |"
    assert lines[0] == f"| small | float32 | rte | 0.1 | {HERE} | 1 | {rate}"
    assert "rte, padded to 512" in lines[1] and "| 0.50 (missed) | 1 |" in lines[1]
    assert "| eager | 4.00 | 2 |" in lines[2]  # 128 examples in 8 s and in 32 s
    assert "| trainer | 2.00 | 1.4 |" in lines[3]
    assert "network 3.20" in text
    operations = flops.training(flops.SIZES["small"], P=100, T=128, L=8, rows=16)
    share = operations / 2.0 / (2 * 2048**3 / 0.1)
    assert lines[4].endswith(f"| {share:.2f} | 0.65 |")
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    again = (tmp_path / "README.md").read_bytes()
    report.main(names)
    assert (tmp_path / "README.md").read_bytes() == again


def test_what_cannot_be_reported():
    with pytest.raises(ValueError, match="no rows to report; run"):
        report.markdown([])
    with pytest.raises(ValueError, match="must have the lines"):
        report.replace_between_marks(f"{report.END} {report.BEGIN}", "")


def test_the_readme_has_the_marks():
    report.replace_between_marks(report.README.read_text(encoding="utf-8"), "new")
