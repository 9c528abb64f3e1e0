"""Training in a bucket: MODEL_DIR=gs://..., as on a Cloud TPU."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_runs
from flax.metrics import tensorboard

from prompt_tuning.checkpoints import checkpoint, t5x_native, t5x_orbax
from prompt_tuning.inference import evaluate, infer
from prompt_tuning.prompts import files
from prompt_tuning.training import plots

pytestmark = pytest.mark.usefixtures("quick")


class NoBoard:
    """TensorBoard's writer reaches a bucket through TensorFlow alone, of which there is no fake."""

    def __getattr__(self, name):
        return lambda *args, **kwargs: None


@pytest.fixture(autouse=True)
def _no_board(monkeypatch):
    monkeypatch.setattr(tensorboard, "SummaryWriter", lambda folder, auto_flush: NoBoard())


def test_a_run_in_a_bucket_is_resumed_evaluated_and_infers(bucket, prompted, tmp_path, monkeypatch):
    """It ends with the prompt of a run that wrote to a local folder without an interruption."""
    monkeypatch.chdir(tmp_path)
    for steps in (2, 6):
        run = tiny_runs.load_run("gs://bucket/run", f"TRAIN_STEPS={steps}")
        done = tiny_runs.train(run)
    assert "resuming at step 2" in done.printed
    assert done.trained.path == "gs://bucket/run/prompts/best.safetensors"
    assert not Path("gs:").exists()
    written = bucket.folder / "bucket" / "run"
    assert json.loads((written / "versions.json").read_text())["python"]
    assert tiny_runs.load_run("gs://bucket/run").model_dir == "gs://bucket/run"
    dev = [row["step"] for row in tiny_runs.read_metrics(written) if row["split"] == "validation"]
    assert dev == [2, 4, 6]
    local = prompted.run.model_dir
    assert files.read_prompt("gs://bucket/run/prompts/step_000006").prompt.tobytes() == (
        tiny_runs.prompt_bytes(local, "step_000006")
    )
    evaluate.evaluate_run(run)
    bucket.folder.joinpath("bucket", "in.txt").write_text("the old film was dull .\n")
    infer.infer_run(run, "gs://bucket/in.txt")
    predicted = (written / "infer" / "predictions.jsonl").read_text()
    assert json.loads(predicted)["input"] == "the old film was dull ."
    assert json.loads((written / "eval" / "metrics.json").read_text())["examples"] == 20
    plots.learning_curve("gs://bucket/run")
    assert (written / "learning_curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_library_that_orbax_needs(bucket, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.cloud.storage", None)
    with pytest.raises(ValueError, match=r"pip install 'prompt-tuning\[gcs\]'"):
        tiny_runs.train(tiny_runs.make_run("gs://bucket/run"))


def test_a_frozen_model_in_a_bucket(bucket, tmp_path):
    params = {"encoder/a/kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}
    for writer in (t5x_native, t5x_orbax):
        folder = bucket.folder / "models" / writer.__name__
        writer.write(folder, params, 7)
        place = f"gs://models/{writer.__name__}"
        assert checkpoint.find(place) == f"{place}/checkpoint_7"
        read = checkpoint.read_variable(place, "encoder/a/kernel")
        assert read.tolist() == [[0, 1, 2], [3, 4, 5]]
        with pytest.raises(ValueError, match="A checkpoint has to be in a local folder"):
            writer.write("gs://models/new", params, 7)


def test_a_tuned_model_is_not_written_to_a_bucket(bucket):
    run = tiny_runs.make_run("gs://bucket/run", **tiny_runs.MODEL_TUNING)
    with pytest.raises(ValueError, match="a tuned model needs a local folder"):
        tiny_runs.train(run)
    assert not bucket.folder.exists()
