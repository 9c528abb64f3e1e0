"""Tests of setup.py and constraints.txt: what is promised, what is pinned, what is shipped."""

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import safetensors.numpy
from packaging.requirements import Requirement

from prompt_tuning import trees
from prompt_tuning.pocket import models

ROOT = Path(__file__).parent.parent
SETUP = (ROOT / "setup.py").read_text()
PINNED = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
)


def canonical(name):
    return re.sub("[-_.]+", "-", name).lower()


def requirements():
    quoted = re.findall(
        r'^ +"([a-zA-Z][\w\[\]-]+[<>=][^"]*)"|"(beartype[^"]*|pytest[^"]*|ruff[^"]*)"',
        SETUP,
        re.MULTILINE,
    )
    return [Requirement(a or b) for a, b in quoted]


def test_every_range_holds_the_version_that_is_tested():
    pinned = {canonical(name): version for name, version in PINNED.items()}
    assert len(requirements()) > 20
    for requirement in requirements():
        assert pinned[canonical(requirement.name)] in requirement.specifier, requirement


def test_the_version_has_one_value():
    import prompt_tuning

    assert f'VERSION = "{prompt_tuning.__version__}"' in SETUP


def test_the_package_t5_is_not_a_dependency():
    """It installs nightly copies over seqio and tensorflow-datasets."""
    assert "t5" not in {canonical(name) for name in PINNED}


@pytest.mark.slow
def test_the_wheel_carries_parts_and_runs_and_finds_them(tmp_path):
    """Built, unpacked and asked for a part, as an installed copy would be."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    carried = {name.split("share/prompt-tuning/")[1] for name in names if "share/" in name}
    expected = {
        path.relative_to(ROOT).as_posix()
        for top in ("gin", "configs")
        for path in (ROOT / top).rglob("*.gin")
    }
    assert carried == expected
    assert not any(name.startswith(("gin/", "tests/")) for name in names)
    subprocess.run(
        [*pip, "install", "--no-deps", "--target", tmp_path / "there", wheel], check=True
    )
    code = (
        "from prompt_tuning import config; import prompt_tuning; print(prompt_tuning.__file__);"
        "print(config.load(['configs/pocket/quickstart.gin']).prompt_length)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True, capture_output=True, text=True, cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "there"), "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    file, length = done.stdout.split()
    assert file.startswith(str(tmp_path))
    assert length == "16"


def test_the_shipped_models_are_those_of_their_cards():
    weights = sorted(models.ASSETS.glob("pocket_*/*.safetensors"))
    assert {path.parent.name for path in weights} == set(models.SIZES) - {"pocket_xl"}
    for path in weights:
        card = json.loads(path.with_name("card.json").read_text())
        (told,) = [one for one in card["checkpoints"].values() if one["file"] == path.name]
        assert told["fingerprint"] == trees.fingerprint(safetensors.numpy.load_file(path))
    assert sum(path.stat().st_size for path in models.ASSETS.rglob("*.*")) <= 25_000_000
