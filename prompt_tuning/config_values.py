"""Turns statements into values: finds what a configuration names, and calls it with its settings.

gin keeps one configuration for the whole process and looks a setting up when a function is
called. Here every function gets its settings once, when the configuration is read:

    Run.optimizer = @adafactor              Bound(adafactor, learning_rate=0.1)
    Run.decoding = @BeamSearch()            BeamSearch(num_beams=2)
    fallback = @from_random_uniform         Bound(from_random_uniform, low=0.0), at any depth

so nothing that is loaded later changes it.
"""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import gin
from prompt_tuning.config_files import (
    REQUIRED,
    Macro,
    Reference,
    Statement,
    close,
    leaves,
)
from prompt_tuning.config_types import check_type, parameters


class Bound(functools.partial):
    """A function with its settings; equal to another one with the same."""

    def __eq__(self, other):
        return isinstance(other, Bound) and self._parts == other._parts

    def __hash__(self):
        return hash(self.func)

    @property
    def _parts(self):
        return self.func, self.args, self.keywords


class Thing(NamedTuple):
    """What a name refers to.

    Attributes:
      name: 'adafactor' for one of ours, 'my_package.my_function' for another.
      function: a function or class.
    """

    name: str
    function: Callable[..., Any]


class Names:
    """Resolves the names of one configuration.

    A name without a module is one of ours, or the end of a path that the configuration uses.
    @my_package.my_function is imported at every load, even if one of ours has the same name, so
    that an edited and reloaded module takes effect; otherwise it is the end of a path.
    """

    def __init__(self, builtins: Iterable[Callable[..., Any]], statements: Iterable[Statement]):
        self._builtins = {thing.__name__: thing for thing in builtins}
        used = {statement.owner for statement in statements}
        used |= {
            leaf.name
            for statement in statements
            for leaf in leaves(statement.value)
            if isinstance(leaf, Reference)
        }
        self._dotted = sorted(name for name in used if "." in name)
        self._found: dict[str, Thing] = {}

    def find(self, name: str) -> Thing:
        """Resolves a name.

        Raises:
          ValueError: nothing, or two things, have the name, or its module cannot be imported.
        """
        if name not in self._found:
            self._found[name] = self._find(name)
        return self._found[name]

    def place(self, statement: Statement) -> tuple[str, str, str]:
        """What a statement sets, the same however its owner is written."""
        owner = self.find(statement.owner).name if statement.owner else ""
        return statement.scope, owner, statement.key

    def _builtin(self, name: str) -> Callable[..., Any] | None:
        thing = self._builtins.get(name.rpartition(".")[2])
        if thing is None:
            return None
        path = f".{thing.__module__}.{thing.__name__}"
        return thing if path.endswith(f".{name}") else None

    def _find(self, name: str) -> Thing:
        ours, problem = self._builtin(name), None
        if "." in name:
            try:
                return self._imported(name)
            except _NotFoundError as error:
                problem = error
        if ours is not None:
            return Thing(ours.__name__, ours)
        ends = [dotted for dotted in self._dotted if dotted.endswith(f".{name}") and dotted != name]
        things = {id(thing.function): thing for thing in map(self.find, ends)}
        if len(things) > 1:
            raise ValueError(f"{name!r} is one of {', '.join(ends)}; write the one that is meant.")
        if things:
            return things.popitem()[1]
        try:
            function = gin.get_configurable(name)  # its module registered it
        except ValueError:
            function = None
        if function is None or function.__name__.startswith("_"):  # gin's own, such as `constant`
            raise ValueError(str(problem) if problem else self._unknown(name)) from problem
        try:  # under the name that needs no import statement
            return self._imported(f"{function.__module__}.{function.__qualname__}")
        except _NotFoundError:
            return Thing(name, function)

    def _imported(self, name: str) -> Thing:
        module, _, attribute = name.rpartition(".")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except Exception as error:
            raise _NotFoundError(
                f"The configuration names {name}, which cannot be imported: {error}. "
                "Check the spelling, and that the folder of the module is on PYTHONPATH."
            ) from error
        if not callable(found):
            raise ValueError(f"@{name} must be a function or a class; it is {found!r}.")
        known = [Thing(own, thing) for own, thing in self._builtins.items()]
        same = [thing for thing in [*known, *self._found.values()] if thing.function is found]
        return same[0] if same else Thing(name, found)  # one name, by whatever path it is found

    def _unknown(self, name: str) -> str:
        hint = close(name, self._builtins) or f" Known are {', '.join(self._builtins)}."
        return (
            f"There is nothing called {name!r}.{hint} Name a function of your own with its module, "
            "as in @my_package.my_function."
        )


class _NotFoundError(ValueError):
    pass


class Bindings:
    """What is set in a configuration: macros by name, parameters by what they belong to."""

    def __init__(self, statements: Iterable[Statement], names: Names):
        self.names = names
        self.macros: dict[str, Statement] = {}
        self._bound: dict[tuple[str, str], dict[str, Statement]] = {}
        for statement in statements:  # a later one overrides
            scope, owner, key = names.place(statement)
            if owner:
                self._bound.setdefault((scope, owner), {})[key] = statement
            else:
                self.macros[statement.name] = statement

    def of(self, thing: Thing, scope: str) -> dict[str, Statement]:
        """The parameters of a thing in a scope: 'a/b' adds to 'a', which adds to no scope."""
        parts = scope.split("/") if scope else []
        scopes = ["/".join(parts[:length]) for length in range(len(parts) + 1)]
        found: dict[str, Statement] = {}
        for each in scopes:
            found |= self._bound.get((each, thing.name), {})
        return found

    def literal(self, value: Any) -> Any:
        """What a value is that needs no call: through macros, or None."""
        for _ in range(len(self.macros) + 1):
            if not isinstance(value, Macro) or value.name not in self.macros:
                break
            value = self.macros[value.name].value
        return None if isinstance(value, Macro | Reference) else value


