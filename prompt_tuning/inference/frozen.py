"""A frozen T5 as an object: its dimensions, its parameters and its vocabulary.

    t5 = FrozenT5(config, load_parameters(config, 'gs://.../checkpoint_1100000'), vocabulary)
    t5.generate(['hypothesis: ... premise: ...'], prompt=files.read_prompt('runs/cb/prompts/best'))

The same object serves training, evaluation and inference; a prompt, or what another method
added, is an argument, so one model in memory serves any number of them.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from prompt_tuning import trees
from prompt_tuning.checkpoints import checkpoint
from prompt_tuning.data import labels
from prompt_tuning.methods import prompt_tuning
from prompt_tuning.methods.method import Frozen
from prompt_tuning.model import decoding, parameters
from prompt_tuning.model.hooks import Hooks
from prompt_tuning.model.sizes import DTYPES, T5Config
from prompt_tuning.model.transformer import EMBEDDING_PATH, Transformer
from prompt_tuning.prompts import files
from prompt_tuning.run import RANDOM_WEIGHTS
from prompt_tuning.shapes import Array, Float

INPUT_BUCKET = 64  # input lengths are rounded up to a multiple, so that few shapes compile


Change = Callable[[trees.FlatTree, T5Config], trees.FlatTree]
_RANDOM: dict[str, Change] = {RANDOM_WEIGHTS: lambda params, config: params}


def register_random(name: str, change: Change) -> None:
    """Makes NAME:SEED, as a checkpoint's path, draw random parameters and then change them.

    Args:
      name: the text before the colon.
      change: `(params, config) -> params`, by T5X's paths.
    """
    _RANDOM[name] = change


class Prediction(NamedTuple):
    """One decoded sequence of one input."""

    text: str
    score: float  # log-probability in nats; with the brevity penalty for beams


@functools.lru_cache(maxsize=64)
def transformer(config: T5Config, hooks: Hooks = Hooks()) -> Transformer:
    """Makes the T5 with what is attached to it; the same arguments give the same object."""
    return Transformer(config, hooks)


def load_parameters(config: T5Config, path: str, *, dtype: str = "float32") -> trees.FlatTree:
    """Loads every parameter of a T5, or draws them.

    Args:
      config: the model's dimensions.
      path: a checkpoint; or 'random' or 'random:SEED' for untrained parameters, or another
        name of `register_random`.
      dtype: 'float32' or 'bfloat16'.

    Raises:
      ValueError: the checkpoint cannot be read, or does not hold exactly this model.
    """
    name, _, seed = path.partition(":")
    if name not in _RANDOM:
        arrays = checkpoint.load_model(
            path, parameters.parameter_shapes(config), model=config, dtype=dtype
        )
        return {name: jax.numpy.asarray(arrays.pop(name)) for name in list(arrays)}
    if seed and not seed.isdecimal():
        raise ValueError(f"Random weights are asked for as 'random' or 'random:7'; got {path!r}.")
    params = parameters.draw(transformer(config), jax.random.key(int(seed or 0)))
    params = _RANDOM[name](params, config)
    return {name: leaf.astype(DTYPES[dtype]) for name, leaf in params.items()}


@dataclasses.dataclass(frozen=True)
class FrozenT5:
    """A T5 that does not change.

    Attributes:
      config: its dimensions.
      params: its parameters, by T5X's paths.
      vocabulary: one of `data/vocabularies.py`, or a task's seqio vocabulary.
    """

    config: T5Config
    params: trees.FlatTree
    vocabulary: Any

    def __post_init__(self):
        if self.vocabulary.eos_id is None:
            raise ValueError(
                f"The vocabulary {type(self.vocabulary).__name__} has no EOS, so no text can end. "
                "Choose a task whose vocabulary has an eos_id."
            )
        if self.vocabulary.vocab_size > self.config.vocab_size:
            raise ValueError(
                f"The vocabulary has {self.vocabulary.vocab_size:,} ids, but {self.config.name} "
                f"embeds {self.config.vocab_size:,}. Choose a task of the model's own vocabulary: "
                "the names of mT5 tasks begin with 'mt5_', those of ByT5 tasks with 'byt5_', those "
                "of the pocket models' with 'pocket_' (after 'taskless_'); your own table's is "
                "TableTask.vocabulary."
            )

    @functools.cached_property
    def fingerprint(self) -> str:
        """Names the parameters, see `trees.fingerprint`."""
        return trees.fingerprint(self.params)

    def start(self, embeddings: Float[Array, "V H"] | None = None) -> Frozen:
        """What a method's initial values are made from.

        Args:
          embeddings: a table to use instead of the model's own.
        """
        table = self.params[EMBEDDING_PATH] if embeddings is None else embeddings
        return Frozen(self.config, table, labels.tokenizer(self.vocabulary))

    def check_fits(
        self,
        prompt: files.PromptFile,
        allow_other_model: bool = False,
        position: str | None = None,
    ) -> None:
        """Refuses a prompt of another width or position, or one made for other parameters.

        Raises:
          ValueError: names the model the prompt was made for.
        """
        files.check_fits(
            prompt,
            width=self.config.emb_dim,
            model_name=self.config.name,
            fingerprint=lambda: self.fingerprint,
            position=position,
            allow_other_model=allow_other_model,
        )

    def with_hooks(
        self, hooks: Hooks, arrays: trees.FlatTree
    ) -> tuple[Transformer, dict[str, Any]]:
        """Attaches what a method added.

        Args:
          hooks: of the method.
          arrays: the parameters that they add, by path.

        Returns:
          What `model/decoding.py` takes: a model and its nested parameters.
        """
        added = {path: jax.numpy.asarray(array) for path, array in arrays.items()}
        return transformer(self.config, hooks), trees.unflatten(trees.merge(self.params, added))

    def with_prompt(
        self,
        prompt: files.PromptFile | Float[Array, "P H"] | None,
        position: str | None = None,
    ) -> tuple[Transformer, dict[str, Any]]:
        """Attaches a plain prompt; None gives the model as it is.

        Args:
          prompt: as read from a file, or an array.
          position: 'prefix' or 'suffix'; None is the position in the file, or 'prefix'.

        Returns:
          See `with_hooks`.

        Raises:
          ValueError: the prompt is of another width, or was made for other parameters or another
            position.
        """
        if prompt is None:
            return self.with_hooks(Hooks(), {})
        if isinstance(prompt, files.PromptFile):
            self.check_fits(prompt, position=position)
            position = position or (prompt.metadata and prompt.metadata.position)
            prompt = prompt.prompt
        if not isinstance(prompt, np.ndarray | jax.Array):
            raise ValueError(
                f"A prompt is an array (P, {self.config.emb_dim}), or a file that load_prompt has "
                f"read; got {prompt!r}."
            )
        if prompt.ndim != 2 or prompt.shape[1] != self.config.emb_dim:
            raise ValueError(
                f"{self.config.name} needs a prompt of shape (P, {self.config.emb_dim}); got "
                f"{tuple(prompt.shape)}."
            )
        hooks = prompt_tuning.hooks(len(prompt), position or "prefix")
        return self.with_hooks(hooks, prompt_tuning.as_params(prompt))

    def generate(
        self,
        texts: Sequence[str],
        *,
        prompt: Any = None,
        position: str | None = None,
        strategy: decoding.Strategy = decoding.Greedy(),
        num_decodes: int = 1,
        max_decode_length: int = 32,
        max_input_length: int = 512,
        seed: int = 0,
    ) -> list[list[Prediction]]:
        """Writes one or more continuations of each text, the best first.

        Raises:
          ValueError: a text is longer than max_input_length tokens; see `with_prompt`.
        """
        model, params = self.with_prompt(prompt, position)
        decoded = decoding.generate(
            model,
            params,
            self.encode(texts, max_input_length),
            max_decode_length=max_decode_length,
            strategy=strategy,
            num_decodes=num_decodes,
            rng=jax.random.key(seed),
            eos_id=self.vocabulary.eos_id,
        )
        tokens, scores = np.asarray(decoded.tokens), np.asarray(decoded.scores)
        return [
            [Prediction(self.decode(ids), float(x)) for ids, x in zip(*pair, strict=True)]
            for pair in zip(tokens, scores, strict=True)
        ]

    def score(
        self,
        texts: Sequence[str],
        labels: Sequence[str],
        *,
        prompt: Any = None,
        position: str | None = None,
        max_input_length: int = 512,
    ) -> Float[np.ndarray, "B C"]:
        """Scores each label string after each text: log p(label | text) in nats.

        Raises:
          ValueError: see `generate`.
        """
        model, params = self.with_prompt(prompt, position)
        inputs = self.encode(texts, max_input_length)
        return np.asarray(decoding.rank(model, params, inputs, self.encode_labels(labels)))

    def encode(self, texts: Sequence[str], max_length: int) -> np.ndarray:
        """Turns texts into ids [B, T], each with EOS and padding.

        Raises:
          ValueError: no text, or one of more than max_length tokens.
        """
        if isinstance(texts, str) or not texts:
            raise ValueError(f"Expected a list of one or more texts; got {texts!r}.")
        ids, cut = self.encode_cut(texts, max_length)
        for number, tokens in enumerate(cut, 1):
            if tokens:
                raise ValueError(
                    f"Text {number} has {max_length + tokens} tokens, EOS included; at most "
                    f"{max_length} fit. Shorten it or raise the input length."
                )
        longest = int((ids > 0).sum(axis=1).max())
        return ids[:, : -(-longest // INPUT_BUCKET) * INPUT_BUCKET]

    def encode_cut(self, texts: Sequence[str], max_length: int) -> tuple[np.ndarray, list[int]]:
        """Turns texts into ids [B, max_length], and returns how many tokens of each were
        truncated."""
        rows = [[*self.vocabulary.encode(text), self.vocabulary.eos_id] for text in texts]
        kept = [row[: max_length - 1] + row[-1:] if len(row) > max_length else row for row in rows]
        cut = [len(row) - len(short) for row, short in zip(rows, kept, strict=True)]
        return _padded(kept, max_length), cut

    def encode_labels(self, labels: Sequence[str]) -> np.ndarray:
        """Turns label strings into ids [C, L], each with EOS and padding.

        Raises:
          ValueError: no label.
        """
        return encode_labels(self.vocabulary, labels)

    def decode(self, ids: Sequence[int]) -> str:
        """Turns ids back into text, up to the first EOS."""
        kept = []
        for token in ids:
            if int(token) in (self.vocabulary.eos_id, self.vocabulary.pad_id):
                break
            kept.append(int(token))
        return self.vocabulary.decode(kept)


def encode_labels(vocabulary: Any, labels: Sequence[str]) -> np.ndarray:
    """Turns label strings into ids [C, L], each with EOS and padding.

    Raises:
      ValueError: no label.
    """
    if isinstance(labels, str) or not labels:
        raise ValueError(f"Expected a list of one or more labels; got {labels!r}.")
    rows = [[*vocabulary.encode(label), vocabulary.eos_id] for label in labels]
    return _padded(rows, max(len(row) for row in rows))


def _padded(rows: list[list[int]], length: int) -> np.ndarray:
    ids = np.zeros((len(rows), length), np.int32)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return ids
