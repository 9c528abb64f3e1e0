"""Decoding with the small T5X model whose results were stored by T5X itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import t5x_tiny
from flax import linen as nn

from prompt_tuning import trees
from prompt_tuning.model.decoding import (
    BeamSearch,
    Decoded,
    Sample,
    generate,
    rank,
    score,
)
from prompt_tuning.model.hooks import Hooks
from prompt_tuning.model.transformer import Transformer

CONFIG = t5x_tiny.CONFIG
MODEL = Transformer(CONFIG)
LENGTH = 10


@pytest.fixture(scope="module")
def vectors(parity):
    return dict(np.load(parity / "t5x_tiny/vector.npz"))


@pytest.fixture(scope="module")
def params():
    return trees.unflatten(t5x_tiny.parameters())


@pytest.fixture(scope="module")
def inputs(vectors):
    return vectors["input:encoder_input_tokens"]


@pytest.fixture(scope="module")
def greedy(params, inputs):
    return generate(MODEL, params, inputs, max_decode_length=LENGTH)


def sample(params, inputs, seed):
    return generate(
        MODEL,
        params,
        inputs,
        max_decode_length=LENGTH,
        strategy=Sample(temperature=0.8),
        num_decodes=5,
        rng=jax.random.key(seed),
    )


def padded(targets):
    """Pads to the one length that all tests share, so that each function is compiled once."""
    return np.pad(targets, ((0, 0), (0, LENGTH - targets.shape[1])))


# What T5X computed


def test_greedy_equals_t5x(greedy, vectors):
    assert greedy.tokens.shape == (4, 1, LENGTH)
    np.testing.assert_array_equal(greedy.tokens[:, 0], vectors["output:greedy_len10"])


def test_beam_search_equals_t5x_best_first(params, inputs, vectors):
    decoded = generate(
        MODEL, params, inputs, max_decode_length=LENGTH, strategy=BeamSearch(), num_decodes=4
    )
    np.testing.assert_array_equal(decoded.tokens, vectors["output:beam4_len10"][:, ::-1])
    np.testing.assert_allclose(decoded.scores, vectors["output:beam4_scores"][:, ::-1], atol=1e-4)


def test_scores_equal_t5x(params, inputs, vectors):
    scores = score(MODEL, params, inputs, padded(vectors["input:decoder_target_tokens"]))
    np.testing.assert_allclose(scores, vectors["output:scores"], atol=1e-4)


# Cache


def test_cached_steps_equal_the_whole_target(params, inputs):
    targets = jax.random.randint(jax.random.key(3), (8, LENGTH), 1, 128)  # two for each input
    fed = jnp.pad(targets, ((0, 0), (1, 0)))[:, :-1]

    @jax.jit
    def start(params):
        bound = MODEL.bind({"params": params})
        encoded = bound.encode(inputs)
        cache = bound.start_decoding(encoded, rows=8, length=LENGTH)
        return bound.decode(encoded, fed, targets), cache, encoded.inputs

    @jax.jit
    def step(params, tokens, cache, index, read):
        return MODEL.apply({"params": params}, tokens, cache, index, method="decode_step")

    whole, cache, read = start(params)
    for i in range(LENGTH):
        logits, cache = step(params, fed[:, i : i + 1], cache, jnp.int32(i), read)
        np.testing.assert_allclose(logits, whole[:, i], atol=1e-4)


def test_beams_share_the_keys_of_their_input(params, inputs):
    def start():
        bound = MODEL.bind({"params": params})
        return bound.start_decoding(bound.encode(inputs), rows=4 * 3, length=LENGTH)

    cache = jax.eval_shape(start)
    assert cache.layers[0].self_keys.shape == (12, LENGTH, 4, 8)
    assert cache.layers[0].cross_keys.shape == (4, 12, 4, 8)


def test_the_encoder_runs_once(params, inputs):
    runs = []

    class Counter(nn.Module):
        def __call__(self, embedded, inputs):
            jax.debug.callback(lambda: runs.append(1))
            return embedded

    counting = Transformer(CONFIG, Hooks(encoder_input=Counter))
    generate(counting, params, inputs, max_decode_length=4, strategy=BeamSearch(num_beams=2))
    rank(counting, params, inputs, jnp.array([[5, 1], [6, 1], [7, 1]]))
    jax.effects_barrier()
    assert len(runs) == 2


def test_a_second_call_does_not_compile_again(params, inputs, greedy):
    compiled = generate._cache_size()
    generate(MODEL, params, inputs[::-1], max_decode_length=LENGTH)
    generate(Transformer(CONFIG), params, inputs, max_decode_length=LENGTH)
    assert generate._cache_size() == compiled


def test_inputs_do_not_influence_each_other(params, inputs, greedy):
    order = np.array([3, 0, 2, 2])
    decoded = generate(MODEL, params, inputs[order], max_decode_length=LENGTH)
    np.testing.assert_array_equal(decoded.tokens, greedy.tokens[order])
    np.testing.assert_allclose(decoded.scores, greedy.scores[order], rtol=1e-5)


def test_any_id_may_be_the_eos(params, inputs, greedy):
    """Some id that greedy decoding writes in the middle; 1 is then a token like any other."""
    eos_id = int(greedy.tokens[0, 0, 2])
    assert eos_id > 1
    decoded = generate(MODEL, params, inputs, max_decode_length=LENGTH, eos_id=eos_id)
    assert decoded.tokens[0, 0, 2] == eos_id and not decoded.tokens[0, 0, 3:].any()
    for before, row in zip(np.asarray(greedy.tokens[:, 0]), decoded.tokens[:, 0], strict=True):
        ended = eos_id in before and 1 not in before[: before.tolist().index(eos_id)]
        if ended:
            end = before.tolist().index(eos_id) + 1
            np.testing.assert_array_equal(row, np.pad(before[:end], (0, LENGTH - end)))
    scores = score(MODEL, params, inputs, decoded.tokens[:, 0])
    np.testing.assert_allclose(decoded.scores[:, 0], scores, atol=1e-4)


def test_id_1_counts_in_a_score_like_any_other_and_padding_does_not(params, inputs):
    """A label of a vocabulary whose EOS is 5, token by token from the logits."""
    label = np.array([7, 1, 5], np.int32)
    targets = padded(np.tile(label, (4, 1)))
    fed = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
    logits = MODEL.apply({"params": params}, inputs, fed, targets)
    logs = np.asarray(jax.nn.log_softmax(logits))
    expected = logs[:, [0, 1, 2], label].sum(axis=1)
    np.testing.assert_allclose(score(MODEL, params, inputs, targets), expected, atol=1e-4)
    ranked = rank(MODEL, params, inputs, padded(np.tile(label, (4, 1))))
    np.testing.assert_allclose(ranked[:, 0], expected, atol=1e-4)


# How strategies relate


def test_sampling_without_choice_is_greedy(params, inputs, greedy):
    decoded = generate(
        MODEL,
        params,
        inputs,
        max_decode_length=LENGTH,
        strategy=Sample(top_k=1),
        rng=jax.random.key(0),
    )
    np.testing.assert_array_equal(decoded.tokens, greedy.tokens)
    np.testing.assert_allclose(decoded.scores, greedy.scores, rtol=1e-6)


def test_one_beam_is_greedy(params, inputs, greedy):
    decoded = generate(
        MODEL, params, inputs, max_decode_length=LENGTH, strategy=BeamSearch(num_beams=1)
    )
    np.testing.assert_array_equal(decoded.tokens, greedy.tokens)
    np.testing.assert_allclose(decoded.scores, greedy.scores, rtol=1e-5)


def test_reported_scores_are_those_of_the_sequences(params, inputs, greedy):
    drawn = sample(params, inputs, seed=12)
    tokens = np.asarray(drawn.tokens)
    ended = (tokens == 1).any(axis=-1)
    assert ended.any() and not ended.all()  # both kinds are put to the test
    for k in range(5):
        expected = score(MODEL, params, inputs, tokens[:, k])
        np.testing.assert_allclose(drawn.scores[:, k], expected, atol=1e-4)
    expected = score(MODEL, params, inputs, greedy.tokens[:, 0])
    np.testing.assert_allclose(greedy.scores[:, 0], expected, atol=1e-4)


def test_several_samples_come_best_first_and_padded_after_eos(params, inputs):
    drawn = sample(params, inputs, seed=0)
    assert drawn.tokens.shape == (4, 5, LENGTH)
    assert (np.diff(drawn.scores, axis=1) < 0).all()
    for sequence in np.asarray(drawn.tokens).reshape(-1, LENGTH).tolist():
        if 1 in sequence:
            assert not any(sequence[sequence.index(1) + 1 :])
    assert len({tuple(row) for row in np.asarray(drawn.tokens[0]).tolist()}) == 5


def test_the_rng_decides_the_sample(params, inputs):
    first, again, other = (sample(params, inputs, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.tokens, again.tokens)
    assert (first.tokens != other.tokens).any()


def test_rank_agrees_with_scoring_each_label(params, inputs):
    labels = padded(np.array([[44, 1, 0], [102, 122, 1], [67, 118, 1], [118, 1, 0]], np.int32))
    ranked = rank(MODEL, params, inputs, labels)
    assert ranked.shape == (4, 4)
    assert len(set(ranked.argmax(axis=1).tolist())) > 1
    one_by_one = np.stack(
        [score(MODEL, params, inputs, np.tile(label, (4, 1))) for label in labels], axis=1
    )
    np.testing.assert_allclose(ranked, one_by_one, atol=1e-4)
    assert ranked.argmax(axis=1).tolist() == one_by_one.argmax(axis=1).tolist()


def test_bfloat16_activations_decode(inputs, params):
    model = Transformer(dataclasses.replace(CONFIG, dtype="bfloat16"))
    decoded = generate(model, params, inputs, max_decode_length=4, strategy=BeamSearch(num_beams=2))
    assert decoded.scores.dtype == jnp.float32
    assert np.isfinite(decoded.scores).all()


def test_a_strategy_of_your_own(params, inputs, greedy):
    @dataclasses.dataclass(frozen=True)
    class RepeatFirst:
        """Repeats the likeliest first token."""

        def __call__(self, decoder, *, max_decode_length, num_decodes, eos_id, rng):
            cache = decoder.start(1, max_decode_length)
            start = jnp.zeros((decoder.batch_size,), jnp.int32)
            logits, _ = decoder.step(start, cache, jnp.int32(0))
            first = jnp.argmax(logits, axis=-1).astype(jnp.int32)[:, None, None]
            return Decoded(jnp.tile(first, max_decode_length), jnp.zeros((decoder.batch_size, 1)))

    decoded = generate(MODEL, params, inputs, max_decode_length=3, strategy=RepeatFirst())
    np.testing.assert_array_equal(decoded.tokens, np.tile(greedy.tokens[:, :, :1], 3))


# What is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_decodes": 2}, "one result per input, got num_decodes=2. Use Sample"),
        ({"strategy": BeamSearch(2), "num_decodes": 3}, "Raise BeamSearch.num_beams"),
        ({"strategy": Sample()}, r"pass rng=jax.random.key\(seed\), got None"),
        ({"max_decode_length": 0}, "of 1 or more, got 0 and 1"),
    ],
)
def test_what_generate_refuses(params, inputs, settings, message):
    with pytest.raises(ValueError, match=message):
        generate(MODEL, params, inputs, **{"max_decode_length": 3, **settings})


def test_score_needs_one_target_per_input(params, inputs):
    with pytest.raises(ValueError, match="got 4 inputs and 3 targets. `rank` scores several"):
        score(MODEL, params, inputs, jnp.ones((3, 2), jnp.int32))


def test_ranking_holds_the_logits_of_one_position(inputs, params):
    """[B * C, V], not [B * C, L, V]."""
    labels = np.array([[5, 6, 7, 8, 1], [9, 8, 7, 6, 1], [3, 1, 0, 0, 0]], np.int32)
    traced = str(jax.make_jaxpr(lambda params: rank(MODEL, params, inputs, labels))(params))
    rows, vocabulary = len(inputs) * 3, MODEL.config.vocab_size
    assert f"f32[{rows},{vocabulary}]" in traced
    assert f"f32[{rows},5,{vocabulary}]" not in traced
