"""Turns text into token ids and back: the vocabularies of T5, mT5 and ByT5.

    family  file                          pieces            sentinels          task name prefix
    t5      cc_all.32000                  32,000            100 appended       ''
    mt5     mc4.250000.100extra           250,100           100 in the file    'mt5_'
    byt5    none, UTF-8 bytes + 3         259               (model rows only)  'byt5_'

    (others may be added by `register_family`)

    vocabulary = get('t5', file='sentencepiece.model')
    vocabulary.encode('a text'), vocabulary.eos_id, vocabulary.pieces()

This needs sentencepiece alone and imports no TensorFlow. seqio's tasks tokenise inside TensorFlow;
`seqio_vocabularies.py` wraps the same vocabularies for them.
"""

import dataclasses
import functools
import logging
import os
from collections.abc import Iterable
from typing import Any

import sentencepiece
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2

from prompt_tuning import paths

_logger = logging.getLogger(__name__)
_BYTES = 256
_FIRST_BYTE = 3  # ByT5: id 0 is padding, 1 EOS, 2 unknown


@dataclasses.dataclass(frozen=True)
class SentencePieces:
    """A sentencepiece vocabulary; its file is read at first use.

    Attributes:
      family: its name in error messages, as 't5'.
      official_file: where the released model's file is.
      variable: the environment variable that names another file.
      extra_ids: how many sentinels are appended to the pieces of the file.
      file: the file to read; None is the environment variable's, else the official one.
    """

    family: str
    official_file: str
    variable: str
    extra_ids: int
    file: str | None = None
    pad_id = 0

    @property
    def path(self) -> str:
        """The file that is read."""
        return paths.expand(self.file or os.environ.get(self.variable) or self.official_file)

    @functools.cached_property
    def processor(self) -> sentencepiece.SentencePieceProcessor:
        """The sentencepiece processor, sentinels included.

        Raises:
          ValueError: the file cannot be read, is not a sentencepiece model, or has no EOS.
        """
        path = self.path
        try:
            model = sentencepiece_model_pb2.ModelProto.FromString(_read_bytes(path))
            sentinel = sentencepiece_model_pb2.ModelProto.SentencePiece.USER_DEFINED
            for number in reversed(range(self.extra_ids)):
                model.pieces.add(piece=f"▁<extra_id_{number}>", score=0.0, type=sentinel)
            processor = sentencepiece.SentencePieceProcessor()
            processor.LoadFromSerializedProto(model.SerializeToString())
        except (OSError, DecodeError, RuntimeError) as error:
            raise ValueError(self._unreadable(path, error)) from error
        if processor.pad_id() != self.pad_id:
            _logger.warning(
                "Id 0 is padding, but in the %s vocabulary %r it is %r: the model does not see "
                "text that is tokenised to it. Train the sentencepiece model with pad_id=0.",
                self.family, path, processor.IdToPiece(0),
            )  # fmt: skip
        if processor.eos_id() < 0:
            raise ValueError(
                f"The {self.family} vocabulary {path!r} has no EOS piece, so no text can end. "
                "Train the sentencepiece model with eos_id=1."
            )
        return processor

    @property
    def eos_id(self) -> int:
        return self.processor.eos_id()

    @property
    def unk_id(self) -> int:
        return self.processor.unk_id()

    @property
    def vocab_size(self) -> int:
        """The number of ids, sentinels included."""
        return self.processor.GetPieceSize()

    def encode(self, text: str) -> list[int]:
        """Turns a text into ids, without EOS."""
        return self.processor.EncodeAsIds(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Turns ids into text, up to the first EOS; an id beyond the vocabulary is unknown."""
        kept = [int(i) if i < self.vocab_size else self.unk_id for i in ids]
        return self.processor.DecodeIds(_until(kept, self.eos_id))

    def pieces(self) -> list[str]:
        """Spells every id."""
        return [self.processor.IdToPiece(piece) for piece in range(self.vocab_size)]

    def _unreadable(self, path: str, error: Exception) -> str:
        if isinstance(error, DecodeError | RuntimeError):
            what = f"{path!r} is not a sentencepiece model"
        else:
            what = f"The {self.family} vocabulary cannot be read from {path!r}"
        return (
            f"{what} ({(str(error).strip() or type(error).__name__).splitlines()[0][:120]}). Name "
            "the sentencepiece file with --gin.VOCABULARY_FILE=FILE (where a command reads no gin, "
            f"--vocabulary_file=FILE), with vocabularies.get({self.family!r}, file=FILE) in Python "
            f"or with the environment variable {self.variable}; the official file is "
            f"{self.official_file}."
        )


@dataclasses.dataclass(frozen=True)
class Bytes:
    """ByT5's vocabulary: UTF-8 bytes after three special ids.

    >>> Bytes().encode('hé'), Bytes().decode([107, 198, 172, 1, 0])
    ([107, 198, 172], 'hé')
    """

    pad_id = 0
    eos_id = 1
    unk_id = 2
    vocab_size = _FIRST_BYTE + _BYTES

    def encode(self, text: str) -> list[int]:
        """Turns a text into ids, without EOS."""
        return [byte + _FIRST_BYTE for byte in text.encode()]

    def decode(self, ids: Iterable[int]) -> str:
        """Turns ids into text, up to the first EOS; special ids and ids past 258 are dropped."""
        kept = _until([int(i) for i in ids], self.eos_id)
        found = bytes(i - _FIRST_BYTE for i in kept if _FIRST_BYTE <= i < self.vocab_size)
        return found.decode(errors="ignore")

    def pieces(self) -> list[str]:
        """Spells every id; a byte that is not printable ASCII as '<0xC3>'.

        >>> Bytes().pieces()[:3], Bytes().pieces()[107], Bytes().pieces()[198]
        (['<pad>', '</s>', '<unk>'], 'h', '<0xC3>')
        """
        spelt = [chr(byte) if 33 <= byte < 127 else f"<0x{byte:02X}>" for byte in range(_BYTES)]
        return ["<pad>", "</s>", "<unk>", *spelt]


Vocabulary = SentencePieces | Bytes


@dataclasses.dataclass(frozen=True)
class Family:
    """What the models of one kind read.

    Attributes:
      prefix: prepended to every task name, as in 'mt5_super_glue_cb_v102'.
      standard: the vocabulary with its usual file.
    """

    name: str
    prefix: str
    standard: Vocabulary

    @property
    def vocabulary(self) -> Any:
        """The `seqio.Vocabulary` of the family's tasks, one object for the whole process."""
        from prompt_tuning.data import seqio_vocabularies  # imports TensorFlow

        return seqio_vocabularies.shared(self.standard)

    @property
    def output_features(self) -> dict[str, Any]:
        """The `seqio.Feature`s of a text-to-text task."""
        from prompt_tuning.data import seqio_vocabularies  # imports TensorFlow

        return seqio_vocabularies.output_features(self.vocabulary)


T5_FILE = "gs://t5-data/vocabs/cc_all.32000/sentencepiece.model"
MT5_FILE = "gs://t5-data/vocabs/mc4.250000.100extra/sentencepiece.model"

FAMILIES = {
    family.name: family
    for family in (
        Family("t5", "", SentencePieces("t5", T5_FILE, "PROMPT_TUNING_T5_VOCAB", 100)),
        Family("mt5", "mt5_", SentencePieces("mt5", MT5_FILE, "PROMPT_TUNING_MT5_VOCAB", 0)),
        Family("byt5", "byt5_", Bytes()),
    )
}

# The families that SuperGLUE's and GLUE's tasks are registered for.
PUBLIC_FAMILIES = tuple(FAMILIES.values())


def register_family(family: Family) -> None:
    """Adds a vocabulary, for models and tasks of their own."""
    FAMILIES.setdefault(family.name, family)


def family(name: str) -> Family:
    """Returns a vocabulary family by name.

    >>> family('mt5').prefix
    'mt5_'

    Raises:
      ValueError: no such family.
    """
    if name not in FAMILIES:
        raise ValueError(f"Unknown vocabulary {name!r}. Known: {', '.join(FAMILIES)}.")
    return FAMILIES[name]


def get(name: str, file: str | os.PathLike | None = None) -> Vocabulary:
    """Returns a new vocabulary of a family.

    Args:
      name: 't5', 'mt5', 'byt5' or the name of a registered family.
      file: a sentencepiece model; None is the environment variable's, else the official one.

    Raises:
      ValueError: no such family, or a file for one that reads none.

    >>> get('byt5').encode('hi')
    [107, 108]
    """
    standard = family(name).standard
    if isinstance(standard, SentencePieces):
        path = None if file is None else paths.expand(file)
        return dataclasses.replace(standard, file=path)
    if file is not None:
        raise ValueError(
            f"The vocabulary {name!r} reads no file, got {os.fspath(file)!r}; leave it out."
        )
    return standard


def nmt_nfkc(text: str) -> str:
    """Normalises a text as sentencepiece does for T5 and mT5, by its rule of this name.

    >>> nmt_nfkc('  ｙｅｓ\tit  is ')
    'yes it is'
    """
    return _normalizer().Normalize(text)


@functools.cache
def _normalizer() -> sentencepiece.SentencePieceNormalizer:
    return sentencepiece.SentencePieceNormalizer(
        rule_name="nmt_nfkc",
        add_dummy_prefix=False,
        escape_whitespaces=False,
        remove_extra_whitespaces=True,
    )


def _until(ids: list[int], eos_id: int) -> list[int]:
    """The ids up to the first EOS, included."""
    return ids[: ids.index(eos_id) + 1] if eos_id in ids else ids


def _read_bytes(path: str) -> bytes:
    if "://" not in path:
        with open(path, "rb") as file:
            return file.read()
    from prompt_tuning.data.tensorflow_import import tf  # its file system reads buckets

    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            return file.read()
    except tf.errors.OpError as error:
        raise OSError(error.message) from error
