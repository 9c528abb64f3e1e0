"""Reads a task into memory and makes batches of it.

    load_examples   the task's rows, tokenised once; truncation is reported
    train_batches   endless and deterministic: batch(step) depends on the seed and the step alone

A batch is a dict of NumPy arrays with seqio's encoder-decoder names:

    encoder_input_tokens   [B, T]   how  are  you  1    0    0       1 is EOS, 0 padding
    decoder_input_tokens   [B, L]   0    fine 1    0                 the targets, shifted right
    decoder_target_tokens  [B, L]   fine 1    0    0
    decoder_loss_weights   [B, L]   1    1    0    0
"""

import contextlib
import dataclasses
import functools
import zlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from prompt_tuning.data import labels, orders, tasks
from prompt_tuning.data.postprocessors import as_text
from prompt_tuning.data.ragged import Ragged
from prompt_tuning.data.registry import TextMixture, TextTask
from prompt_tuning.data.tensorflow_import import seqio

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """The rows of one task and split, tokenised and truncated to the lengths.

    Attributes:
      task, split: their origin.
      lengths: the most tokens an input and a target may have, EOS included.
      inputs, targets: token ids, no longer than `lengths`.
      raw: each row as the task made it (texts as bytes, 'idx', ...), for the
        metrics; empty if loaded for training.
      cut: how many inputs and targets were longer and were truncated.
      longest: tokens of the longest input and target before truncation.
    """

    task: TextTask
    split: str
    lengths: Mapping[str, int]
    inputs: Ragged
    targets: Ragged
    raw: Sequence[Mapping]
    cut: Mapping[str, int]
    longest: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.targets)

    @functools.cached_property
    def labelled(self) -> np.ndarray:
        """Which rows have a label [N], see `labels.is_labelled`; the raw rows must be kept."""
        found = [
            labels.is_labelled(
                as_text(row["targets_pretokenized"]), row.get("label"), self.task.labels
            )
            for row in self.raw
        ]
        return np.array(found, bool)

    def batch(self, rows: Sequence[int]) -> Batch:
        """The batch of the given rows."""
        encoder_input = self.inputs.padded(rows, self.lengths["inputs"])
        target = self.targets.padded(rows, self.lengths["targets"])
        decoder_input = np.zeros_like(target)
        decoder_input[:, 1:] = target[:, :-1]
        return {
            "encoder_input_tokens": encoder_input,
            "decoder_input_tokens": decoder_input,
            "decoder_target_tokens": target,
            "decoder_loss_weights": (target > 0).astype(np.float32),
        }

    def report(self) -> str:
        """One line on size, truncation and missing labels, for the log."""
        line = f"{self.task.name} {self.split}: {len(self):,} examples"
        for name in ("inputs", "targets"):
            line += f", longest {name[:-1]} {self.longest[name]} tokens"
            if self.cut[name]:
                line += f" ({self.cut[name]:,} truncated to {self.lengths[name]})"
        missing = int((~self.labelled).sum())
        if missing:
            line += (
                f"; {missing:,} of {len(self):,} rows have no label and are left out of the metrics"
            )
        return line


def load_examples(
    task: TextTask,
    split: str,
    lengths: Mapping[str, int],
    *,
    limit: int | None = None,
    keep_raw: bool = True,
) -> Examples:
    """Runs a task's pipeline and keeps the outcome in memory.

    Args:
      task: as `tasks.get` returns it; the members of a mixture are loaded one by one.
      split: 'train', 'validation', ...
      lengths: {'inputs': 512, 'targets': 8}, as TASK_FEATURE_LENGTHS.
      limit: read at most this many rows.
      keep_raw: keep what the metrics need.

    Raises:
      ValueError: the lengths are malformed; the split is missing or empty; the
        data is not prepared; a label of a classification task does not fit.

    >>> task = tasks.get('generated_sentiment')
    >>> load_examples(task, 'train', {'inputs': 48, 'targets': 8}, limit=2).report()
    'generated_sentiment train: 2 examples, longest input 34 tokens, longest target 6 tokens'
    """
    if _kept is None:
        return _load(task, split, lengths, limit, keep_raw)
    key = (task, split, *sorted(lengths.items()), limit, keep_raw)
    if key not in _kept:
        _kept[key] = _load(task, split, lengths, limit, keep_raw)
    return _kept[key]


_kept: dict[tuple, Examples] | None = None


