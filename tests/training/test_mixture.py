"""One model on several tasks: what it reads, and how each is measured, by SuperGLUE's rule."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import seqio
import tiny_runs

from prompt_tuning import config
from prompt_tuning.data import registry, super_glue
from prompt_tuning.inference import evaluate
from prompt_tuning.pocket import glue_tasks, register

MIXTURE = "pocket_pair"
BOOLQ, CB, RTE = (
    super_glue.task_name(glue_tasks.BENCHMARKS["home"], task, taskless=False, examples=False)
    for task in ("boolq", "cb", "rte")
)
PARTS = [
    "gin/runs/run.gin",
    "gin/models/pocket_xs.gin",
    "gin/methods/model_tuning.gin",
    "gin/decoding/greedy.gin",
]


@pytest.fixture(scope="module")
def mixture():
    """BoolQ and CB in the proportion 3 to 1, and RTE, of which no row is drawn."""
    register.register_tasks()
    info = registry.TaskInfo("pocket_glue", MIXTURE, None, "validation", ())
    seqio.MixtureRegistry.add(MIXTURE, [(BOOLQ, 300.0), (CB, 100.0), (RTE, 0.0)])
    registry._INFO[MIXTURE] = info
    yield MIXTURE
    registry._INFO.pop(MIXTURE)
    seqio.MixtureRegistry.remove(MIXTURE)


@pytest.fixture(scope="module")
def done(mixture, compiled_programs, tmp_path_factory):
    """Four steps of model tuning, evaluated after two and four."""
    small = {"train": 60, "validation": 30, "test": 12}
    folder = tmp_path_factory.mktemp("multi_task")
    (folder / "tfds").mkdir()
    bindings = [
        f"MODEL_DIR={folder}/run", f"DATA_DIR={folder}/tfds", "INITIAL_CHECKPOINT_PATH=pocket_xs",
        f"MIXTURE_OR_TASK_NAME={mixture}", "MIXTURE_OR_TASK_MODULE=None", "TRAIN_STEPS=4",
        "TASK_FEATURE_LENGTHS={'inputs': 96, 'targets': 4}", "EVAL_PERIOD=2",
        "BATCH_TOKENS=3072", "Run.eval_rank=True",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, tiny_runs.quick(compiled_programs):
        for one in glue_tasks.PocketGlue.builder_configs.values():
            patch.setattr(one, "sizes", small)
        run = config.load(PARTS, bindings)
        trained = tiny_runs.train(run)
        elsewhere = dataclasses.replace(run, eval_output_dir=str(folder / "eval"))
        yield trained, evaluate.evaluate_run(elsewhere)


def evaluations(done):
    return [one for one in tiny_runs.read_metrics(done.run.model_dir) if one["split"] != "train"]


def test_inputs_begin_with_the_name_of_their_task(done):
    trained, evaluated = done
    assert "BATCH_TOKENS 3,072: 32 examples of 96 tokens" in trained.printed
    assert f"first example of {BOOLQ} train\n  inputs   boolq passage: " in trained.printed
    folder = Path(trained.run.model_dir).parent / "eval" / "predictions"
    for name, start in ((BOOLQ, "boolq passage: "), (CB, "cb hypothesis: "), (RTE, "rte ")):
        lines = [json.loads(line) for line in (folder / f"{name}.jsonl").open()]
        assert len(lines) == 30
        assert all(line["input"].startswith(start) for line in lines)
    assert evaluated.predictions.keys() == {BOOLQ, CB, RTE}


def test_a_task_of_rate_0_is_measured_and_not_trained_on(done):
    trained, _ = done
    assert f"{RTE} validation: 30 examples" in trained.printed
    assert f"{RTE} train" not in trained.printed


def test_each_task_is_measured_and_the_dev_score_is_superglues(done):
    trained, _ = done
    found = evaluations(trained)
    assert [one["step"] for one in found] == [2, 4]
    for one in found:
        by_task = {
            BOOLQ: {"accuracy": one[f"{BOOLQ}/accuracy"]},
            CB: {name: one[f"{CB}/{name}"] for name in ("mean_3class_f1", "accuracy")},
            RTE: {"accuracy": one[f"{RTE}/accuracy"]},
        }
        assert one["dev_score"] == pytest.approx(
            np.mean([np.mean([*metrics.values()]) for metrics in by_task.values()])
        )
        others = set(super_glue.SCORED) - {"boolq", "cb", "rte"}
        full = by_task | {member: {"accuracy": one["dev_score"]} for member in others}
        assert super_glue.superglue_score(full) == pytest.approx(one["dev_score"])
        assert {f"{name}/rank_accuracy" for name in by_task} <= one.keys()


def test_the_best_model_is_evaluated_again_alike(done):
    trained, evaluated = done
    (best,) = (one for one in evaluations(trained) if one["step"] == trained.trained.best_step)
    assert evaluated.score == pytest.approx(best["dev_score"])
    assert evaluated.metrics.items() <= best.items()


def test_the_run_of_the_paper_counts_its_batch_in_tokens():
    run = config.load(["configs/super_glue/multi_task_model_tuning.gin"])
    assert (run.batch_size, run.method.kind) == (2048, "model_tuning")
