"""Vocabularies: official ids, chosen files, agreement with seqio, and errors."""

import dataclasses

import pytest
import sentencepiece
from seqio import SentencePieceVocabulary

from prompt_tuning.data import seqio_vocabularies, vocabularies
from prompt_tuning.pocket import register

register.register_models()

TEXTS = (
    "",
    " ",
    "True",
    "  two  spaces and a tab\t",
    "premise: fiona owns a parrot . <extra_id_0> question: what <extra_id_99> then",
    "glued<extra_id_1>on </s> <pad> <unk>",
    "naïve café, ﬁ and ＡＢＣ, n\u0303 ☃ 🙂 < {",
    "a\nb",
)
IDS = (
    [],
    [5, 9, 1, 0, 0],
    [5, 9],
    [0, 0, 1, 7],
    [2, 258, 259, 260, 383],
    [40_000, 5, 1_000_000],
)


@pytest.fixture(params=["t5", "pocket", "byt5"])
def name(request):
    if request.param == "t5":
        request.getfixturevalue("t5_file")
    return request.param


@pytest.fixture
def t5_file(real_data, monkeypatch):
    path = str(real_data / "vocab" / "t5_sentencepiece.model")
    monkeypatch.setenv("PROMPT_TUNING_T5_VOCAB", path)
    return path


@pytest.fixture
def t5(monkeypatch):
    """A vocabulary of seqio's T5 tasks that has read no file yet."""
    monkeypatch.delenv("PROMPT_TUNING_T5_VOCAB", raising=False)
    return seqio_vocabularies.SentencePieceVocabulary(vocabularies.get("t5"))


@pytest.fixture(scope="module")
def eos_2_file(tmp_path_factory):
    """A sentencepiece model that ends texts with id 2 and knows the letters a, b, c, d."""
    folder = tmp_path_factory.mktemp("eos_2")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["abc cab", "bad dad cab", "a bad cab"] * 9),
        model_prefix=str(folder / "model"), model_type="char", vocab_size=8,
        pad_id=0, unk_id=1, eos_id=2, bos_id=-1, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    return str(folder / "model.model")


def test_byt5_ids_are_bytes_plus_three():
    vocabulary = vocabularies.get("byt5")
    assert vocabulary.encode("hé") == [107, 198, 172]
    assert vocabulary.decode([107, 108, 1, 0]) == "hi"
    assert (vocabulary.vocab_size, vocabulary.eos_id, vocabulary.unk_id) == (259, 1, 2)
    assert vocabulary.pieces()[:3] == ["<pad>", "</s>", "<unk>"]
    assert len(vocabulary.pieces()) == 259
    assert vocabularies.family("byt5").prefix == "byt5_"


def test_the_t5_ids(t5_file):
    vocabulary = vocabularies.get("t5", t5_file)
    assert vocabulary.encode("True") == [10998]
    assert vocabulary.decode([27252, 1, 0, 0]) == "contradiction"
    assert vocabulary.encode("<extra_id_0> <extra_id_99>") == [32_099, 32_000]
    assert (vocabulary.vocab_size, vocabulary.eos_id, vocabulary.unk_id) == (32_100, 1, 2)
    pieces = vocabulary.pieces()
    assert len(pieces) == 32_100
    assert pieces[10998] == "▁True" and pieces[32_099] == "▁<extra_id_0>"


def test_an_id_beyond_the_vocabulary_is_unknown():
    vocabulary = vocabularies.get("pocket")
    assert vocabulary.decode([vocabulary.vocab_size]) == vocabulary.decode([2]) == " ⁇ "
    assert vocabularies.get("byt5").decode([107, 300, 108]) == "hi"


def test_sentencepiece_alone_agrees_with_seqio(name):
    ours = vocabularies.get(name)
    theirs = vocabularies.family(name).vocabulary
    if name != "byt5":  # seqio's own reading of the file, and our subclass's
        assert type(theirs) is seqio_vocabularies.SentencePieceVocabulary
        plain = SentencePieceVocabulary(ours.path, extra_ids=ours.extra_ids)
        assert plain.sp_model == theirs.sp_model
    for text in TEXTS:
        ids = ours.encode(text)
        assert ids == list(theirs.encode(text)) == theirs.encode_tf(text).numpy().tolist(), text
        assert ours.decode(ids) == theirs.decode(ids)
    for ids in IDS:
        assert ours.decode(ids) == theirs.decode(ids), ids
    same = ("vocab_size", "eos_id", "pad_id", "unk_id")
    assert [getattr(ours, key) for key in same] == [getattr(theirs, key) for key in same]


def test_the_eos_of_another_model_ends_its_texts(eos_2_file):
    vocabulary = vocabularies.get("t5", eos_2_file)
    assert (vocabulary.eos_id, vocabulary.unk_id) == (2, 1)
    ids = vocabulary.encode("a bad cab")
    assert vocabulary.decode([*ids, 2, *ids]) == "a bad cab"
    theirs = seqio_vocabularies.SentencePieceVocabulary(vocabulary)
    assert theirs.eos_id == 2
    assert theirs.decode([*ids, 2, *ids]) == "a bad cab"


