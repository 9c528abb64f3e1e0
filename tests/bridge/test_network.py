"""Tests of bridge/network.py: T5X's T5 with a prompt computes what ours does."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("prompt_tuning.bridge", exc_type=ImportError)

from t5x import decoding as t5x_decoding
from t5x.examples.t5 import network as t5x_network

from prompt_tuning import trees
from prompt_tuning.bridge import network
from prompt_tuning.model import decoding
from prompt_tuning.model.transformer import Transformer
from prompt_tuning.prompts.prompt import PROMPT_PATH, soft_prompt_hooks

TOKENS = ("encoder_input_tokens", "decoder_input_tokens", "decoder_target_tokens")
POSITIONS = pytest.mark.parametrize("position", ["prefix", "suffix"])


@pytest.fixture
def params(frozen, prompt):
    return trees.unflatten(trees.merge(frozen, {PROMPT_PATH: prompt}))


def tokens(batch):
    return [batch[name] for name in TOKENS]


def assert_same_logits(theirs, ours, batch):
    """At all targets; no loss, score or decoding reads the logits of padding.

    T5X masks padded queries, too; ours does not.
    """
    is_target = batch["decoder_target_tokens"] > 0
    assert 0 < is_target.sum() < is_target.size
    np.testing.assert_allclose(theirs[is_target], ours[is_target], atol=1e-5)


def test_parameters_are_where_t5x_and_the_official_code_have_them(config, batches, parity):
    module = network.transformer(config=config, prompt_length=5)
    made = jax.eval_shape(
        functools.partial(module.init, enable_dropout=False), jax.random.key(0), *tokens(batches[0])
    )
    shapes = {path: leaf.shape for path, leaf in trees.flatten(made["params"]).items()}
    assert shapes.pop("encoder/prompt/prompt/prompt") == (5, 32)
    stored = json.loads((parity / "t5x_tiny" / "params.json").read_text())
    assert shapes == {path: tuple(shape) for path, (shape, _, _) in stored.items()}
    axes = {path: tuple(leaf.names) for path, leaf in trees.flatten(made["params_axes"]).items()}
    assert axes.pop("encoder/prompt/prompt/prompt_axes") == ("prompt", "prompt_embed")
    assert axes == {f"{path}_axes": tuple(names) for path, (_, _, names) in stored.items()}


@POSITIONS
def test_logits_equal_our_own(config, params, batches, position):
    batch = batches[0]  # its rows have 12, 10, 8 and 6 tokens
    theirs = network.transformer(config=config, prompt_length=5, position=position).apply(
        {"params": params}, *tokens(batch), enable_dropout=False
    )
    ours = Transformer(config, soft_prompt_hooks(length=5, position=position)).apply(
        {"params": params}, *tokens(batch)
    )
    assert_same_logits(theirs, ours, batch)


def test_logits_equal_those_of_five_more_words(config, frozen, prompt, params, batches):
    """The prompt's vectors as rows of the embedding table, and T5X's network as it is."""
    longer = dict(frozen)
    longer["token_embedder/embedding"] = np.concatenate(
        [longer["token_embedder/embedding"], prompt]
    )
    logits = longer["decoder/logits_dense/kernel"]
    longer["decoder/logits_dense/kernel"] = np.pad(logits, ((0, 0), (0, 5)))
    plain = network.transformer(config=config, prompt_length=5).config
    inputs, *targets = tokens(batches[0])
    words = np.broadcast_to(np.arange(128, 133, dtype=np.int32), (len(inputs), 5))
    expected = t5x_network.Transformer(plain.replace(vocab_size=133)).apply(
        {"params": trees.unflatten(longer)},
        np.concatenate([words, inputs], axis=1),
        *targets,
        enable_dropout=False,
    )
    found = network.transformer(config=config, prompt_length=5).apply(
        {"params": params}, inputs, *targets, enable_dropout=False
    )
    np.testing.assert_allclose(found, expected[..., :128], atol=1e-5)


@POSITIONS
def test_greedy_decoding_through_the_cache_equals_our_own(
    config, make_model, params, batches, position
):
    greedy = functools.partial(t5x_decoding.temperature_sample, temperature=0.0, topk=1)
    model = make_model(decode_fn=greedy, network={"position": position})
    batch = dict(batches[0], decoder_input_tokens=np.zeros((4, 10), np.int32))
    theirs = model.predict_batch(params, batch, rng=jax.random.PRNGKey(0))
    ours = generate(config, params, batch, decoding.Greedy(), position)
    np.testing.assert_array_equal(theirs, ours.tokens[:, 0])


def test_beam_search_equals_our_own(config, make_model, params, batches):
    batch = dict(batches[1], decoder_input_tokens=np.zeros((4, 10), np.int32))
    theirs, aux = make_model().predict_batch_with_aux(
        params, batch, num_decodes=4, return_all_decodes=True
    )
    strategy = decoding.BeamSearch(num_beams=4, alpha=0.6)
    ours = generate(config, params, batch, strategy, "prefix", num_decodes=4)
    np.testing.assert_array_equal(theirs[:, ::-1], ours.tokens)  # T5X puts the best last
    np.testing.assert_allclose(aux["scores"][:, ::-1], ours.scores, atol=1e-4)


def generate(config, params, batch, strategy, position, **settings):
    model = Transformer(config, soft_prompt_hooks(length=5, position=position))
    with jax.numpy_rank_promotion("raise"):
        return decoding.generate(
            model, params, batch["encoder_input_tokens"], max_decode_length=10,
            strategy=strategy, rng=jax.random.key(0), **settings,
        )  # fmt: skip


def test_scores_are_the_log_probabilities_of_the_targets(config, make_model, params, batches):
    batch = batches[2]
    logits = Transformer(config, soft_prompt_hooks(length=5)).apply(
        {"params": params}, *tokens(batch)
    )
    logs = np.asarray(jax.nn.log_softmax(logits))
    targets = batch["decoder_target_tokens"]
    each = np.take_along_axis(logs, targets[..., None], axis=2)[..., 0]
    expected = (each * (targets > 0)).sum(axis=1)
    np.testing.assert_allclose(make_model().score_batch(params, batch), expected, rtol=1e-5)


def test_a_packed_batch_is_refused(config, params, batches):
    module = network.transformer(config=config, prompt_length=5)
    inputs = batches[0]["encoder_input_tokens"]
    with pytest.raises(ValueError, match="got a packed batch. Set DatasetConfig.pack=False"):
        module.apply(
            {"params": params}, inputs, jnp.ones_like(inputs), enable_dropout=False, method="encode"
        )


def test_a_prompt_without_vectors_is_refused(config):
    with pytest.raises(ValueError, match="1 or more; got 0"):
        network.transformer(config=config, prompt_length=0)
    with pytest.raises(ValueError, match=r"\('prefix', 'suffix'\); got 'infix'"):
        network.transformer(config=config, prompt_length=1, position="infix")


def test_t5x_is_not_changed_outside_of_encode(config, params, frozen, batches):
    """Without a prompt the network is the one it was, before and after."""
    module = network.transformer(config=config, prompt_length=5)
    module.apply({"params": params}, *tokens(batches[0]), enable_dropout=False)
    plain = t5x_network.Transformer(module.config)
    ours = Transformer(config).apply({"params": trees.unflatten(frozen)}, *tokens(batches[0]))
    theirs = plain.apply(
        {"params": trees.unflatten(frozen)}, *tokens(batches[0]), enable_dropout=False
    )
    assert_same_logits(theirs, ours, batches[0])
