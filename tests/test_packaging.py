"""What setup.py promises, what the constraints pin, how the Makefile chooses, what is shipped."""

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
OLDEST, NEWEST = "constraints.txt", "constraints-newest.txt"


def pinned(file):
    lines = (ROOT / file).read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonical(name): version for name, version in pairs}


def canonical(name):
    return re.sub("[-_.]+", "-", name).lower()


def requirements():
    quoted = re.findall(
        r'^ +"([a-zA-Z][\w\[\]-]+[<>=][^"]*)"|"(beartype[^"]*|pytest[^"]*|ruff[^"]*)"',
        SETUP,
        re.MULTILINE,
    )
    return [Requirement(a or b) for a, b in quoted]


@pytest.mark.parametrize("file", [OLDEST, NEWEST])
def test_every_range_holds_the_version_that_is_tested(file):
    versions = pinned(file)
    assert len(requirements()) > 20
    for requirement in requirements():
        assert versions[canonical(requirement.name)] in requirement.specifier, requirement


def test_the_ends_of_the_range_of_jax_are_tested():
    assert pinned(OLDEST)["jax"].startswith("0.10.")
    assert pinned(NEWEST)["jax"].startswith("0.12.")
    assert pinned(NEWEST).keys() >= pinned(OLDEST).keys()


def dry_run(tmp_path, *arguments, runs=("3.11", "3.12", "3.13")):
    """What `make test` would do, where Pythons of the given versions run and others do not."""
    for version in ("3.11", "3.12", "3.13"):
        python = tmp_path / f"python{version}"
        answer = f"case $2 in *print*) echo {version};; esac" if version in runs else "exit 127"
        python.write_text(f"#!/bin/sh\n{answer}\n")
        python.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)}
    command = ["make", "-n", "-B", "test", "VENV=" + str(tmp_path / "venv"), *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    "arguments, runs, version, file",
    [
        ([], ("3.11", "3.12", "3.13"), "3.11", OLDEST),
        ([], ("3.12", "3.13"), "3.13", NEWEST),
        ([], ("3.12",), "3.12", NEWEST),
        (["PYTHON=python3.13"], ("3.11", "3.13"), "3.13", NEWEST),
        (["PYTHON=python3.11"], ("3.11", "3.13"), "3.11", OLDEST),
    ],
)
def test_make_takes_a_python_that_runs_and_its_versions(tmp_path, arguments, runs, version, file):
    commands = dry_run(tmp_path, *arguments, runs=runs).stdout
    assert f'"python{version}" -m venv' in commands
    assert f"--constraint {file} --editable '.[test]'" in commands


def test_make_says_which_python_is_missing(tmp_path):
    done = dry_run(tmp_path, "PYTHON=python3.13", runs=("3.11",))
    assert "Python 3.11, 3.12 or 3.13 is needed and none of these runs: python3.13." in done.stderr


def test_the_version_has_one_value():
    import prompt_tuning

    assert f'VERSION = "{prompt_tuning.__version__}"' in SETUP


def test_the_package_t5_is_not_a_dependency():
    """It installs nightly copies over seqio and tensorflow-datasets."""
    assert "t5" not in pinned(OLDEST) | pinned(NEWEST)


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