@dataclasses.dataclass
class Reached:
    """The statements that a configuration uses, and the names that it uses and that are not set."""

    statements: set[Statement] = dataclasses.field(default_factory=set)
    things: set[str] = dataclasses.field(default_factory=set)
    missing: set[str] = dataclasses.field(default_factory=set)


def reach(bindings: Bindings, roots: Sequence[Thing]) -> Reached:
    """Follows references and macros from the roots; nothing is called."""
    reached = Reached()
    seen: set[Any] = set()

    def visit(thing: Thing, scope: str) -> None:
        if (thing.name, scope) in seen:
            return
        seen.add((thing.name, scope))
        reached.things.add(thing.name)
        for statement in bindings.of(thing, scope).values():
            take(statement, scope)

    def take(statement: Statement, scope: str) -> None:
        reached.statements.add(statement)
        for leaf in leaves(statement.value):
            if leaf == REQUIRED:
                reached.missing.add(statement.name)
            elif isinstance(leaf, Reference):
                visit(bindings.names.find(leaf.name), leaf.scope or scope)
            elif leaf.name not in bindings.macros:
                reached.missing.add(leaf.name)
            elif leaf not in seen:
                seen.add(leaf)
                take(bindings.macros[leaf.name], "")

    for root in roots:
        visit(root, "")
    return reached


class Maker:
    """Makes the values of one configuration; `unchecked` are the classes that check themselves."""

    def __init__(self, bindings: Bindings, unchecked: Sequence[type] = ()):
        self._bindings = bindings
        self._unchecked = unchecked
        self._open: list[Any] = []  # what is being made, to detect a cycle
        self._singletons: dict[str, Any] = {}  # by scope; gin's own are shared by the process

    def call(self, thing: Thing, scope: str = "", **more: Any) -> Any:
        """Calls a thing with its settings.

        Raises:
          ValueError: a setting is missing or of the wrong type, or the call fails.
        """
        settings = self.settings(thing, scope) | more
        if thing.function is gin.config.singleton and "constructor" in settings:
            if scope not in self._singletons:
                self._singletons[scope] = settings["constructor"]()
            return self._singletons[scope]
        short = thing.name.rpartition(".")[2]
        missing = [
            parameter.name
            for parameter in parameters(thing.function).values()
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            and parameter.name not in settings
        ]
        if missing:
            raise ValueError(
                f"@{thing.name}() lacks a value for {', '.join(missing)}. Set "
                f"{short}.{missing[0]}; or write @{thing.name} if the function itself is meant."
            )
        try:
            return thing.function(**settings)
        except ValueError:
            raise
        except Exception as error:
            raise ValueError(f"@{thing.name}() fails: {type(error).__name__}: {error}") from error

    def settings(self, thing: Thing, scope: str) -> dict[str, Any]:
        """The values of a thing's parameters, of the types that they are declared with."""
        made = {}
        for key, statement in self._bindings.of(thing, scope).items():
            made[key] = self._value(statement.value, scope)
            if thing.function not in self._unchecked:
                check_type(thing.function, key, made[key], statement)
        return made

    def _value(self, value: Any, scope: str) -> Any:
        if isinstance(value, dict):
            return {self._value(k, scope): self._value(v, scope) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._value(item, scope) for item in value)
        if not isinstance(value, Macro | Reference):
            return value
        if (value, scope) in self._open:
            raise ValueError(f"{value!r} refers to itself. Set it to a value.")
        self._open.append((value, scope))
        try:
            if isinstance(value, Macro):
                return self._value(self._bindings.macros[value.name].value, "")
            thing = self._bindings.names.find(value.name)
            scope = value.scope or scope
            if value.is_call:
                return self.call(thing, scope)
            settings = self.settings(thing, scope)
            is_plain = isinstance(thing.function, type) and not settings
            return thing.function if is_plain else Bound(thing.function, **settings)
        finally:
            self._open.pop()


def text(reached: Reached, names: Names, modules: Iterable[str]) -> str:
    """Writes the statements that a configuration uses as a gin file."""
    lines = ["# The resolved configuration: every setting that has an effect."]
    lines += ["", *(f"import {module}" for module in modules)] if modules else []
    macros = [statement for statement in reached.statements if not statement.owner]
    lines += ["", *sorted(f"{one.name} = {_written(one.value, names)!r}" for one in macros)]
    owners: dict[str, list[str]] = {}
    for one in reached.statements - set(macros):
        owner = (f"{one.scope}/" if one.scope else "") + names.find(one.owner).name
        owners.setdefault(owner, []).append(f"{owner}.{one.key} = {_written(one.value, names)!r}")
    for owner in sorted(owners, key=lambda owner: (owner.lower(), owner)):
        lines += ["", *sorted(owners[owner])]
    return "\n".join(lines) + "\n"


def _written(value: Any, names: Names) -> Any:
    """A value whose references have the names under which they are found again."""
    if isinstance(value, dict):
        return {_written(k, names): _written(v, names) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_written(item, names) for item in value)
    if isinstance(value, Reference):
        return dataclasses.replace(value, name=names.find(value.name).name)
    return value
