"""A method in a user's own package, README's example: everything works without a change to ours."""

import dataclasses
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import tiny_runs

from prompt_tuning import config, trees
from prompt_tuning.data import batches
from prompt_tuning.inference import evaluate, infer, loading
from prompt_tuning.prompts import files, show
from prompt_tuning.training import loop

pytestmark = pytest.mark.usefixtures("quick")

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SECTION = README.split("## A method of your own\n")[1].split("\n## ")[0]
CODE = re.search(r"```python\n(.*?)```", SECTION, re.DOTALL)[1]
ADDED = {
    "encoder/prompt/prompt/inputs": (4, 16),
    "encoder/prompt/prompt/Dense_0/kernel": (16, 8),
    "encoder/prompt/prompt/Dense_0/bias": (8,),
    "encoder/prompt/prompt/Dense_1/kernel": (8, 16),
    "encoder/prompt/prompt/Dense_1/bias": (16,),
}


def load_run(model_dir, *bindings):
    """From gin, as `prompt-tuning train` reads it."""
    parts = [name for name in tiny_runs.BINDINGS if "PROMPT_LENGTH" not in name]
    own = [
        f"MODEL_DIR={model_dir}",
        "TRAIN_STEPS=6",
        "EVAL_PERIOD=2",
        "Run.method=@my_methods.mlp_prompt()",
        "mlp_prompt.length=4",
        "mlp_prompt.hidden=8",
        "adafactor.learning_rate=0.03",
    ]
    return config.load(tiny_runs.PARTS, [*parts, *own, *bindings])


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("package")
    (folder / "my_methods.py").write_text(CODE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


@pytest.fixture(scope="module")
def done(package, quick, tmp_path_factory):
    return tiny_runs.train(load_run(tmp_path_factory.mktemp("mlp") / "run"))


def arrays(model_dir, name):
    return files.read(Path(model_dir) / "prompts" / name).arrays


def test_it_trains_all_that_it_adds(done):
    first, last = (arrays(done.run.model_dir, f"step_00000{n}") for n in (2, 6))
    assert {path: array.shape for path, array in last.items()} == ADDED
    assert all((first[path] != last[path]).any() for path in ADDED)
    assert done.trained.path == f"{done.run.model_dir}/prompts/best.safetensors"
    assert not (Path(done.run.model_dir) / "best").exists(), "no parameter of the model trains"
    assert not list(Path(done.run.model_dir).rglob("*.npy")), "which would be a plain prompt's"


def test_its_file_records_its_method(done):
    metadata = files.read(done.trained.path).metadata
    assert (metadata.kind, metadata.position) == ("mlp_prompt", "")
    assert metadata.settings == {"length": 4, "hidden": 8}
    assert (metadata.model, metadata.task) == ("tiny_byt5", "generated_sentiment")
    assert metadata.step == done.trained.best_step


def test_its_file_can_be_shown(done):
    lines = show.summary(done.trained.path).splitlines()
    assert "array    encoder/prompt/prompt/inputs (4, 16)" in lines
    assert "method   mlp_prompt" in lines


def test_stopped_and_resumed_it_ends_the_same(done, tmp_path, monkeypatch):
    make = batches.TrainBatches.batch

    def batch(self, step):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return make(self, step)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(batches.TrainBatches, "batch", batch)
        loop.train_run(load_run(tmp_path))
    loop.train_run(load_run(tmp_path))
    for name in ("step_000006", "best"):
        resumed, whole = (arrays(folder, name) for folder in (tmp_path, done.run.model_dir))
        assert all(resumed[path].tobytes() == whole[path].tobytes() for path in ADDED)
    assert tiny_runs.read_metrics(tmp_path) == tiny_runs.read_metrics(done.run.model_dir)


def test_it_evaluates_and_infers(done, tmp_path):
    run = config.load([f"{done.run.model_dir}/config.gin"])  # the resolved configuration
    run = dataclasses.replace(run, eval_output_dir=str(tmp_path))
    assert evaluate.evaluate_run(run).score == done.trained.best_score
    loaded = loading.load_trained(run, loading.prepare_task(run))
    assert loaded.what == f"mlp_prompt {done.trained.path}"
    flat, best = trees.flatten(loaded.params), arrays(done.run.model_dir, "best")
    assert all(flat[path].tobytes() == best[path].tobytes() for path in ADDED)
    (tmp_path / "texts.txt").write_text("the film was fine .\n")
    inferred = infer.infer_run(
        run, str(tmp_path / "texts.txt"), str(tmp_path / "predictions.jsonl")
    )
    assert inferred.examples == 1


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (["INITIAL_CHECKPOINT_PATH=random:1"], "was made for tiny_byt5 with fingerprint"),
        (["mlp_prompt.hidden=9"], "was trained with mlp_prompt.hidden = 8, but this run has 9"),
    ],
)
def test_its_file_is_refused_for_another_model_or_setting(done, tmp_path, bindings, message):
    run = load_run(tmp_path, f"PROMPT_FILE={done.trained.path}", *bindings)
    with pytest.raises(ValueError, match=message):
        evaluate.evaluate_run(run)


def test_the_file_of_another_method_is_refused_by_both_names(done, prompted, tmp_path):
    plain = dataclasses.replace(prompted.run, prompt_file=done.trained.path)
    with pytest.raises(ValueError, match="the method mlp_prompt trained, but .* is prompt_tuning"):
        evaluate.evaluate_run(plain)
    own = load_run(tmp_path, f"PROMPT_FILE={prompted.trained.path}")
    with pytest.raises(ValueError, match="the method prompt_tuning trained, but .* is mlp_prompt"):
        evaluate.evaluate_run(own)


def test_the_same_seed_starts_the_same(package, tmp_path):
    starts = []
    for seed in (0, 0, 1):
        own = load_run(tmp_path / f"{len(starts)}", f"RANDOM_SEED={seed}")
        training, steps, state = loop.begin(own)
        starts.append(np.array(state.trainable["encoder/prompt/prompt/inputs"]))
        steps.close()
        training.close()
    np.testing.assert_array_equal(starts[0], starts[1])
    assert (starts[0] != starts[2]).all()
