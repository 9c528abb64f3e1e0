"""The pocket vocabulary: any English text can be written in it, and it can be made again."""

import pytest

from prompt_tuning.data import vocabularies
from prompt_tuning.pocket import corpus, corpus_tasks, vocabulary, words

ASSET = vocabulary.FILE


def test_a_hundred_sentinels_follow_the_pieces():
    pocket = vocabularies.get("pocket")
    assert pocket.vocab_size == vocabulary.PIECES + 100 == 1408
    assert pocket.pieces()[-1] == "▁<extra_id_0>"


def test_every_printable_character_has_a_piece():
    pocket = vocabularies.get("pocket")
    text = "".join(map(chr, range(33, 127)))
    assert 2 not in pocket.encode(text)  # 2: unknown
    assert pocket.decode(pocket.encode(text)) == text


def test_words_of_the_banks_are_mostly_one_piece():
    pocket = vocabularies.get("pocket")
    bank = [
        *words.NAMES,
        *(word for domain in words.DOMAINS.values() for b in domain for word in b),
    ]
    lengths = [len(pocket.encode(word)) for word in bank]
    assert lengths.count(1) / len(lengths) > 0.95


@pytest.mark.slow
def test_training_again_gives_the_same_file(tmp_path):
    vocabulary.train(tmp_path / "again.model")
    with open(ASSET, "rb") as file:
        assert (tmp_path / "again.model").read_bytes() == file.read()


def test_it_was_trained_on_documents_that_no_model_reads():
    seed = corpus_tasks.PocketCorpus().seed
    assert vocabulary.SEED != seed
    assert corpus.document(0, seed=vocabulary.SEED) != corpus.document(0, seed=seed)