def test_a_vocabulary_without_eos_is_refused(tmp_path):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["abc cab"] * 9), model_prefix=str(tmp_path / "model"),
        model_type="char", vocab_size=6, pad_id=0, unk_id=1, eos_id=-1, bos_id=-1,
        hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"The t5 vocabulary '.*model' has no EOS piece"):
        vocabularies.get("t5", tmp_path / "model.model").encode("a")


def test_an_id_0_that_is_not_padding_is_warned_of(tmp_path, caplog):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["abc cab"] * 9), model_prefix=str(tmp_path / "model"),
        model_type="char", vocab_size=7, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    vocabulary = vocabularies.get("t5", tmp_path / "model.model")
    assert vocabulary.decode([*vocabulary.encode("cab"), 2, 5]) == "cab"
    assert "it is '<unk>': the model does not see text" in caplog.text


def test_a_chosen_file_changes_no_other_vocabulary(eos_2_file):
    before = vocabularies.get("pocket")
    chosen = vocabularies.get("pocket", eos_2_file)
    assert chosen.eos_id == 2
    assert before.eos_id == vocabularies.get("pocket").eos_id == 1
    assert vocabularies.family("pocket").vocabulary.eos_id == 1


def test_a_file_for_bytes_is_refused():
    with pytest.raises(ValueError, match=r"'byt5' reads no file, got 'x.model'; leave it out"):
        vocabularies.get("byt5", "x.model")


def test_features_end_with_eos():
    features = vocabularies.family("byt5").output_features
    assert features["inputs"].add_eos and features["targets"].add_eos
    assert features["targets"].required and not features["inputs"].required


def test_another_file_is_another_vocabulary(t5, t5_file, monkeypatch):
    monkeypatch.delenv("PROMPT_TUNING_T5_VOCAB")
    chosen = seqio_vocabularies.with_file(t5, t5_file)
    assert chosen.encode("True") == [10998]
    assert chosen.decode([27252, 1, 0, 0]) == "contradiction"
    assert t5.sentence_pieces.path == vocabularies.T5_FILE


def test_the_file_of_a_task_from_the_environment(t5, t5_file, monkeypatch):
    monkeypatch.setenv("PROMPT_TUNING_T5_VOCAB", t5_file)
    assert t5.encode("True") == [10998]


def test_a_named_file_beats_the_environment(t5_file, monkeypatch):
    monkeypatch.setenv("PROMPT_TUNING_T5_VOCAB", "/no/such/file")
    assert vocabularies.get("t5", t5_file).encode("True") == [10998]


def test_missing_file_says_what_to_set(t5):
    chosen = seqio_vocabularies.with_file(t5, "/no/such/spiece.model")
    for vocabulary in (chosen, vocabularies.get("t5", "/no/such/spiece.model")):
        with pytest.raises(ValueError) as caught:
            vocabulary.encode("True")
        message = str(caught.value)
        assert "The t5 vocabulary cannot be read from '/no/such/spiece.model'" in message
        assert "--gin.VOCABULARY_FILE=FILE" in message
        assert "vocabularies.get('t5', file=FILE)" in message
        assert "PROMPT_TUNING_T5_VOCAB" in message
        assert "gs://t5-data/vocabs/cc_all.32000/sentencepiece.model" in message


def test_file_of_another_kind_is_named(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("This is not a sentencepiece model.")
    with pytest.raises(ValueError, match=r"notes.txt' is not a sentencepiece model"):
        vocabularies.get("t5", path).encode("True")


def test_mt5_reads_another_official_file(monkeypatch):
    monkeypatch.delenv("PROMPT_TUNING_MT5_VOCAB", raising=False)
    vocabulary = vocabularies.get("mt5")
    assert vocabulary.path.endswith("mc4.250000.100extra/sentencepiece.model")
    assert vocabulary.extra_ids == 0  # The sentinels are in the file.
    assert dataclasses.replace(vocabulary, extra_ids=100) != vocabulary


def test_unknown_family_lists_the_known():
    with pytest.raises(ValueError, match=r"Unknown vocabulary 'bert'. Known: t5, mt5, byt5, poc"):
        vocabularies.get("bert")


def test_the_home_folder_however_a_file_is_named(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("PROMPT_TUNING_T5_VOCAB", "~/t5.model")
    assert vocabularies.get("t5").path == "/home/me/t5.model"
    assert vocabularies.get("t5", file="~/other.model").path == "/home/me/other.model"
    with pytest.raises(ValueError, match="'s3://b/t5.model' cannot be opened"):
        vocabularies.get("t5", file="s3://b/t5.model")
