"""Tests of prompt_tuning/training/plots.py: the curve of what a run wrote."""

import pytest

from prompt_tuning.training import plots

METRICS = """{"step": 10, "split": "train", "loss": 2.5}
{"step": 20, "split": "train", "loss": 1.5}
{"step": 20, "split": "validation", "accuracy": 60.0, "dev_score": 60.0}
{"step": 30, "split": "tra"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(METRICS)
    return tmp_path


def test_loss_and_dev_score_against_the_step(run, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    path = plots.learning_curve(str(run))
    (figure,) = drawn
    left, right = figure.axes
    assert path == str(run / "learning_curve.png")
    assert left.lines[0].get_xydata().tolist() == [[10, 2.5], [20, 1.5]]
    assert right.lines[0].get_xydata().tolist() == [[20, 60.0]]


def test_it_is_a_png(run, tmp_path):
    path = plots.learning_curve(str(run), str(tmp_path / "curve.png"))
    assert open(path, "rb").read(4) == b"\x89PNG"


def test_a_run_that_did_not_train_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no metrics.jsonl, or an empty one; name the MOD"):
        plots.learning_curve(str(tmp_path))
