"""Reads the file of a sweep and lists its runs: every combination of its axes, for every seed.

    title = "Prompt length"                        optional, of report.html
    runs = "runs/pocket"                           folder of the runs, local or gs://
    gin_files = ["gin/runs/run.gin"]               settings of all runs: parts, or a complete
    bindings = ["BATCH_SIZE = 32"]                 configuration such as configs/pocket/*.gin
    seeds = [0, 1, 2]
    forgetting_task = "c4_prefix_lm"               optional, see `forgetting.py`

    [report]                                       contents of the table and the figure
    score = "dev_score"
    panels = "task"                                optional: one panel for each value
    x = "size"                                     from left to right
    lines = "method"                               optional: one line each, a column of the table
    rows = ["length"]                              further axes: more rows, and more panels
    average = ["domain"]                           averaged over, for each seed
    overall = "PocketGLUE"                         optional: one more panel, the mean of the others

    [axes.task.boolq]                              one value of the axis 'task'
    gin_files = ["gin/tasks/pocket_boolq.gin"]

    [axes.size]                                    short for [axes.size.xs] and [axes.size.s]
    values = ["xs", "s"]
    gin_files = ["gin/models/pocket_{size}.gin"]   anywhere, {AXIS} is the name of its value

    [axes.method.frozen]
    gin_files = ["gin/methods/prompt_tuning.gin"]
    bindings = ["Run.prompt_length = None"]
    train = false                                  is only evaluated
    seeds = [0]                                    nothing is random; the last axis with seeds wins

    [[exclude]]                                    combinations to leave out
    size = "xl"
    method = "model"

    [[set]]                                        additional settings of some combinations
    task = "record"
    bindings = ["TRAIN_STEPS = 2000"]

    [evaluate.drop]                                also evaluated on another task, see below
    gin_files = ["gin/tasks/mrqa_drop.gin"]
    method = "prompt"                              optional, as in [[set]]

There are as many axes as there are [axes.NAME]. Each has one place in the report; those that it
does not name are rows. `average` and `overall` take the mean over all values of an axis, with equal
weights, seed by seed; a seed that one of them lacks is left out. More of the report:

    split = "level"           the scores of each level of difficulty, which make an axis 'level'
    split = "evaluated_on"    the scores on the task that was trained on, 'trained', and on those
                              of [evaluate.NAME], which make an axis 'evaluated_on'
    reference = "FILE.csv"    values to print beside ours, see `reference.py`; default:
                              reference.csv beside the sweep, if there is one
    digits = 3                after the point of a score; default: 1
    comparable = true         they were measured on the same models and data, so that the
                              difference means something

Several reports are [[report]] tables; all but the first have a name, which is added to the names
of their files: name = "levels" writes table_levels.md. The first one's score is what `run` prints.

What a run has trained, at its best step, is also evaluated on the task of each [evaluate.NAME];
what does not train is evaluated as it is. The settings are those of the run and those of the table,
whose files take the place of the run's files in the same folder: gin/tasks/mrqa_drop.gin that of
gin/tasks/squad.gin. They may say what is evaluated and how, and not what was trained.

The file is TOML; no code in it is executed. Bindings are written as on the command line,
`NAME=VALUE`.
"""

import dataclasses
import itertools
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning import paths
from prompt_tuning.sweeps import layout

NEEDED_KEYS = {"runs", "seeds", "axes", "report"}
TOP_KEYS = NEEDED_KEYS | {
    "title", "gin_files", "bindings", "forgetting_task", "exclude", "set", "evaluate",
}  # fmt: skip
FILE = "sweep.toml"  # of a folder
NAME = r"[\w.]+"  # of a value
VALUE_KEYS = {"gin_files", "bindings", "train", "seeds"}
LISTS = {"gin_files": (str, "texts"), "bindings": (str, "texts"), "seeds": (int, "whole numbers")}


