"""Writes the tables and the figure: `python -m experiments.figure4_parameter_counts.report`.

How many parameters each method trains, and how many it keeps for a task, for every size of T5 1.1.
Prompt tuning, prompt design and model tuning are counted from this project's code; the others by
the formulas of `METHODS`, whose functions name their source.

    H emb_dim   N D heads times their width   L layers of encoder or decoder   P prompt length
"""

import csv
import io
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from experiments.speed.report import replace_between_marks
from experiments.table4_parameters.report import LENGTHS, SIZES, count
from prompt_tuning import config
from prompt_tuning.model.parameters import parameter_shapes
from prompt_tuning.model.sizes import T5Config

FOLDER = Path(__file__).parent
LENGTH = 100  # of the lines and of table.md
CLASSES = 2  # C, of BoolQ, COPA, MultiRC, RTE and WiC; CB has 3
MLP_WIDTH = 512  # of the reparameterisation of a prefix


class Counted(NamedTuple):
    """Parameters of one task: trained, and kept for inference."""

    trained: int
    kept: int


class Row(NamedTuple):
    """One method at one size and prompt length."""

    size: str
    method: str
    length: int
    trained: int
    kept: int
    model: int

    @property
    def shares(self) -> tuple[float, float]:
        """What is trained and kept, in percent of the model."""
        return 100 * self.trained / self.model, 100 * self.kept / self.model


def model_parameters(model: T5Config) -> int:
    """All parameters of a T5, from its shapes."""
    return sum(map(math.prod, parameter_shapes(model).values()))


def prompt_tuning(model: T5Config, length: int) -> Counted:
    """P H: Lester et al. 2021, section 2; counted from our method, see table4_parameters."""
    trained = count(model.name.removeprefix("t5_1_1_"), length).trainable
    return Counted(trained, trained)


def model_tuning(model: T5Config, length: int) -> Counted:
    """Every parameter: Lester et al. 2021, section 3.1; counted from our model."""
    del length
    return Counted(model_parameters(model), model_parameters(model))


def prompt_design(model: T5Config, length: int) -> Counted:
    """None: a text (Lester et al. 2021, section 3.1)."""
    del model, length
    return Counted(0, 0)


def prefix_tuning(model: T5Config, length: int) -> Counted:
    """Keys and values in each layer: Li and Liang 2021, sections 4.2 and 4.3, and their code.

    2 P N D numbers in each of L self-attentions of the encoder, L of the decoder and L
    cross-attentions. In training an MLP makes those of a place for all layers:
    Linear(H, 512), tanh, Linear(512, 2 L N D) over an embedding [P, H]; it is dropped afterwards.
    """
    inner = model.num_heads * model.head_dim
    layers = (model.num_encoder_layers, model.num_decoder_layers, model.num_decoder_layers)
    widths = [2 * count * inner for count in layers]
    embedding = 3 * length * model.emb_dim
    first = 3 * (model.emb_dim + 1) * MLP_WIDTH
    return Counted(
        embedding + first + sum((MLP_WIDTH + 1) * width for width in widths), length * sum(widths)
    )


def prefix_tuning_direct(model: T5Config, length: int) -> Counted:
    """A prefix without the MLP: what P-tuning v2 trains (Liu et al. 2022, section 3.2)."""
    kept = prefix_tuning(model, length).kept
    return Counted(kept, kept)


def warp(model: T5Config, length: int) -> Counted:
    """(P + C) H: a prompt, and an output embedding for each of C classes.

    Hambardzumyan et al. 2021, section 3.1.
    """
    trained = (length + CLASSES) * model.emb_dim
    return Counted(trained, trained)


def p_tuning_lstm(model: T5Config, length: int) -> Counted:
    """P H + 14 H² + 18 H: Liu et al. 2021 ("GPT understands, too"), section 3.3, and their code.

    An embedding [P, H] goes through two layers of a bidirectional LSTM of width H / 2, with two
    biases as in PyTorch, then Linear(H, H), ReLU, Linear(H, H). The prompt [P, H] that comes out is
    kept. In their SuperGLUE results the model is tuned as well, which is not counted here.
    """
    width = model.emb_dim
    half = width // 2
    lstm = 2 * 2 * (4 * half * (width + half) + 8 * half)
    mlp = 2 * (width + 1) * width
    return Counted(length * width + lstm + mlp, length * width)


def p_tuning_mlp(model: T5Config, length: int) -> Counted:
    """P H + 3 H² + 3 H: three linear layers of width H with ReLU in between, as in peft."""
    width = model.emb_dim
    return Counted(length * width + 3 * (width + 1) * width, length * width)


METHODS: dict[str, Callable[[T5Config, int], Counted]] = {
    "model tuning": model_tuning,
    "prefix tuning": prefix_tuning,
    "prefix tuning without MLP": prefix_tuning_direct,
    "P-tuning, LSTM head": p_tuning_lstm,
    "P-tuning, MLP head": p_tuning_mlp,
    "WARP": warp,
    "prompt tuning": prompt_tuning,
    "prompt design": prompt_design,
}
WITHOUT_LENGTH = ("model tuning", "prompt design")
# Line, marker and dashes; in grey they still differ.
STYLES = {
    "model tuning": ("#000000", "s", "-"),
    "prefix tuning": ("#b2182b", "^", "--"),
    "prefix tuning without MLP": ("#b2182b", "v", ":"),
    "P-tuning, LSTM head": ("#e08214", "D", "-."),
    "WARP": ("#1b7837", "x", ":"),
    "prompt tuning": ("#2166ac", "o", "-"),
}
PANELS = {
    "trained": ["model tuning", "prefix tuning", "P-tuning, LSTM head", "prompt tuning"],
    "kept for a task": ["model tuning", "prefix tuning without MLP", "WARP", "prompt tuning"],
}


