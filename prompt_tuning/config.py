"""The one door to gin: reads a configuration and makes a `Run` of it.

A configuration is a few files and bindings. A *part* (below gin/) holds one idea
and includes nothing; a *run* (below configs/, or yours) includes parts and then
states what differs. No two parts of a run may set the same name, so their order
never matters; a run, and after it the command line, overrides them.

Everything is checked on the text first, so that a missing name, an unknown one
or a typo is one sentence before anything is loaded.
"""

import contextlib
import dataclasses
import difflib
import functools
import importlib
import inspect
import re
import sysconfig
import tokenize
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gin
from gin import config_parser
from prompt_tuning.macros import MACROS
from prompt_tuning.model import decoding
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.pocket import register
from prompt_tuning.prompts import initializers
from prompt_tuning.run import Run
from prompt_tuning.training import optimizers, schedules

CONFIGURABLES = (
    Run,
    T5Config,
    decoding.Greedy,
    decoding.Sample,
    decoding.BeamSearch,
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

register.register_models()

for _thing in CONFIGURABLES:
    gin.external_configurable(_thing, module=_thing.__module__)


@functools.cache
def configurables() -> tuple[Callable[..., Any], ...]:
    """All that gin knows; those of the tasks import TensorFlow, so `load` alone asks for them."""
    from prompt_tuning.data import tables
    from prompt_tuning.pocket import corpus_tasks

    register.register_tasks()
    for thing in (tables.TableTask, corpus_tasks.PocketCorpus):
        gin.external_configurable(thing, module=thing.__module__)
    return (*CONFIGURABLES, tables.TableTask, corpus_tasks.PocketCorpus)


REQUIRED = "gin.REQUIRED"  # what a part writes for a name that the user must set


class Statement(NamedTuple):
    """One binding as it stands in a file or on the command line."""

    source: str
    name: str  # 'TRAIN_STEPS' for a macro, 'T5Config.emb_dim' for a parameter
    is_macro: bool
    references: tuple[str, ...]  # configurables it names
    macros: tuple[str, ...]  # macros it uses


class _Reference(NamedTuple):
    name: str


class _Macro(NamedTuple):
    name: str


class _Reader(config_parser.ParserDelegate):
    def configurable_reference(self, scoped_configurable_name, evaluate):
        return _Reference(scoped_configurable_name.split("/")[-1])

    def macro(self, macro_name):
        return _Macro(macro_name)


def roots() -> list[Path]:
    """Folders that hold gin/ and configs/: the checkout, or an installed copy's data."""
    here = Path(__file__).resolve().parent.parent
    installed = Path("share") / "prompt-tuning"
    candidates = [here, Path(sysconfig.get_path("data")) / installed, here / installed]
    return [folder for folder in candidates if (folder / "gin" / "models").is_dir()]


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
        the project.
      bindings: 'NAME=VALUE'; a value that is not gin syntax is taken as text, so
        that `MODEL_DIR=/tmp/run` needs no quotes.
      search_paths: folders to look into before the project's own.

    Returns:
      The run; its `config_text` is the resolved configuration, and loads as the same run.

    Raises:
      ValueError: one sentence that says what is missing, unknown or wrong.
    """
    from prompt_tuning.data import tables  # these import TensorFlow
    from prompt_tuning.pocket import corpus_tasks

    folders = [Path(path) for path in search_paths] + [Path.cwd(), *roots()]
    if not gin_files:
        raise ValueError(
            "No configuration was given. Name one with --gin_file, such as "
            "--gin_file=configs/pocket/quickstart.gin."
        )
    texts = [text for name in gin_files for text in _texts(_find(name, folders), folders)]
    texts += [("the command line", _readable(binding)) for binding in bindings]
    statements = [statement for source, text in texts for statement in _read(source, text)]
    _check_parts(statements)
    _check_macros(statements)
    _check_model(statements)
    gin.clear_config()  # gin stays locked after use
    _register_named(statements)
    try:
        for _, text in texts:
            gin.parse_config(text)
        gin.finalize()
        if any(statement.name.startswith("TableTask.") for statement in statements):
            tables.register(gin.get_configurable(tables.TableTask)())
        corpus_tasks.register(gin.get_configurable(corpus_tasks.PocketCorpus)())
        run = gin.get_configurable(Run)()
        return dataclasses.replace(
            run,
            prompt_initializer=_bound(run.prompt_initializer),
            optimizer=_bound(run.optimizer),
            config_text=gin.config_str(max_line_length=100),
        )
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(_sentence(error)) from error


def _bound(function: Callable[..., Any]) -> Callable[..., Any]:
    """Fixes the settings that gin would look up at each call, when the next load cleared them."""
    try:
        settings = gin.get_bindings(function)
    except ValueError:  # a scoped reference or no configurable; gin does not know its settings
        return function
    return functools.partial(getattr(function, "__wrapped__", function), **settings)


def model_names() -> list[str]:
    """The models that have a part, for `read_model`."""
    return [Path(file).stem for file in _known_files(roots(), "gin/models")]


def read_model(name: str) -> T5Config:
    """Reads the dimensions of a model from its part, without touching gin's state.

    Args:
      name: a file of gin/models, without its ending; or the path of such a file of one's own.

    Raises:
      ValueError: no such part; the known ones are listed.

    >>> read_model('t5_1_1_small').emb_dim
    512
    """
    if name.endswith(".gin"):
        path = _find(name, [Path.cwd(), *roots()])
    elif name in (names := model_names()):
        path = _find(f"gin/models/{name}.gin", roots())
    else:
        raise ValueError(f"Unknown model {name!r}{_close(name, names)}. Known: {', '.join(names)}.")
    try:
        items = list(config_parser.ConfigParser(path.read_text(encoding="utf-8"), _Reader()))
    except (SyntaxError, tokenize.TokenError) as error:
        raise ValueError(f"{str(path)!r} is not gin syntax: {error.args[0]}") from error
    bindings = [item for item in items if isinstance(item, config_parser.BindingStatement)]
    fields = dataclasses.fields(T5Config)
    required = {field.name for field in fields if field.default is dataclasses.MISSING}
    others = [item for item in bindings if item.selector.rpartition(".")[2] != "T5Config"]
    settings = {item.arg_name: item.value for item in bindings if item not in others}
    if others or required - settings.keys() or settings.keys() - {f.name for f in fields}:
        raise ValueError(
            f"{str(path)!r} is not the part of a model: it should set every field of T5Config and "
            f"nothing else, as gin/models/t5_1_1_small.gin does."
        )
    return T5Config(**settings)


def _find(name: str, folders: Iterable[Path]) -> Path:
    for folder in folders:
        path = folder / name  # an absolute name stays itself
        if path.is_file():
            return path.resolve()
    folder, _, last = name.rpartition("/")
    known = _known_files(roots(), folder or "configs")
    raise ValueError(
        f"There is no configuration file {name!r}, neither here nor in a search path"
        f"{_close(last, known)}."
    )


def _known_files(folders: Iterable[Path], below: str) -> list[str]:
    return sorted({p.name for folder in folders for p in (folder / below).glob("*.gin")})


def _readable(binding: str) -> str:
    """Puts quotes around a value that gin cannot read."""
    name, equals, value = binding.partition("=")
    if not equals or not name.strip():
        raise ValueError(f"A binding is NAME=VALUE, as in --gin.TRAIN_STEPS=1000; got {binding!r}.")
    try:
        list(config_parser.ConfigParser(f"NAME = {value}", _Reader()))
    except (SyntaxError, tokenize.TokenError):
        value = repr(value)
    return f"{name.strip()} = {value}"


def _texts(path: Path, folders: list[Path]) -> Iterator[tuple[str, str]]:
    """Yields the pieces of a file with what it includes in between, as (source, text)."""
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        included = re.match(r"include\s+(['\"])(.+?)\1", line)
        if included:
            yield str(path), "".join(lines)
            yield from _texts(_find(included[2], folders), folders)
            lines = ["\n"] * (len(lines) + 1)  # so that line numbers stay
        else:
            lines.append(line)
    yield str(path), "".join(lines)


def _read(source: str, text: str) -> Iterator[Statement]:
    try:
        for item in config_parser.ConfigParser(text, _Reader()):
            if isinstance(item, config_parser.BindingStatement):
                is_macro = not item.arg_name
                owner = item.selector.rpartition(".")[2]  # tables.TableTask is TableTask
                name = item.selector if is_macro else f"{owner}.{item.arg_name}"
                names = list(_leaves(item.value))
                references = tuple(n.name for n in names if isinstance(n, _Reference))
                macros = tuple(n.name for n in names if isinstance(n, _Macro))
                yield Statement(source, name, is_macro, references, macros)
    except (SyntaxError, tokenize.TokenError) as error:
        number = getattr(error, "lineno", None) or text.count("\n") + 1
        line = text.splitlines()[number - 1].strip() if number <= text.count("\n") + 1 else ""
        raise ValueError(
            f"{source}, line {number}: not gin syntax: {line!r}. {error.args[0]}"
        ) from error


def _leaves(value: Any) -> Iterator[_Reference | _Macro]:
    if isinstance(value, _Reference | _Macro):
        yield value
    elif isinstance(value, dict):
        for pair in value.items():
            yield from _leaves(pair)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)


def _is_part(source: str) -> bool:
    return any(Path(source).is_relative_to(root / "gin") for root in roots())


def _check_parts(statements: list[Statement]) -> None:
    """No two parts may set the same name, or their order would matter."""
    owner: dict[str, str] = {}
    for statement in statements:
        if not _is_part(statement.source):
            continue
        first = owner.setdefault(statement.name, statement.source)
        if first != statement.source:
            a, b = (
                Path(source).parent.name + "/" + Path(source).name
                for source in (first, statement.source)
            )
            raise ValueError(
                f"Both gin/{a} and gin/{b} set {statement.name}. They exclude each other: name one."
            )


def _check_macros(statements: list[Statement]) -> None:
    """Every macro that is used is set, and every one that a user sets is used."""
    defined = {statement.name for statement in statements if statement.is_macro}
    used = {name for statement in statements for name in statement.macros}
    for statement in statements:
        if statement.is_macro and statement.name not in used and not _is_part(statement.source):
            reason = "is known, but nothing in this configuration uses it"
            if statement.name not in MACROS:
                reason = f"is not a name of this configuration{_close(statement.name, used)}"
            raise ValueError(f"{statement.name}, set in {statement.source}, {reason}.")
    last = {statement.name: statement for statement in statements}
    required = {name for name, statement in last.items() if REQUIRED in statement.macros}
    missing = sorted((used - defined - {REQUIRED}) | required)
    if missing:
        listed = "; ".join(
            f"{name} ({MACROS[name]})" if name in MACROS else name for name in missing
        )
        raise ValueError(f"Not set: {listed}. Say --gin.{missing[0]}=... or set it in a gin file.")


def _check_model(statements: list[Statement]) -> None:
    """A run that names no model's part fails here, not with a list of its dimensions."""
    asks = any(s.name == "Run.model" and "T5Config" in s.references for s in statements)
    if asks and not any(statement.name == "T5Config.vocab_size" for statement in statements):
        raise ValueError(
            "No model is named. Add one more --gin_file=gin/models/NAME.gin, NAME being one of "
            f"{', '.join(model_names())}."
        )


def _register_named(statements: list[Statement]) -> None:
    """Makes what a configuration names as @package.module.thing known to gin."""
    known = {thing.__name__ for thing in configurables()}
    for statement in statements:
        for name in statement.references:
            module, _, attribute = name.rpartition(".")
            if module and attribute not in known:
                thing = _import(module, attribute)
                known.add(attribute)
                with contextlib.suppress(ValueError):  # it was registered before
                    gin.external_configurable(thing, name=attribute, module=module)


def _import(module: str, attribute: str) -> Any:
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"The configuration names @{module}.{attribute}, which cannot be imported: {error}."
        ) from error


def _close(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _sentence(error: Exception) -> str:
    """Takes gin's additions off an error, and adds the names that are close."""
    text = " ".join(str(error).split("\n  In ")[0].split())
    parameters = {thing.__name__: inspect.signature(thing).parameters for thing in configurables()}
    unknown = re.search(r"Configurable '(\w+)' doesn't have a parameter named '(\w+)'", text)
    if unknown:
        thing, name = unknown.groups()
        return f"{thing} has no setting {name!r}{_close(name, parameters[thing])}."
    unknown = re.search(r"No configurable matching (?:reference )?'@?([\w.]+)", text)
    if unknown:
        return f"There is nothing called {unknown[1]!r}{_close(unknown[1], parameters)}."
    return text
