"""Batches: what they hold, what is cut, and the order of training rows."""

import collections

import numpy as np
import pytest
import seqio
import tensorflow as tf

from prompt_tuning.data import batches, registry, tasks, vocabularies

LENGTHS = {"inputs": 8, "targets": 6}
PLENTY = {"inputs": 64, "targets": 16}


@pytest.fixture
def make_task():
    """Makes tasks of bytes from (input, target) rows; they are registered for the test alone."""
    names = []

    def make(name, rows, labels=None, splits=("train",)):
        def dataset(split, shuffle_files):
            inputs, targets = zip(*rows, strict=True) if rows else ((), ())
            columns = {"inputs": list(inputs), "targets": list(targets)}
            columns = {key: tf.constant(value, tf.string) for key, value in columns.items()}
            return tf.data.Dataset.from_tensor_slices(columns)

        registry.add(
            name,
            registry.TaskInfo("custom", name, labels, "validation", ()),
            source=seqio.FunctionDataSource(dataset, splits=splits),
            preprocessors=[],
            postprocess_fn=None,
            metric_fns=[],
            output_features=vocabularies.family("byt5").output_features,
        )
        names.append(name)
        return tasks.get(name)

    yield make
    for name in names:
        registry.remove(name)
        seqio.MixtureRegistry.remove(name)


def ids(text):
    return [byte + 3 for byte in text.encode()]


def test_a_batch_by_hand(make_task):
    examples = batches.load_examples(
        make_task("by_hand", [("hi", "ok"), ("yes", "no")]), "train", LENGTHS
    )
    batch = examples.batch([1, 0])
    np.testing.assert_array_equal(
        batch["encoder_input_tokens"],
        [[124, 104, 118, 1, 0, 0, 0, 0], [107, 108, 1, 0, 0, 0, 0, 0]],
    )
    np.testing.assert_array_equal(
        batch["decoder_target_tokens"], [[113, 114, 1, 0, 0, 0], [114, 110, 1, 0, 0, 0]]
    )
    np.testing.assert_array_equal(
        batch["decoder_input_tokens"], [[0, 113, 114, 1, 0, 0], [0, 114, 110, 1, 0, 0]]
    )
    np.testing.assert_array_equal(
        batch["decoder_loss_weights"], [[1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0]]
    )
    assert batch["encoder_input_tokens"].dtype == np.int32
    assert batch["decoder_loss_weights"].dtype == np.float32


@pytest.mark.parametrize("lengths", [{"inputs": 48, "targets": 8}, {"inputs": 20, "targets": 8}])
def test_the_same_as_seqios_feature_converter(lengths):
    examples = batches.load_examples(tasks.get("generated_sentiment"), "validation", lengths)
    dataset = seqio.get_dataset(
        "generated_sentiment",
        task_feature_lengths=lengths,
        dataset_split="validation",
        shuffle=False,
        feature_converter=seqio.EncDecFeatureConverter(pack=False),
    )
    expected = next(dataset.batch(200).as_numpy_iterator())
    batch = examples.batch(range(200))
    assert set(batch) == set(expected)
    for key in batch:
        np.testing.assert_array_equal(batch[key], expected[key])


def test_cut_inputs_keep_eos_and_are_counted(make_task):
    task = make_task("cut_inputs", [("12345678", "ok"), ("1234567", "ok"), ("123456789", "ok")])
    examples = batches.load_examples(task, "train", LENGTHS)
    assert examples.inputs[0].tolist() == [*ids("1234567"), 1]
    assert examples.inputs[1].tolist() == [*ids("1234567"), 1]
    assert examples.cut == {"inputs": 2, "targets": 0}
    assert examples.longest == {"inputs": 10, "targets": 3}
    assert examples.report() == (
        "cut_inputs train: 3 examples, longest input 10 tokens (2 truncated to 8), "
        "longest target 3 tokens"
    )


def test_free_text_targets_are_cut_and_counted(make_task):
    task = make_task("free_text", [("a", "123456789")])
    examples = batches.load_examples(task, "train", LENGTHS)
    assert examples.targets[0].tolist() == [*ids("12345"), 1]
    assert examples.cut["targets"] == 1


