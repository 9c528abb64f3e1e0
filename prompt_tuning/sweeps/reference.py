"""Reads the reference values of a sweep: numbers of the paper, to print and draw beside ours.

    size,method,value,std,source,model_parameters
    small,prompt,59.8,0.8,S,76961152
    small,model,62.8,0.8,S,76961152

    task,score,method,value,std,source
    mrpc,accuracy,prompt,76.3,0.1,P
    mrpc,f1,prompt,84.3,0.3,P

The columns are axes of the report (those that are left out hold for all of their values), `value`,
`std` (may be empty), `source` (see SOURCES), and `model_parameters`, optional: where a value that
is not one of ours stands on the axis of sizes. `score`, optional, is the score of the report
that a value is for.

A value of a combination that the sweep describes is a column beside ours. The others, such as the
paper's sizes beside pocket models, make a table and a panel 'paper' of their own, with their own
axis.
"""

import io
import os

import pandas as pd

from prompt_tuning import paths
from prompt_tuning.sweeps import grid
from prompt_tuning.sweeps.layout import EVALUATED_ON, Report

FILE = "reference.csv"
NUMBERS = {"value", "std", "source", "model_parameters"}
SCORE = "score"
SOURCES = {
    "P": "Lester, Al-Rfou and Constant, EMNLP 2021, arXiv 2104.08691",
    "S": "Vu et al. (SPoT), ACL 2022, arXiv 2110.07904, appendix A",
    "L": "lecture notes that quote table 1 of the paper in full",
    "R": "github.com/google-research/prompt-tuning",
    "calc": "computed from the other sources",
}


def read(sweep: grid.Sweep, report: Report) -> pd.DataFrame | None:
    """Reads the reference values of a report; None if it has none, or none of its score.

    Returns:
      The axes, 'reference', 'reference_std', 'source', and 'model_parameters' if it is there
      (as 'reference_parameters').

    Raises:
      ValueError: the file is missing although the report names it, or malformed.
    """
    path = os.path.join(sweep.folder, report.reference or FILE)
    if report.reference is None and not paths.is_file(path):
        return None
    try:
        text = paths.read_bytes(path).decode()
        found = pd.read_csv(io.StringIO(text), dtype=str, skipinitialspace=True)
        for name in NUMBERS - {"source"} & set(found):
            found[name] = found[name].astype(float)
    except (OSError, ValueError) as error:
        raise ValueError(f"The reference values {path} cannot be read: {error}") from error
    _check(path, found, sweep, report)
    if SCORE in found:
        found = found[found[SCORE] == report.score].drop(columns=SCORE).reset_index(drop=True)
        if not len(found):
            return None
    if not set(found) - NUMBERS <= set(report.axes):
        return None  # an axis that this report averages over
    names = {"value": "reference", "std": "reference_std"}
    return found.rename(columns={**names, "model_parameters": "reference_parameters"})


def _check(path: str, found: pd.DataFrame, sweep: grid.Sweep, report: Report) -> None:
    axes = [name for name in found if name not in NUMBERS]
    known = [*sweep.axes, *([EVALUATED_ON] if sweep.evaluated_on else [])]
    unknown = [name for name in axes if name not in (*known, SCORE)]
    missing = sorted({"value", "std", "source"} - set(found))
    if unknown or missing:
        problem = f"the unknown column {unknown[0]!r}" if unknown else f"no column {missing[0]!r}"
        raise ValueError(
            f"{path} has {problem}; expected axes ({', '.join(known)}), value, std, source "
            "and, optional, score and model_parameters."
        )
    empty = found[[*axes, "value", "source"]].isna().any(axis=1)
    if empty.any():
        raise ValueError(f"{path}, row {empty.argmax() + 1}: only std may be empty.")
    twice = found.duplicated(axes)
    if twice.any():
        raise ValueError(f"{path}, row {twice.argmax() + 1}: the combination has two values.")


def legend(reference: pd.DataFrame) -> str:
    """What the tags of the sources mean."""
    tags = reference["source"].drop_duplicates()
    return "; ".join(f"[{tag}] {SOURCES[tag]}" if tag in SOURCES else f"[{tag}]" for tag in tags)
