"""Reads gin files into statements, in the order of their precedence.

    parts, below gin/  <  run files, each after what it includes  <  bindings, one by one

Names are not resolved here and nothing is called, but the modules of import lines are imported.
"""

import dataclasses
import difflib
import importlib
import re
import sysconfig
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gin import config_parser
from prompt_tuning import paths

COMMAND_LINE = "the command line"
PART_LEVEL = 0
_GIN_HEADER = re.compile(r"^# Parameters for .+:\n# ={10,}$", re.MULTILINE)


@dataclasses.dataclass(frozen=True, repr=False)
class Reference:
    """`@scope/name`, a function or class; with `()`, the result of calling it."""

    scope: str
    name: str
    is_call: bool

    def __repr__(self) -> str:
        return f"@{_scoped(self.scope, self.name)}{'()' * self.is_call}"


@dataclasses.dataclass(frozen=True, repr=False)
class Macro:
    """`%NAME`, the value that NAME is set to."""

    name: str

    def __repr__(self) -> str:
        return f"%{self.name}"


REQUIRED = Macro("gin.REQUIRED")  # what a part writes for a name that the user must set


@dataclasses.dataclass(frozen=True, eq=False)
class Statement:
    """One binding of a file or of the command line.

    Attributes:
      source: the file, or 'the command line'.
      level: its precedence; a higher level overrides a lower one.
      may_be_unused: it is in a part, or in a config.gin that lists settings without effect.
      scope: as in 'train/T5Config.emb_dim', else ''.
      owner: the function or class that it sets a parameter of, as written; '' for a macro.
      key: the parameter, or the macro.
      value: literals, with `Reference` and `Macro` in them.
    """

    source: str
    level: int
    may_be_unused: bool
    scope: str
    owner: str
    key: str
    value: Any

    @property
    def name(self) -> str:
        """'TRAIN_STEPS' for a macro, 'T5Config.emb_dim' for a parameter, as written."""
        return _scoped(self.scope, f"{self.owner}.{self.key}" if self.owner else self.key)

    @property
    def where(self) -> str:
        """'in my.gin' or 'on the command line'."""
        return f"{'on' if self.source == COMMAND_LINE else 'in'} {self.source}"


@dataclasses.dataclass(frozen=True)
class Configuration:
    """All statements, lowest level first, and the modules that the files import."""

    statements: tuple[Statement, ...]
    modules: tuple[str, ...]


class _Reader(config_parser.ParserDelegate):
    """Builds references; `aliases` are the modules that the file imported so far."""

    def __init__(self):
        self.aliases: dict[str, str] = {}

    def configurable_reference(self, scoped_configurable_name, evaluate):
        scope, _, name = scoped_configurable_name.rpartition("/")
        return Reference(scope, self.full_name(name), evaluate)

    def macro(self, macro_name):
        return Macro(macro_name)

    def full_name(self, name: str) -> str:
        first, dot, rest = name.partition(".")
        return f"{self.aliases[first]}.{rest}" if dot and first in self.aliases else name


def roots() -> list[Path]:
    """Folders that hold gin/ and configs/: the checkout, or an installed copy's data."""
    here = Path(__file__).resolve().parent.parent
    installed = Path("share") / "prompt-tuning"
    candidates = [here, Path(sysconfig.get_path("data")) / installed, here / installed]
    return [folder for folder in candidates if (folder / "gin" / "models").is_dir()]


def read(
    gin_files: Sequence[str], bindings: Sequence[str], search_paths: Sequence[str]
) -> Configuration:
    """Reads files and bindings; see `config.load`.

    Raises:
      ValueError: a file is missing or unreadable, or a line is not gin syntax.
    """
    folders = [*(Path(path).expanduser() for path in search_paths), Path.cwd(), *roots()]
    files = [file for name in gin_files for file in _with_includes(find(name, folders), folders)]
    statements: list[Statement] = []
    modules: dict[str, None] = {}
    for level, (path, items) in enumerate(files, start=PART_LEVEL + 1):
        level = PART_LEVEL if is_part(path) else level
        statements += _statements(str(path), level, items.bindings, items.may_be_unused)
        for module in items.modules:
            _import(path, module)
        modules |= dict.fromkeys(items.modules)
    statements.sort(key=lambda statement: statement.level)  # stable: within a level as written
    return with_bindings(Configuration(tuple(statements), tuple(modules)), bindings)


def with_bindings(configuration: Configuration, bindings: Sequence[str]) -> Configuration:
    """Adds bindings, which override what is there.

    Raises:
      ValueError: a binding is not NAME=VALUE.
    """
    added: list[Statement] = []
    start = max((one.level for one in configuration.statements), default=PART_LEVEL) + 1
    for level, binding in enumerate(bindings, start):
        items = _parse(COMMAND_LINE, _quoted(binding))
        added += _statements(COMMAND_LINE, level, items.bindings, False)
    return Configuration((*configuration.statements, *added), configuration.modules)


