"""Makes a pocket model: span corruption, then LM adaptation, then float16 files with a card.

    random_repeats ──span──> span/checkpoint_500 ──adapt──> adapt/checkpoint_{0,640,3200,6400}
                                                 └─span_only──> span_only/checkpoint_6400

Each stage is a run of configs/pocket in its own folder. It resumes if it was interrupted, and a
finished one is skipped. A stage starts from the parameters of the previous one, with a new
optimizer state. The two stages that follow `span` have the same number of steps (Lester et al.
2021, section 3.2 and figure 3c).
"""

import dataclasses
import datetime
import json
import math
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from prompt_tuning import folders, paths, trees
from prompt_tuning.inference import evaluate, loading
from prompt_tuning.inference.frozen import load_parameters, transformer
from prompt_tuning.model.parameters import parameter_shapes
from prompt_tuning.pocket import models
from prompt_tuning.pocket.repeats import RANDOM_REPEATS
from prompt_tuning.prompts.metadata import library_versions
from prompt_tuning.run import Run
from prompt_tuning.training import progress, settings
from prompt_tuning.training.loop import train_run

LoadRun = Callable[[Sequence[str], Sequence[str]], Run]  # config.load


class Recipe(NamedTuple):
    """Steps and learning rates of a size; linear warm-up (100 steps or a tenth), linear decay to 0.

    Learning rates are relative to the scale of a parameter. That of span corruption is low:
    a higher one destroys the initial attention (`pocket/repeats.py`) that LM adaptation needs.
    """

    span_steps: int
    span_learning_rate: float
    adapt_steps: int
    adapt_learning_rate: float  # span_only takes span_learning_rate
    batch_size: int


RECIPES = {
    "pocket_xs": Recipe(500, 0.005, 6_400, 0.02, 64),
    "pocket_s": Recipe(500, 0.005, 6_400, 0.02, 64),
    "pocket_m": Recipe(500, 0.005, 6_400, 0.02, 64),
    "pocket_l": Recipe(500, 0.005, 3_200, 0.02, 64),
    "pocket_xl": Recipe(500, 0.005, 3_200, 0.02, 64),
}
KEPT_PERCENT = (0, 10, 50, 100)  # of LM adaptation
SET_BY_RECIPE = (
    "MODEL_DIR",
    "INITIAL_CHECKPOINT_PATH",
    "TRAIN_STEPS",
    "EVAL_PERIOD",
    "BATCH_SIZE",
    "LEARNING_RATE",
    "WARMUP_STEPS",
    "RANDOM_SEED",
    "Run.checkpoint_steps",
)


class Stage(NamedTuple):
    """The settings of one run."""

    name: str
    config: str
    start: str  # INITIAL_CHECKPOINT_PATH
    steps: int
    kept_steps: tuple[int, ...]
    learning_rate: float
    batch_size: int
    seed: int


class Probe(NamedTuple):
    """A task that checkpoints are measured on."""

    name: str  # 'prefix_lm' or 'span_corruption'
    run: Run
    sets: list[Any]


def pretrain(
    size: str,
    load_run: LoadRun,
    *,
    model_dir: str | None = None,
    out: str | None = None,
    span_only: bool = False,
    steps_scale: float = 1.0,
    seed: int = 0,
    bindings: Sequence[str] = (),
) -> str:
    """Pretrains one size and exports it; resumes after an interruption.

    Args:
      size: 'pocket_xs' to 'pocket_xl'.
      load_run: `config.load`.
      model_dir: the folder of the stages' runs; None is runs/pretrain_SIZE.
      out: the folder to export to; None is the cache folder, in which the size is found by name
        (unless it is shipped).
      span_only: also train the span-corruption-only stage.
      steps_scale: multiplies all step counts.
      seed: of the initial parameters and the order of the documents.
      bindings: further settings of every stage, such as 'PocketCorpus.documents=100000'.

    Returns:
      The folder exported to.

    Raises:
      ValueError: an unknown size, a setting that the recipe fixes, or a stage begun with other
        settings.
    """
    began = time.monotonic()
    model_dir = paths.local(model_dir or os.path.join("runs", f"pretrain_{size}"), "A stage")
    out = paths.local(out or str(models.cache_folder() / size), "A pocket model")
    _check(size, steps_scale, bindings)
    stages = make_stages(RECIPES[size], model_dir, span_only, steps_scale, seed)
    total = sum(stage.steps for stage in stages)
    listed = ", then ".join(f"{stage.name} ({stage.steps:,} steps)" for stage in stages)
    print(f"{size}: {listed}; in {model_dir}, exported to {out}")
    if (models.ASSETS / size).is_dir():
        print(f"{size!r} still names the shipped model; use the new one by its file in {out}")
    records, done = [], 0
    for number, stage in enumerate(stages, start=1):
        print(f"== stage {number} of {len(stages)}: {stage.name}, from {stage.start}")
        run = _load(size, stage, model_dir, load_run, bindings)
        records.append(_train(stage, run, load_run))
        done += stage.steps
        spent = sum(record["seconds"] for record in records)
        left = progress.human_time(spent / done * (total - done))
        print(f"== {stage.name} done; ETA {left}, export not included")
    card = {
        "model": size,
        "command": _command(size, span_only, steps_scale, seed, bindings),
        "parameters": sum(math.prod(shape) for shape in parameter_shapes(run.model).values()),
        "corpus": records[0]["corpus"],
        "stages": [{key: one[key] for key in one if key != "corpus"} for one in records],
        "hardware": f"{os.cpu_count()} x {platform.machine()}, {jax.devices()[0].device_kind}",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": library_versions(),
    }
    probes = _probes(size, stages, model_dir, load_run, bindings)
    _export(size, out, stages, model_dir, probes, card)
    took = progress.human_time(time.monotonic() - began)
    print(f"exported {size} to {out} in {took}; see {os.path.join(out, 'README.md')}")
    return out


