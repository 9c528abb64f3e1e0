"""Vocabularies: official ids, files named late, and what a wrong file says."""

import pytest

from prompt_tuning.data import vocabularies


@pytest.fixture
def t5(monkeypatch):
    """The T5 vocabulary, its choice of file undone afterwards."""
    monkeypatch.delenv("PROMPT_TUNING_T5_VOCAB", raising=False)
    vocabulary = vocabularies.FAMILIES["t5"].vocabulary
    before = vocabulary.chosen_file
    vocabulary.use_file(None)
    yield vocabulary
    vocabulary.use_file(before)
    vocabularies._special_ids.cache_clear()


@pytest.fixture
def t5_file(real_data):
    return str(real_data / "vocab" / "t5_sentencepiece.model")


def test_byt5_ids_are_bytes_plus_three():
    family = vocabularies.family("byt5")
    assert family.vocabulary.encode("hé") == [107, 198, 172]
    assert family.vocabulary.decode([107, 108, 1, 0]) == "hi"
    assert family.prefix == "byt5_"


def test_byt5_special_ids_are_three_and_the_rows_no_byte_has():
    ids = vocabularies.special_ids("byt5")
    assert ids[:4] == (0, 1, 2, 259)
    assert ids[-1] == 383
    assert len(ids) == 3 + 125


def test_features_end_with_the_end_mark():
    features = vocabularies.family("byt5").output_features
    assert features["inputs"].add_eos and features["targets"].add_eos
    assert features["targets"].required and not features["inputs"].required


def test_t5_file_named_late(t5, t5_file):
    features = vocabularies.family("t5").output_features  # Made before the file is known.
    vocabularies.use_file(vocabularies.family("t5").vocabulary, t5_file)
    assert features["inputs"].vocabulary.encode("True") == [10998]
    assert t5.encode("contradiction") == [27252]
    assert t5.vocab_size == 32_100
    assert t5.decode([27252, 1, 0, 0]) == "contradiction"


def test_t5_file_from_the_environment(t5, t5_file, monkeypatch):
    monkeypatch.setenv("PROMPT_TUNING_T5_VOCAB", t5_file)
    assert t5.encode("True") == [10998]


def test_a_named_file_beats_the_environment(t5, t5_file, monkeypatch):
    monkeypatch.setenv("PROMPT_TUNING_T5_VOCAB", "/no/such/file")
    vocabularies.use_file(vocabularies.family("t5").vocabulary, t5_file)
    assert t5.encode("True") == [10998]


def test_t5_special_ids_are_three_and_the_sentinels(t5, t5_file):
    vocabularies.use_file(vocabularies.family("t5").vocabulary, t5_file)
    assert vocabularies.special_ids("t5") == (0, 1, 2, *range(32_000, 32_100))


def test_t5_pieces(t5, t5_file):
    vocabularies.use_file(vocabularies.family("t5").vocabulary, t5_file)
    pieces = vocabularies.pieces("t5")
    assert len(pieces) == 32_100
    assert pieces[10998] == "▁True" and pieces[32_099] == "▁<extra_id_0>"


def test_missing_file_says_what_to_set(t5):
    vocabularies.use_file(vocabularies.family("t5").vocabulary, "/no/such/spiece.model")
    with pytest.raises(ValueError) as caught:
        t5.encode("True")
    message = str(caught.value)
    assert "The t5 vocabulary cannot be read from '/no/such/spiece.model'" in message
    assert "--gin.VOCABULARY_FILE=FILE" in message
    assert "vocabularies.use_file" in message
    assert "PROMPT_TUNING_T5_VOCAB" in message
    assert "gs://t5-data/vocabs/cc_all.32000/sentencepiece.model" in message


def test_file_of_another_kind_is_named(t5, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("This is not a sentencepiece model.")
    vocabularies.use_file(vocabularies.family("t5").vocabulary, path)
    with pytest.raises(ValueError, match=r"notes.txt' is not a sentencepiece model"):
        t5.encode("True")


def test_mt5_reads_another_official_file():
    vocabulary = vocabularies.FAMILIES["mt5"].vocabulary
    assert vocabulary.official_file.endswith("mc4.250000.100extra/sentencepiece.model")
    assert vocabulary.extra_ids == 0  # The sentinels are in the file.


def test_unknown_family_lists_the_known():
    with pytest.raises(ValueError, match=r"no vocabulary 'bert'; it is one of t5, mt5, byt5"):
        vocabularies.family("bert")