def test_a_label_cut_short_is_an_error(make_task):
    task = make_task("long_label", [("a", "yes"), ("b", "perhaps")], labels=("yes", "perhaps"))
    with pytest.raises(ValueError) as caught:
        batches.load_examples(task, "train", LENGTHS)
    message = str(caught.value)
    assert "The label 'perhaps' of the task 'long_label' (train) is 8 tokens long" in message
    assert "TASK_FEATURE_LENGTHS allows 6 for the targets" in message
    assert "{'inputs': 8, 'targets': 8}" in message
    assert len(batches.load_examples(task, "train", {"inputs": 8, "targets": 8})) == 2


def test_limit_and_raw_rows(make_task):
    task = make_task("limited", [(str(number), "x") for number in range(9)])
    examples = batches.load_examples(task, "train", LENGTHS, limit=3)
    assert [row["inputs_pretokenized"] for row in examples.raw] == [b"0", b"1", b"2"]
    bare = batches.load_examples(task, "train", LENGTHS, limit=3, keep_raw=False)
    assert bare.raw == ()
    np.testing.assert_array_equal(bare.inputs.flat, examples.inputs.flat)
    np.testing.assert_array_equal(bare.targets.starts, examples.targets.starts)


def test_empty_split_is_an_error(make_task):
    for keep_raw in (True, False):
        with pytest.raises(ValueError, match=r"split 'train' of the task 'nothing' is empty"):
            batches.load_examples(make_task("nothing", []), "train", LENGTHS, keep_raw=keep_raw)


@pytest.mark.parametrize(
    "lengths", [{"inputs": 8}, {"inputs": 8, "targets": 0}, {"inputs": 8, "targets": "6"}, {}]
)
def test_wrong_lengths_are_an_error(lengths):
    with pytest.raises(ValueError, match=r"TASK_FEATURE_LENGTHS must be two numbers of at least 2"):
        batches.load_examples(tasks.get("generated_sentiment"), "train", dict(lengths))


def numbered(make_task, name, count, split="train"):
    rows = [(f"{name[0]}{number}", "x") for number in range(count)]
    return make_task(name, rows, splits=(split,))


def read(batch):
    """The input texts of a batch."""
    return [vocabularies.family("byt5").vocabulary.decode(row) for row in batch_rows(batch)]


def batch_rows(batch):
    return batch["encoder_input_tokens"].tolist()


def stream_of(task, batch_size=4, seed=0, **more):
    return batches.train_batches(task, "train", LENGTHS, batch_size, seed, **more)


def test_an_epoch_has_every_row_once_and_wraps_in_mid_batch(make_task):
    stream = stream_of(numbered(make_task, "wraps", 10))
    drawn = [text for _ in range(5) for text in read(next(stream))]  # 20 rows: two epochs.
    rows = {f"w{number}" for number in range(10)}
    assert set(drawn[:10]) == rows and set(drawn[10:]) == rows
    assert drawn[:10] != drawn[10:]


def test_a_stream_started_later_gives_the_same_batches(make_task):
    task = numbered(make_task, "resumes", 10)
    whole = stream_of(task)
    expected = [next(whole) for _ in range(9)]
    late = stream_of(task, start_step=6)
    for step in range(6, 9):
        assert late.step == step
        batch = next(late)
        for key in batch:
            np.testing.assert_array_equal(batch[key], expected[step][key])


def test_the_seed_decides_the_order(make_task):
    task = numbered(make_task, "seeded", 10)
    one, again, other = (read(next(stream_of(task, seed=seed))) for seed in (1, 1, 2))
    assert one == again != other


def test_a_batch_larger_than_the_task_repeats_rows(make_task):
    stream = stream_of(numbered(make_task, "small", 3), batch_size=7)
    counts = collections.Counter(read(next(stream)) + read(next(stream)))
    assert sum(counts.values()) == 14
    assert set(counts) == {"s0", "s1", "s2"} and min(counts.values()) >= 4


