"""Trains, evaluates and predicts on eight virtual devices; writes what came out as JSON.

python tests/layouts.py FOLDER PROGRAMS      for FOLDER/results.json
"""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import tiny_runs

from prompt_tuning.inference.evaluate import evaluate_run
from prompt_tuning.inference.infer import infer_run
from prompt_tuning.run import Run
from prompt_tuning.training import loop

# Eight heads, so that eight devices can split them.
MODEL = dataclasses.replace(tiny_runs.MODEL, num_heads=8, head_dim=2, num_encoder_layers=2)
SCANNED = {"layers": "scan", "remat": "layer"}
CASES = {
    "plain": {},
    "int8": {"param_dtype": "int8", **SCANNED},
    "packed": {"packing": True},
    "tuned": {"prompt_length": None, "trainable": (".*/mlp/.*",), "layers": "scan"},
    "by_parts": {"microbatch_rows": 4, "loss_normalizing_factor": "NUM_REAL_TARGET_TOKENS"},
}
SEVERAL = [{"data": 8, "model": 1}, {"data": 4, "model": 2}, {"data": 2, "model": 4},
           {"data": 1, "model": 8}]  # fmt: skip
LAYOUTS = {"plain": SEVERAL} | dict.fromkeys(["int8", "packed", "tuned", "by_parts"], SEVERAL[1:2])


def make_run(folder: Path, case: str, mesh: dict[str, int] | None, **changes: object) -> Run:
    """The run of a case."""
    return tiny_runs.make_run(
        folder,
        task="generated_sentiment_true_false",
        model=MODEL,
        mesh=mesh,
        eval_rank=True,
        **CASES[case] | changes,
    )


def measure(run: Run) -> dict[str, object]:
    """Trains a run, evaluates it and predicts; returns all that is measured."""
    loop.STEPS_BETWEEN_CHECKS = 1  # so that every loss is written
    done = tiny_runs.train(run)
    metrics = tiny_runs.read_metrics(run.model_dir)
    evaluated = evaluate_run(run)
    lines = Path(infer_run(run).path).read_text().splitlines()
    return {
        "fingerprint": done.printed.partition("fingerprint ")[2].split("\n")[0],
        "computed": done.printed.partition("computed on ")[2].split("\n")[0],
        "losses": [line["loss"] for line in metrics if line["split"] == "train"],
        "gradients": [line["gradient_norm"] for line in metrics if line["split"] == "train"],
        "metrics": [line for line in metrics if line["split"] != "train"],
        "evaluated": evaluated.metrics | evaluated.rank,
        "predictions": evaluated.predictions[run.task],
        "inferred": [json.loads(line) for line in lines],
    }


def name_of(case: str, mesh: dict[str, int]) -> str:
    """The name of a case on a mesh."""
    return f"{case} {mesh['data']}x{mesh['model']}"


if __name__ == "__main__":
    jax.config.update("jax_numpy_rank_promotion", "raise")
    folder, programs = map(Path, sys.argv[1:])
    results = {}
    with tiny_runs.quick(programs):
        for case, meshes in LAYOUTS.items():
            for mesh in meshes:
                name = name_of(case, mesh)
                results[name] = measure(make_run(folder / name, case, mesh))
        # a run that begins on eight devices and ends on the one of the test, and the other way
        measure(make_run(folder / "shrinking", "plain", None, train_steps=2))
    (folder / "results.json").write_text(json.dumps(results))