@contextlib.contextmanager
def keep_loaded() -> Iterator[None]:
    """In this context, `load_examples` reads the same rows only once: for many runs in one process.

    What is in the data folders and vocabulary files must stay the same meanwhile.
    """
    global _kept
    before, _kept = _kept, {} if _kept is None else _kept
    try:
        yield
    finally:
        _kept = before


def _load(
    task: TextTask | TextMixture,
    split: str,
    lengths: Mapping[str, int],
    limit: int | None,
    keep_raw: bool,
) -> Examples:
    if isinstance(task, TextMixture):
        raise ValueError(
            f"{task.name!r} is a mixture; load its tasks: "
            f"{', '.join(part.name for part in tasks.parts(task, split))}."
        )
    _check_lengths(lengths)
    rows = tasks.rows(task, split)
    rows = rows if limit is None else rows.take(limit)
    raw = _read(rows, keep_raw)
    if not raw["targets"]:
        raise ValueError(f"The split {split!r} of the task {task.name!r} is empty.")
    fitted, cut, longest = {}, {}, {}
    for key in ("inputs", "targets"):
        sizes = np.array([len(row) for row in raw[key]])
        cut[key] = int((sizes > lengths[key]).sum())
        longest[key] = int(sizes.max())
        if key == "targets" and cut[key] and task.labels:
            _refuse_cut_label(task, split, lengths, raw[key][int(sizes.argmax())])
        fitted[key] = Ragged.from_rows([fit(row, lengths[key], task) for row in raw[key]])
    return Examples(
        task, split, dict(lengths), fitted["inputs"], fitted["targets"],
        tuple(raw["raw"]), cut, longest,
    )  # fmt: skip


def _read(rows, keep_raw: bool) -> dict[str, list]:
    """Collects the tokens, in blocks when nothing else is wanted: that is ten times as fast."""
    read: dict[str, list] = {"inputs": [], "targets": [], "raw": []}
    if keep_raw:
        read["raw"] = list(rows.as_numpy_iterator())
        for key in ("inputs", "targets"):
            read[key] = [row[key] for row in read["raw"]]
        return read
    blocks = rows.map(lambda row: {key: row[key] for key in ("inputs", "targets")})
    for block in blocks.ragged_batch(1024):
        for key in ("inputs", "targets"):
            flat, ends = block[key].flat_values.numpy(), block[key].row_splits.numpy()[1:-1]
            read[key] += np.split(flat, ends)
    return read


def fit(tokens: np.ndarray, length: int, task: TextTask) -> np.ndarray:
    """Truncates a row as seqio would: EOS, the last token, is kept if the task adds it."""
    if len(tokens) <= length:
        return tokens
    if seqio.preprocessors.append_eos_after_trim in task.seqio_task.preprocessors:
        return np.append(tokens[: length - 1], tokens[-1])
    return tokens[:length]


def _check_lengths(lengths: Mapping[str, int]) -> None:
    wrong = [
        key
        for key in ("inputs", "targets")
        if not isinstance(lengths.get(key), (int, np.integer)) or lengths[key] < 2
    ]
    if wrong or set(lengths) != {"inputs", "targets"}:
        raise ValueError(
            "TASK_FEATURE_LENGTHS must be two numbers of at least 2, such as "
            f"{{'inputs': 512, 'targets': 8}}; got {dict(lengths)}."
        )


def _refuse_cut_label(task: TextTask, split: str, lengths: Mapping[str, int], label) -> None:
    text = task.vocabulary.decode(label.tolist())
    raise ValueError(
        f"The label {text!r} of the task {task.name!r} ({split}) is {len(label)} tokens long, "
        f"EOS included, and TASK_FEATURE_LENGTHS allows {lengths['targets']} for the targets; "
        f"set TASK_FEATURE_LENGTHS = {{'inputs': {lengths['inputs']}, 'targets': {len(label)}}}."
    )


