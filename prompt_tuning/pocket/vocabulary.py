"""The vocabulary of the pocket family: a sentencepiece model trained on the pocket corpus.

The file in prompt_tuning/assets was written by `train(path)`. The 100 sentinels of T5 are
not in it; they are appended when it is read, as with T5's own (`data/vocabularies.py`).
"""

import io
import os

import sentencepiece

from prompt_tuning.pocket import corpus

PIECES = 1308  # the models have 1,408 rows: these and 100 sentinels
DOCUMENTS = 100_000
# Documents of another seed than those that models are pretrained on.
SEED = 1


def train(path: str | os.PathLike, *, pieces: int = PIECES, documents: int = DOCUMENTS) -> None:
    """Trains the vocabulary and writes it; the same arguments give the same file.

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
