"""The pocket models' parameters by name: 'pocket_s', 'pocket_s@10', 'pocket_s@span'.

    pocket_s, pocket_s@100   adapted_100.safetensors   after all of LM adaptation
    pocket_s@50              adapted_050.safetensors   after half of it
    pocket_s@10              adapted_010.safetensors   after a tenth
    pocket_s@0               adapted_000.safetensors   before it: span corruption only
    pocket_s@span            span_only.safetensors     span corruption alone, as many steps

Files of shipped models are in prompt_tuning/assets/pocket_s, others in the cache folder,
PROMPT_TUNING_CACHE or ~/.cache/prompt_tuning, where `prompt-tuning pretrain` writes them. Values
are float16, under T5X's parameter names. Each model has a card: card.json for programs,
README.md for people.
"""

import difflib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from prompt_tuning import folders, trees

SIZES = ("pocket_xs", "pocket_s", "pocket_m", "pocket_l", "pocket_xl")
FILES = {
    "0": "adapted_000.safetensors",
    "10": "adapted_010.safetensors",
    "50": "adapted_050.safetensors",
    "100": "adapted_100.safetensors",
    "span": "span_only.safetensors",
}
DEFAULT = "100"
ASSETS = Path(__file__).resolve().parent.parent / "assets"
_LARGEST_FLOAT16 = 65_504.0


def cache_folder() -> Path:
    """The folder of models that are not shipped."""
    named = os.environ.get("PROMPT_TUNING_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "prompt_tuning"


def is_name(path: str) -> bool:
    """Whether a checkpoint path is the name of a pocket model; './pocket_s' is a folder.

    >>> is_name('pocket_s@10'), is_name('./pocket_s'), is_name('runs/pocket_s')
    (True, False, False)
    """
    return re.fullmatch(r"pocket_[^/\\]*", path) is not None


def find(name: str) -> str:
    """Resolves a name to the file of its parameters, shipped or in the cache.

    Raises:
      ValueError: no such size or variant, or it has not been pretrained on this machine.
    """
    size, _, variant = name.partition("@")
    if size not in SIZES:
        close = difflib.get_close_matches(size, SIZES, n=2)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise ValueError(
            f"There is no pocket model {size!r}{hint or '.'} The sizes are {', '.join(SIZES)}. A "
            f"folder of that name is written './{name}'."
        )
    if "@" not in name:
        variant = DEFAULT
    if variant not in FILES:
        raise ValueError(
            f"There is no checkpoint {name!r}: expected one of {', '.join(FILES)} after the @, "
            "the percentage of LM adaptation or 'span' for span corruption alone."
        )
    places = (ASSETS / size, cache_folder() / size)
    for folder in places:
        if (folder / FILES[variant]).is_file():
            return str(folder / FILES[variant])
    flag = " --span_only" if variant == "span" else ""
    raise ValueError(
        f"{name!r} is not shipped and has not been made on this machine yet ({places[1]} does not "
        f"hold {FILES[variant]}). Make it with `prompt-tuning pretrain {size}{flag}`."
    )


def in_float16(params: Mapping[str, Any]) -> trees.FlatTree:
    """Rounds parameters as `export` does.

    Raises:
      ValueError: a value does not fit.

    >>> in_float16({'x': np.array([2049.0], np.float32)})['x'].tolist()
    [2048.0]
    """
    for name, value in params.items():
        largest = np.abs(np.asarray(value)).max()
        if not largest <= _LARGEST_FLOAT16:
            raise ValueError(
                f"{name} holds {largest}, but the largest float16 is {_LARGEST_FLOAT16:g}; a model "
                "with such values cannot be exported."
            )
    return {name: np.asarray(value).astype(np.float16) for name, value in params.items()}


def export(folder: str | os.PathLike, variant: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Writes one file of float16 parameters atomically.

    Args:
      folder: is created if needed.
      variant: '0', '10', '50', '100' or 'span'.
      params: by T5X's names.

    Returns:
      Its entry in the card: 'file', 'bytes' and 'fingerprint' (of the rounded parameters).

    Raises:
      ValueError: a value is out of float16's range.
    """
    rounded = in_float16(params)
    os.makedirs(folder, exist_ok=True)
    path = Path(folder) / FILES[variant]
    folders.replace_file(path, safetensors.numpy.save(dict(sorted(rounded.items()))))
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "fingerprint": trees.fingerprint(rounded),
    }


def write_card(folder: str | os.PathLike, card: Mapping[str, Any]) -> None:
    """Writes card.json, and README.md rendered from it."""
    folder = Path(folder)
    texts = {"card.json": json.dumps(card, indent=2) + "\n", "README.md": render(card)}
    for name, text in texts.items():
        folders.replace_file(folder / name, text.encode())


def read_card(name: str) -> dict[str, Any]:
    """Reads the card beside the parameters of 'pocket_s' or 'pocket_s@10'.

    Raises:
      ValueError: see `find`; or it has no card.
    """
    path = Path(find(name)).with_name("card.json")
    if not path.is_file():
        raise ValueError(f"There is no card {path}; `prompt-tuning pretrain` writes it.")
    return json.loads(path.read_text(encoding="utf-8"))


def fingerprint(name: str) -> str | None:
    """The fingerprint of 'pocket_s@10' in its card; None if there is none."""
    size, _, variant = name.partition("@")
    try:
        made = read_card(name)["checkpoints"]
    except ValueError:
        return None
    return made.get(f"{size}@{variant or DEFAULT}", {}).get("fingerprint")


def render(card: Mapping[str, Any]) -> str:
    """Renders the card as Markdown."""
    corpus, minutes = card["corpus"], sum(stage["seconds"] for stage in card["stages"]) / 60
    lines = [
        f"# {card['model']}",
        "",
        f"A T5 1.1 of {card['parameters']:,} parameters, pretrained on {corpus['documents']:,} "
        f"documents of the pocket corpus (seed {corpus['seed']}). Made in {minutes:.1f} minutes on "
        f"{card['hardware']}, {card['created']}, by",
        "",
        f"    {card['command']}",
        "",
        "| stage | from | steps | batch | learning rate | seconds |",
        "|---|---|---|---|---|---|",
        *(
            f"| {one['name']} | {one['from']} | {one['steps']:,} | {one['batch_size']} "
            f"| {one['learning_rate']:g} | {one['seconds']:.0f} |"
            for one in card["stages"]
        ),
        "",
        "Probe scores are percentages on the validation documents: prefix LM, how often the "
        "continuation is right; span corruption, how many spans are put back exactly. The files "
        "are float16; the difference is theirs less that of the float32 they were rounded from.",
        "",
        "| name | step | prefix LM | difference | span corruption | difference | fingerprint |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in card["checkpoints"].items():
        score, change = one["probe_scores"], one["float16_less_float32"]
        cells = [
            f"{score[key]:.2f} | {change[key]:+.2f}" for key in ("prefix_lm", "span_corruption")
        ]
        lines.append(
            f"| `{name}` | {one['step']:,} | {' | '.join(cells)} | `{one['fingerprint']}` |"
        )
    versions = ", ".join(f"{name} {version}" for name, version in card["versions"].items())
    return "\n".join([*lines, "", f"Versions: {versions}.", ""])