def make_stages(
    recipe: Recipe, model_dir: str, span_only: bool, steps_scale: float = 1.0, seed: int = 0
) -> list[Stage]:
    """Lists the stages of a model.

    >>> [stage.kept_steps for stage in make_stages(RECIPES['pocket_s'], 'runs/s', True)]
    [(500,), (0, 640, 3200, 6400), (6400,)]
    """
    span_steps = max(2, round(recipe.span_steps * steps_scale))
    adapt_steps = max(2, round(recipe.adapt_steps * steps_scale))
    kept = tuple(dict.fromkeys(_step_at(percent, adapt_steps) for percent in KEPT_PERCENT))
    start = os.path.join(model_dir, "span", f"checkpoint_{span_steps}")
    made = [
        Stage("span", "pretrain_span.gin", f"{RANDOM_REPEATS}:{seed}", span_steps, (span_steps,),
              recipe.span_learning_rate, recipe.batch_size, seed),
        Stage("adapt", "pretrain_adapt.gin", start, adapt_steps, kept,
              recipe.adapt_learning_rate, recipe.batch_size, seed),
        # Another seed, or the documents would repeat in the order of the first stage.
        Stage("span_only", "pretrain_span_only.gin", start, adapt_steps, (adapt_steps,),
              recipe.span_learning_rate, recipe.batch_size, seed + 1),
    ]  # fmt: skip
    return made if span_only else made[:2]


def _step_at(percent: int, steps: int) -> int:
    return round(steps * percent / 100)


def _check(size: str, steps_scale: float, bindings: Sequence[str]) -> None:
    if size not in RECIPES:
        raise ValueError(f"There is no pocket model {size!r}; the sizes are {', '.join(RECIPES)}.")
    if not steps_scale > 0:
        raise ValueError(f"steps_scale must be above 0; got {steps_scale}.")
    for binding in bindings:
        name = binding.partition("=")[0].strip()
        if name in SET_BY_RECIPE:
            raise ValueError(
                f"{name} is set by the recipe of {size}. Use --steps_scale or --seed, or train "
                "a single stage, such as configs/pocket/pretrain_span.gin."
            )


