"""CNN/DailyMail and XSum on a few rows through the TFDS builders, and ROUGE counted by hand."""

import pytest
import tfds_rows

from prompt_tuning.data import batches, evaluation, metrics, tasks

LENGTHS = {"inputs": 256, "targets": 64}


def cnn_rows():
    yield 0, {
        "article": "Rain fell on Rome .\n\nIt was  heavy .",
        "highlights": "Rome is wet .\nIt rained .",
        "publisher": "cnn", "id": "a",
    }  # fmt: skip


def xsum_rows():
    yield 0, {"document": "It rained in Rome.\nA lot.", "summary": "Rome is wet."}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    for name, rows in (("cnn_dailymail:3.4.0", cnn_rows), ("xsum:1.1.0", xsum_rows)):
        tfds_rows.write(name, rows, ("train", "validation", "test"), folder)
    return folder


@pytest.mark.parametrize(
    ("name", "inputs", "targets"),
    [
        (
            "byt5_cnn_dailymail_v002",
            "summarize: Rain fell on Rome . It was heavy .",
            "Rome is wet . It rained .",
        ),
        ("byt5_taskless_xsum_v110", "It rained in Rome. A lot.", "Rome is wet."),
    ],
)
def test_formats(data, name, inputs, targets):
    examples = batches.load_examples(tasks.get(name, data_dir=data), "validation", LENGTHS)
    (row,) = examples.raw
    assert row["inputs_pretokenized"].decode() == inputs
    assert row["targets_pretokenized"].decode() == targets
    right = evaluation.measure(examples, [targets])
    assert right.metrics == dict.fromkeys(metrics.ROUGE, 100.0)
    assert evaluation.measure(examples, ["nothing"]).metrics == dict.fromkeys(metrics.ROUGE, 0.0)


def test_rouge_by_hand():
    """Words: 4 of 4 and of 5. Pairs: one, `the cat`, of 3 and of 4."""
    found = metrics.rouge(["the cat sat down"], ["the cat down sat here"])
    assert found["rouge1"] == pytest.approx(100 * 8 / 9)
    assert found["rouge2"] == pytest.approx(100 * 2 / 7)
    two = metrics.rouge(["a b", "a b"], ["a b", "c d"])
    assert two == dict.fromkeys(metrics.ROUGE, 50.0)


def test_a_full_stop_between_spaces_ends_a_sentence():
    """In ROUGE-Lsum the sentences may be in any order, which is not so of the words of one."""
    target = "rome is wet . paris is dry"
    swapped = "paris is dry . rome is wet"
    assert metrics.rouge([target], [swapped])["rougeLsum"] == 100.0
    assert metrics.rouge(["rome is wet"], ["wet is rome"])["rougeLsum"] == pytest.approx(100 / 3)


def test_words_are_not_stemmed():
    assert metrics.rouge(["it rains"], ["it rained"])["rouge1"] == 50.0
