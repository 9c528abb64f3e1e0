"""The cost of prompts of its own for each row: a mixed batch against one prompt for all rows.

    python experiments/mixed_prompts/measure.py generation
    python experiments/mixed_prompts/measure.py training

T5 1.1 Small, random weights. The 32 prompts of the mixed batch have 20 to 100 vectors, the single
one 100, so both batches have equally many positions. Runs of the two alternate; prints one JSON
object with the seconds of every run.
"""

import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable

import jax
import numpy as np

from prompt_tuning import config, huge_pages
from prompt_tuning.data import vocabularies
from prompt_tuning.inference.frozen import FrozenT5, load_t5
from prompt_tuning.methods import prompt_tuning
from prompt_tuning.methods.mixing import mixed_arrays, mixed_hooks
from prompt_tuning.model import decoding
from prompt_tuning.model.inputs import as_inputs
from prompt_tuning.training.optimizers import adafactor
from prompt_tuning.training.step import TrainState, make_train_step

ROWS, TOKENS, TARGETS, LONGEST, SHORTEST = 32, 128, 16, 100, 20
DROPOUT, LEARNING_RATE = 0.1, 0.3
PAIRS = 20
NEVER = -1  # an EOS that is never generated: all rows are decoded to the end

Run = Callable[[], None]


def draw_prompts(width: int) -> list[np.ndarray]:
    """One prompt for each row, 20 to 100 vectors."""
    random = np.random.default_rng(0)
    lengths = np.linspace(SHORTEST, LONGEST, ROWS).astype(int)
    return [random.uniform(-0.5, 0.5, (n, width)).astype(np.float32) for n in lengths]


def draw_tokens(length: int) -> np.ndarray:
    """Ids without padding."""
    return np.random.default_rng(1).integers(2, 32_000, (ROWS, length)).astype(np.int32)


def generation(t5: FrozenT5, prompts: list[np.ndarray]) -> tuple[Run, Run]:
    """Greedy decoding of 16 tokens."""
    tokens, ids = draw_tokens(TOKENS), np.arange(ROWS, dtype=np.int32)
    single = t5.with_prompt(prompts[-1])
    *mixed, lengths = t5.with_prompts(prompts)
    inputs = as_inputs(tokens)._replace(prompt_ids=ids, prompt_lengths=lengths[ids])

    def run(model, params, inputs):
        decoded = decoding.generate(model, params, inputs, max_decode_length=TARGETS, eos_id=NEVER)
        jax.block_until_ready(decoded)

    return lambda: run(*single, tokens), lambda: run(*mixed, inputs)


def training(t5: FrozenT5, prompts: list[np.ndarray]) -> tuple[Run, Run]:
    """Steps with dropout, gradient and Adafactor."""
    targets = draw_tokens(TARGETS)
    batch = {
        "encoder_input_tokens": draw_tokens(TOKENS),
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": targets,
        "decoder_loss_weights": np.ones(targets.shape, np.float32),
    }
    ids = {"prompt_ids": np.arange(ROWS, dtype=np.int32)}
    methods = [prompt_tuning.prompt_tuning(length=len(prompt)) for prompt in prompts]
    arrays = [prompt_tuning.as_params(prompt) for prompt in prompts]
    optimizer = adafactor(learning_rate=LEARNING_RATE)
    rng = jax.random.key(0)

    def steps(hooks, own, batch) -> Run:
        step = make_train_step(t5.with_hooks(hooks, {})[0], optimizer)
        own = {path: jax.numpy.array(leaf) for path, leaf in own.items()}
        state = TrainState(0, own, optimizer.init(own))

        def run():
            nonlocal state
            state, measured = step(state, t5.params, batch, rng)
            jax.block_until_ready((state.trainable, measured))

        return run

    return (
        steps(methods[-1].hooks, arrays[-1], batch),
        steps(mixed_hooks(methods), mixed_arrays(arrays), batch | ids),
    )


def seconds_of(run: Run) -> float:
    """The time of one run."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> None:
    """Measures what the command line names."""
    huge_pages.restart()  # as `prompt-tuning` does
    (what,) = sys.argv[1:]
    sizes = dataclasses.replace(config.read_model("t5_1_1_small"), dropout_rate=DROPOUT)
    # Ids are drawn, so no text needs this vocabulary.
    t5 = load_t5(sizes, "random", vocabularies.family("byt5").vocabulary)
    kinds = {"generation": generation, "training": training}
    single, mixed = kinds[what](t5, draw_prompts(sizes.emb_dim))
    for run in (single, mixed, single, mixed):  # compiled, and warm
        run()
    found = {"single": [], "mixed": []}
    runs = {"single": single, "mixed": mixed}
    for pair in range(PAIRS):
        for name in sorted(found, reverse=bool(pair % 2)):  # each is first equally often
            found[name].append(round(seconds_of(runs[name]), 4))
    ratio = statistics.median(found["mixed"]) / statistics.median(found["single"])
    medians = {f"median_{name}": statistics.median(x) for name, x in found.items()}
    versions = {"jax": jax.__version__, "python": sys.version.split()[0]}
    print(json.dumps({"what": what, "ratio": round(ratio, 4)} | medians | found | versions))


if __name__ == "__main__":
    main()
