"""The identity of a training run, kept beside its saved states: only the same run resumes them.

    MODEL_DIR/state/identity.json
        settings   the settings that affect the result and differ from their default
        defaults   those that have their default; for both see `settings.py`
        model      the fingerprint of the frozen model
        data       rows and digest of the tokenised examples of each task and split
        versions   of Python and the libraries
        computed   how a step is computed, which affects the last bits only

The process that holds the lock of MODEL_DIR writes the file once, before the first state. Without
a state the file is ignored and replaced; with one, it belongs to that state. It is not a part of
the states because their restore templates have fixed shapes, and states saved by versions that
wrote no identity must stay readable.

On resume these may change: TRAIN_STEPS, EVAL_PERIOD, Run.early_stopping, paths whose content is
the same, and settings that affect only speed or what is measured. A learning rate schedule that
depends on TRAIN_STEPS is part of the identity.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prompt_tuning import folders, paths
from prompt_tuning.checkpoints.training_state import StateStore
from prompt_tuning.data import batches
from prompt_tuning.prompts.metadata import library_versions
from prompt_tuning.run import Run
from prompt_tuning.training import settings

FILE = "identity.json"
# The frozen model is compared by fingerprint; PROMPT_FILE affects training only as from_file.path.
MAY_CHANGE = {
    "TRAIN_STEPS",
    "EVAL_PERIOD",
    "Run.early_stopping",
    "INITIAL_CHECKPOINT_PATH",
    "PROMPT_FILE",
}
# If one of these differs, so does the data.
DECIDES_THE_DATA = (
    "MIXTURE_OR_TASK_NAME",
    "TASK_FEATURE_LENGTHS",
    "Run.eval_split",
    "Run.eval_examples",
    "TableTask.",
    "PocketCorpus.",
)
TABLE_FILES = re.compile(r"TableTask\.\w+_file")  # compared as the data read from them


@dataclasses.dataclass(frozen=True)
class Identity:
    """See the module's docstring.

    Attributes:
      settings, defaults: texts by the name of the setting.
      model: a fingerprint, see `trees.fingerprint`.
      data: {'boolq train': {'rows': 600, 'digest': '0123456789abcdef'}}.
      versions: by package.
      computed: see `setup.describe_compute`; empty if the version that wrote it drew dropout masks
        for the whole batch at once.
    """

    settings: Mapping[str, str]
    defaults: Mapping[str, str]
    model: str
    data: Mapping[str, Mapping[str, Any]]
    versions: Mapping[str, str]
    computed: str = ""


def of_run(
    run: Run,
    fingerprint: str,
    stream: batches.TrainBatches,
    dev_sets: Sequence[batches.Examples],
    computed: str,
) -> Identity:
    """Computes the identity of a run.

    Args:
      run: its settings.
      fingerprint: of the frozen model.
      stream: the training data.
      dev_sets: the data it is evaluated on.
      computed: see `Identity`.
    """
    found = settings.settings(run)
    kept = [{name: text for name, text in part.items() if _is_compared(name)} for part in found]
    if len(stream.examples) > 1:
        for examples, rate in zip(stream.examples, stream.rates, strict=True):
            kept[0][f"the rate of {examples.task.name}"] = f"{rate:.6g}"
    return Identity(
        *kept,
        model=fingerprint,
        data={_name(examples): _measure(examples) for examples in [*stream.examples, *dev_sets]},
        versions=library_versions(),
        computed=computed,
    )


def read(folder: str) -> Identity | None:
    """Reads the identity in a folder of states; None if there is none.

    Raises:
      ValueError: the file is damaged.
    """
    path = os.path.join(folder, FILE)
    if not paths.is_file(path):
        return None
    try:
        return Identity(**json.loads(paths.read_bytes(path)))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged: {error}. Restore it, or choose another MODEL_DIR."
        ) from error


def write(folder: str, identity: Identity) -> None:
    """Writes the identity of a run into the folder of its states."""
    content = json.dumps(dataclasses.asdict(identity), indent=1)
    folders.replace_file(os.path.join(folder, FILE), content.encode() + b"\n")


def is_known(
    store: StateStore, model_dir: str, now: Identity, examples: Sequence[batches.Examples]
) -> bool:
    """Whether the states of a run are known to be this run's; reports changed libraries.

    Args:
      store: the states.
      model_dir, now, examples: see `check`.

    Returns:
      False if there are no states, or they were saved by a version that wrote no identity; then
      call `write`.

    Raises:
      ValueError: they belong to another run, see `check`.
    """
    if not store.steps():
        return False
    then = read(store.directory)
    if then is None:
        print(
            f"{store.directory} has no {FILE}: an earlier version saved these states, so only "
            "task, model, batch size and seed are compared."
        )
        return False
    check(model_dir, then, now, examples)
    for line in filter(None, (other_versions(then, now), other_computation(then, now))):
        print(line)
    return True


def check(
    model_dir: str, then: Identity, now: Identity, examples: Sequence[batches.Examples]
) -> None:
    """Refuses to resume a run as a different one.

    Args:
      model_dir: for the message.
      then: the run that was started.
      now: the run that would resume it.
      examples: the data of `now`; what differs is read a second time.

    Raises:
      ValueError: lists everything that differs, with the old and the new value.
    """
    changed = dict(_changed_settings(then, now))
    listed = [f"{name} was {was} and is {text} now" for name, (was, text) in changed.items()]
    if then.model != now.model:
        listed.append(
            f"the model at INITIAL_CHECKPOINT_PATH had the fingerprint {then.model} and has "
            f"{now.model} now"
        )
    if not any(name.startswith(DECIDES_THE_DATA) for name in changed):
        listed += _changed_data(then, now, examples)
    if listed:
        raise ValueError(
            f"{model_dir} holds a different run: {'; '.join(listed)}. Set it back, "
            "or choose another MODEL_DIR."
        )


def other_versions(then: Identity, now: Identity) -> str | None:
    """One line on libraries whose version changed since the run started; None if none did."""
    names = [name for name in then.versions if then.versions[name] != now.versions.get(name)]
    if not names:
        return None
    begun = ", ".join(f"{name} {then.versions[name]}" for name in names)
    found = ", ".join(f"{name} {now.versions.get(name)}" for name in names)
    return f"this run started with {begun}; now {found}: results may differ in the last bits"


def other_computation(then: Identity, now: Identity) -> str | None:
    """One line on a step that is computed otherwise than when the run started."""
    if not then.computed:
        return (
            "an earlier version started this run; its dropout masks were drawn otherwise, so the "
            "result is not the one that version would have given"
        )
    if then.computed == now.computed:
        return None
    return (
        f"this run started {then.computed}; now {now.computed}: results may differ in the last bits"
    )


def _changed_settings(then: Identity, now: Identity) -> Iterator[tuple[str, tuple[str, str]]]:
    """What differs; a default that only one of two versions of this package has is ignored."""
    before, after = (dict(one.defaults) | dict(one.settings) for one in (then, now))
    for name in [*before, *(name for name in after if name not in before)]:
        was, text = before.get(name), after.get(name)
        is_default = name not in then.settings and name not in now.settings
        if was != text and not (is_default and None in (was, text)):
            yield name, (was or "not set", text or "not set")


def _changed_data(
    then: Identity, now: Identity, examples: Sequence[batches.Examples]
) -> Iterator[str]:
    for name in [*then.data, *(name for name in now.data if name not in then.data)]:
        was, found = then.data.get(name), now.data.get(name)
        if was == found:
            continue
        if was is None or found is None:
            yield f"the data of {name} {'are no longer part of it' if was else 'are new'}"
        elif _is_read_alike(next(one for one in examples if _name(one) == name)):
            yield (
                f"the data of {name} have changed since the run started ({was['rows']:,} rows "
                f"then, {found['rows']:,} now)"
            )
        else:
            print(f"the data of {name} differ each time they are read and cannot be compared")


def _is_read_alike(examples: batches.Examples) -> bool:
    """Whether reading them again gives the same; a user's task may have a random preprocessor."""
    again = batches.load_examples(
        examples.task, examples.split, examples.lengths, limit=len(examples), keep_raw=False
    )
    return _measure(again) == _measure(examples)


def _is_compared(name: str) -> bool:
    return name not in MAY_CHANGE and not TABLE_FILES.fullmatch(name)


def _name(examples: batches.Examples) -> str:
    return f"{examples.task.name} {examples.split}"


def _measure(examples: batches.Examples) -> dict[str, Any]:
    """The number and a digest of tokenised examples, in order."""
    content = hashlib.blake2b(digest_size=8)
    for ragged in (examples.inputs, examples.targets):
        for array in (ragged.starts, ragged.flat):
            content.update(array.data)
    return {"rows": len(examples), "digest": content.hexdigest()}
