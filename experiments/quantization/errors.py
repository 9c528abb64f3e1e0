"""Relative error of the logits and of the prompt's gradient, by the type of the frozen parameters.

    python experiments/quantization/errors.py

The reference is float32. pocket_s is pretrained and reads the first 32 training examples of
PocketGLUE BoolQ; T5 1.1 Small is random and reads random ids, 8 x 128. The prompt's vectors are
random rows of the embedding table, and the gradient is that of the training loss. The table is
written to errors.md, the rows to errors.jsonl.
"""

import dataclasses
import json
import os
from importlib import metadata

import jax
import numpy as np

from prompt_tuning import config, trees
from prompt_tuning.data import batches, tasks, vocabularies
from prompt_tuning.inference import frozen
from prompt_tuning.methods import prompt_tuning
from prompt_tuning.model.losses import cross_entropy_loss
from prompt_tuning.pocket import register
from prompt_tuning.prompts.initializers import from_sampled_vocabulary
from prompt_tuning.prompts.prompt import PROMPT_PATH

HERE = os.path.dirname(os.path.abspath(__file__))
PROMPT_LENGTH = 16
# type of the parameters, type of the activations
TYPES = (
    ("float32", "float32"),
    ("bfloat16", "bfloat16"),
    ("int8", "float32"),
    ("int8", "bfloat16"),
    ("int8_w8a8", "float32"),
    ("int8_w8a8", "bfloat16"),
)


def pocket_batch() -> dict[str, np.ndarray]:
    register.register_tasks()
    task = tasks.get("taskless_pocket_glue_boolq_v100")
    stream = batches.train_batches(task, "train", {"inputs": 32, "targets": 4}, 32, seed=0)
    return next(stream)


def random_batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    inputs, targets = (rng.integers(2, 32_000, (8, n)).astype(np.int32) for n in (128, 8))
    return {
        "encoder_input_tokens": inputs,
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": targets,
        "decoder_loss_weights": np.ones(targets.shape, np.float32),
    }


def outcome(model, checkpoint, param_dtype, dtype, batch):
    """Logits, and the gradient of the prompt."""
    model = dataclasses.replace(model, dtype=dtype)
    t5 = frozen.load_t5(model, checkpoint, vocabularies.get("byt5"), dtype=param_dtype)
    exact = frozen.load_parameters(model, checkpoint)["token_embedder/embedding"]
    prompt = from_sampled_vocabulary(
        jax.random.key(0), (PROMPT_LENGTH, model.emb_dim), embeddings=exact
    )
    transformer = frozen.transformer(model, prompt_tuning.hooks(PROMPT_LENGTH, "prefix"))

    @jax.jit
    def run(prompt, frozen_leaves):
        def loss(prompt):
            params = trees.unflatten(frozen_leaves | {PROMPT_PATH: prompt})
            logits = transformer.apply(
                {"params": params},
                batch["encoder_input_tokens"],
                batch["decoder_input_tokens"],
                batch["decoder_target_tokens"],
            )
            value, _ = cross_entropy_loss(
                logits, batch["decoder_target_tokens"], batch["decoder_loss_weights"]
            )
            return value, logits

        (_, logits), gradient = jax.value_and_grad(loss, has_aux=True)(prompt)
        return logits, gradient

    real = batch["decoder_target_tokens"] > 0
    logits, gradient = jax.device_get(run(prompt, t5.params))
    return logits[real], gradient, trees.size_in_bytes(t5.params)


def main() -> None:
    register.register_models()
    pocket, small = config.read_model("pocket_s"), config.read_model("t5_1_1_small")
    models = (
        ("pocket_s", pocket, "pocket_s", pocket_batch()),
        ("T5 1.1 Small, random", small, "random", random_batch()),
    )
    lines = [
        "| model | parameters | activations | logits | gradient | cosine | MB |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    rows = []
    for name, model, checkpoint, batch in models:
        exact = None
        for param_dtype, dtype in TYPES:
            logits, gradient, size = outcome(model, checkpoint, param_dtype, dtype, batch)
            exact = exact or (logits, gradient)
            row = {
                "model": name,
                "param_dtype": param_dtype,
                "dtype": dtype,
                "logits_error": _error(logits, exact[0]),
                "gradient_error": _error(gradient, exact[1]),
                "gradient_cosine": _cosine(gradient, exact[1]),
                "parameter_mb": size / 1e6,
                "jax": metadata.version("jax"),
            }
            rows.append(row)
            lines.append(
                f"| {name} | {param_dtype} | {dtype} | {row['logits_error']:.4f} "
                f"| {row['gradient_error']:.4f} | {row['gradient_cosine']:.4f} "
                f"| {row['parameter_mb']:.1f} |"
            )
            print(lines[-1], flush=True)
    with open(os.path.join(HERE, "errors.jsonl"), "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    with open(os.path.join(HERE, "errors.md"), "w") as file:
        file.write("\n".join(lines) + "\n")


def _error(found, exact) -> float:
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def _cosine(found, exact) -> float:
    return float(np.vdot(found, exact) / np.linalg.norm(found) / np.linalg.norm(exact))


if __name__ == "__main__":
    main()
