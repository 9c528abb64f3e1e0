"""Our side: the steps that `prompt-tuning train` and `prompt-tuning eval` run.

It also writes the tokenised batches that the other sides read, so that all see the same.
"""

import itertools
import os

import jax
import numpy as np

import prompt_tuning as pt
from experiments.speed.cells import EVAL_EXAMPLES, EVAL_ROWS, PROMPT, TARGETS, TRAIN_ROWS
from experiments.speed.measuring import Job, measure, read_job, report
from prompt_tuning import huge_pages
from prompt_tuning.data import batches
from prompt_tuning.inference import evaluate, loading
from prompt_tuning.inference.frozen import encode_labels
from prompt_tuning.run import Run
from prompt_tuning.training import loop, setup

PARTS = (
    "gin/models/t5_1_1_{size}.gin",
    "gin/tasks/{task}.gin",
    "gin/prompts/sampled_vocabulary.gin",
    "gin/decoding/greedy.gin",
    "gin/methods/prompt_tuning.gin",
    "gin/runs/run.gin",
)
VARIANTS = {"cudnn": {"Run.attention": "cudnn"}, "no-remat": {"Run.remat": "none"}}


def make_run(job: Job) -> Run:
    """The run of a cell."""
    cell = job.cell
    files = [part.format(size=cell.size, task=cell.task) for part in PARTS]
    settings = {
        "MODEL_DIR": os.path.join(job.folder, f"run-{os.getpid()}"),
        "DATA_DIR": job.data_dir,
        "VOCABULARY_FILE": job.vocabulary,
        "INITIAL_CHECKPOINT_PATH": "random",
        "PROMPT_LENGTH": PROMPT,
        "BATCH_SIZE": TRAIN_ROWS,
        "DROPOUT_RATE": cell.dropout,
        "TASK_FEATURE_LENGTHS": {"inputs": cell.inputs, "targets": TARGETS},
        "T5Config.dtype": cell.dtype,
        "Run.param_dtype": cell.dtype,
        "Run.eval_batch_size": EVAL_ROWS,
        "Run.eval_examples": EVAL_EXAMPLES,
        "Run.pad_to_full_length": cell.fixed,
        **VARIANTS.get(job.variant, {}),
    }
    return pt.load_run(files, **settings)


def training_steps(run: Run, count: int) -> list:
    """The first steps of a run, as its loop makes them."""
    training, steps, state = loop.begin(run)
    rng = setup.dropout_rng(run.seed) if run.model.dropout_rate else None
    made = list(itertools.islice(steps.batches, count))

    def step(batch):
        nonlocal state
        state, measured = steps.step(state, training.frozen, batch, rng)
        jax.block_until_ready((state.trainable, measured))

    return [lambda batch=batch: step(batch) for batch in made]


def evaluation_steps(run: Run, kind: str, count: int) -> list:
    """The whole set, as an evaluation decodes or ranks it."""
    task = loading.prepare_task(run)
    (examples,) = evaluate.load_eval_sets(run, task)
    t5 = loading.load_t5(run, task)
    prompt = np.random.default_rng(0).normal(size=(PROMPT, run.model.emb_dim))
    model, params = t5.with_prompt(prompt.astype(np.float32))

    def rank():
        evaluate.rank_accuracy(model, params, examples, run.eval_batch_size)

    def generate():
        ids = evaluate.predict(
            model, params, examples, strategy=run.decoding, batch_size=run.eval_batch_size
        )
        if (ids == examples.task.vocabulary.eos_id).any():
            raise ValueError("a sequence ended early; the comparison is of full lengths")

    return [rank if kind == "rank" else generate] * count


def steps_of(run: Run, kind: str, count: int) -> list:
    """The steps of a cell, each to be called; `kind` is the cell's."""
    if kind == "training":
        return training_steps(run, count)
    return evaluation_steps(run, kind, count)


def write_tokens(run: Run, job: Job) -> None:
    """Writes the same batches for the others: ids padded with 0, in the order of the steps."""
    task = loading.prepare_task(run)
    lengths = run.task_feature_lengths
    stream = batches.train_batches(task, "train", lengths, run.batch_size, run.seed)
    rows = [stream.batch(step) for step in range(job.steps)]
    (examples,) = evaluate.load_eval_sets(run, task)
    dev = examples.batch(range(len(examples)))
    np.savez(
        job.tokens,
        train_inputs=np.stack([row["encoder_input_tokens"] for row in rows]),
        train_targets=np.stack([row["decoder_target_tokens"] for row in rows]),
        dev_inputs=dev["encoder_input_tokens"],
        labels=encode_labels(task.vocabulary, task.labels),
    )


def main() -> None:
    """Runs the job that the command line names."""
    job = read_job()
    if job.variant != "small-pages":
        huge_pages.restart()  # as `prompt-tuning` does
    run = make_run(job)
    if job.variant == "tokens":
        write_tokens(run, job)
        return
    steps = steps_of(run, job.cell.kind, job.steps)
    result, device = measure(steps, job), jax.devices()[0]
    memory = device.memory_stats() or {}  # a CPU has none
    report(result, device.device_kind, memory.get("peak_bytes_in_use"))


if __name__ == "__main__":
    main()
