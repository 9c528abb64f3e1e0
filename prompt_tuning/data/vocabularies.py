"""Turns text into token ids and back: the vocabularies of T5, mT5, ByT5 and the pocket models.

    family  file                          pieces            sentinels          task name prefix
    t5      cc_all.32000                  32,000            100 appended       ''
    mt5     mc4.250000.100extra           250,100           100 in the file    'mt5_'
    byt5    none, UTF-8 bytes + 3         259               (model rows only)  'byt5_'
    pocket  in the package                about 1,000       100 appended       'pocket_'

A vocabulary file is read when the first text is tokenised, not when a task is
registered, so that a run can name it (`use_file`, the gin macro
VOCABULARY_FILE or an environment variable) after the tasks exist.
"""

import dataclasses
import functools
import os
from pathlib import Path

import seqio
import tensorflow as tf
from google.protobuf.message import DecodeError

ASSETS = Path(__file__).resolve().parent.parent / "assets"
BYT5_MODEL_ROWS = 384  # Rows of ByT5's embedding: 3 special, 256 bytes, 125 sentinels.


class SentencePieces(seqio.SentencePieceVocabulary):
    """A sentencepiece vocabulary whose file is looked for at first use.

    Args:
      family: name in error messages, as 't5'.
      official_file: where the released model's file is.
      variable: environment variable that names another file.
      extra_ids: how many sentinels to append to the pieces of the file.
    """

    def __init__(self, family: str, official_file: str, variable: str, extra_ids: int):
        super().__init__(official_file, extra_ids=extra_ids)
        self.family = family
        self.official_file = official_file
        self.variable = variable
        self.chosen_file: str | None = None

    def use_file(self, path: str | os.PathLike | None) -> None:
        """Chooses the file to read; None goes back to the environment variable."""
        self.chosen_file = None if path is None else os.fspath(path)
        self._model = None

    def _model_context(self):
        if self._model is None:
            path = self.chosen_file or os.environ.get(self.variable) or self.official_file
            self._sentencepiece_model_file = path
            try:
                self._model = super()._model_context()
            except (tf.errors.OpError, OSError, DecodeError, RuntimeError) as error:
                raise ValueError(self._unreadable(path, error)) from error
        return self._model

    def _unreadable(self, path: str, error: Exception) -> str:
        if isinstance(error, (DecodeError, RuntimeError)):
            what = f"{path!r} is not a sentencepiece model"
        else:
            what = f"The {self.family} vocabulary cannot be read from {path!r}"
        return (
            f"{what} ({(str(error).strip() or type(error).__name__).splitlines()[0][:120]}). Name "
            "the sentencepiece file with --gin.VOCABULARY_FILE=FILE, with "
            "vocabularies.use_file in Python or with the environment variable "
            f"{self.variable}; the official file is {self.official_file}."
        )


@dataclasses.dataclass(frozen=True)
class Family:
    """What a family of models asks of its tasks."""

    name: str
    prefix: str  # In front of every task name, as in 'mt5_super_glue_cb_v102'.
    vocabulary: seqio.Vocabulary

    @property
    def output_features(self) -> dict[str, seqio.Feature]:
        """The seqio features of a text-to-text task."""
        feature = seqio.Feature(vocabulary=self.vocabulary, add_eos=True)
        return {"inputs": dataclasses.replace(feature, required=False), "targets": feature}


FAMILIES = {
    family.name: family
    for family in (
        Family(
            "t5",
            "",
            SentencePieces(
                "t5",
                "gs://t5-data/vocabs/cc_all.32000/sentencepiece.model",
                "PROMPT_TUNING_T5_VOCAB",
                extra_ids=100,
            ),
        ),
        Family(
            "mt5",
            "mt5_",
            SentencePieces(
                "mt5",
                "gs://t5-data/vocabs/mc4.250000.100extra/sentencepiece.model",
                "PROMPT_TUNING_MT5_VOCAB",
                extra_ids=0,
            ),
        ),
        Family("byt5", "byt5_", seqio.ByteVocabulary()),
        Family(
            "pocket",
            "pocket_",
            SentencePieces(
                "pocket",
                str(ASSETS / "pocket_vocabulary.model"),
                "PROMPT_TUNING_POCKET_VOCAB",
                extra_ids=100,
            ),
        ),
    )
}

# The families that read any text; the pocket vocabulary knows PocketGLUE's words alone.
PUBLIC_FAMILIES = tuple(family for family in FAMILIES.values() if family.name != "pocket")


def family(name: str) -> Family:
    """Returns a vocabulary family by name.

    >>> family('byt5').vocabulary.encode('hi')
    [107, 108]

    Raises:
      ValueError: no such family.
    """
    if name not in FAMILIES:
        raise ValueError(f"There is no vocabulary {name!r}; it is one of {', '.join(FAMILIES)}.")
    return FAMILIES[name]


def use_file(vocabulary: seqio.Vocabulary, path: str | os.PathLike | None) -> None:
    """Names the sentencepiece file that one vocabulary reads; None is its usual one.

    Raises:
      ValueError: a file is named for a vocabulary that reads none.
    """
    if isinstance(vocabulary, SentencePieces):
        vocabulary.use_file(path)
        _special_ids.cache_clear()
    elif path is not None:
        raise ValueError(
            f"VOCABULARY_FILE names {os.fspath(path)!r}, but the task's vocabulary "
            f"({type(vocabulary).__name__}) reads no file; leave it out."
        )


def special_ids(name: str) -> tuple[int, ...]:
    """Lists the ids that no text holds: padding, end, unknown and the sentinels.

    >>> special_ids('byt5')[:5]
    (0, 1, 2, 259, 260)
    """
    return _special_ids(family(name).name)


@functools.cache
def _special_ids(name: str) -> tuple[int, ...]:
    vocabulary = FAMILIES[name].vocabulary
    if isinstance(vocabulary, seqio.ByteVocabulary):
        return (0, 1, 2, *range(vocabulary.vocab_size, BYT5_MODEL_ROWS))
    pieces = vocabulary.tokenizer
    return tuple(
        piece
        for piece in range(pieces.GetPieceSize())
        if pieces.IsControl(piece)
        or pieces.IsUnknown(piece)
        or pieces.IdToPiece(piece).removeprefix("▁").startswith("<extra_id_")
    )


def pieces(name: str) -> list[str]:
    """Spells every id of a family's vocabulary; a byte that is no printable ASCII as '<0xC3>'.

    >>> pieces('byt5')[:3], pieces('byt5')[107], pieces('byt5')[198]
    (['<pad>', '</s>', '<unk>'], 'h', '<0xC3>')
    """
    vocabulary = family(name).vocabulary
    if isinstance(vocabulary, seqio.ByteVocabulary):
        spelt = [chr(byte) if 33 <= byte < 127 else f"<0x{byte:02X}>" for byte in range(256)]
        return ["<pad>", "</s>", "<unk>", *spelt]
    processor = vocabulary.tokenizer
    return [processor.IdToPiece(piece) for piece in range(processor.GetPieceSize())]
