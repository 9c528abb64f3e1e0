"""One full training step of a large T5 on a small machine, from a checkpoint on disk.

    python experiments/quantization/large.py --size=xl --batch=2 --inputs=128
    python experiments/quantization/large.py --size=xxl --batch=1 --inputs=64

Writes a checkpoint of random bfloat16 parameters, a parameter at a time; then a new process loads
it as int8 and takes two training steps of a prompt of 100 vectors. The row that it adds to
large.jsonl holds the peak of that process' resident memory after each stage, and the seconds.
"""

import argparse
import functools
import importlib
import json
import math
import os
import platform
import subprocess
import sys
import time
import zlib
from importlib import metadata

import jax
import ml_dtypes
import numpy as np

from prompt_tuning import config, paths
from prompt_tuning.checkpoints import tensor_files
from prompt_tuning.checkpoints.leaves import Leaf
from prompt_tuning.data import vocabularies
from prompt_tuning.inference import frozen
from prompt_tuning.methods import prompt_tuning
from prompt_tuning.model import compute
from prompt_tuning.model.parameters import parameter_shapes
from prompt_tuning.training.optimizers import adafactor
from prompt_tuning.training.step import TrainState, make_train_step

HERE = os.path.dirname(os.path.abspath(__file__))
FIELDS = ("size", "batch", "inputs", "param_dtype", "tensorflow")
PROMPT_LENGTH, TARGETS = 100, 8
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def write_checkpoint(model, path: str) -> None:
    """Writes random parameters under T5X's names; one that is there is used again."""
    if os.path.exists(path):
        return
    shapes = parameter_shapes(model)
    leaves = {
        name: Leaf(shapes[name], BFLOAT16, functools.partial(_draw, name, shapes[name], model))
        for name in sorted(shapes)
    }
    tensor_files.write(path + ".part", leaves, {})
    os.replace(path + ".part", path)


def _draw(name: str, shape: tuple[int, ...], model) -> np.ndarray:
    """Random values of about the size that T5 initialises them with."""
    if name.endswith("scale"):
        return np.ones(shape, BFLOAT16)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    some = rng.standard_normal(2**20, np.float32)  # repeated: all that matters is their number
    deviation = 1.0 if name.endswith("embedding") else shape[0] ** -0.5
    if "query" in name:
        deviation /= math.sqrt(model.head_dim)
    return np.resize((some * deviation).astype(BFLOAT16), shape)


def peak_gb() -> float:
    """The largest resident memory of this process so far, in 10^9 bytes."""
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024 / 1e9
    raise ValueError("Expected a VmHWM line in /proc/self/status; this needs Linux.")


def measure(options) -> dict:
    """Loads the checkpoint and takes two steps; the second one is timed."""
    if options.tensorflow:
        importlib.import_module("prompt_tuning.data.tasks")
    model = _model(options)
    row = {"stage_peak_gb": {"start": round(peak_gb(), 3)}, "seconds": {}}
    began = time.monotonic()

    def done(stage):
        nonlocal began
        row["seconds"][stage] = round(time.monotonic() - began, 2)
        row["stage_peak_gb"][stage] = round(peak_gb(), 3)
        began = time.monotonic()

    chosen = compute.choose(model, jax.default_backend())
    t5 = frozen.load_t5(
        model, options.path, vocabularies.get("byt5"), dtype=options.param_dtype, compute=chosen
    )
    done("load")
    rng = np.random.default_rng(0)
    prompt = rng.standard_normal((PROMPT_LENGTH, model.emb_dim), np.float32)
    t5_with_prompt = frozen.transformer(model, prompt_tuning.hooks(PROMPT_LENGTH, "prefix"), chosen)
    trainable = {name: jax.numpy.asarray(x) for name, x in prompt_tuning.as_params(prompt).items()}
    optimizer = adafactor()
    step = make_train_step(t5_with_prompt, optimizer)
    state = TrainState(0, trainable, optimizer.init(trainable))
    batch = _batch(model, options, rng)
    key = jax.random.key(0) if model.dropout_rate else None
    for stage in ("compile_and_step", "step"):
        state, metrics = step(state, t5.params, batch, key)
        jax.block_until_ready(metrics)
        done(stage)
    row |= {
        "loss": float(metrics.loss),
        "gradient_norm": float(metrics.gradient_norm),
        "fingerprint": t5.fingerprint,
        "compute": str(chosen),
    }
    return row


def _model(options):
    return config.read_model(f"t5_1_1_{options.size}")


def _batch(model, options, rng) -> dict[str, np.ndarray]:
    def ids(length):
        return rng.integers(2, 32_000, (options.batch, length)).astype(np.int32)

    targets = ids(TARGETS)
    return {
        "encoder_input_tokens": ids(options.inputs),
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": targets,
        "decoder_loss_weights": np.ones(targets.shape, np.float32),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="xl")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--inputs", type=int, default=128)
    parser.add_argument("--param_dtype", default="int8")
    parser.add_argument("--folder", default=".", help="for the checkpoint: XL 6 GB, XXL 22 GB")
    parser.add_argument("--delete", action="store_true", help="deletes the checkpoint afterwards")
    parser.add_argument(
        "--tensorflow",
        action="store_true",
        help="imports TensorFlow, as a run on a seqio task does",
    )
    parser.add_argument("--worker", dest="path", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.path:
        print(json.dumps(measure(options)))
        return
    path = os.path.join(paths.absolute(options.folder), f"random_{options.size}.safetensors")
    began = time.monotonic()
    write_checkpoint(_model(options), path)
    seconds = round(time.monotonic() - began, 1)
    command = [sys.executable, __file__, *sys.argv[1:], f"--worker={path}"]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    row = {
        **{name: getattr(options, name) for name in FIELDS},
        **json.loads(result.stdout.splitlines()[-1]),
        "disk_gb": round(os.path.getsize(path) / 1e9, 2),
        "write_seconds": seconds,
        "cpus": os.cpu_count(),
        "jax": metadata.version("jax"),
        "python": platform.python_version(),
    }
    with open(os.path.join(HERE, "large.jsonl"), "a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row, indent=2))
    if options.delete:
        os.remove(path)


if __name__ == "__main__":
    main()
