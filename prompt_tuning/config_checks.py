"""Checks a configuration before anything in it is called; each refusal is one sentence."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from prompt_tuning.config_files import (
    PART_LEVEL,
    REQUIRED,
    Macro,
    Statement,
    close,
    leaves,
)
from prompt_tuning.config_types import parameters
from prompt_tuning.config_values import Names, Reached
from prompt_tuning.macros import MACRO_OF_FIELD, MACROS


def check_parts(statements: Iterable[Statement], names: Names) -> None:
    """No two parts may set the same name: their order would matter."""
    first_in: dict[tuple[str, str, str], str] = {}
    for statement in statements:
        if statement.level != PART_LEVEL:
            continue
        first = first_in.setdefault(names.place(statement), statement.source)
        if first != statement.source:
            a, b = ("/".join(Path(source).parts[-2:]) for source in (first, statement.source))
            raise ValueError(
                f"Both gin/{a} and gin/{b} set {statement.name}, so they cannot be used together. "
                "Name one of them."
            )


def check_parameters(
    statements: Iterable[Statement], names: Names, hidden: Sequence[str] = ()
) -> None:
    """Every parameter that is set must exist; `hidden` ones are not for a configuration."""
    for statement in statements:
        if not statement.owner:
            continue
        thing = names.find(statement.owner)
        known = parameters(thing.function)
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
            continue
        settable = [name for name in known if f"{thing.name}.{name}" not in hidden]
        if statement.key not in settable:
            hint = close(statement.key, settable) or f" It has {', '.join(settable)}."
            raise ValueError(f"{thing.name} has no setting {statement.key!r}.{hint}")


def check_model(reached: Reached, names: Names, models: Sequence[str]) -> None:
    """A run that names no part of gin/models fails here, not with a list of its dimensions."""
    set_here = {names.place(one)[1:] for one in reached.statements}
    if "T5Config" in reached.things and ("T5Config", "vocab_size") not in set_here:
        raise ValueError(
            "No model is named. Add --gin_file=gin/models/NAME.gin, where NAME is one of "
            f"{', '.join(models)}."
        )


def check_missing(reached: Reached) -> None:
    """Every name that the configuration uses is set."""
    missing = sorted(reached.missing)
    if missing:
        listed = "; ".join(
            f"{name} ({MACROS[name]})" if name in MACROS else name for name in missing
        )
        hint = "".join(close(name, MACROS) for name in missing if name not in MACROS)
        raise ValueError(
            f"Not set: {listed}.{hint} Pass --gin.{missing[0]}=... or set it in a gin file."
        )


def check_used(
    statements: Sequence[Statement],
    names: Names,
    reach_up_to: Callable[[int], Reached],
    reasons: Mapping[str, str],
) -> None:
    """Every statement of a run file or of the command line has an effect.

    A later file or binding may take the effect away again: TRAIN_STEPS = 300 in a file and
    --gin.Run.train_steps=5 is not a mistake. So a statement counts as used if the configuration
    uses it after its own file or binding, or after any later one.

    Args:
      statements: all of them, lowest level first.
      names: what they name.
      reach_up_to: what is used when only the statements up to a level count.
      reasons: why nothing uses a thing, and what to do, where there is a more specific message.
    """
    stages = {level: reach_up_to(level) for level in sorted({one.level for one in statements})}
    # Within a file the last one counts.
    last = {(*names.place(one), one.level): one for one in statements}
    final = [*stages.values()][-1]
    for one in last.values():
        used = any(one in stage.statements for level, stage in stages.items() if level >= one.level)
        if not (used or one.may_be_unused):
            if one.owner:
                raise ValueError(_unused_parameter(one, names, final, reasons))
            raise ValueError(_unused_macro(one, names, final, statements))


def _unused_parameter(
    one: Statement, names: Names, final: Reached, reasons: Mapping[str, str]
) -> str:
    thing = names.find(one.owner)
    if thing.name in final.things:
        return (
            f"{one.name} is set {one.where}, but it has no effect: {thing.name} is used in another "
            "scope, or in one that sets the same. Remove the setting."
        )
    in_use = ", ".join(sorted(final.things - {"Run", "T5Config"}))
    reason = (
        f"In use are {in_use}. Remove the setting, or name @{thing.name} where it should be used."
    )
    return (
        f"{one.name} is set {one.where}, but nothing in this configuration uses {thing.name}. "
        f"{reasons.get(thing.name, reason)}"
    )


def _unused_macro(
    one: Statement, names: Names, final: Reached, statements: Sequence[Statement]
) -> str:
    users = [each for each in statements if Macro(one.name) in leaves(each.value)]
    places = {names.place(user) for user in users}
    places |= {("", "Run", field) for field, macro in MACRO_OF_FIELD.items() if macro == one.name}
    instead = [each for each in final.statements if names.place(each) in places]
    if instead:
        return (
            f"{one.name} is set {one.where}, but nothing in this configuration uses it: "
            f"{instead[0].name} is set directly {instead[0].where}. Remove one of the two."
        )
    if one.name in MACROS:
        return (
            f"{one.name} is set {one.where}, but nothing in this configuration uses it. Remove it, "
            "or add a part of gin/ that uses it."
        )
    used = {leaf.name for each in statements for leaf in leaves(each.value)} - {REQUIRED.name}
    return (
        f"{one.name} is set {one.where}, but it is not a name of this configuration."
        f"{close(one.name, used)}"
    )