def rows() -> list[Row]:
    """Every method, size and length."""
    found = []
    for size in SIZES:
        model = config.read_model(f"t5_1_1_{size}")
        total = model_parameters(model)
        for name, counted in METHODS.items():
            for length in LENGTHS[-1:] if name in WITHOUT_LENGTH else LENGTHS:
                shown = 0 if name in WITHOUT_LENGTH else length
                found.append(Row(size, name, shown, *counted(model, length), total))
    return found


def table(found: list[Row]) -> str:
    """Parameters at P = 100, and their share of the model's."""
    by_cell = {(row.method, row.size): row for row in found if row.length in (0, LENGTH)}
    lines = [
        f"| P = {LENGTH} | | {' | '.join(SIZES)} |",
        "| --- | --- |" + " ---: |" * len(SIZES),
    ]
    for name in METHODS:
        of_sizes = [by_cell[name, size] for size in SIZES]
        trained = [_cell(row.trained, row.shares[0]) for row in of_sizes]
        kept = [_cell(row.kept, row.shares[1]) for row in of_sizes]
        what = "trained, kept" if trained == kept else "trained"
        lines.append(f"| {name} | {what} | {' | '.join(trained)} |")
        if trained != kept:
            lines.append(f"| | kept | {' | '.join(kept)} |")
    return "\n".join(lines)


def _cell(parameters: int, share: float) -> str:
    return f"{parameters:,} ({_percent(share)})"


def _percent(share: float) -> str:
    """Three digits.

    >>> _percent(100.0), _percent(0.0663), _percent(0.0)
    ('100%', '0.0663%', '0%')
    """
    return f"{float(f'{share:.3g}'):g}%" if share >= 0.001 or not share else f"{share:.5f}%"


def write_csv(found: list[Row]) -> str:
    """All rows; length 0 where there is no prompt."""
    with io.StringIO() as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*Row._fields, "trained_percent", "kept_percent"])
        for row in found:
            writer.writerow([*row, *(f"{share:.6g}" for share in row.shares)])
        return file.getvalue()


def draw(found: list[Row], folder: Path) -> None:
    """Shares against model size, both logarithmic: a line at P = 100, bars from 1 to 150."""
    import matplotlib
    from matplotlib.figure import Figure  # needs no display; slow to import

    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    all_axes = figure.subplots(1, 2, sharey=True)
    for number, (axes, (what, names)) in enumerate(zip(all_axes, PANELS.items(), strict=True)):
        for place, name in enumerate(names):
            _draw_line(axes, found, name, number, shift=1.06 ** (place - 1.5))
        axes.set(xscale="log", yscale="log", title=what)
        models = {row.size: row.model for row in found}
        axes.set_xticks([*models.values()], [size.upper() for size in _ticks(models)])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    all_axes[0].set_ylabel("% of the model's parameters")
    figure.supxlabel("T5 1.1, by parameters", fontsize="medium")
    handles = {}
    for axes in all_axes:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=3)
    with matplotlib.rc_context({"svg.hashsalt": "figure4", "svg.fonttype": "none"}):
        figure.savefig(folder / "figure.png", dpi=120)
        figure.savefig(folder / "figure.svg", metadata={"Date": None})


def _ticks(models: dict[str, int]) -> list[str]:
    short = {"small": "S", "base": "B", "large": "L"}
    return [short.get(size, size) for size in models]


def _draw_line(axes, found: list[Row], name: str, number: int, shift: float) -> None:
    color, marker, dashes = STYLES[name]
    of_method = [row for row in found if row.method == name]
    middle = [row for row in of_method if row.length in (0, LENGTH)]
    share = {(row.size, row.length): row.shares[number] for row in of_method}
    y = [row.shares[number] for row in middle]
    x = [row.model * shift for row in middle]
    axes.plot(x, y, color=color, marker=marker, linestyle=dashes, markersize=5, label=name)
    if name not in WITHOUT_LENGTH:
        low, high = (
            [share[row.size, length] for row in middle] for length in (LENGTHS[0], LENGTHS[-1])
        )
        axes.vlines(x, low, high, color=color, alpha=0.5, linewidth=1)


def main() -> int:
    """Writes table.md, table.csv, figure.png, figure.svg, and the table of README.md."""
    found = rows()
    (FOLDER / "table.md").write_text(table(found) + "\n", encoding="utf-8")
    (FOLDER / "table.csv").write_text(write_csv(found), encoding="utf-8")
    readme = FOLDER / "README.md"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(replace_between_marks(text, table(found)), encoding="utf-8")
    draw(found, FOLDER)
    return 0


if __name__ == "__main__":
    sys.exit(main())
