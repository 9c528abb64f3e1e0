"""Three seeds of one run, trained together and one after the other: how long each takes.

    python -m experiments.together.measure --data_dir TFDS --vocabulary spiece.model

Both are the command `prompt-tuning train`, once with SEEDS and three times with RANDOM_SEED, and
take turns. A line of results.jsonl is one of them:

    side      'together' or 'alone'
    seconds   from the start of the first process to the end of the last one
    step      seconds of a training step of all three seeds, compilation and evaluation excluded
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

from experiments.speed import rows

RESULTS = Path(__file__).with_name("results.jsonl")
PARTS = ["prompts/sampled_vocabulary", "decoding/greedy", "methods/prompt_tuning", "runs/run"]
SEEDS = (0, 1, 2)


def main() -> None:
    options = _options()
    for _ in range(options.rounds):
        for side in ("alone", "together"):
            record = _measure(side, options)
            rows.append(RESULTS, record)
            print(record, flush=True)


def _measure(side: str, options: argparse.Namespace) -> dict:
    with tempfile.TemporaryDirectory(dir=options.work_dir) as folder:
        cache = Path(options.work_dir, f"compiled-{side}-{options.size}-{options.task}")
        if options.cold:
            shutil.rmtree(cache, ignore_errors=True)
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
        runs = [f"RANDOM_SEED={seed}" for seed in SEEDS]
        began, rates = time.monotonic(), []
        for number, one in enumerate([f"SEEDS={SEEDS}"] if side == "together" else runs):
            command = _command(options, [one, f"MODEL_DIR={folder}/{number}"])
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(done.stdout + done.stderr)
            rates.append(float(re.findall(r"([\d.]+) examples/s", done.stdout)[-1]))
        seconds = time.monotonic() - began
    of_all = options.batch_size * len(SEEDS)
    step = of_all / rates[0] if side == "together" else sum(options.batch_size / x for x in rates)
    return {
        "side": side,
        "size": options.size,
        "task": options.task,
        "batch_size": options.batch_size,
        "train_steps": options.steps,
        "seconds": round(seconds, 1),
        "step": round(step, 3),
        "hardware": rows.hardware(),
        "versions": {"python": platform.python_version(), "jax": metadata.version("jax")},
        "commit": rows.commit(),
    }


def _command(options: argparse.Namespace, bindings: list[str]) -> list[str]:
    parts = [f"models/t5_1_1_{options.size}", f"tasks/{options.task}", *PARTS]
    settings = {
        "DATA_DIR": options.data_dir,
        "VOCABULARY_FILE": options.vocabulary,
        "INITIAL_CHECKPOINT_PATH": "random",
        "TASK_FEATURE_LENGTHS": {"inputs": 512, "targets": 8},
        "BATCH_SIZE": options.batch_size,
        "TRAIN_STEPS": options.steps,
        "EVAL_PERIOD": options.steps,
        "Run.eval_examples": 32,
        "Run.eval_batch_size": 32,
    }
    return [
        sys.executable, "-m", "prompt_tuning.cli", "train",
        *(f"--gin_file=gin/{part}.gin" for part in parts),
        *(f"--gin.{name}={value}" for name, value in settings.items()),
        *(f"--gin.{each}" for each in bindings),
    ]  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data_dir", required=True, help="see `prompt-tuning data prepare`")
    parser.add_argument("--vocabulary", required=True, help="sentencepiece model")
    parser.add_argument("--size", default="small")
    parser.add_argument("--task", default="rte")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--work_dir", default=tempfile.gettempdir())
    parser.add_argument("--cold", action="store_true", help="compile in every round")
    return parser.parse_args()


if __name__ == "__main__":
    main()
