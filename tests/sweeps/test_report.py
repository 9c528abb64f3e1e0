"""Tests of prompt_tuning/sweeps/report.py: means and spreads computed by hand, gaps left open."""

import csv
import json
import math
import re
from pathlib import Path

import pytest
from numpy.testing import assert_array_equal

from prompt_tuning.cli import main
from prompt_tuning.sweeps import grid, report, resolved

FILES = ("table.md", "table.csv", "figure.png", "figure.svg", "report.html")
EXPERIMENTS = Path(__file__).parents[2] / "experiments"
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
    results.write_text('title = "Tiny"\n' + results.read_text())
    report.write_report(str(results))
    seen = bucket.folder / "bucket" / "sweep"
    seen.mkdir(parents=True)
    for name in (results.name, "results.jsonl"):
        (seen / name).write_bytes((results.parent / name).read_bytes())
    paths = report.write_report(f"gs://bucket/sweep/{results.name}")
    assert paths[0] == "gs://bucket/sweep/table.md"
    for name in FILES:
        assert (seen / name).read_bytes() == (results.parent / name).read_bytes()


def test_the_table(results):
    paths = report.write_report(str(results))
    folder = results.parent
    assert paths == [str(folder / name) for name in FILES]
    assert (folder / "table.md").read_text() == (
        "dev_score at the best evaluation, mean ± standard deviation (number of seeds); 5 of 15 "
        "runs, seeds 0, 1, 1.0 hours on 1 cpu; commit abc.\n"
        "\n"
        "| task | size | frozen | prompt | model | majority |\n"
        "| --- | --- | ---: | ---: | ---: | ---: |\n"
        "| awful | a | 4.0 (1) | 85.0 ± 7.1 (2) | – | 55.0 |\n"
        "| awful | b | – | 95.0 (1) | – | 55.0 |\n"
        "| true | a | – | – | – | – |\n"
        "\n"
        "What a run took: means over the runs of a row.\n"
        "\n"
        "| size | method | trainable parameters | seconds |\n"
        "| --- | --- | ---: | ---: |\n"
        "| a | frozen | 64 | 720.0 |\n"
        "| a | prompt | 64 | 720.0 |\n"
        "| b | prompt | 64 | 720.0 |\n"
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
    assert [row["floor"] for row in rows if row["task"] == "all"][1] == "50"


def test_the_figure_has_what_was_run_and_no_more(results, monkeypatch):
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **settings: drawn.append(self))
    report.write_report(str(results))
    awful, true = drawn[0].axes
    assert [axes.get_title() for axes in (awful, true)] == ["awful", "true"]
    drawn_lines = {line.get_label(): line.get_xydata() for line in awful.get_lines()}
    lines = {name: drawn_lines[name] for name in ("frozen", "prompt", "model")}
    nan = math.nan
    assert_array_equal(lines["frozen"], [[100, 4.0], [200, nan]])
    assert_array_equal(lines["prompt"], [[100, 85.0], [200, 95.0]])
    assert_array_equal(lines["model"], [[100, nan], [200, nan]])
    ((band,),) = [x.get_paths() for x in awful.collections if isinstance(x, PolyCollection)]
    low, high = band.vertices[:, 1].min(), band.vertices[:, 1].max()
    assert (low, high) == (pytest.approx(85 - 7.0711), pytest.approx(95.0, abs=0.01))
    assert awful.get_xscale() == "log"
    others = [line.get_ydata() for line in true.get_lines() if line.get_label() in lines]
    assert all(math.isnan(y) for ys in others for y in ys)


def test_lines_are_told_apart_without_colours(results, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **settings: drawn.append(self))
    report.write_report(str(results))
    lines = [
        x for x in drawn[0].axes[0].get_lines() if x.get_label() in ("frozen", "prompt", "model")
    ]
    assert len({line.get_marker() for line in lines}) == 3
    assert len({(line.get_linestyle(), str(line._dash_pattern)) for line in lines}) == 3