@dataclasses.dataclass(frozen=True)
class Value:
    """One value of an axis: what it adds to a run."""

    name: str
    gin_files: tuple[str, ...] = ()
    bindings: tuple[str, ...] = ()
    train: bool = True
    seeds: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A task that what was trained on another one is evaluated on.

    Attributes:
      gin_files, bindings: what it changes of a run; may have '{AXIS}'.
      combination: the values of the runs that it is for, by axis.
    """

    name: str
    gin_files: tuple[str, ...]
    bindings: tuple[str, ...]
    combination: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
      values: the name of each axis's value, by axis.
      seed: RANDOM_SEED.
      gin_files, bindings: as `config.load` takes them, without RANDOM_SEED and MODEL_DIR.
      train: whether it trains; else it is only evaluated.
      evaluated: its evaluations on other tasks, by their names; each is a cell with its own
        settings, of the same run.
      evaluated_on: the name, if it is such an evaluation.
    """

    values: Mapping[str, str]
    seed: int
    gin_files: tuple[str, ...]
    bindings: tuple[str, ...]
    train: bool
    evaluated: Mapping[str, "Cell"] = dataclasses.field(default_factory=dict)
    evaluated_on: str | None = None

    @property
    def key(self) -> str:
        """Its name, 'boolq-s-prompt-0'; it does not depend on the other cells."""
        return "-".join([*self.values.values(), str(self.seed)])


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A sweep as its file describes it.

    Attributes:
      path: the file, local or gs://; results, tables and figures are written beside it.
      runs: the folder of the runs.
      reports: what `sweep report` writes, at least one.
      axes: the values of each axis, in the order of the file.
      cells: all runs; those that differ only in the seed are adjacent.
      title: of the page.
      forgetting_task: see `forgetting.py`.
      evaluated_on: the names of the evaluations on other tasks.
    """

    path: str
    runs: str
    reports: tuple[layout.Report, ...]
    axes: Mapping[str, tuple[Value, ...]]
    cells: tuple[Cell, ...]
    title: str
    forgetting_task: str | None = None
    evaluated_on: tuple[str, ...] = ()

    @property
    def score(self) -> str:
        """The score that `run` prints."""
        return self.reports[0].score

    @property
    def folder(self) -> str:
        return os.path.dirname(paths.absolute(self.path))

    @property
    def results(self) -> str:
        """The folder of the results, one file each, and of the leases."""
        return os.path.join(self.folder, "results")

    @property
    def collected(self) -> str:
        """The file of results that were collected, one JSON object per line."""
        return os.path.join(self.folder, "results.jsonl")


def read_sweep(path: str) -> Sweep:
    """Reads a sweep.

    Args:
      path: its file, or the folder of its sweep.toml.

    Raises:
      ValueError: the file cannot be read, or has an unknown or malformed entry.
    """
    path = paths.expand(path)
    if paths.is_folder(path):
        path = os.path.join(path, FILE)
    try:
        found = tomllib.loads(paths.read_bytes(path).decode())
    except (OSError, ValueError) as error:  # not UTF-8, or not TOML
        raise ValueError(f"The sweep {path} cannot be read: {error}") from error
    _check_keys(path, found, TOP_KEYS, required=NEEDED_KEYS)
    axes = {axis: _values(path, axis, values) for axis, values in found["axes"].items()}
    names = {axis: [value.name for value in values] for axis, values in axes.items()}
    reports = layout.read(path, found["report"], names)
    evaluations = _evaluations(path, found.get("evaluate", {}), axes, reports)
    excluded = [_rule(path, "exclude", axes, rule) for rule in found.get("exclude", [])]
    set_besides = [
        (_rule(path, "set", axes, rule), rule.get("bindings", [])) for rule in found.get("set", [])
    ]
    cells = tuple(_cells(found, axes, excluded, set_besides))
    cells = tuple(_with_evaluations(cell, evaluations) for cell in cells)
    if not cells:
        raise ValueError(f"{path} describes no run: check seeds, axes and exclude.")
    folder = os.path.basename(os.path.dirname(paths.absolute(path)))
    return Sweep(
        path,
        paths.expand(found["runs"]),
        reports,
        axes,
        cells,
        title=found.get("title", folder),
        forgetting_task=found.get("forgetting_task"),
        evaluated_on=tuple(one.name for one in evaluations),
    )


def select(sweep: Sweep, shard: str | None = None, only: Sequence[str] = ()) -> list[Cell]:
    """Selects cells.

    Args:
      sweep: the sweep.
      shard: 'I/N', the I-th of N parts, from 0. The seeds of a combination stay in one shard, so
        that it is compiled only once.
      only: 'AXIS=VALUE'; several values of one axis are alternatives.

    Raises:
      ValueError: the shard, an axis or a value does not exist.
    """
    number, count = _shard(shard)
    wanted: dict[str, set[str]] = {}
    for choice in only:
        axis, _, name = choice.partition("=")
        check_value(sweep.axes, axis, name, "--only")
        wanted.setdefault(axis, set()).add(name)
    groups = [
        list(cells)
        for values, cells in itertools.groupby(sweep.cells, key=lambda cell: cell.values)
        if all(values[axis] in names for axis, names in wanted.items())
    ]
    return [cell for group in groups[number::count] for cell in group]


def check_value(axes: Mapping[str, tuple[Value, ...]], axis: str, name: str, where: str) -> None:
    """Refuses an unknown axis or value."""
    if axis not in axes:
        raise ValueError(f"{where} names the axis {axis!r}; there are {', '.join(axes)}.")
    known = [value.name for value in axes[axis]]
    if name not in known:
        raise ValueError(f"{where} names {axis} = {name!r}; there are {', '.join(known)}.")


def _rule(path: str, kind: str, axes: Mapping[str, tuple[Value, ...]], rule: Mapping[str, Any]):
    """The combinations that a rule applies to, as {axis: value}."""
    if kind == "set":
        _check_types(f"{path}, [[set]]", rule)
    combination = {key: x for key, x in rule.items() if (kind, key) != ("set", "bindings")}
    for axis, name in combination.items():
        check_value(axes, axis, name, f"{path}, [[{kind}]]")
    return combination


def _evaluations(
    path: str,
    found: Mapping[str, Any],
    axes: Mapping[str, tuple[Value, ...]],
    reports: Sequence[layout.Report],
) -> list[Evaluation]:
    evaluations = []
    for name, settings in found.items():
        where = f"{path}, [evaluate.{name}]"
        if not isinstance(settings, dict) or not re.fullmatch(NAME, name):
            raise ValueError(
                f"{where}: expected a table whose name is letters, digits, '_' and '.'; got "
                f"{settings!r}."
            )
        if name == layout.TRAINED:
            raise ValueError(f"{where}: {name!r} is the task that was trained on; rename it.")
        _check_types(where, settings)
        own = {key: tuple(settings.get(key, ())) for key in ("gin_files", "bindings")}
        combination = {key: x for key, x in settings.items() if key not in own}
        for axis, value in combination.items():
            check_value(axes, axis, value, where)
        evaluations.append(Evaluation(name, **own, combination=combination))
    if not evaluations and any(report.split == layout.EVALUATED_ON for report in reports):
        raise ValueError(
            f"{path}, [report] splits by {layout.EVALUATED_ON}, but there is no [evaluate.NAME]."
        )
    return evaluations


def _with_evaluations(cell: Cell, evaluations: Sequence[Evaluation]) -> Cell:
    evaluated = {}
    for one in evaluations:
        if one.combination.items() <= cell.values.items():
            own = _filled(one.gin_files, cell.values)
            folders = {os.path.dirname(file) for file in own}
            kept = [file for file in cell.gin_files if os.path.dirname(file) not in folders]
            evaluated[one.name] = dataclasses.replace(
                cell,
                gin_files=(*kept, *own),
                bindings=(*cell.bindings, *_filled(one.bindings, cell.values)),
                train=False,
                evaluated_on=one.name,
            )
    return dataclasses.replace(cell, evaluated=evaluated)


def _cells(found: Mapping[str, Any], axes: Mapping[str, tuple[Value, ...]], excluded, set_besides):
    for combination in itertools.product(*axes.values()):
        values = dict(zip(axes, (value.name for value in combination), strict=True))
        if any(rule.items() <= values.items() for rule in excluded):
            continue
        gin_files = [*found.get("gin_files", [])]
        bindings = [*found.get("bindings", [])]
        seeds = found["seeds"]
        for value in combination:
            gin_files += value.gin_files
            bindings += value.bindings
            seeds = seeds if value.seeds is None else value.seeds
        for rule, besides in set_besides:
            if rule.items() <= values.items():
                bindings += besides
        gin_files, bindings = (_filled(texts, values) for texts in (gin_files, bindings))
        train = all(value.train for value in combination)
        for seed in seeds:
            yield Cell(values, seed, tuple(gin_files), tuple(bindings), train)


def _filled(texts: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """Puts the names of a cell's values in place of '{AXIS}'."""
    filled = list(texts)
    for axis, name in values.items():
        filled = [text.replace(f"{{{axis}}}", name) for text in filled]
    return filled


