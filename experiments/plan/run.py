"""Plans every size of T5 1.1 on slices of every TPU; one line of rows.jsonl for each.

    python -m experiments.plan.run                          what has no row yet
    python -m experiments.plan.run --only xxl v5e:4x4       only these
    python -m experiments.plan.run --largest                also the largest batch, slower

Needs `pip install '.[plan]'`, and no TPU, data or weights. It may be stopped at any time.
"""

import argparse
import importlib.metadata
import json
from pathlib import Path

from experiments.speed.rows import commit
from prompt_tuning.planning import targets

ROWS = Path(__file__).with_name("rows.jsonl")
SIZES = ("xxl", "xl", "large", "base", "small")
SLICES = (
    "v4:2x2x1", "v4:2x2x4", "v5e:2x2", "v5e:4x4", "v5p:2x2x1", "v5p:2x2x4", "v6e:2x2", "v6e:4x4",
    "tpu7x:2x2x1", "tpu7x:2x2x4",
)  # fmt: skip
PARTS = (
    "gin/tasks/boolq.gin",  # 512 inputs, 8 targets
    "gin/prompts/class_labels.gin",
    "gin/decoding/greedy.gin",
    "gin/methods/prompt_tuning.gin",
    "gin/runs/run.gin",  # batch 32, 30,000 steps
)
BINDINGS = ("MODEL_DIR='unused'", "INITIAL_CHECKPOINT_PATH='random'", "Run.param_dtype='bfloat16'")


def read(path: Path = ROWS) -> dict[tuple[str, str], dict]:
    """The newest row of each cell, by size and slice."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines]
    return {(row["size"], row["slice"]): row for row in rows}


def plan_cell(size: str, slice_name: str, largest: bool) -> dict:
    """Plans one cell; a refusal is part of the row."""
    from prompt_tuning import config
    from prompt_tuning.planning import plan, report

    run = config.load([f"gin/models/t5_1_1_{size}.gin", *PARTS], BINDINGS)
    try:
        made = plan.make(run, targets.tpu(slice_name), largest=largest)
    except ValueError as error:
        return {"error": str(error)}
    return {"error": None, **report.record(made), "looked_for_largest": largest}


def main(arguments: list[str] | None = None) -> int:
    """Plans the cells that have no row yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="SIZE_OR_SLICE")
    parser.add_argument("--largest", action="store_true")
    options = parser.parse_args(arguments)
    if unknown := set(options.only) - {*SIZES, *SLICES}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(SIZES + SLICES)}")
    sizes = [size for size in SIZES if size in options.only] or SIZES
    slices = [name for name in SLICES if name in options.only] or SLICES
    targets.use_host()
    done = read()
    for size in sizes:
        for name in slices:
            row = done.get((size, name))
            if row and (row["error"] or row["looked_for_largest"] or not options.largest):
                continue
            made = {"size": size, "slice": name} | plan_cell(size, name, options.largest)
            made |= {
                "jax": importlib.metadata.version("jax"),
                "libtpu": importlib.metadata.version("libtpu"),
                "commit": commit(),
            }
            with ROWS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(made) + "\n")
            print(json.dumps(made), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
