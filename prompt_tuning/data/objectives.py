"""Training rows from text: span corruption and the prefix LM, for blocks of rows.

    document          at the quiz . leo is in the cellar . is leo in the cellar ? True .

    span corruption   at the <0> leo is in the cellar . is leo <1> cellar ? True .
                      <0> quiz . <1> in the                        (Raffel et al. 2020, 3.1.4)

    prefix LM         at the quiz . leo is in the cellar . is leo in the cellar ?
                      True .                                       (Lester et al. 2021, 3.2)

The functions are seqio preprocessors. They work on blocks of rows, many times as fast as on
one row at a time: `in_blocks` first, `one_by_one` last. All randomness in a row depends on a seed
and the row's number alone, so every process makes the same rows.
"""

import itertools
from collections.abc import Mapping

import numpy as np

from prompt_tuning.data.tensorflow_import import seqio, tf

BLOCK = 4096  # rows


def in_blocks(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Takes rows together; every step below works on a block of them at a time."""
    return dataset.batch(BLOCK)


def one_by_one(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Takes blocks apart into rows again."""
    return dataset.unbatch()


def tokenize(
    dataset: tf.data.Dataset, output_features: Mapping[str, seqio.Feature]
) -> tf.data.Dataset:
    """Turns the text in 'targets' into token ids."""
    vocabulary = output_features["targets"].vocabulary

    def encode(texts):  # The tokenizer's own Python is four times as fast as TensorFlow Text.
        rows = vocabulary.tokenizer.EncodeAsIds([text.decode() for text in texts.tolist()])
        ids = np.fromiter(itertools.chain.from_iterable(rows), np.int32)
        return ids, np.array([len(row) for row in rows], np.int64)

    def add(block):
        ids, sizes = tf.numpy_function(encode, [block["targets"]], [tf.int32, tf.int64])
        rows = tf.RaggedTensor.from_row_lengths(tf.ensure_shape(ids, [None]), sizes)
        return {**block, "targets": rows}

    return dataset.map(add)


def join_documents(dataset: tf.data.Dataset, *, length: int) -> tf.data.Dataset:
    """Joins token rows end to end and cuts them again, each `length` long; the rest is dropped.

    Raises:
      ValueError: the dataset is shorter than one row.
    """
    tokens = np.concatenate([block["targets"].flat_values.numpy() for block in dataset])
    count = len(tokens) // length
    if not count:
        raise ValueError(
            f"The documents have {len(tokens)} tokens together, and a row of span corruption is "
            f"{length} long; ask for more documents or set PocketCorpus.span_corruption_tokens."
        )
    table = tokens[: count * length].reshape(count, length)
    rows = tf.data.Dataset.from_tensor_slices({"targets": table, "index": np.arange(count)})
    return in_blocks(rows)


def span_corruption(
    dataset: tf.data.Dataset,
    output_features: Mapping[str, seqio.Feature],
    *,
    noise_density: float = 0.15,
    mean_span_length: float = 3.0,
    seed: int = 0,
) -> tf.data.Dataset:
    """Takes spans out of each row; the target is what was taken out.

    As T5 does it: the noise is round(length * noise_density) tokens in round(noise /
    mean_span_length) spans, at least one of either; stretches of text and spans alternate,
    text first, and all ways to do so are equally likely. In the input a sentinel replaces
    each span, in the target each stretch of text: the vocabulary's last id
    first, then downwards. Both end with EOS; the target has no closing sentinel.

    Args:
      dataset: blocks of 'targets', token ids without EOS, and 'index'.
      output_features: seqio's; they hold the vocabulary.
      noise_density, mean_span_length: see above.
      seed: together with a row's index decides its spans.
    """
    vocabulary = output_features["targets"].vocabulary

    def corrupt(block):
        tokens, sizes = _padded(block["targets"])
        noise = noise_mask(sizes, noise_density, mean_span_length, seed, block["index"])
        text = ~noise & tf.sequence_mask(sizes, tf.shape(tokens)[1])
        first = vocabulary.vocab_size - 1
        return {
            "index": block["index"],
            "inputs": _ended(_replace(tokens, keep=text, spans=noise, first=first), vocabulary),
            "targets": _ended(_replace(tokens, keep=noise, spans=text, first=first), vocabulary),
        }

    return dataset.map(corrupt)


def noise_mask(
    sizes: tf.Tensor, noise_density: float, mean_span_length: float, seed: int, index: tf.Tensor
) -> tf.Tensor:
    """Chooses the tokens that span corruption takes out, True where it does.

    Args:
      sizes: tokens of each row [B]; a row of one token keeps it.
      noise_density, mean_span_length: see `span_corruption`.
      seed, index: a number, and one for each row [B]; they decide.

    Returns:
      [B, T], T the longest row.
    """
    width = tf.reduce_max(sizes)
    whole = tf.maximum(sizes, 2)
    noise = _rounded(tf.cast(whole, tf.float32) * noise_density)
    noise = tf.clip_by_value(noise, 1, whole - 1)
    spans = tf.maximum(_rounded(tf.cast(noise, tf.float32) / mean_span_length), 1)
    # Sorted by (part, text before span), the items of both kinds are in the row's order.
    text_keys = 2 * _random_parts(whole - noise, spans, _random(seed, index, 0, width))
    span_keys = 2 * _random_parts(noise, spans, _random(seed, index, 1, width)) + 1
    keys = tf.sort(tf.concat([text_keys, span_keys], axis=1), axis=1)[:, :width]
    return (keys % 2 == 1) & tf.sequence_mask(sizes, width)


def _rounded(number: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.round(number), tf.int32)


def _random_parts(totals: tf.Tensor, parts: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Splits `totals` items [B] into `parts` parts, each at least one, all ways equally likely.

    Returns:
      The part of each item [B, T]; where there is no item a large even number.
    """
    width = tf.shape(draws)[1]
    # The borders are those of the totals - 1 gaps that drew the lowest numbers.
    gaps = tf.sequence_mask(totals - 1, width)
    ranks = tf.argsort(tf.argsort(tf.where(gaps, draws, 2.0), axis=1), axis=1)
    borders = tf.cast(ranks < (parts - 1)[:, None], tf.int32)
    part = tf.cumsum(borders, axis=1, exclusive=True)
    return tf.where(tf.sequence_mask(totals, width), part, 1_000_000)


def _replace(
    tokens: tf.Tensor, *, keep: tf.Tensor, spans: tf.Tensor, first: int
) -> tf.RaggedTensor:
    """Puts one sentinel for each run of `spans` in each row: `first`, then the id below."""
    begins = spans & ~tf.pad(spans[:, :-1], [[0, 0], [1, 0]])
    sentinels = first + 1 - tf.cumsum(tf.cast(begins, tokens.dtype), axis=1)
    return tf.ragged.boolean_mask(tf.where(begins, sentinels, tokens), begins | keep)


def prefix_lm(
    dataset: tf.data.Dataset,
    output_features: Mapping[str, seqio.Feature],
    *,
    split_after: str = "?",
    split_after_rate: float = 0.85,
    max_input_tokens: int = 63,
    max_target_tokens: int = 4,
    seed: int = 0,
) -> tf.data.Dataset:
    """Splits each document in two: the model reads the first part and writes what follows.

    The input always ends with EOS, as the input of every task does. The target has EOS only
    if it reaches the end of the document: after a cut it would teach the model to stop in
    mid-sentence.

    Args:
      dataset: blocks of 'targets', token ids without EOS, and 'index'; rows of fewer
        than two tokens are left out.
      output_features: seqio's; they hold the vocabulary.
      split_after: a piece of the vocabulary.
      split_after_rate: how often the split is right after such a piece, each of them equally
        likely, in the documents that have one. Otherwise it is anywhere.
      max_input_tokens: tokens kept of the first part, its last ones.
      max_target_tokens: tokens kept of the second part, its first ones.
      seed: together with a document's index decides its split.

    Raises:
      ValueError: split_after is not one piece of the vocabulary.
    """
    vocabulary = output_features["targets"].vocabulary
    piece = _single_piece(vocabulary, split_after)

    def split(block):
        tokens, sizes = _padded(block["targets"])
        long_enough = sizes > 1
        tokens, sizes = tokens[long_enough], sizes[long_enough]
        index = block["index"][long_enough]
        place = _split_place(tokens, sizes, piece, split_after_rate, seed, index)[:, None]
        at = tf.range(tf.shape(tokens)[1])[None, :]
        end = tf.minimum(place + max_target_tokens, sizes[:, None])
        inputs = tf.ragged.boolean_mask(tokens, (at < place) & (at >= place - max_input_tokens))
        targets = tf.ragged.boolean_mask(tokens, (at >= place) & (at < end))
        return {
            "index": index,
            "inputs": _ended(inputs, vocabulary),
            "targets": _ended(targets, vocabulary, where=end[:, 0] == sizes),
        }

    return dataset.map(split)


def _single_piece(vocabulary: seqio.Vocabulary, text: str) -> int:
    ids = vocabulary.encode(text)  # A sentencepiece model may put '▁' before it.
    if not ids or vocabulary.decode(ids[-1:]) != text:
        raise ValueError(
            f"split_after must be one piece of the vocabulary; {text!r} has the ids {ids}."
        )
    return ids[-1]


def _split_place(tokens, sizes, piece: int, split_after_rate: float, seed: int, index):
    """How many tokens of each row are the prefix [B]: from 1 to all but one."""
    draws = _random(seed, index, 2, 3)
    is_piece = (tokens == piece) & tf.sequence_mask(sizes - 1, tf.shape(tokens)[1])
    counts = tf.reduce_sum(tf.cast(is_piece, tf.int32), axis=1)
    chosen = 1 + _scaled(draws[:, 2], counts)
    is_chosen = is_piece & (tf.cumsum(tf.cast(is_piece, tf.int32), axis=1) == chosen[:, None])
    after_piece = 1 + tf.argmax(is_chosen, axis=1, output_type=tf.int32)
    likes = (draws[:, 0] < split_after_rate) & (counts > 0)
    return tf.where(likes, after_piece, 1 + _scaled(draws[:, 1], sizes - 1))


def _scaled(draws: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    """Whole numbers from 0 to counts - 1, from draws in [0, 1)."""
    return tf.cast(draws * tf.cast(counts, draws.dtype), tf.int32)


def spell(
    dataset: tf.data.Dataset, output_features: Mapping[str, seqio.Feature]
) -> tf.data.Dataset:
    """Adds the text of the ids, for metrics and for people to read."""
    vocabulary = output_features["targets"].vocabulary

    def decode(ids, ends):
        ids, ends = ids.tolist(), ends.tolist()
        rows = [ids[start:end] for start, end in itertools.pairwise(ends)]
        return np.array([text.encode() for text in vocabulary.tokenizer.DecodeIds(rows)], object)

    def add(block):
        texts = {
            f"{key}_pretokenized": tf.ensure_shape(
                tf.numpy_function(
                    decode, [block[key].flat_values, block[key].row_splits], tf.string
                ),
                [None],
            )
            for key in ("inputs", "targets")
        }
        return {**block, **texts}

    return dataset.map(add)


def _padded(tokens: tf.Tensor | tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A block of rows as a table, and how long each is; rows of one length are a table already."""
    if isinstance(tokens, tf.Tensor):
        return tokens, tf.repeat(tf.shape(tokens)[1:], tf.shape(tokens)[0])
    return tokens.to_tensor(), tf.cast(tokens.row_lengths(), tf.int32)


def _ended(
    tokens: tf.RaggedTensor, vocabulary: seqio.Vocabulary, where: tf.Tensor | None = None
) -> tf.RaggedTensor:
    """Appends EOS to each row, or to those asked for."""
    ends = tf.ones_like(tokens.row_lengths()) if where is None else tf.cast(where, tf.int64)
    marks = tf.fill([tf.reduce_sum(ends)], vocabulary.eos_id)
    return tf.concat([tokens, tf.RaggedTensor.from_row_lengths(marks, ends)], axis=1)


def _random(seed: int, index: tf.Tensor, stream: int, count) -> tf.Tensor:
    """Numbers in [0, 1), [B, count], each a hash of the seed, its row's index and its place.

    TensorFlow's own generators take one seed for a whole block of rows.
    """
    row = _mixed(tf.cast(index, tf.uint64) + _mixed(tf.constant(seed, tf.uint64)))
    place = tf.cast(tf.range(count), tf.uint64) + tf.constant(stream << 32, tf.uint64)
    bits = _mixed(_mixed(row)[:, None] + place[None, :])
    return tf.cast(tf.bitwise.right_shift(bits, tf.constant(11, tf.uint64)), tf.float64) / 2.0**53


def _mixed(number: tf.Tensor) -> tf.Tensor:
    """SplitMix64 (Steele et al. 2014): the next state's output."""
    number += tf.constant(0x9E3779B97F4A7C15, tf.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        shifted = tf.bitwise.right_shift(number, tf.constant(shift, tf.uint64))
        number = tf.bitwise.bitwise_xor(number, shifted) * tf.constant(factor, tf.uint64)
    return number
