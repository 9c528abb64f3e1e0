"""T5X's own T5 and step, on the batches that our side trains on, padded to the cell's width.

network   the gradient of the prompt alone, through T5X's network and layers, by a jitted
          `value_and_grad`; updated by T5X's Adafactor
trainer   the step of T5X's Trainer as its programs run it: it differentiates the whole model,
          and updates the prompt alone
"""

import dataclasses

import jax
import numpy as np

from experiments.speed.cells import PROMPT, Cell
from experiments.speed.measuring import Job, measure, read_job, report
from prompt_tuning import api, trees
from prompt_tuning.bridge import network, optimizer  # before T5X, see there
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.prompts.prompt import PROMPT_PATH

# isort: split
import flax
import seqio
from t5x import adafactor, models, partitioning, trainer, utils

LEARNING_RATE = 0.3


def model_config(cell: Cell) -> T5Config:
    """The dimensions of gin/models."""
    run = api.load_run(
        [f"gin/models/t5_1_1_{cell.size}.gin", "gin/tasks/rte.gin", "gin/runs/run.gin"]
        + ["gin/prompts/sampled_vocabulary.gin", "gin/methods/prompt_tuning.gin"]
        + ["gin/decoding/greedy.gin"],
        MODEL_DIR="unused",
        INITIAL_CHECKPOINT_PATH="random",
    )
    return dataclasses.replace(run.model, dtype=cell.dtype, dropout_rate=cell.dropout)


def make_model(config: T5Config) -> models.EncoderDecoderModel:
    """As gin/t5x/model.gin."""
    vocabulary = seqio.PassThroughVocabulary(size=config.vocab_size, eos_id=1)
    inner = adafactor.Adafactor(
        decay_rate=0.8, step_offset=0, multiply_by_parameter_scale=False, weight_decay_rate=1e-5
    )
    return models.EncoderDecoderModel(
        module=network.transformer(config=config, prompt_length=PROMPT),
        input_vocabulary=vocabulary,
        output_vocabulary=vocabulary,
        optimizer_def=optimizer.prompt_only(optimizer=inner),
        z_loss=1e-4,
    )


def make_batches(job: Job) -> list[dict[str, np.ndarray]]:
    """The batches with seqio's names."""
    with np.load(job.tokens) as file:
        inputs, targets = file["train_inputs"], file["train_targets"]
    shifted = np.pad(targets, ((0, 0), (0, 0), (1, 0)))[..., :-1]
    return [
        {
            "encoder_input_tokens": inputs[step],
            "decoder_input_tokens": shifted[step],
            "decoder_target_tokens": targets[step],
            "decoder_loss_weights": (targets[step] > 0).astype(np.float32),
        }
        for step in range(job.steps)
    ]


def trainer_steps(model: models.EncoderDecoderModel, batches: list[dict]) -> list:
    """Steps of T5X's Trainer."""
    rules = partitioning.standard_logical_axis_rules(additional_rules=network.axis_rules())
    partitioner = partitioning.PjitPartitioner(num_partitions=1, logical_axis_rules=rules)
    initializer = utils.TrainStateInitializer(
        optimizer_def=model.optimizer_def,
        init_fn=model.get_initial_variables,
        input_shapes={name: array.shape for name, array in batches[0].items()},
        input_types={name: array.dtype for name, array in batches[0].items()},
        partitioner=partitioner,
    )
    training = trainer.Trainer(
        model=model,
        train_state=initializer.from_scratch(jax.random.PRNGKey(0)),
        partitioner=partitioner,
        eval_names=[],
        summary_dir=None,
        train_state_axes=initializer.train_state_axes,
        rng=jax.random.PRNGKey(1),
        learning_rate_fn=utils.create_learning_rate_scheduler(
            factors="constant", base_learning_rate=LEARNING_RATE
        ),
        num_microbatches=None,
    )

    def step(batch):
        metrics = training.train(iter([batch]), 1)
        jax.block_until_ready(training.train_state)
        metrics.result()

    return [lambda batch=batch: step(batch) for batch in batches]


def network_steps(model: models.EncoderDecoderModel, batches: list[dict]) -> list:
    """Steps that differentiate the prompt alone, through T5X's network."""
    shapes = {name: array.shape for name, array in batches[0].items()}
    variables = jax.jit(lambda: model.get_initial_variables(jax.random.PRNGKey(0), shapes))()
    frozen = trees.flatten(flax.core.unfreeze(variables["params"]))
    inner = adafactor.Adafactor(
        decay_rate=0.8, step_offset=0, multiply_by_parameter_scale=False, weight_decay_rate=1e-5
    )
    state = inner.create({"prompt": frozen.pop(PROMPT_PATH)})

    def loss(prompt, frozen, batch, rng):
        params = trees.unflatten({**frozen, PROMPT_PATH: prompt})
        return model.loss_fn(params, batch, rng)[0]

    @jax.jit
    def update(state, frozen, batch, number):
        rng = jax.random.fold_in(jax.random.PRNGKey(1), number)
        found, gradient = jax.value_and_grad(loss)(state.target["prompt"], frozen, batch, rng)
        return state.apply_gradient({"prompt": gradient}, learning_rate=LEARNING_RATE), found

    def step(number, batch):
        nonlocal state
        state, found = update(state, frozen, batch, number)
        jax.block_until_ready((state.target, found))

    return [lambda one=one: step(*one) for one in enumerate(batches)]


def main() -> None:
    """Runs the job that the command line names."""
    job = read_job()
    model = make_model(model_config(job.cell))
    make_steps = {"trainer": trainer_steps, "network": network_steps}[job.variant]
    steps = make_steps(model, make_batches(job))
    report(measure(steps, job, warm_up=2), jax.devices()[0].device_kind)


if __name__ == "__main__":
    main()
