"""Plots of a run: its learning curve, from metrics.jsonl."""

import io
import json
import os

from prompt_tuning import folders, paths
from prompt_tuning.training.progress import METRICS_FILE

SIZE_INCHES = (9.0, 3.5)
DOTS_PER_INCH = 120


def learning_curve(model_dir: str, path: str | None = None) -> str:
    """Draws the training loss and the dev score against the step.

    Args:
      model_dir: the folder of the run, finished or not.
      path: the PNG to write; None is learning_curve.png in the run's folder.

    Returns:
      The path of the PNG.

    Raises:
      ValueError: the run has no metrics yet, or the file to write is not a picture.
    """
    from matplotlib.figure import Figure  # needs no display; slow to import

    model_dir = paths.expand(model_dir)
    path = os.path.join(model_dir, "learning_curve.png") if path is None else paths.expand(path)
    rows = read_metrics(model_dir)
    train = [row for row in rows if row["split"] == "train" and "loss" in row]
    dev = [row for row in rows if row["split"] != "train" and "dev_score" in row]
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    path += "" if os.path.splitext(path)[1] else ".png"
    kind, known = os.path.splitext(path)[1][1:], figure.canvas.get_supported_filetypes()
    if kind not in known:
        raise ValueError(
            f"{path!r} should end in .png or another kind of picture: {', '.join(sorted(known))}."
        )
    left, right = figure.subplots(1, 2)
    left.plot([row["step"] for row in train], [row["loss"] for row in train], color="tab:blue")
    left.set(xlabel="step", ylabel="training loss, nats per target token")
    right.plot(
        [row["step"] for row in dev],
        [row["dev_score"] for row in dev],
        color="tab:orange",
        marker="o",
    )
    right.set(xlabel="step", ylabel="dev score", ylim=(-2, 102))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    drawn = io.BytesIO()
    figure.savefig(drawn, format=kind, dpi=DOTS_PER_INCH)
    paths.make_folder(os.path.dirname(paths.absolute(path)))
    folders.replace_file(path, drawn.getvalue())
    return path


def read_metrics(model_dir: str) -> list[dict]:
    """Reads the lines of a run's metrics.jsonl; one that is being written is left out.

    Raises:
      ValueError: there are none, or a line is not JSON.
    """
    path = os.path.join(paths.expand(model_dir), METRICS_FILE)
    lines = []
    if paths.is_file(path):
        lines = paths.read_bytes(path).decode(errors="replace").splitlines(keepends=True)
    lines = [line for line in lines if line.endswith("\n")]
    if not lines:
        raise ValueError(
            f"{model_dir} holds no {METRICS_FILE}, or an empty one; name the MODEL_DIR of a run "
            "that has trained."
        )
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            rows.append({"step": row["step"], "split": row["split"], **row})
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number}: expected a JSON object with 'step' and 'split', got "
                f"{line[:80].rstrip()!r}. The file is damaged; remove that line."
            ) from error
    return rows
