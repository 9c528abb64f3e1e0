"""Writes PocketGLUE as the official archives' files, and reports its size and balance.

    DIR/BoolQ/{train,val,test}.jsonl, DIR/CB/..., DIR/WSC/...      the folders of SuperGLUE
    DIR/QQP/{train,val,test}.jsonl, DIR/MRPC/...                   rows as JSON, not GLUE's columns

prompt-tuning data pocket --out DIR --domain sea --train 500

Test rows keep their labels: the official ones are left out because a server holds them, and
for PocketGLUE there is no server.
"""

import collections
import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

from prompt_tuning import paths
from prompt_tuning.data import glue, metrics, super_glue
from prompt_tuning.pocket import glue_rows, glue_tasks

FOLDERS = {
    "boolq": "BoolQ", "cb": "CB", "copa": "COPA", "multirc": "MultiRC", "record": "ReCoRD",
    "rte": "RTE", "wic": "WiC", "wsc": "WSC", "qqp": "QQP", "mrpc": "MRPC",
}  # fmt: skip
FILES = {"train": "train.jsonl", "validation": "val.jsonl", "test": "test.jsonl"}


@dataclasses.dataclass(frozen=True)
class Facts:
    """The size and balance of one task.

    Attributes:
      task: its short name.
      sizes: examples of each split; MultiRC's are answers.
      shares: the share of each label in the training split, from 0 to 1; empty where
        the answer is a text.
      floor: the best score, in percent, that one and the same answer to every validation
        example gets: the mean of the task's metrics.
    """

    task: str
    sizes: dict[str, int]
    shares: dict[str, float]
    floor: float


def write(
    out: str | os.PathLike | None,
    *,
    tasks: Sequence[str] | None = None,
    domain: str = "home",
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    difficulty: int = glue_rows.DIFFICULTY,
) -> list[Facts]:
    """Writes the files of some or all tasks.

    Args:
      out: folder to write to; None only counts.
      tasks: short names; all if None.
      domain, seed, sizes, difficulty: see `glue_tasks.PocketGlueConfig`.

    Raises:
      ValueError: an unknown task, domain or split; a size below 1 or beyond what there is.
    """
    found = []
    for task in tasks or (*glue_rows.TASKS, *glue_rows.PAIRS):
        counts = glue_tasks.full_sizes(task, domain, sizes, difficulty)
        rows = {
            split: glue_rows.rows(
                task, split, count, seed=seed, domain=domain, difficulty=difficulty
            )
            for split, count in counts.items()
        }
        if out is not None:
            folder = pathlib.Path(paths.local(out, "PocketGLUE")) / FOLDERS[task]
            folder.mkdir(parents=True, exist_ok=True)
            for split, file in FILES.items():
                (folder / file).write_text(glue_tasks.jsonl(rows[split]), encoding="utf-8")
        found.append(facts(task, rows))
    return found


def table(found: Sequence[Facts]) -> str:
    """Lays out sizes, balance and floor, one line per task.

    >>> print(table([Facts('cb', {'train': 8000, 'validation': 300, 'test': 300},
    ...     {'entailment': 0.5, 'neutral': 0.5}, 33.333)]))
    task        train  validation    test  floor  labels
    cb          8,000         300     300   33.3  entailment 50.0%, neutral 50.0%
    """
    lines = [f"{'task':8}{'train':>9}{'validation':>12}{'test':>8}{'floor':>7}  labels"]
    for row in found:
        shares = ", ".join(f"{label} {share:.1%}" for label, share in row.shares.items())
        train, validation, test = (row.sizes[split] for split in glue_rows.SPLITS)
        lines.append(
            f"{row.task:8}{train:9,}{validation:12,}{test:8,}{row.floor:7.1f}  {shares or 'text'}"
        )
    return "\n".join(lines)


def facts(task: str, rows: Mapping[str, Sequence[Mapping]]) -> Facts:
    """Counts the rows of a task, given for each split."""
    targets = {split: _targets(task, rows[split]) for split in rows}
    labels = ("False", "True") if task == "wsc" else _labels(task)
    shares = {}
    if labels:
        counts = collections.Counter(target["value"] for target in targets["train"])
        total = counts.total()
        shares = {label: counts[number] / total for number, label in enumerate(labels)}
    sizes = {split: len(found) for split, found in targets.items()}
    return Facts(task, sizes, shares, floor(task, targets["validation"]))


def floor(task: str, targets: Sequence[Mapping]) -> float:
    """The best mean metric of one answer to everything, see `Facts`."""
    is_grouped = task in ("multirc", "record")
    if task == "record":
        answers = {answer for target in targets for answer in target["value"]}
    else:
        answers = {target["noun" if task == "wsc" else "value"] for target in targets}
    compared = targets if is_grouped else [target["value"] for target in targets]
    best = 0.0
    for answer in sorted(answers):
        said = [{"value": answer} if is_grouped else answer] * len(targets)
        if task == "wsc":  # True where the noun that is asked about is named
            said = [int(target["noun"] == answer) for target in targets]
        numbers: dict[str, float] = {}
        for function in _metrics(task):
            numbers |= function(compared, said)
        best = max(best, sum(numbers.values()) / len(numbers))
    return best


def _labels(task: str) -> tuple[str, ...] | None:
    return (glue if task in glue_rows.PAIRS else super_glue).LABELS[task]


def _metrics(task: str) -> tuple[Callable[..., metrics.Metrics], ...]:
    return (glue if task in glue_rows.PAIRS else super_glue).METRICS[task]


def _targets(task: str, rows: Sequence[Mapping]) -> list[dict]:
    """What the metrics compare with, as the task's postprocessor would give it."""
    if task == "multirc":
        return [
            {"value": answer["label"], "group": question["idx"]}
            for row in rows
            for question in row["passage"]["questions"]
            for answer in question["answers"]
        ]
    if task == "record":
        return [
            {
                "value": sorted({answer["text"] for answer in query["answers"]}),
                "group": (row["idx"], query["idx"]),
            }
            for row in rows
            for query in row["qas"]
        ]
    if task == "wsc":
        return [{"value": int(row["label"]), "noun": row["target"]["span1_text"]} for row in rows]
    labels = _labels(task)
    return [
        {
            "value": labels.index(row["label"])
            if isinstance(row["label"], str)
            else int(row["label"])
        }
        for row in rows
    ]
