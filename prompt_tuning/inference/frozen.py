"""A frozen T5 as an object: its dimensions, its parameters and its vocabulary.

    t5 = FrozenT5(config, load_parameters(config, 'gs://.../checkpoint_1100000'), vocabulary)
    t5.generate(['hypothesis: ... premise: ...'], prompt=files.read_prompt('runs/cb/prompts/best'))

The same object serves training, evaluation and inference; a prompt, or what another method
added, is an argument, so one model in memory serves any number of them. The texts of one call may
use different prompts, see `row_prompts.py`.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from prompt_tuning import trees
from prompt_tuning.data import labels
from prompt_tuning.data.ragged import Ragged
from prompt_tuning.data.sorted_batches import SortedBatch, in_order
from prompt_tuning.inference import row_prompts, weights
from prompt_tuning.inference.input_batches import batches_for
from prompt_tuning.inference.row_prompts import RowPrompts
from prompt_tuning.methods import prompt_tuning
from prompt_tuning.methods.method import Frozen
from prompt_tuning.model import decoding, quantization, stacking
from prompt_tuning.model.compute import Compute
from prompt_tuning.model.hooks import Hooks
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.model.transformer import EMBEDDING_PATH, Transformer
from prompt_tuning.parallel import placing
from prompt_tuning.prompts import files
from prompt_tuning.shapes import Array, Float, Int

BATCH_ROWS = 64  # texts that are decoded together; fewer are rounded up to a power of 2


class Prediction(NamedTuple):
    """One decoded sequence of one input."""

    text: str
    score: float  # log-probability in nats; with the brevity penalty for beams


@functools.lru_cache(maxsize=64)
def transformer(
    config: T5Config, hooks: Hooks = Hooks(), compute: Compute = Compute()
) -> Transformer:
    """Makes the T5 with what is attached to it; the same arguments give the same object."""
    return Transformer(config, hooks, compute)


def load_parameters(config: T5Config, path: str, *, dtype: str = "float32") -> trees.FlatTree:
    """Loads every parameter of a T5, or draws them; see `weights.load`."""
    return weights.load(config, path, dtype=dtype).params


def load_t5(
    config: T5Config,
    path: str,
    vocabulary: Any,
    *,
    dtype: str = "float32",
    compute: Compute = Compute(),
    stacks: bool = True,
    mesh: Mesh | None = None,
) -> "FrozenT5":
    """Loads a T5; see `weights.load`.

    Args:
      config, path, dtype: see `weights.load`.
      vocabulary, compute: see `FrozenT5`.
      stacks: keep the parameters of scanned layers stacked, as they are computed with; where
        some of them train, they are kept apart.
      mesh: see `weights.load`.

    Raises:
      ValueError: the checkpoint cannot be read, or does not hold exactly this model; the
        vocabulary is another model's.
    """
    stacks = stacks and compute.layers == "scan"
    loaded = weights.load(config, path, dtype=dtype, stacks=stacks, mesh=mesh)
    return FrozenT5(config, loaded.params, vocabulary, compute, loaded.fingerprint)


@dataclasses.dataclass(frozen=True)
class FrozenT5:
    """A T5 that does not change.

    Attributes:
      config: its dimensions.
      params: its parameters, by T5X's paths; those of scanned layers may be stacked, see
        `stacking.py`.
      vocabulary: one of `data/vocabularies.py`, or a task's seqio vocabulary.
      compute: how it is computed.
      known_fingerprint: of the parameters as they were loaded, see `weights.py`.
    """

    config: T5Config
    params: trees.FlatTree
    vocabulary: Any
    compute: Compute = Compute()
    known_fingerprint: str | None = None

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
        return self.known_fingerprint or trees.fingerprint(self.params)

    def start(self, embeddings: Float[Array, "V H"] | None = None) -> Frozen:
        """What a method's initial values are made from.

        Args:
          embeddings: a table to use instead of the model's own.
        """
        table = placing.on_one_device(self.embeddings()) if embeddings is None else embeddings
        return Frozen(self.config, table, labels.tokenizer(self.vocabulary))

    def embeddings(self) -> Float[Array, "V H"]:
        """The embedding table, in float32 if it is kept as int8."""
        table, scale = self.params[EMBEDDING_PATH], self.params.get(EMBEDDING_PATH + "_scale")
        return table if scale is None else quantization.dequantized_table(table, scale)

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
        added = placing.whole(placing.mesh_of(self.params), added)
        params = stacking.nested(trees.merge(self.params, added), self.compute)
        return transformer(self.config, hooks, self.compute), params

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
        prompt, position = self._checked(prompt, position)
        hooks = prompt_tuning.hooks(len(prompt), position)
        return self.with_hooks(hooks, prompt_tuning.as_params(prompt))

    def with_prompts(
        self, prompts: Sequence[Any], position: str | None = None
    ) -> tuple[Transformer, dict[str, Any], Int[np.ndarray, " M"]]:
        """Attaches several plain prompts, of which each row of a batch uses one.

        Args:
          prompts: of any lengths, each as `with_prompt` takes it; None is no prompt.
          position: see `with_prompt`.

        Returns:
          See `with_hooks`; and the length of each prompt, for `Inputs.prompt_lengths`.

        Raises:
          ValueError: there is none, they are not all at one position, or one does not fit, see
            `with_prompt`.
        """
        checked = row_prompts.each(prompts, lambda prompt: self._checked(prompt, position))
        stack, lengths = row_prompts.stacked(checked, self.config.emb_dim)
        hooks = prompt_tuning.hooks_of_several(
            *stack.shape[:2], row_prompts.one_position(checked) or position or "prefix"
        )
        return *self.with_hooks(hooks, prompt_tuning.as_params(stack)), lengths

    def _checked(self, prompt: Any, position: str | None) -> tuple[Float[Array, "P H"], str]:
        """The array of a prompt, and its position."""
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
        return prompt, position or "prefix"

    def _attached(
        self, prompt: Any, prompt_ids: Sequence[int] | None, position: str | None, rows: int
    ) -> tuple[Transformer, dict[str, Any], RowPrompts | None]:
        """Attaches one prompt, or several if it is a list."""
        if isinstance(prompt, list | tuple):
            model, params, lengths = self.with_prompts(prompt, position)
            ids = row_prompts.chosen(len(prompt), prompt_ids, rows)
            return model, params, RowPrompts(ids, lengths)
        if prompt_ids is not None:
            raise ValueError(
                f"prompt_ids choose from a list of prompts; got prompt_ids={prompt_ids!r} and "
                f"{'no prompt' if prompt is None else 'one prompt'}. Pass prompt=[...]."
            )
        return *self.with_prompt(prompt, position), None

    def generate(
        self,
        texts: Sequence[str],
        *,
        prompt: Any = None,
        prompt_ids: Sequence[int] | None = None,
        position: str | None = None,
        strategy: decoding.Strategy = decoding.Greedy(),
        num_decodes: int = 1,
        max_decode_length: int = 32,
        max_input_length: int = 512,
        seed: int = 0,
    ) -> list[list[Prediction]]:
        """Writes one or more continuations of each text, the best first.

        Args:
          texts: the inputs.
          prompt: see `with_prompt`, or a list of them, see `with_prompts`.
          prompt_ids: which prompt of the list each text uses, from 0; None is one for each text.
          position: see `with_prompt`.
          strategy, num_decodes, max_decode_length: see `decoding.generate`.
          max_input_length: tokens that a text may have, EOS included.
          seed: of `Sample`.

        Raises:
          ValueError: a text is longer than max_input_length tokens; see `with_prompt` and
            `with_prompts`.
        """
        inputs = self.encode(texts, max_input_length)
        model, params, of_rows = self._attached(prompt, prompt_ids, position, len(inputs))
        found = []
        batches = self._batches(model, inputs, of_rows, max_input_length)
        for number, batch in enumerate(batches):
            decoded = decoding.generate(
                model,
                params,
                batch.tokens,
                max_decode_length=max_decode_length,
                strategy=strategy,
                num_decodes=num_decodes,
                rng=jax.random.fold_in(jax.random.key(seed), number),
                eos_id=self.vocabulary.eos_id,
            )
            found.append((batch.rows, decoded))
        tokens, scores = in_order(found)
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
        prompt_ids: Sequence[int] | None = None,
        position: str | None = None,
        max_input_length: int = 512,
    ) -> Float[np.ndarray, "B C"]:
        """Scores each label string after each text: log p(label | text) in nats.

        Args:
          texts, prompt, prompt_ids, position, max_input_length: see `generate`.
          labels: the strings.

        Raises:
          ValueError: see `generate`.
        """
        inputs = self.encode(texts, max_input_length)
        model, params, of_rows = self._attached(prompt, prompt_ids, position, len(inputs))
        label_ids = self.encode_labels(labels)
        return in_order(
            (batch.rows, decoding.rank(model, params, batch.tokens, label_ids))
            for batch in self._batches(model, inputs, of_rows, max_input_length)
        )

    def _batches(
        self, model: Transformer, inputs: Ragged, of_rows: RowPrompts | None, max_length: int
    ) -> Iterator[SortedBatch]:
        """Batches of few shapes, so that few programs are compiled."""
        rows = min(BATCH_ROWS, 1 << (len(inputs) - 1).bit_length())
        for batch in batches_for(model, inputs, rows, max_length):
            yield batch if of_rows is None else of_rows.added_to(batch)

    def encode(self, texts: Sequence[str], max_length: int) -> Ragged:
        """Turns texts into ids, each with EOS.

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
        return ids

    def encode_cut(self, texts: Sequence[str], max_length: int) -> tuple[Ragged, list[int]]:
        """Turns texts into ids of at most max_length, and returns how many tokens of each were
        truncated."""
        rows = [[*self.vocabulary.encode(text), self.vocabulary.eos_id] for text in texts]
        kept = [row[: max_length - 1] + row[-1:] if len(row) > max_length else row for row in rows]
        cut = [len(row) - len(short) for row, short in zip(rows, kept, strict=True)]
        return Ragged.from_rows([np.array(row, np.int32) for row in kept]), cut

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
    rows = [np.array([*vocabulary.encode(label), vocabulary.eos_id]) for label in labels]
    return Ragged.from_rows(rows).padded(range(len(rows)), max(map(len, rows)))
