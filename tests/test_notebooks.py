"""The notebooks, run unchanged: no cell fails, and printed values are in the stated ranges.

A notebook's text states "`prompt_score` between 80 and 100", and a cell prints
"prompt_score = 91.3". `python tests/test_notebooks.py` runs them all and stores the outputs.
"""

import re
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CLAIM = r"`(\w+)`\s+between\s+([\d.]+)\s+and\s+([\d.]+\d|\d)"
SECONDS = 600


def execute(path):
    """Runs a notebook from the top of the checkout; a cell that fails raises."""
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3",
        resources={"metadata": {"path": str(ROOT)}},
    )  # fmt: skip
    client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times, which differ from run to run
    return notebook


def claims(notebook):
    """The ranges that the text states, {name: (least, most)}."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return {name: (float(a), float(b)) for name, a, b in re.findall(CLAIM, text)}


def printed(notebook):
    """{name: value} of what the cells print."""
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    text = "".join(out.text for out in outputs if out.output_type == "stream")
    return {name: float(x) for name, x in re.findall(r"^(\w+) = (-?[\d.]+)$", text, re.MULTILINE)}


def plots(notebook):
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    return [out for out in outputs if "image/png" in out.get("data", {})]


def check(notebook):
    expected, found = claims(notebook), printed(notebook)
    assert expected
    assert expected.keys() == found.keys()
    outside = {
        name: (found[name], least, most)
        for name, (least, most) in expected.items()
        if not least <= found[name] <= most
    }
    assert not outside
    assert plots(notebook)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_are_in_the_expected_ranges(path):
    check(nbformat.read(path, as_version=4))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path):
    check(execute(path))


if __name__ == "__main__":
    for name in sys.argv[1:] or NOTEBOOKS:
        nbformat.write(execute(name), name)
