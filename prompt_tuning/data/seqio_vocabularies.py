"""The vocabularies of `vocabularies.py` for seqio's tasks, which tokenise inside TensorFlow."""

import dataclasses
import functools
import os
import types

from prompt_tuning import paths
from prompt_tuning.data import vocabularies
from prompt_tuning.data.tensorflow_import import seqio


class SentencePieceVocabulary(seqio.SentencePieceVocabulary):
    """A `vocabularies.SentencePieces` for seqio; both share one sentencepiece processor.

    Tasks are registered before a run names the file, so it is read at first use.
    """

    def __init__(self, sentence_pieces: vocabularies.SentencePieces):
        super().__init__(sentence_pieces.path, extra_ids=sentence_pieces.extra_ids)
        self.sentence_pieces = self._usual = sentence_pieces

    def use_file(self, path: str | os.PathLike | None) -> None:
        """Chooses the file to read, for T5X, which takes registered tasks as they are.

        Our own runs use `with_file`, which changes nothing. None goes back to the usual file.
        """
        self.sentence_pieces = self._usual
        if path is not None:
            file = paths.expand(path)
            self.sentence_pieces = dataclasses.replace(self._usual, file=file)
        self._model = None

    def _model_context(self):
        if self._model is None:
            processor = self.sentence_pieces.processor
            self._model = types.SimpleNamespace(
                tokenizer=processor, sp_model=processor.serialized_model_proto()
            )
        return self._model


@functools.cache
def shared(vocabulary: vocabularies.Vocabulary) -> seqio.Vocabulary:
    """The seqio vocabulary of a family's tasks; the same for all of them, as mixtures need it."""
    if isinstance(vocabulary, vocabularies.Bytes):
        return seqio.ByteVocabulary()
    return SentencePieceVocabulary(vocabulary)


def output_features(vocabulary: seqio.Vocabulary) -> dict[str, seqio.Feature]:
    """The features of a text-to-text task: both end in EOS, inputs may be missing."""
    feature = seqio.Feature(vocabulary=vocabulary, add_eos=True)
    return {"inputs": dataclasses.replace(feature, required=False), "targets": feature}


def with_file(vocabulary: seqio.Vocabulary, path: str | os.PathLike) -> seqio.Vocabulary:
    """Returns a vocabulary like the one given that reads another file.

    Raises:
      ValueError: the vocabulary reads no file.
    """
    if not isinstance(vocabulary, SentencePieceVocabulary):
        raise ValueError(
            f"VOCABULARY_FILE names {os.fspath(path)!r}, but the task's vocabulary "
            f"({type(vocabulary).__name__}) takes no file; leave it out."
        )
    file = paths.expand(path)
    return shared(dataclasses.replace(vocabulary.sentence_pieces, file=file))
