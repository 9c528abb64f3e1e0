"""The interface to gin: reads a configuration and makes a `Run` of it.

A configuration is a few files and bindings. A *part* (below gin/) holds one idea and includes
nothing; a *run* (below configs/, or yours) includes parts and then states what differs. No two
parts of a run may set the same name, so their order never matters; run files override parts in
any order, and the command line overrides them.

    config_files.py     text -> statements, in the order of precedence
    config_runs.py      one configuration that describes several runs
    config_checks.py    what is missing, unknown or without effect
    config_values.py    statements -> values; no state is shared with gin or between loads
    config_types.py     a setting against the type that its function declares

Everything is checked before anything is loaded or compiled, and each mistake is one sentence.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gin
from prompt_tuning import config_checks, config_files, config_runs, config_values
from prompt_tuning.config_files import Reference, Statement, roots
from prompt_tuning.config_values import Bindings, Names, Thing
from prompt_tuning.data.text_prompts import TextPrompt
from prompt_tuning.methods import of_run
from prompt_tuning.methods.model_tuning import model_tuning
from prompt_tuning.methods.prompt_tuning import prompt_tuning
from prompt_tuning.model import decoding
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.pocket import register
from prompt_tuning.prompts import initializers
from prompt_tuning.run import Run
from prompt_tuning.training import optimizers, schedules

__all__ = ["add_search_paths", "load", "load_all", "model_names", "read_model", "roots"]

CONFIGURABLES = (
    Run,
    T5Config,
    decoding.Greedy,
    decoding.Sample,
    decoding.BeamSearch,
    prompt_tuning,
    model_tuning,
    TextPrompt,
    initializers.from_random_uniform,
    initializers.from_sampled_vocabulary,
    initializers.from_class_labels,
    initializers.from_embedded_string,
    initializers.from_file,
    optimizers.adafactor,
    optimizers.adamw,
    optimizers.sgd,
    schedules.linear_warmup,
    schedules.linear_decay,
    schedules.rsqrt_decay,
)
# Filled in here, never by a configuration.
HIDDEN = ("Run.config_text", "Run.local_tasks", "Run.resolved")

register.register_models()

for _thing in CONFIGURABLES:  # for T5X, which reads our parts with gin itself
    gin.external_configurable(_thing, module=_thing.__module__)


@functools.cache
def configurables() -> tuple[Callable[..., Any], ...]:
    """All names that gin knows; those of tasks import TensorFlow, so only `load` needs them."""
    from prompt_tuning.data import tables
    from prompt_tuning.pocket import corpus_tasks

    register.register_tasks()
    for thing in (tables.TableTask, corpus_tasks.PocketCorpus):
        gin.external_configurable(thing, module=thing.__module__)
    return (*CONFIGURABLES, tables.TableTask, corpus_tasks.PocketCorpus)


def add_search_paths() -> None:
    """Lets gin find the parts of the project where another program, T5X, reads them."""
    configurables()
    for folder in roots():
        gin.add_config_file_search_path(str(folder))


def load(
    gin_files: Sequence[str], bindings: Sequence[str] = (), search_paths: Sequence[str] = ()
) -> Run:
    """Reads a configuration.

    Args:
      gin_files: paths, absolute or below the working directory, a search path or
        the project; `~` is the home folder.
      bindings: 'NAME=VALUE'; a value that is not gin syntax is taken as text, so
        that `MODEL_DIR=/tmp/run` needs no quotes.
      search_paths: folders to look into before the project's own.

    Returns:
      The run. Its functions keep their settings, whatever is loaded later; its
      `config_text` is the resolved configuration, and loads as the same run.

    Raises:
      ValueError: one sentence on what is missing, unknown, wrong or without effect; or the
        configuration describes several runs, see `load_all`.
    """
    runs = load_all(gin_files, bindings, search_paths)
    if "" not in runs:
        first = next(iter(runs.values()))
        raise ValueError(
            f"The configuration describes {len(runs)} runs, by SEEDS or VARIANTS, and one was "
            f"expected; only `prompt-tuning train` takes several. Name the configuration that one "
            f"of them has written, such as {first.model_dir}/config.gin."
        )
    return runs[""]


def load_all(
    gin_files: Sequence[str], bindings: Sequence[str] = (), search_paths: Sequence[str] = ()
) -> dict[str, Run]:
    """Reads a configuration that may describe several runs, see `config_runs.py`.

    Args:
      gin_files, bindings, search_paths: see `load`.

    Returns:
      The runs by name, the end of their MODEL_DIR; a single one has the name ''.

    Raises:
      ValueError: see `load`.
    """
    if not gin_files:
        raise ValueError(
            "No configuration was given. Name one with --gin_file, such as "
            "--gin_file=configs/pocket/quickstart.gin."
        )
    try:
        configuration, variants = config_runs.split(
            config_files.read(gin_files, bindings, search_paths)
        )
        run = _load(configuration)
        if not variants:
            return {"": run}
        return {
            variant.name: _load(
                config_files.with_bindings(
                    configuration,
                    [*variant.bindings, f"MODEL_DIR={os.path.join(run.model_dir, variant.name)!r}"],
                )
            )
            for variant in variants
        }
    except ValueError as error:
        raise ValueError(" ".join(str(error).split())) from error


def _load(configuration: config_files.Configuration) -> Run:
    names = Names(configurables(), configuration.statements)
    config_checks.check_parts(configuration.statements, names)
    statements = _with_initializer(configuration.statements, names)
    config_checks.check_parameters(statements, names, HIDDEN)

    @functools.cache
    def up_to(level: int) -> tuple[Bindings, list[Thing], config_values.Reached]:
        so_far = [one for one in statements if one.level <= level]
        bindings = Bindings(_without_overridden(so_far, names), names)
        local = _local_tasks(bindings)
        return bindings, local, config_values.reach(bindings, [names.find("Run"), *local])

    bindings, local, reached = up_to(max(one.level for one in statements))
    config_checks.check_used(statements, names, lambda level: up_to(level)[2], _reasons(bindings))
    config_checks.check_model(reached, names, model_names())
    config_checks.check_missing(reached)
    _check_fields(bindings)
    maker = config_values.Maker(bindings, unchecked=(Run,))
    run = maker.call(
        names.find("Run"),
        local_tasks=tuple(maker.call(thing) for thing in local),
        config_text=config_values.text(reached, names, configuration.modules),
    )
    optimizers.check(run.optimizer)
    if run.prompt_length is not None:
        initializers.check(run.prompt_initializer)
    return run


def _with_initializer(statements: Sequence[Statement], names: Names) -> list[Statement]:
    """Sets the default initialiser of a prompt explicitly, so that its settings have an effect.

    `prompt_tuning` has one, and so has a run that adds a prompt to another method:
    gin/methods/model_tuning.gin with Run.prompt_length=10.
    """
    default = Reference("", initializers.from_class_labels.__name__, is_call=False)
    bindings = Bindings(statements, names)
    run = bindings.of(names.find("Run"), "")
    method, length = run.get("method"), run.get("prompt_length")
    has_prompt = method is None if length is None else bindings.literal(length.value) is not None
    adds_prompt = has_prompt and not (
        method is not None and _refers_to(method.value, prompt_tuning, names)
    )
    defaults = [("prompt_tuning", "initializer")]
    defaults += [("Run", "prompt_initializer")] * adds_prompt
    return [
        Statement(owner, config_files.PART_LEVEL, True, "", owner, key, default)
        for owner, key in defaults
    ] + [*statements]


def _without_overridden(statements: Sequence[Statement], names: Names) -> list[Statement]:
    """Drops the settings of prompt_tuning that a field of Run replaces, see `methods/of_run.py`."""
    places = {names.place(one)[1:] for one in statements}
    replaced = {
        ("prompt_tuning", key) for field, key in of_run.FIELDS.items() if ("Run", field) in places
    }
    return [one for one in statements if names.place(one)[1:] not in replaced]


def _refers_to(value: Any, function: Callable[..., Any], names: Names) -> bool:
    return isinstance(value, Reference) and names.find(value.name).function is function


def _local_tasks(bindings: Bindings) -> list[Thing]:
    """The tasks that a configuration itself describes, if its run uses them."""
    from prompt_tuning.pocket import corpus_tasks  # imports TensorFlow

    table, corpus = bindings.names.find("TableTask"), bindings.names.find("PocketCorpus")
    task = _task(bindings)
    name = bindings.of(table, "").get("name")
    is_table = name is not None and task is not None and bindings.literal(name.value) == task
    return [table] * is_table + [corpus] * (task in corpus_tasks.TASKS)


def _task(bindings: Bindings) -> str | None:
    task = bindings.of(bindings.names.find("Run"), "").get("task")
    return bindings.literal(task.value) if task else None


def _reasons(bindings: Bindings) -> dict[str, str]:
    """Why nothing uses TableTask or PocketCorpus, whose use depends on the task's name."""
    from prompt_tuning.pocket import corpus_tasks

    name = bindings.of(bindings.names.find("TableTask"), "").get("name")
    makes = {
        "TableTask": f"the task {bindings.literal(name.value)!r}"
        if name
        else "no task: TableTask.name is not set",
        "PocketCorpus": f"the tasks {' and '.join(corpus_tasks.TASKS)}",
    }
    advice = f"this run's task is {_task(bindings)!r}. Remove the setting, or set the task."
    return {thing: f"It describes {tasks}; {advice}" for thing, tasks in makes.items()}