def _values(path: str, axis: str, values: Mapping[str, Any]) -> tuple[Value, ...]:
    found = []
    for name, settings in _one_by_one(f"{path}, [axes.{axis}]", values).items():
        where = f"{path}, [axes.{axis}.{name}]"
        if not re.fullmatch(NAME, name):
            raise ValueError(f"{where}: a value's name is letters, digits, '_' and '.'.")
        if not isinstance(settings, dict):
            raise ValueError(f"{where}: expected a table; got {settings!r}.")
        _check_keys(where, settings, VALUE_KEYS)
        kept = {key: tuple(x) if isinstance(x, list) else x for key, x in settings.items()}
        found.append(Value(name, **kept))
    return tuple(found)


def _one_by_one(where: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Writes the short form of an axis, with a list of values, as a table for each value."""
    if not isinstance(values.get("values"), list):
        return values
    _check_keys(where, values, {"values", *VALUE_KEYS})
    shared = {key: x for key, x in values.items() if key != "values"}
    return {str(name): shared for name in values["values"]}


def _check_keys(where: str, found: Mapping[str, Any], known: set[str], required=frozenset()):
    unknown = sorted(set(found) - known)
    missing = sorted(required - set(found))
    if unknown or missing:
        problem = f"has the unknown key {unknown[0]!r}" if unknown else f"lacks {missing[0]!r}"
        raise ValueError(f"{where} {problem}; known keys: {', '.join(sorted(known))}.")
    _check_types(where, found)


def _check_types(where: str, found: Mapping[str, Any]) -> None:
    for key in LISTS.keys() & found.keys():
        kind, described = LISTS[key]
        value = found[key]
        if not isinstance(value, list) or any(type(one) is not kind for one in value):
            raise ValueError(f"{where}: {key} is a list of {described}; got {value!r}.")
    for key in {"title", "forgetting_task"} & found.keys():
        if not isinstance(found[key], str):
            raise ValueError(f"{where}: {key} is a text; got {found[key]!r}.")
    if type(found.get("train", True)) is not bool:
        raise ValueError(f"{where}: train is true or false; got {found['train']!r}.")


def _shard(text: str | None) -> tuple[int, int]:
    if text is None:
        return 0, 1
    parts = re.fullmatch(r"(\d+)/(\d+)", text)
    if not parts or int(parts[1]) >= int(parts[2]):
        raise ValueError(f"--shard is I/N with I from 0 to N - 1, such as 0/2 and 1/2; got {text}.")
    return int(parts[1]), int(parts[2])
