"""Tests of prompt_tuning/sweeps/report.py: means and spreads computed by hand, gaps left open."""

import csv
import json

import pytest

from prompt_tuning.cli import main
from prompt_tuning.sweeps import grid, report, resolved

SCORES = {
    "awful-a-frozen-0": 4.0,
    "awful-a-prompt-0": 80.0,
    "awful-a-prompt-1": 90.0,
    "awful-b-prompt-0": 95.0,
    "awful-a-model-1": None,  # diverged: no evaluation with a finite score
}


@pytest.fixture
def results(sweep_file):
    """Five runs of fifteen; one of them without a score, one that failed."""
    cells = {cell.key: cell for cell in grid.read_sweep(str(sweep_file)).cells}
    runs = resolved.load_runs(cells.values(), {})
    digests = {key: resolved.digest(runs[key], cell.train) for key, cell in cells.items()}
    with open(sweep_file.parent / "results.jsonl", "w") as file:
        for key, score in SCORES.items():
            best = {"step": None} if score is None else {"step": 4, "dev_score": score}
            record = {
                "key": key, "values": cells[key].values, "seed": cells[key].seed,
                "settings": digests[key], "best": best, "last": best, "floor": 55.0,
                "steps": 4, "seconds": 720.0, "model_parameters": 100 if "-a-" in key else 200,
                "trainable_parameters": 64, "commit": "abc", "hardware": "1 cpu",
            }  # fmt: skip
            file.write(json.dumps(record) + "\n")
        failed = cells["awful-b-model-0"]
        record = {"key": failed.key, "error": "ValueError: no"}
        file.write(json.dumps(record) + "\n")
    return sweep_file


def test_a_sweep_in_a_bucket_has_the_same_report(results, bucket):
    report.write_report(str(results))
    seen = bucket.folder / "bucket" / "sweep"
    seen.mkdir(parents=True)
    for name in (results.name, "results.jsonl"):
        (seen / name).write_bytes((results.parent / name).read_bytes())
    paths = report.write_report(f"gs://bucket/sweep/{results.name}")
    assert paths[0] == "gs://bucket/sweep/table.md"
    for name in ("table.md", "table.csv", "figure.png"):
        assert (seen / name).read_bytes() == (results.parent / name).read_bytes()


def test_the_table(results):
    paths = report.write_report(str(results))
    folder = results.parent
    assert paths == [str(folder / name) for name in ("table.md", "table.csv", "figure.png")]
    assert (folder / "table.md").read_text() == (
        "dev_score at the best evaluation, mean ± standard deviation (number of seeds); 5 of 15 "
        "runs, 1.0 hours on 1 cpu; commit abc.\n"
        "\n"
        "| task | size | frozen | prompt | model | majority |\n"
        "| --- | --- | ---: | ---: | ---: | ---: |\n"
        "| awful | a | 4.0 (1) | 85.0 ± 7.1 (2) | – | 55.0 |\n"
        "| awful | b | – | 95.0 (1) | – | 55.0 |\n"
        "| true | a | – | – | – | – |\n"
        "| true | b | – | – | – | – |\n"
    )
    with open(folder / "table.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    prompt = next(r for r in rows if (r["size"], r["method"]) == ("a", "prompt"))
    assert (prompt["n"], prompt["mean"], prompt["std"]) == ("2", "85", "7.071067812")
    assert (prompt["model_parameters"], prompt["rank_accuracy"]) == ("100", "")
    missing = next(r for r in rows if (r["size"], r["method"]) == ("b", "model"))
    assert (missing["n"], missing["mean"]) == ("0", "")


def test_the_overall_panel_is_the_mean_of_the_seeds_that_all_panels_have(results):
    text = results.read_text().replace('lines = "method"', 'lines = "method"\noverall = "all"')
    results.write_text(text)
    lines = (results.parent / "results.jsonl").read_text().splitlines()
    record = json.loads(lines[1])  # awful-a-prompt-0 has 80
    record |= {"key": "true-a-prompt-0", "values": {**record["values"], "task": "true"}}
    (cell,) = [c for c in grid.read_sweep(str(results)).cells if c.key == record["key"]]
    digest = resolved.digest(resolved.load_run(cell), cell.train)
    record |= {"settings": digest, "best": {"step": 4, "dev_score": 60.0}, "floor": 45.0}
    (results.parent / "results.jsonl").write_text("\n".join([*lines, json.dumps(record), ""]))
    report.write_report(str(results))
    table = (results.parent / "table.md").read_text().splitlines()
    assert table[4:6] == [
        "| all | a | – | 70.0 (1) | – | 50.0 |",
        "| all | b | – | – | – | – |",
    ]
    with open(results.parent / "table.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 15
    assert [row["mean"] for row in rows if row["task"] == "all"] == ["", "70", "", "", "", ""]


def test_the_figure_has_what_was_run_and_no_more(results, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, dpi: drawn.append(self))
    report.write_report(str(results))
    awful, true = drawn[0].axes
    assert [axes.get_title() for axes in (awful, true)] == ["awful", "true"]
    lines = {bars.get_label(): bars.lines[0].get_xydata().tolist() for bars in awful.containers}
    assert lines == {
        "frozen": [[100, 4.0]],
        "prompt": [[100, 85.0], [200, 95.0]],
        "model": [],
    }
    assert awful.get_xscale() == "log"
    assert not any(len(bars.lines[0].get_xydata()) for bars in true.containers)


def test_a_figure_is_a_png(results):
    report.write_report(str(results))
    assert (results.parent / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_without_results_it_says_what_to_run(sweep_file):
    with pytest.raises(ValueError, match=r"no results of .* yet; run `prompt-tuning sweep run "):
        report.write_report(str(sweep_file))


def test_the_command(results, capsys):
    assert main(["sweep", "report", str(results)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"written to {results.parent / name}" for name in ("table.md", "table.csv", "figure.png")
    ]
