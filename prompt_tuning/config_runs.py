"""Several runs in one configuration: SEEDS and VARIANTS.

    SEEDS = (0, 1, 2)                                  MODEL_DIR/seed_0, seed_1, seed_2
    VARIANTS = [{'adafactor.learning_rate': 0.3},      MODEL_DIR/learning_rate_0.3,
                {'PROMPT_LENGTH': 20}]                 MODEL_DIR/PROMPT_LENGTH_20

Each run is the configuration with the settings of a variant and a RANDOM_SEED; with both, every
variant has every seed. The config.gin of a run's folder describes that run alone.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from prompt_tuning.config_files import Configuration

SEEDS, VARIANTS = "SEEDS", "VARIANTS"


class Variant(NamedTuple):
    """One run: its name, the end of its MODEL_DIR, and the bindings that make it."""

    name: str
    bindings: tuple[str, ...]


def split(configuration: Configuration) -> tuple[Configuration, list[Variant]]:
    """Takes SEEDS and VARIANTS out of a configuration; without them there are no variants.

    Raises:
      ValueError: they are not a list of seeds or of settings, or two runs are the same.
    """
    values: dict[str, Any] = {SEEDS: None, VARIANTS: None}
    rest = []
    for one in configuration.statements:
        if one.owner or one.key not in values:
            rest.append(one)
        else:
            values[one.key] = one.value
    variants = _combined(_settings(values[VARIANTS]), _seeds(values[SEEDS]))
    names = [variant.name for variant in variants]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"SEEDS and VARIANTS describe the run {twice[0]} twice; remove one.")
    return Configuration(tuple(rest), configuration.modules), variants


def _seeds(value: Any) -> list[Variant]:
    if value is None:
        return []
    if not isinstance(value, list | tuple) or not value or any(type(x) is not int for x in value):
        raise ValueError(f"SEEDS must be whole numbers, such as (0, 1, 2), or None; got {value!r}.")
    return [Variant(f"seed_{seed}", (f"RANDOM_SEED={seed}",)) for seed in value]


def _settings(value: Any) -> list[Variant]:
    if value is None:
        return []
    expected = "VARIANTS must be a list of settings, such as [{'PROMPT_LENGTH': 20}], or None"
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"{expected}; got {value!r}.")
    for one in value:
        if not isinstance(one, Mapping) or not one or any(type(name) is not str for name in one):
            raise ValueError(f"{expected}; got {one!r} in it.")
        if {SEEDS, VARIANTS, "MODEL_DIR", "RANDOM_SEED"} & one.keys():
            raise ValueError(
                f"A variant sets what differs; its MODEL_DIR follows from that, and its seeds are "
                f"in SEEDS. Remove them from {one!r}."
            )
    return [
        Variant(
            "-".join(f"{name.rpartition('.')[2]}_{_as_name(x)}" for name, x in one.items()),
            tuple(f"{name}={x!r}" for name, x in one.items()),
        )
        for one in value
    ]


def _as_name(value: Any) -> str:
    """A value as a part of a file name.

    >>> _as_name(['yes', 'no']), _as_name(0.3)
    ('yes_no', '0.3')
    """
    return re.sub(r"[^\w.+-]+", "_", str(value)).strip("_") or "empty"


def _combined(variants: Sequence[Variant], seeds: Sequence[Variant]) -> list[Variant]:
    if not variants or not seeds:
        return [*variants, *seeds]
    return [
        Variant(f"{one.name}-{seed.name}", one.bindings + seed.bindings)
        for one in variants
        for seed in seeds
    ]