def read_statements(path: Path) -> list[Statement]:
    """Reads one file, without what it includes.

    Raises:
      ValueError: it is not gin syntax.
    """
    items = _parse(str(path), _text(path))
    return list(_statements(str(path), PART_LEVEL, items.bindings, True))


def find(name: str, folders: Iterable[Path]) -> Path:
    """Finds a gin file; `~` is the home folder.

    Raises:
      ValueError: it is in none of the folders; close names are listed. Or it is in a bucket.
    """
    name = paths.local(name, "A configuration file")
    for folder in folders:
        path = folder / name  # joining keeps an absolute name
        if path.is_file():
            return path.resolve()
    folder, _, last = name.rpartition("/")
    known = known_files(folder or "configs")
    raise ValueError(
        f"There is no configuration file {name!r} in the working directory, a search path or the "
        f"project.{close(last, known)}"
    )


def known_files(below: str) -> list[str]:
    """The names of the project's gin files in one folder."""
    return sorted({path.name for root in roots() for path in (root / below).glob("*.gin")})


def is_part(path: str | Path) -> bool:
    """Whether a file is below gin/."""
    return any(Path(path).is_relative_to(root / "gin") for root in roots())


def close(name: str, known: Iterable[str]) -> str:
    """' Did you mean NAME?', or nothing if no name is close.

    >>> close('TRAIN_STEP', ['TRAIN_STEPS', 'MODEL_DIR'])
    ' Did you mean TRAIN_STEPS?'
    """
    found = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(found)}?" if found else ""


def leaves(value: Any) -> Iterator[Reference | Macro]:
    """The references and macros in a value, at any depth."""
    if isinstance(value, Reference | Macro):
        yield value
    elif isinstance(value, dict):
        for pair in value.items():
            yield from leaves(pair)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)


@dataclasses.dataclass(frozen=True)
class _Items:
    bindings: list[config_parser.BindingStatement]
    includes: list[str]
    modules: list[str]
    may_be_unused: bool


def _with_includes(
    path: Path, folders: list[Path], opened: tuple[Path, ...] = ()
) -> Iterator[tuple[Path, _Items]]:
    """Yields the files that a file includes, at any depth, and then the file itself."""
    if path in opened:
        raise ValueError(f"{path} includes itself. Remove the include.")
    items = _parse(str(path), _text(path))
    for name in items.includes:
        yield from _with_includes(find(name, folders), folders, (*opened, path))
    yield path, items


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}. Save it as UTF-8.") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error


def _parse(source: str, text: str) -> _Items:
    reader = _Reader()
    # A config.gin that gin itself wrote lists all settings, those without effect included.
    items = _Items([], [], [], may_be_unused=bool(_GIN_HEADER.search(text)))
    try:
        for item in config_parser.ConfigParser(text, reader):
            if isinstance(item, config_parser.BindingStatement):
                items.bindings.append(item._replace(selector=reader.full_name(item.selector)))
            elif isinstance(item, config_parser.IncludeStatement):
                items.includes.append(item.filename)
            elif isinstance(item, config_parser.ImportStatement):
                if not item.module.startswith("__gin__."):  # dynamic registration is the rule here
                    items.modules.append(item.module)
                    is_whole = item.is_from or item.alias  # `import a.b` binds a alone
                    bound = item.bound_name()
                    reader.aliases[bound] = item.module if is_whole else bound
    except (SyntaxError, tokenize.TokenError) as error:
        number = getattr(error, "lineno", None) or text.count("\n") + 1
        line = text.splitlines()[number - 1].strip() if number <= text.count("\n") + 1 else ""
        raise ValueError(
            f"{source}, line {number}: not gin syntax: {line!r}. {error.args[0]}"
        ) from error
    return items


def _import(path: Path, module: str) -> None:
    try:
        importlib.import_module(module)
    except Exception as error:
        raise ValueError(
            f"{path} imports {module}, which fails: {type(error).__name__}: {error}."
        ) from error


def _statements(
    source: str, level: int, bindings: Iterable[config_parser.BindingStatement], is_dump: bool
) -> Iterator[Statement]:
    may_be_unused = is_dump or level == PART_LEVEL
    for item in bindings:
        is_macro = not item.arg_name
        owner, key = ("", item.selector) if is_macro else (item.selector, item.arg_name)
        yield Statement(source, level, may_be_unused, item.scope, owner, key, item.value)


def _quoted(binding: str) -> str:
    """Puts quotes around a value that gin cannot read."""
    name, equals, value = binding.partition("=")
    if not equals or not name.strip():
        raise ValueError(f"A binding is NAME=VALUE, as in --gin.TRAIN_STEPS=1000; got {binding!r}.")
    try:
        list(config_parser.ConfigParser(f"NAME = {value}", _Reader()))
    except (SyntaxError, tokenize.TokenError):
        value = repr(value)
    return f"{name.strip()} = {value}"


def _scoped(scope: str, name: str) -> str:
    return f"{scope}/{name}" if scope else name