class TrainBatches:
    """An endless stream of training batches that can start at any step.

    Every task is reshuffled each epoch, and an epoch's last rows share a batch
    with the next one's first: no row is left out. In a mixture the task of each
    place of a batch is drawn first, by the mixture's rates.

    Attributes:
      examples: the training rows of each task.
      rates: the share of each task.
      step: the step of the next batch.
    """

    def __init__(
        self,
        examples: Sequence[Examples],
        batch_size: int,
        seed: int,
        rates: Sequence[float] = (1.0,),
        start_step: int = 0,
    ):
        if batch_size < 1:
            raise ValueError(f"BATCH_SIZE must be at least 1; got {batch_size}.")
        self.examples = list(examples)
        self.rates = np.array(rates, float) / np.sum(rates)
        self.batch_size = batch_size
        self.seed = seed
        self.step = start_step
        self._drawn = (0, np.zeros(len(self.examples), np.int64))
        self._order = functools.lru_cache(maxsize=2 * len(self.examples) + 2)(self._new_order)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = self.batch(self.step)
        self.step += 1
        return batch

    def batch(self, step: int) -> Batch:
        """The batch of a step, independent of earlier calls and of the machine."""
        owners, picked = self._picked(step)
        rows = [self.examples[which].batch(numbers) for which, numbers in picked.items()]
        order = np.argsort(np.argsort(owners, kind="stable"), kind="stable")
        return {key: np.concatenate([part[key] for part in rows])[order] for key in rows[0]}

    def input_lengths(self, step: int) -> np.ndarray:
        """The tokens of each input of a step's batch [B], in no particular order."""
        _, picked = self._picked(step)
        return np.concatenate(
            [self.examples[which].inputs.lengths[numbers] for which, numbers in picked.items()]
        )

    def tasks(self, step: int) -> list[str]:
        """The tasks that a step's batch draws from."""
        return [self.examples[which].task.name for which in np.unique(self._owners(step))]

    def _picked(self, step: int) -> tuple[np.ndarray, dict[int, list[int]]]:
        """The task of each place of a step's batch, and the rows of each task, in their order."""
        owners, before = self._owners(step), self._rows_before(step)
        picked = {}
        for which in np.unique(owners).tolist():
            first, count = before[which], int((owners == which).sum())
            picked[which] = [self._row(which, first + place) for place in range(count)]
        return owners, picked

    def _owners(self, step: int, steps: int = 1) -> np.ndarray:
        """Which task each place of the batches from `step` on belongs to."""
        count = steps * self.batch_size
        if len(self.examples) == 1:
            return np.zeros(count, np.int64)
        # The stream has one number per place, so any stretch can be drawn alone.
        places = orders.uniform([self.seed, 1], step * self.batch_size, count)
        return np.searchsorted(np.cumsum(self.rates)[:-1], places, side="right")

    def _rows_before(self, step: int) -> np.ndarray:
        """How many rows of each task the batches before a step hold."""
        at, drawn = self._drawn if self._drawn[0] <= step else (0, np.zeros_like(self._drawn[1]))
        while at < step:
            steps = min(step - at, 1 + 1_000_000 // self.batch_size)
            drawn = drawn + np.bincount(self._owners(at, steps), minlength=len(drawn))
            at += steps
        self._drawn = (step, drawn)
        return drawn

    def _row(self, which: int, place: int) -> int:
        epoch, place = divmod(int(place), len(self.examples[which]))
        return int(self._order(which, epoch)[place])

    def _new_order(self, which: int, epoch: int) -> np.ndarray:
        examples = self.examples[which]
        # In a mixture the name decides, not the place in the list.
        name = [] if len(self.examples) == 1 else [zlib.crc32(examples.task.name.encode())]
        return orders.permutation([self.seed, epoch, *name], len(examples))


def train_batches(
    task: TextTask | TextMixture,
    split: str,
    lengths: Mapping[str, int],
    batch_size: int,
    seed: int,
    *,
    start_step: int = 0,
    limit: int | None = None,
) -> TrainBatches:
    """Loads the training rows of a task or mixture and makes endless batches of them.

    Args:
      task: see `tasks.get`; members of a mixture without the split or with rate 0 are left out.
      split, lengths, limit: see `load_examples`.
      batch_size: rows in a batch.
      seed: decides the order of the rows.
      start_step: the first step; a resumed run gets the batches it would have got.

    Raises:
      ValueError: see `load_examples`.

    >>> task, lengths = tasks.get('generated_sentiment'), {'inputs': 48, 'targets': 8}
    >>> stream = train_batches(task, 'train', lengths, 4, seed=0, limit=10)
    >>> next(stream)['encoder_input_tokens'].shape, stream.step
    ((4, 48), 1)
    """
    rates = {part: task.rate(part) for part in tasks.parts(task, split)}
    chosen = {part: rate for part, rate in rates.items() if rate > 0}
    if not chosen:
        raise ValueError(f"All tasks of {task.name!r} with a split {split!r} have the rate 0.")
    examples = [load_examples(part, split, lengths, limit=limit, keep_raw=False) for part in chosen]
    return TrainBatches(examples, batch_size, seed, [*chosen.values()], start_step)