def test_a_figure_is_a_png_and_an_svg(results):
    report.write_report(str(results))
    assert (results.parent / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (results.parent / "figure.svg").read_bytes()


def test_the_same_rows_give_the_same_bytes(results):
    report.write_report(str(results))
    first = {name: (results.parent / name).read_bytes() for name in FILES}
    report.write_report(str(results))
    assert {name: (results.parent / name).read_bytes() for name in FILES} == first


def test_the_page_needs_nothing_else(results):
    results.write_text('title = "Size & <method>"\n' + results.read_text())
    report.write_report(str(results))
    page = (results.parent / "report.html").read_text()
    assert "<h1>Size &amp; &lt;method&gt;</h1>" in page
    assert "5 of 15 runs, seeds 0, 1, 1.0 hours on 1 cpu; commit abc." in page
    assert "<td>85.0 ± 7.1 (2)</td>" in page and "<td>–</td>" in page
    assert 'src="data:image/svg+xml;base64,' in page
    assert not re.search(r"<script|<link|https?://|url\(", page)


def test_several_reports(results):
    more = '\n[[report]]\nname = "cost"\nscore = "seconds"\nx = "size"\naverage = ["task"]\n'
    text = results.read_text().replace("[report]", "[[report]]")
    results.write_text(text.replace("[axes.task.awful]", more + "[axes.task.awful]"))
    paths = [Path(path).name for path in report.write_report(str(results))]
    others = ["table_cost.md", "table_cost.csv", "figure_cost.png", "figure_cost.svg"]
    assert paths == [*FILES[:4], *others, "report.html"]
    table = (results.parent / "table_cost.md").read_text().splitlines()
    assert table[2] == "| method | size | seconds |"
    assert "<h2>cost</h2>" in (results.parent / "report.html").read_text()


def test_a_split_needs_levels(results):
    results.write_text(results.read_text().replace('x = "size"', 'x = "size"\nsplit = "level"'))
    with pytest.raises(ValueError, match="splits by level, but no result has levels: the rows of"):
        report.write_report(str(results))


def test_levels_have_panels(results):
    lines = [
        json.loads(line) for line in (results.parent / "results.jsonl").read_text().split("\n")[:-1]
    ]
    for line in lines[:-2]:
        line["levels"] = {"1": 90.0, "2": 40.0}
    (results.parent / "results.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    results.write_text(results.read_text().replace('x = "size"', 'x = "size"\nsplit = "level"'))
    report.write_report(str(results))
    table = (results.parent / "table.md").read_text()
    assert "| task | level | size | frozen | prompt | model |" in table
    assert "| awful | 2 | a | 40.0 (1) | 40.0 ± 0.0 (2) | – |" in table


def test_all_runs_diverged(results):
    (results.parent / "results.jsonl").write_text(
        (results.parent / "results.jsonl").read_text().splitlines()[-2] + "\n"
    )
    report.write_report(str(results))
    table = (results.parent / "table.md").read_text()
    assert "| awful | a | – | – | – | – |" in table


def test_reference_values_beside_ours_and_of_other_sizes(results, monkeypatch):
    """Small is not one of our sizes, so it has a table and a panel of its own."""
    (results.parent / "reference.csv").write_text(
        "task,size,method,value,std,source,model_parameters\n"
        "awful,a,prompt,83.5,0.8,S,100\nawful,Small,prompt,59.8,,P,7e7\n"
        "awful,Base,prompt,63.1,1.1,P,2e8\nawful,Base,GPT-3,43.4,,S,2e8\n"
    )
    panels = []
    real = report.figure._draw_panel
    monkeypatch.setattr(
        report.figure, "_draw_panel", lambda *a: panels.append((a[2], a[4].of)) or real(*a)
    )
    report.write_report(str(results))
    table = (results.parent / "table.md").read_text()
    assert "| awful | a | 4.0 (1) | 85.0 ± 7.1 (2) | 83.5 ± 0.8 [S] | – | – | 55.0 |" in table
    assert "| task | size | frozen | prompt | prompt, paper | prompt, difference | model |" in table
    assert "| awful | Base | 63.1 ± 1.1 [P] | 43.4 [S] |" in table
    assert "| awful | Small | 59.8 [P] | – |" in table
    assert "[S] Vu et al. (SPoT), ACL 2022" in table and "are not shown" in table
    assert panels[-1] == ("paper: awful", {"Small": 7e7, "Base": 2e8})
    with open(results.parent / "table.csv") as file:
        row = next(r for r in csv.DictReader(file) if r["source"])
    assert (row["size"], row["reference"], row["difference"]) == ("a", "83.5", "")

    comparable = results.read_text().replace('x = "size"', 'x = "size"\ncomparable = true')
    results.write_text(comparable)
    report.write_report(str(results))
    table = (results.parent / "table.md").read_text()
    assert "| 85.0 ± 7.1 (2) | 83.5 ± 0.8 [S] | +1.5 | – | 55.0 |" in table
    assert "are not shown" not in table


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size,value,source\na,1,S\n", "has no column 'std'; expected axes (task, size, method)"),
        ("colour,value,std,source\na,1,,S\n", "has the unknown column 'colour'"),
        ("size,value,std,source\na,,,S\n", "row 1: only std may be empty."),
        ("size,value,std,source\na,1,,S\na,2,,S\n", "row 2: the combination has two values."),
        ("size,value,std,source\na,one,,S\n", "cannot be read: "),
    ],
)
def test_an_error_in_the_reference_values_is_one_sentence(results, text, message):
    (results.parent / "reference.csv").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        report.write_report(str(results))


@pytest.mark.parametrize("name", ["figure1_scale", "quantization"])
def test_the_committed_tables_are_those_of_the_committed_rows(name, tmp_path):
    for path in (EXPERIMENTS / name).iterdir():
        if path.name in ("sweep.toml", "results.jsonl", "reference.csv"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    report.write_report(str(tmp_path))
    for file in ("table.md", "table.csv"):
        assert (tmp_path / file).read_bytes() == (EXPERIMENTS / name / file).read_bytes()


def test_without_results_it_says_what_to_run(sweep_file):
    with pytest.raises(ValueError, match=r"no results of .* yet; run `prompt-tuning sweep run "):
        report.write_report(str(sweep_file))


def test_the_command(results, capsys):
    assert main(["sweep", "report", str(results)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"written to {results.parent / name}" for name in FILES
    ]
