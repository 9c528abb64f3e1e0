"""T5X's own programs, end to end: train, resume, evaluate, infer, as a user types them.

Each runs in a process of its own. Their predictions are compared with those of our `eval`.
Inference runs as `python -m t5x.infer` itself, in an environment that sets what T5X needs of jax.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

pytest.importorskip("prompt_tuning.bridge", exc_type=ImportError)

import tiny_runs

from prompt_tuning import trees
from prompt_tuning.checkpoints import checkpoint, t5x_native
from prompt_tuning.inference import evaluate
from prompt_tuning.inference.frozen import load_parameters
from prompt_tuning.prompts import files
from prompt_tuning.prompts.prompt import PROMPT_PATH

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
PARTS = ["t5x/model", "models/tiny_byt5", "tasks/generated_sentiment"]
SIZES = [f"T5Config.{name}={value}" for name, value in tiny_runs.DIMENSIONS.items()]
EXAMPLES = 24
ENVIRONMENT = """
import jax
import jax.experimental.pjit

jax.experimental.pjit.PartitionSpec = jax.sharding.PartitionSpec
"""
METRICS = "generated_sentiment-metrics.jsonl"


class Done(NamedTuple):
    """The folders of all the programs."""

    frozen: Path
    run: Path
    eval: Path
    infer: Path


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Trains 4 steps from step 100, resumes for 2, evaluates the checkpoint, infers the prompt."""
    folder = tmp_path_factory.mktemp("t5x")
    params = load_parameters(tiny_runs.MODEL, "random:1")
    frozen = Path(t5x_native.write(folder, params, 100))
    run, evaluated, inferred = (folder / name for name in ("run", "eval", "infer"))
    for steps in (104, 106):
        t5x(
            "t5x.train",
            [*PARTS, "prompts/class_labels", "t5x/train"],
            MODEL_DIR=run,
            INITIAL_CHECKPOINT_PATH=frozen,
            TRAIN_STEPS=steps,
            EVAL_PERIOD=4,
            BATCH_SIZE=8,
            **{"seqio.Evaluator.num_examples": EXAMPLES},
        )
    t5x(
        "t5x.eval",
        [*PARTS, "t5x/eval", "t5x/greedy"],
        CHECKPOINT_PATH=run / "checkpoint_106",
        EVAL_OUTPUT_DIR=evaluated,
    )
    (folder / "sitecustomize.py").write_text(ENVIRONMENT)
    t5x(
        "t5x.infer",
        [*PARTS, "t5x/infer", "t5x/prompt_file", "t5x/greedy"],
        site=folder,
        CHECKPOINT_PATH=frozen,
        PROMPT_FILE=run / "prompts" / "step_000106.safetensors",
        INFER_OUTPUT_DIR=inferred,
    )
    return Done(frozen, run, evaluated, inferred)


def t5x(program, parts, site=None, **bindings):
    """Runs a program of T5X in a process of its own, through the bridge or directly."""
    values = {name: str(x) if isinstance(x, Path) else x for name, x in bindings.items()}
    command = [sys.executable, "-m", *([] if site else ["prompt_tuning.bridge"]), program]
    command += [f"--gin_file=gin/{part}.gin" for part in parts]
    command += [f"--gin.{item}" for item in [*SIZES, "PROMPT_LENGTH=4"]]
    command += [f"--gin.{name}={value!r}" for name, value in values.items()]
    paths = [*filter(None, [site]), ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    # the bridge finds our parts from anywhere, T5X alone only from the project's folder
    with tempfile.TemporaryDirectory() as elsewhere:
        ended = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=ROOT if site else elsewhere,
            env=environment,
        )
    assert ended.returncode == 0, ended.stderr[-3000:]


def test_every_save_wrote_the_prompt_twice(done):
    saved = sorted(path.stem for path in (done.run / "prompts").glob("*.safetensors"))
    assert saved == ["step_000100", "step_000104", "step_000106"]
    for name in saved:
        prompt = files.read_prompt(done.run / "prompts" / name)
        assert prompt.metadata.step == int(name.removeprefix("step_"))
        official = f"checkpoint_{prompt.metadata.step}/encoder.prompt.prompt.prompt"
        with open(done.run / "numpy_checkpoints" / official, "rb") as file:
            np.testing.assert_array_equal(np.load(file, allow_pickle=False), prompt.prompt)


def test_the_prompt_moved_and_the_model_did_not(done):
    began, ended = (
        files.read_prompt(done.run / "prompts" / f"step_000{step}").prompt for step in (100, 106)
    )
    assert np.abs(ended - began).min() > 0
    table = checkpoint.read_variable(done.frozen, "token_embedder/embedding")
    awful = table[[ord(letter) + 3 for letter in "awful"]].mean(axis=0)
    np.testing.assert_allclose(began[0], awful, rtol=1e-6)  # from the initial checkpoint

    assert sorted(path.name for path in done.run.glob("checkpoint_*")) == ["checkpoint_106"]
    frozen, after = (
        {name: checkpoint.read_variable(path, name) for name in checkpoint.variables(path)}
        for path in (done.frozen, done.run / "checkpoint_106")
    )
    differs = trees.diff(frozen, after)
    assert differs.only_in_b == [PROMPT_PATH]
    assert not (differs.only_in_a or differs.shape or differs.value)
    np.testing.assert_array_equal(after[PROMPT_PATH], ended)
    metadata = files.read_prompt(done.run / "prompts" / "step_000106").metadata
    assert metadata.model_fingerprint == trees.fingerprint(frozen)
    assert metadata.position == "prefix"


@pytest.fixture(scope="module")
def ours(done, tmp_path_factory):
    """The result of our own `eval` for the same prompt and the same checkpoint."""
    run = tiny_runs.make_run(
        tmp_path_factory.mktemp("ours"),
        initial_checkpoint_path=str(done.frozen),
        prompt_file=str(done.run / "prompts" / "step_000106.safetensors"),
        eval_examples=None,
    )
    return evaluate.evaluate_run(run)


def test_t5x_eval_predicts_what_our_eval_predicts(done, ours):
    (written,) = (done.eval / "inference_eval").glob("generated_sentiment-*6.jsonl")
    rows = [json.loads(line) for line in written.read_text().splitlines()]
    assert [row["output"] for row in rows] == ours.predictions["generated_sentiment"]
    metrics = json.loads((done.eval / "inference_eval" / METRICS).read_text())
    assert metrics["accuracy"] == pytest.approx(ours.metrics["accuracy"])


def test_t5x_infer_with_a_prompt_file_predicts_the_same(done, ours):
    (written,) = done.infer.glob("generated_sentiment-predict.jsonl*-00001")
    rows = [json.loads(line) for line in written.read_text().splitlines()]
    assert [row["prediction"] for row in rows] == ours.predictions["generated_sentiment"]
