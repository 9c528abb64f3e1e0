"""Pictures of a run: its learning curve, drawn from what it wrote to metrics.jsonl."""

import json
import os

METRICS_FILE = "metrics.jsonl"
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
      ValueError: the run has no metrics yet.
    """
    from matplotlib.figure import Figure  # draws without a screen; slow to import

    rows = read_metrics(model_dir)
    train = [row for row in rows if row["split"] == "train"]
    dev = [row for row in rows if row["split"] != "train"]
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
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
    path = path or os.path.join(model_dir, "learning_curve.png")
    figure.savefig(path, dpi=DOTS_PER_INCH)
    return path


def read_metrics(model_dir: str) -> list[dict]:
    """Reads the lines of a run's metrics.jsonl; one that is being written is left out.

    Raises:
      ValueError: there are none.
    """
    path = os.path.join(model_dir, METRICS_FILE)
    lines = []
    if os.path.isfile(path):
        with open(path, encoding="utf-8") as file:
            lines = [line for line in file if line.endswith("\n")]
    if not lines:
        raise ValueError(
            f"{model_dir} holds no {METRICS_FILE}, or an empty one; name the MODEL_DIR of a run "
            "that has trained."
        )
    return [json.loads(line) for line in lines]