def _load(
    size: str, stage: Stage, model_dir: str, load_run: LoadRun, bindings: Sequence[str]
) -> Run:
    gin_files = [f"gin/models/{size}.gin", f"configs/pocket/{stage.config}"]
    own = {
        "MODEL_DIR": os.path.join(model_dir, stage.name),
        "INITIAL_CHECKPOINT_PATH": stage.start,
        "TRAIN_STEPS": stage.steps,
        "EVAL_PERIOD": max(1, stage.steps // 4),
        "BATCH_SIZE": stage.batch_size,
        "LEARNING_RATE": stage.learning_rate,
        "WARMUP_STEPS": max(1, min(100, stage.steps // 10)),
        "RANDOM_SEED": stage.seed,
        "Run.checkpoint_steps": list(stage.kept_steps),
    }
    return load_run(gin_files, [*(f"{name}={value!r}" for name, value in own.items()), *bindings])


def _train(stage: Stage, run: Run, load_run: LoadRun) -> dict[str, Any]:
    """Trains a stage unless it is finished; returns its entry in the card."""
    path = os.path.join(run.model_dir, "stage.json")
    is_first = stage.start.startswith(RANDOM_REPEATS)
    record = {
        "name": stage.name, "from": stage.start if is_first else "span", "steps": stage.steps,
        "batch_size": stage.batch_size, "learning_rate": stage.learning_rate, "seconds": 0.0,
        "corpus": dataclasses.asdict(run.local_tasks[0]),
    }  # fmt: skip
    kept = {"config": run.config_text, "is_done": False, "record": record}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            kept = json.load(file)
    if kept["config"] != run.config_text and not _is_same(run, kept["config"], load_run):
        raise ValueError(
            f"{run.model_dir} holds this stage with other settings. Set them back to resume, or "
            "choose another --model_dir."
        )
    if kept["is_done"]:
        print(f"{stage.name} is finished already, in {run.model_dir}")
        return kept["record"]
    os.makedirs(run.model_dir, exist_ok=True)
    _write(path, kept)  # before the first step, so that a killed stage keeps its settings
    began = time.monotonic()
    try:
        train_run(run)
        kept["is_done"] = True
    finally:
        kept["record"]["seconds"] += time.monotonic() - began
        _write(path, kept)
    return kept["record"]


def _is_same(run: Run, config_text: str, load_run: LoadRun) -> bool:
    """Whether a configuration, as an earlier version wrote it, is that of a run."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "config.gin")
        with open(path, "w", encoding="utf-8") as file:
            file.write(config_text)
        kept = load_run([path], ())
    same_steps = kept.checkpoint_steps == run.checkpoint_steps
    return same_steps and settings.settings(kept) == settings.settings(run)


def _write(path: str, stage: dict[str, Any]) -> None:
    folders.replace_file(path, json.dumps(stage, indent=2).encode())


def _probes(
    size: str, stages: list[Stage], model_dir: str, load_run: LoadRun, bindings: Sequence[str]
) -> list[Probe]:
    probes = []
    for stage, name in zip(stages, ("span_corruption", "prefix_lm"), strict=False):
        run = _load(size, stage, model_dir, load_run, bindings)
        run = dataclasses.replace(run, eval_examples=None)
        sets = evaluate.load_eval_sets(run, loading.prepare_task(run))
        probes.append(Probe(name, run, sets))
    return probes


def _export(
    size: str,
    out: str,
    stages: list[Stage],
    model_dir: str,
    probes: list[Probe],
    card: dict[str, Any],
) -> None:
    """Writes the exported checkpoints in float16, and the card."""
    steps = {stage.name: stage.steps for stage in stages}
    sources = {
        str(percent): ("adapt", _step_at(percent, steps["adapt"])) for percent in KEPT_PERCENT
    }
    if "span_only" in steps:
        sources["span"] = ("span_only", steps["span_only"])
    card["checkpoints"] = {}
    for variant, (folder, step) in sources.items():
        path = os.path.join(model_dir, folder, f"checkpoint_{step}")
        params = load_parameters(probes[0].run.model, path)
        exact = _measure(params, probes)
        coarse = _measure(
            {name: value.astype(np.float32) for name, value in models.in_float16(params).items()},
            probes,
        )
        written = models.export(out, variant, params)
        card["checkpoints"][f"{size}@{variant}"] = {
            "step": steps["span"] + step,
            **written,
            "probe_scores": coarse,
            "float16_less_float32": {name: coarse[name] - exact[name] for name in exact},
        }
        listed = "  ".join(f"{name} {score:.2f}" for name, score in coarse.items())
        print(f"{size}@{variant}: {listed}")
    models.write_card(out, card)


def _measure(params: trees.FlatTree, probes: list[Probe]) -> dict[str, float]:
    nested = trees.unflatten(params)
    model = transformer(probes[0].run.model)
    return {
        probe.name: evaluate.measure_all(model, nested, probe.sets, probe.run).score
        for probe in probes
    }


def _command(
    size: str, span_only: bool, steps_scale: float, seed: int, bindings: Sequence[str]
) -> str:
    words = ["prompt-tuning pretrain", size]
    words += ["--span_only"] if span_only else []
    words += [f"--steps_scale={steps_scale:g}"] if steps_scale != 1 else []
    words += [f"--seed={seed}"] if seed else []
    return " ".join([*words, *(f"--gin.{binding}" for binding in bindings)])
