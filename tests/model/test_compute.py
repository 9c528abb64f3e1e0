"""Tests of prompt_tuning/model/compute.py: no choice changes what is computed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import t5x_tiny

from prompt_tuning import trees
from prompt_tuning.model import decoding
from prompt_tuning.model.compute import Compute, choose, compiler_options
from prompt_tuning.model.stacking import stack, unstack
from prompt_tuning.model.transformer import Transformer
from prompt_tuning.prompts.prompt import PROMPT_PATH, soft_prompt_hooks

CONFIG = t5x_tiny.CONFIG
VARIANTS = [
    Compute("scan"),
    Compute("scan", "layer"),
    Compute("scan", "attention"),
    Compute("unroll", "layer"),
    Compute("unroll", "attention"),
    Compute("unroll", "none", "blockwise"),
    Compute("scan", "layer", "blockwise"),
]
NAMES = ["-".join(dataclasses.astuple(variant)) for variant in VARIANTS]


@pytest.fixture(scope="module")
def params():
    prompt = np.random.default_rng(1).normal(size=(5, CONFIG.emb_dim)).astype(np.float32)
    return t5x_tiny.parameters() | {PROMPT_PATH: prompt}


@pytest.fixture(scope="module")
def batch():
    """140 positions with the prompt: two blocks of queries, the second partly filled."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(2, CONFIG.vocab_size, (3, 135)).astype(np.int32)
    tokens[1, 100:] = 0
    targets = rng.integers(2, CONFIG.vocab_size, (3, 4)).astype(np.int32)
    targets[2, 3:] = 0
    return tokens, targets


def model_of(compute, params):
    flat = stack(params) if compute.layers == "scan" else params
    return Transformer(CONFIG, soft_prompt_hooks(length=5), compute), flat


def loss_and_gradients(compute, params, batch):
    tokens, targets = batch
    model, flat = model_of(compute, params)

    def loss(flat):
        given = {"params": trees.unflatten(flat)}
        logits = model.apply(given, tokens, targets, targets)
        log_p = jax.nn.log_softmax(logits)
        chosen = jnp.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
        return -jnp.sum(chosen * (targets > 0))

    value, gradients = jax.jit(jax.value_and_grad(loss))(flat)
    return float(value), unstack(gradients)


@pytest.fixture(scope="module")
def plain(params, batch):
    return loss_and_gradients(Compute(), params, batch)


@pytest.mark.parametrize("compute", VARIANTS, ids=NAMES)
def test_loss_and_all_gradients_are_those_of_the_plain_model(compute, params, batch, plain):
    loss, gradients = loss_and_gradients(compute, params, batch)
    assert loss == pytest.approx(plain[0], rel=1e-6)
    assert gradients.keys() == plain[1].keys()
    for path, expected in plain[1].items():
        bound = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(gradients[path], expected, atol=bound, rtol=0, err_msg=path)


@pytest.mark.parametrize("strategy", [decoding.Greedy(), decoding.BeamSearch(num_beams=3)])
def test_scanned_layers_decode_alike(strategy, params, batch):
    found = []
    for compute in (Compute(), Compute("scan")):
        model, flat = model_of(compute, params)
        decoded = decoding.generate(
            model, trees.unflatten(flat), batch[0], max_decode_length=6, strategy=strategy
        )
        found.append(decoded)
    np.testing.assert_array_equal(found[0].tokens, found[1].tokens)
    np.testing.assert_allclose(found[0].scores, found[1].scores, atol=1e-5)


def test_remat_of_scanned_layers_saves_memory(params, batch):
    def temporaries(compute):
        model, flat = model_of(compute, params)
        tokens, targets = batch

        def loss(prompt, flat):
            given = {"params": trees.unflatten(flat | {PROMPT_PATH: prompt})}
            return model.apply(given, tokens, targets, targets).sum()

        compiled = jax.jit(jax.grad(loss)).lower(flat[PROMPT_PATH], flat).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    kept = temporaries(Compute("scan"))
    assert temporaries(Compute("scan", "layer")) < 0.8 * kept
    assert temporaries(Compute("scan", "attention")) < kept


@pytest.mark.parametrize(
    ("size", "backend", "expected"),
    [
        ({}, "cpu", ("unroll", "none", "plain")),
        ({"num_encoder_layers": 24, "emb_dim": 1024}, "cpu", ("scan", "layer", "plain")),
        ({"num_encoder_layers": 24, "emb_dim": 1024}, "tpu", ("scan", "none", "plain")),
        ({"num_decoder_layers": 24, "emb_dim": 4096}, "tpu", ("scan", "layer", "plain")),
    ],
)
def test_what_is_chosen(size, backend, expected):
    assert choose(dataclasses.replace(CONFIG, **size), backend) == Compute(*expected)


def test_a_cpu_that_saves_memory_converts_one_matrix_after_the_other():
    (option,) = compiler_options(Compute("scan", "layer"), "cpu").items()
    assert option == ("xla_cpu_scheduler_type", "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED")
    compiled = jax.jit(jnp.sin, compiler_options=dict([option]))  # XLA refuses unknown ones
    assert compiled(jnp.zeros(2)).shape == (2,)
    assert compiler_options(Compute("scan", "layer"), "gpu") is None
    assert compiler_options(Compute(), "cpu") is None


def test_what_is_asked_for_is_taken():
    found = choose(CONFIG, "cpu", layers="scan", remat="none", attention="blockwise")
    assert found == Compute("scan", "none", "blockwise")


def test_unknown_choices_are_refused():
    with pytest.raises(ValueError, match="Unknown layers 'scanned', did you mean 'scan'"):
        choose(CONFIG, "cpu", layers="scanned")
    with pytest.raises(ValueError, match="Unknown remat 'full'. Known: none, attention, layer"):
        Compute(remat="full")


def test_cudnn_is_refused_where_it_cannot_run():
    with pytest.raises(ValueError, match="the backend is 'cpu' and must be 'gpu'; .* 'bfloat16'"):
        choose(CONFIG, "cpu", attention="cudnn")
    config = dataclasses.replace(CONFIG, dtype="bfloat16", dropout_rate=0.0)
    assert choose(config, "gpu", attention="cudnn").attention == "cudnn"
