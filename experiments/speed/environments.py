"""Makes the two environments: ours, with this repository, and peft's.

An environment that is there is used again; remove its folder to have it made anew.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
REQUIREMENTS = Path(__file__).with_name("requirements-peft.txt")


def ours(folder: Path) -> str:
    """Installs this repository with the constraints of this Python; returns its interpreter."""
    newest = "" if sys.version_info < (3, 12) else "-newest"
    constraints = ROOT / f"constraints{newest}.txt"
    return _make(folder / "ours", ["--constraint", str(constraints), "--editable", str(ROOT)])


def peft(folder: Path) -> str:
    """Installs torch, transformers and peft; returns its interpreter."""
    return _make(folder / "peft", ["--requirement", str(REQUIREMENTS)])


def _make(folder: Path, wanted: list[str]) -> str:
    python = folder / "bin" / "python"
    done = folder / "complete"
    if not done.exists():
        print(f"making the environment {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *wanted], check=True)
        done.touch()
    print(f"environment: {folder}", flush=True)
    return str(python)