def _check_fields(bindings: Bindings) -> None:
    """A configuration without its run or its method lacks the fields that they set."""
    bound = bindings.of(bindings.names.find("Run"), "")
    missing = [
        f"Run.{field.name}"
        for field in dataclasses.fields(Run)
        if field.default is dataclasses.MISSING and field.name not in bound
    ]
    if missing:
        raise ValueError(
            f"Not set: {', '.join(missing)}. Add --gin_file=gin/runs/run.gin and a method of "
            "gin/methods, or set them."
        )


def model_names() -> list[str]:
    """The models that have a part, for `read_model`."""
    return [name.removesuffix(".gin") for name in config_files.known_files("gin/models")]


def read_model(name: str) -> T5Config:
    """Reads the dimensions of a model from its part.

    Args:
      name: a file of gin/models, without its ending; or the path of your own.

    Raises:
      ValueError: no such part; the known ones are listed.

    >>> read_model('t5_1_1_small').emb_dim
    512
    """
    names = model_names()
    if not name.endswith(".gin") and name not in names:
        raise ValueError(
            f"Unknown model {name!r}.{config_files.close(name, names)} Known: {', '.join(names)}."
        )
    file = name if name.endswith(".gin") else f"gin/models/{name}.gin"
    path = config_files.find(file, [Path.cwd(), *roots()] if file == name else roots())
    statements = config_files.read_statements(path)
    own = {one.key: one.value for one in statements if _sets_model(one)}
    fields = dataclasses.fields(T5Config)
    required = {field.name for field in fields if field.default is dataclasses.MISSING}
    others = [one for one in statements if not _sets_model(one)]
    if others or required - own.keys() or own.keys() - {field.name for field in fields}:
        raise ValueError(
            f"{str(path)!r} is not the part of a model: it should set every field of T5Config and "
            f"nothing else, as gin/models/t5_1_1_small.gin does."
        )
    return T5Config(**own)


def _sets_model(statement: Statement) -> bool:
    return statement.owner.rpartition(".")[2] == "T5Config"
