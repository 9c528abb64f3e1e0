"""The first thing to run: trains a prompt for a frozen model and shows its effect.

    frozen model alone -> train the prompt -> frozen model with the prompt -> side by side

It uses the public interface alone: a configuration, `load_run`, `train_run`, `evaluate_run`
and `load_model`. A second call shows the finished run.
"""

import dataclasses
import json
import os
import time

import numpy as np

from prompt_tuning import api, paths, trees
from prompt_tuning.data import batches, evaluation
from prompt_tuning.inference import evaluate, loading
from prompt_tuning.inference.evaluate import Evaluated, evaluate_run
from prompt_tuning.inference.frozen import FrozenT5
from prompt_tuning.prompts import files, show
from prompt_tuning.run import Run
from prompt_tuning.training import artifacts, plots, progress
from prompt_tuning.training.loop import Trained, train_run

CONFIG = "configs/pocket/quickstart.gin"
EXAMPLES = 3
POSITIONS = 4  # of the prompt, whose neighbours are shown
NEIGHBORS = 4


@batches.keep_loaded()  # The dev split is measured three times.
def quickstart(config: str = CONFIG, *, model_dir: str | None = None, **macros: object) -> Trained:
    """Trains a prompt and shows what it did.

    Args:
      config: the run.
      model_dir: the folder to write to, if not the configured one.
      **macros: further settings, such as `TRAIN_STEPS=100`.

    Raises:
      ValueError: see `load_run` and `train_run`.
    """
    began = time.monotonic()
    if model_dir is not None:
        macros["MODEL_DIR"] = model_dir
    run = api.load_run(config, **macros)
    artifacts.check_model_dir(run)
    frozen_run = dataclasses.replace(
        run, prompt_length=None, eval_output_dir=os.path.join(run.model_dir, "eval_frozen")
    )
    prompted_run = dataclasses.replace(
        run, eval_output_dir=os.path.join(run.model_dir, "eval_prompt")
    )
    _say(
        "What this does",
        f"{run.model.name} is a pretrained T5 that stays frozen. {run.prompt_length} vectors in "
        f"front of its input are trained on {run.task}, for {run.train_steps:,} steps.",
        f"The run is {config}; it writes to {run.model_dir}.",
        "",
    )
    _say("1. The frozen model alone")
    frozen = evaluate_run(frozen_run)
    _say("2. Training the prompt")
    trained = train_run(run)
    _say("3. The frozen model with the best prompt")
    prompted = evaluate_run(prompted_run)

    t5 = api.load_model(run.model, run.initial_checkpoint_path)
    prompt = api.load_prompt(trained.path)
    _say("Results", *_scores(run, frozen, prompted), "", *_parameters(t5, prompt))
    _say(f"The first {EXAMPLES} examples, before and after", *_examples(frozen_run, prompted_run))
    _say("The pieces of the vocabulary nearest to the prompt, with their cosines",
         *_neighbors(t5, prompt))  # fmt: skip
    _say("Files", *_places(run, trained), *_next_steps(run))
    print(f"{time.monotonic() - began:.0f} seconds in all.")
    return trained


def _say(title: str, *lines: str) -> None:
    print(f"\n== {title}", *lines, sep="\n", flush=True)


def _scores(run: Run, frozen: Evaluated, prompted: Evaluated) -> list[str]:
    """The table of scores: the best constant answer, the frozen model, the prompt."""
    sets = evaluate.load_eval_sets(run, loading.prepare_task(run))
    floors = [evaluation.majority_floor(examples).metrics for examples in sets]
    floor = {name: value for metrics in floors for name, value in metrics.items()}
    rows = [f"{'':28}{'majority':>10}{'frozen':>10}{'prompt':>10}"]
    before, after = frozen.metrics | frozen.rank, prompted.metrics | prompted.rank
    for name in after:
        least = f"{floor[name]:10.1f}" if name in floor else " " * 10
        rows.append(f"{name:28}{least}{before[name]:10.1f}{after[name]:10.1f}")
    if prompted.rank:
        rows.append("Rank accuracy only compares the likelihoods of the task's labels.")
    return rows


def _parameters(t5: FrozenT5, prompt: files.PromptFile) -> list[str]:
    return progress.parameter_table({"prompt": prompt.prompt}, t5.params).splitlines() + [
        f"One parameter was trained for every {trees.count(t5.params) // prompt.prompt.size:,} "
        "frozen ones."
    ]


def _examples(frozen_run: Run, prompted_run: Run) -> list[str]:
    lines = []
    before, after = (_predictions(run)[:EXAMPLES] for run in (frozen_run, prompted_run))
    for first, then in zip(before, after, strict=True):
        lines += [
            f"input    {first['input']}",
            f"         target {first['target']!r}, frozen {first['prediction']!r}, "
            f"with the prompt {then['prediction']!r}",
        ]
    return lines


def _predictions(run: Run) -> list[dict[str, str]]:
    folder = os.path.join(run.eval_output_dir, "predictions")
    found = []
    for name in paths.names(folder):
        lines = paths.read_bytes(os.path.join(folder, name)).splitlines()
        found += [json.loads(line) for line in lines]
    return found


def _neighbors(t5: FrozenT5, prompt: files.PromptFile) -> list[str]:
    pieces = t5.vocabulary.pieces()
    table = np.asarray(t5.embeddings())[: len(pieces)]
    found = show.nearest(prompt.prompt[:POSITIONS], table, NEIGHBORS)
    return [
        f"{position:4}  " + "  ".join(f"{pieces[token]} {cosine:.2f}" for token, cosine in row)
        for position, row in enumerate(found)
    ]


def _places(run: Run, trained: Trained) -> list[str]:
    size = len(paths.read_bytes(trained.path)) / 1000
    return [
        f"{trained.path}  the prompt, {size:.1f} kB, with metadata",
        f"{plots.learning_curve(run.model_dir)}  the learning curve",
        f"{run.model_dir}/eval_prompt/predictions  every prediction",
        "",
    ]


def _next_steps(run: Run) -> list[str]:
    return [
        "Next:",
        f"  prompt-tuning prompt show {run.model_dir}/prompts/best",
        f"  prompt-tuning infer --gin_file={run.model_dir}/config.gin --input=YOUR_TEXTS.txt",
        f"  prompt-tuning train --gin_file={CONFIG} --gin.PROMPT_LENGTH=4 --gin.MODEL_DIR=runs/p4",
        "  notebooks/quickstart.ipynb, and README.md",
        f"Running this again shows the same run; `rm -r {run.model_dir}` starts over.",
    ]