@pytest.fixture
def mixture(make_task):
    """Rates 3 : 1 : 0, and a task that only has a dev split."""
    numbered(make_task, "apples", 30)
    numbered(make_task, "berries", 20)
    numbered(make_task, "cherries", 20)
    numbered(make_task, "dates", 20, split="validation")
    rates = [("apples", 3), ("berries", 1), ("cherries", 0), ("dates", 5)]
    seqio.MixtureRegistry.add("fruit", rates)
    yield tasks.get("fruit")
    seqio.MixtureRegistry.remove("fruit")


def test_a_mixture_draws_by_its_rates(mixture):
    stream = stream_of(mixture, batch_size=10)
    kinds = collections.Counter(text[0] for _ in range(200) for text in read(next(stream)))
    assert set(kinds) == {"a", "b"}  # No rate and no train split: left out.
    assert 1400 < kinds["a"] < 1600  # 1,500 expected of 2,000, standard deviation 19.


def test_each_task_of_a_mixture_goes_through_all_its_rows(mixture):
    stream = stream_of(mixture, batch_size=10)
    drawn = [text for _ in range(40) for text in read(next(stream))]
    for kind, count in (("a", 30), ("b", 20)):
        of_kind = [text for text in drawn if text[0] == kind]
        first, second = of_kind[:count], of_kind[count : 2 * count]
        assert len(set(first)) == len(set(second)) == count
        assert first != second


def test_a_mixture_resumes_the_same(mixture):
    whole = stream_of(mixture)
    expected = [read(next(whole)) for _ in range(30)]
    assert [read(batch) for batch, _ in zip(stream_of(mixture, start_step=20), range(10))] == (
        expected[20:]
    )
    assert read(whole.batch(7)) == expected[7]  # Backwards too.


def test_the_tasks_of_a_batch_are_named(mixture):
    stream = stream_of(mixture, batch_size=8)
    kinds = {"a": "apples", "b": "berries"}
    for step in range(5):
        assert stream.tasks(step) == sorted({kinds[text[0]] for text in read(stream.batch(step))})


def test_a_mixture_is_not_loaded_whole(mixture):
    with pytest.raises(ValueError, match=r"'fruit' is a mixture; load its tasks: apples, berries"):
        batches.load_examples(mixture, "train", LENGTHS)


def test_batch_size_must_be_positive(make_task):
    with pytest.raises(ValueError, match=r"BATCH_SIZE must be at least 1; got 0"):
        stream_of(numbered(make_task, "none", 3), batch_size=0)


def test_real_tasks_are_in_the_official_format(real_data, tmp_path_factory):
    """CB through the real builder and the real vocabulary."""
    from prompt_tuning.data import prepare

    folder = tmp_path_factory.mktemp("tfds")
    (report,) = prepare.prepare(real_data / "data", folder, ["cb"])
    assert report.status == "complete"
    vocabulary_file = real_data / "vocab" / "t5_sentencepiece.model"
    task = tasks.get(
        "taskless_super_glue_cb_v102", data_dir=folder, vocabulary_file=vocabulary_file
    )
    examples = batches.load_examples(task, "train", {"inputs": 512, "targets": 8})
    assert len(examples) == 250
    assert examples.cut == {"inputs": 0, "targets": 0}
    assert examples.longest == {"inputs": 302, "targets": 5}
    labels = collections.Counter(row["targets_pretokenized"].decode() for row in examples.raw)
    # Lester et al., appendix: 47.6, 46.0 and 6.4 % of 250.
    assert labels == {"contradiction": 119, "entailment": 115, "neutral": 16}


def test_inside_keep_loaded_the_same_thing_is_read_once():
    def load(**changes):
        given = {"limit": 4, "keep_raw": True} | changes
        return batches.load_examples(
            tasks.get("generated_sentiment"), "train", {"inputs": 48, "targets": 8}, **given
        )

    with batches.keep_loaded():
        first = load()
        assert load() is first
        assert load(limit=5) is not first
        assert load(keep_raw=False) is not first
        with batches.keep_loaded():
            assert load() is first
        assert load() is first
    assert load() is not first
