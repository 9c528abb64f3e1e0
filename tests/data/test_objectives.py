"""Pretraining objectives: what span corruption and the prefix LM make, written out by hand."""

import types

import numpy as np
import pytest
import tensorflow as tf

from prompt_tuning.data import objectives

SPELT = {5: "?", 6: "x"}
VOCABULARY = types.SimpleNamespace(
    vocab_size=100,
    eos_id=1,
    encode=lambda text: [{"?": 5, "x": 6}[piece] for piece in text.split()],
    decode=lambda ids: " ".join(SPELT[i] for i in ids),
)
FEATURES = {"targets": types.SimpleNamespace(vocabulary=VOCABULARY)}


def blocks(*rows):
    columns = {"targets": tf.ragged.constant(rows, tf.int32), "index": tf.range(len(rows))}
    return tf.data.Dataset.from_tensors(columns)


def made(dataset):
    return [
        {key: value.tolist() for key, value in row.items()}
        for row in dataset.unbatch().as_numpy_iterator()
    ]


def test_a_sentinel_replaces_each_run_counted_down_from_the_last_id():
    tokens = tf.constant([[10, 11, 12, 13, 14], [20, 21, 0, 0, 0]])
    noise = tf.constant([[0, 1, 1, 0, 1], [0, 1, 0, 0, 0]]) == 1
    text = tf.constant([[1, 0, 0, 1, 0], [1, 0, 0, 0, 0]]) == 1
    inputs = objectives._replace(tokens, keep=text, spans=noise, first=99)
    targets = objectives._replace(tokens, keep=noise, spans=text, first=99)
    assert inputs.to_list() == [[10, 99, 13, 98], [20, 99]]
    assert targets.to_list() == [[99, 11, 12, 98, 14], [99, 21]]


@pytest.mark.parametrize(
    ("size", "noise", "spans"),
    [(1, 0, 0), (2, 1, 1), (10, 2, 1), (70, 10, 3), (100, 15, 5), (30, 4, 1), (90, 14, 5)],
)
def test_the_noise_is_rounded_as_in_t5(size, noise, spans):
    """0.15 * 70 = 10.5 and 0.15 * 30 = 4.5 are rounded to even; 14 / 3 to 5."""
    index = tf.range(20)
    mask = objectives.noise_mask(tf.fill([20], size), 0.15, 3.0, 0, index).numpy()
    assert mask.shape == (20, size)
    assert (mask.sum(axis=1) == noise).all()
    begins = mask & ~np.pad(mask, ((0, 0), (1, 0)))[:, :-1]
    assert (begins.sum(axis=1) == spans).all()
    assert not mask[:, 0].any() and (mask[:, -1].all() or size == 1)


def test_every_way_to_place_the_spans_is_equally_likely():
    """Of 6 tokens 2 are noise in 2 spans: the 4 others fall into two stretches, 3 ways."""
    mask = objectives.noise_mask(tf.fill([3000], 6), 1 / 3, 1.0, 0, tf.range(3000)).numpy()
    ways, counts = np.unique(mask, axis=0, return_counts=True)
    assert ways.astype(int).tolist() == [
        [0, 0, 0, 1, 0, 1], [0, 0, 1, 0, 0, 1], [0, 1, 0, 0, 0, 1],
    ]  # fmt: skip
    assert (abs(counts - 1000) < 120).all()


def test_input_and_target_together_are_the_row():
    rows = [list(range(10, 10 + size)) for size in (2, 7, 20, 41, 80)]
    for row, one in zip(rows, made(objectives.span_corruption(blocks(*rows), FEATURES))):
        assert one["inputs"][-1] == one["targets"][-1] == 1
        spans, sentinel = {}, None
        for token in one["targets"][:-1]:
            sentinel = token if token > 90 else sentinel
            spans.setdefault(sentinel, []).extend([] if token > 90 else [token])
        filled = [t for token in one["inputs"][:-1] for t in spans.get(token, [token])]
        assert filled == row
        assert list(spans) == list(range(99, 99 - len(spans), -1))


def test_a_row_depends_on_the_seed_and_its_index_alone():
    row = list(range(10, 60))
    alone = blocks(row).map(lambda block: {**block, "index": block["index"] + 2})
    first, _, third = made(objectives.span_corruption(blocks(row, row[:9], row), FEATURES))
    assert made(objectives.span_corruption(alone, FEATURES)) == [third]
    assert first["inputs"] != third["inputs"]
    assert made(objectives.span_corruption(alone, FEATURES, seed=1)) != [third]


def test_documents_are_joined_and_cut():
    joined = made(objectives.join_documents(blocks([5, 6, 7], [8, 9, 10, 11]), length=3))
    assert joined == [{"targets": [5, 6, 7], "index": 0}, {"targets": [8, 9, 10], "index": 1}]
    with pytest.raises(ValueError, match="7 tokens together, .* is 8 long; ask for more"):
        objectives.join_documents(blocks([5, 6, 7], [8, 9, 10, 11]), length=8)


def test_a_prefix_ends_after_the_question_mark():
    rows = [[8, 9, 5, 10], [8, 5, 10, 11, 12, 13, 14], [8, 9, 10, 11, 5, 12, 13, 14]]
    split = objectives.prefix_lm(
        blocks(*rows), FEATURES, split_after_rate=1.0, max_input_tokens=3, max_target_tokens=3
    )
    assert [(one["inputs"], one["targets"]) for one in made(split)] == [
        ([8, 9, 5, 1], [10, 1]),  # the document ends, and with it the target
        ([8, 5, 1], [10, 11, 12]),  # cut: no EOS
        ([10, 11, 5, 1], [12, 13, 14, 1]),
    ]


def test_where_there_is_no_question_the_split_is_anywhere():
    """A mark at the very end leaves nothing to write, so it counts as none."""
    rows = [[8, 9, 10, 5]] * 3000
    split = made(objectives.prefix_lm(blocks(*rows), FEATURES, split_after_rate=1.0))
    counts = np.bincount([len(one["inputs"]) - 1 for one in split])
    assert counts[0] == 0 and len(counts) == 4
    assert (abs(counts[1:] - 1000) < 120).all()


def test_the_rate_and_the_choice_among_several():
    rows = [[5, 8, 5, 9, 10, 11, 12, 13, 14, 15]] * 4000
    split = made(objectives.prefix_lm(blocks(*rows), FEATURES, split_after_rate=0.5))
    shares = np.bincount([len(one["inputs"]) - 1 for one in split]) / 4000
    expected = 0.5 / 9 + np.array([0.25, 0, 0.25, 0, 0, 0, 0, 0, 0])
    assert np.allclose(shares[1:], expected, atol=0.03)


def test_a_row_of_one_token_is_left_out_and_a_phrase_is_no_piece():
    assert made(objectives.prefix_lm(blocks([8], [8, 9]), FEATURES))[0]["index"] == 1
    with pytest.raises(ValueError, match="must be one piece of the vocabulary; '. x' has"):
        objectives.prefix_lm(blocks([8, 9]), FEATURES, split_after="? x")
