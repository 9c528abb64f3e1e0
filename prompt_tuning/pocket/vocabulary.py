"""The vocabulary of the pocket models: a sentencepiece model trained on the pocket corpus.

The file in prompt_tuning/assets was written by `train(path)`. The 100 sentinels are not
in the file; they are appended on loading, as for T5's own (`data/vocabularies.py`).
"""

import io
import os
from pathlib import Path

import sentencepiece

from prompt_tuning.data import vocabularies
from prompt_tuning.pocket import corpus

FILE = str(Path(__file__).resolve().parent.parent / "assets" / "pocket_vocabulary.model")
FAMILY = vocabularies.Family(
    "pocket",
    prefix="pocket_",
    standard=vocabularies.SentencePieces("pocket", FILE, "PROMPT_TUNING_POCKET_VOCAB", 100),
)

PIECES = 1308  # plus 100 sentinels: the 1,408 rows of the models' embeddings
DOCUMENTS = 100_000
# Not the seed of the documents that models are pretrained on.
SEED = 1


def train(path: str | os.PathLike, *, pieces: int = PIECES, documents: int = DOCUMENTS) -> None:
    """Trains the vocabulary and writes it; deterministic.

    Every printable ASCII character is a piece, so any English text can be encoded.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus.documents(documents, seed=SEED)),
        model_writer=model,
        vocab_size=pieces,
        model_type="bpe",
        required_chars="".join(map(chr, range(33, 127))),
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    with open(path, "wb") as file:
        file.write(model.getvalue())
