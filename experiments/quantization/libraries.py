"""Our int8 products beside those of qwix, in a whole T5: error, time and memory.

    pip install --no-deps qwix==0.1.8       # in an environment of its own
    python experiments/quantization/libraries.py

Both get the same random T5 1.1 Small, with scores and norms in float32, a batch of 8 with 128
inputs and a prompt of 100 vectors. Measured is a forward pass with the gradient of the prompt. The
reference is the float32 model. The rows are added to libraries.jsonl.
"""

import argparse
import dataclasses
import json
import math
import os
import platform
import time
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np
import qwix

from prompt_tuning import config, trees
from prompt_tuning.inference import frozen
from prompt_tuning.methods import prompt_tuning
from prompt_tuning.model import layers, matmul, quantization
from prompt_tuning.prompts.prompt import PROMPT_PATH

layers.Attention.absorbs = lambda *_: False  # PtqProvider's matrices can only be multiplied
HERE = os.path.dirname(os.path.abspath(__file__))
PROMPT_LENGTH, TARGETS = 100, 8
MATRICES = ".*"


def multiply(x, kernel, scale=None, *, rounds_x=False, contracted=1, features, dtype):
    """`matmul.multiply` with the product as qwix needs to see it: the parameter itself."""
    if scale is not None:
        kept = {"contracted": contracted, "features": features, "dtype": dtype}
        return _multiply(x, kernel, scale, rounds_x=rounds_x, **kept)
    rows = x.reshape(-1, math.prod(x.shape[-contracted:]))
    y = jax.lax.dot_general(rows, kernel, (((1,), (0,)), ((), ())))
    return y.reshape(*x.shape[:-contracted], *features)


_multiply, matmul.multiply = matmul.multiply, multiply


def variants(model, floats):
    """Yields name, model and parameters of each way to quantise."""
    yield "float32", model, floats
    for kind in quantization.KINDS:
        made = (quantization.quantize(path, np.asarray(x), kind) for path, x in floats.items())
        yield f"ours {kind}", model, trees.merge(*made)
    for name, act in (("weight-only", None), ("w8a8", jnp.int8)):
        rules = [qwix.QuantizationRule(module_path=MATRICES, weight_qtype=jnp.int8, act_qtype=act)]
        quantised = qwix.quantize_model(model, qwix.PtqProvider(rules))
        yield f"qwix PtqProvider {name}", quantised, ptq_params(quantised, floats)
        rules = [qwix.QtRule(module_path=MATRICES, weight_qtype=jnp.int8, act_qtype=act)]
        yield f"qwix QtProvider {name}", qwix.quantize_model(model, qwix.QtProvider(rules)), floats


def ptq_params(model, floats):
    tokens = jnp.ones((1, 4), jnp.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), tokens, tokens, tokens)["params"]
    made = qwix.quantize_params(trees.unflatten(floats), shapes)
    return trees.flatten(made)


def measure(model, flat, prompt, batch, repeats):
    """Logits, gradient of the prompt, seconds of one call, bytes of the parameters."""
    inputs, targets, weights = batch
    frozen_leaves = {path: leaf for path, leaf in flat.items() if path != PROMPT_PATH}

    @jax.jit
    def run(prompt, frozen_leaves):
        def loss(prompt):
            params = trees.unflatten(frozen_leaves | {PROMPT_PATH: prompt})
            logits = model.apply({"params": params}, inputs, targets, targets)
            return jnp.vdot(logits, weights), logits

        return jax.value_and_grad(loss, has_aux=True)(prompt)

    seconds = []
    for _ in range(repeats + 1):
        began = time.monotonic()
        (_, logits), gradient = jax.block_until_ready(run(prompt, frozen_leaves))
        seconds.append(time.monotonic() - began)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(frozen_leaves))
    return np.asarray(logits), np.asarray(gradient), seconds[1:], size


def error(found, exact):
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="small")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    t5 = dataclasses.replace(config.read_model(f"t5_1_1_{options.size}"), dtype="float32")
    rng = np.random.default_rng(0)
    prompt = rng.standard_normal((PROMPT_LENGTH, t5.emb_dim), np.float32)
    inputs, targets = (rng.integers(2, 32_000, (8, n)).astype(np.int32) for n in (128, TARGETS))
    weights = rng.standard_normal((8, TARGETS, t5.vocab_size), np.float32)
    model = frozen.transformer(t5, prompt_tuning.hooks(PROMPT_LENGTH, "prefix"))
    floats = frozen.load_parameters(t5, "random") | {PROMPT_PATH: jnp.asarray(prompt)}
    exact = None
    for name, one, flat in variants(model, floats):
        logits, gradient, seconds, size = measure(
            one, flat, prompt, (inputs, targets, weights), options.repeats
        )
        exact = exact or (logits, gradient)
        row = {
            "variant": name,
            "size": options.size,
            "output_error": error(logits, exact[0]),
            "gradient_error": error(gradient, exact[1]),
            "seconds": seconds,
            "parameter_bytes": size,
            "jax": metadata.version("jax"),
            "qwix": metadata.version("qwix"),
            "python": platform.python_version(),
        }
        print(
            f"{name:30} output {row['output_error']:.4f} gradient {row['gradient_error']:.4f} "
            f"{min(seconds):.3f} s {size / 1e6:.0f} MB"
        )
        with open(os.path.join(HERE, "libraries.jsonl"), "a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
