"""The project's rules that can be checked: which module imports which, and how fast."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "prompt_tuning"
# Lowest first; a module imports from its own layer and from those before it.
LAYERS = [
    {"shapes", "trees", "macros", "paths", "folders"},
    {"model", "data"},
    {"prompts", "methods"},
    {"checkpoints", "parallel"},
    {"run_checks"},
    {"run"},
    {"inference"},
    {"training"},
    {"pocket"},
    {"config", "config_checks", "config_files", "config_runs", "config_types", "config_values"},
    {"api", "bridge", "sweeps"},
    {"quickstart", "planning"},
    {"compilation_cache", "huge_pages"},
    {"cli_files", "cli_errors", "cli_plan", "cli_processes", "cli_sweep"},
    {"cli"},
    {"train"},
]
DOORS = {
    "gin": {"config.py", "config_files.py", "config_values.py"},
    "tensorflow": {"data/tensorflow_import.py"},
    "tensorflow_datasets": {"data/tensorflow_import.py"},
    "tensorflow_text": {"data/tensorflow_import.py"},
    "seqio": {"data/tensorflow_import.py"},
    "sentencepiece": {"data/vocabularies.py", "pocket/vocabulary.py"},
    "orbax": {"checkpoints"},
    "tensorstore": {"checkpoints"},
    "safetensors": {"checkpoints", "pocket/models.py", "prompts/files.py", "prompts/peft.py"},
    "huggingface_hub": {"checkpoints/hugging_face_hub.py"},
    # what a Hugging Face model or an adapter is compared with, in tests only
    "torch": {"nowhere"},
    "transformers": {"nowhere"},
    "peft": {"nowhere"},
    "t5x": {"bridge"},
    "matplotlib": {"training/plots.py", "sweeps/figure.py"},
    "rich": {"sweeps/display.py"},
    "pandas": {f"sweeps/{name}.py" for name in ("figure", "page", "reference", "report", "table")},
}


def imports():
    """Yields (file below the package, line, imported module)."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            name = path.relative_to(PACKAGE).as_posix()
            if isinstance(node, ast.Import):
                yield from ((name, node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module == "prompt_tuning":
                yield from (
                    (name, node.lineno, f"prompt_tuning.{alias.name}") for alias in node.names
                )
            elif isinstance(node, ast.ImportFrom):
                yield name, node.lineno, node.module


def layer_of(module):
    return next(i for i, names in enumerate(LAYERS) if module in names)


def test_modules_import_downward_only():
    upward = [
        f"{file}:{line} imports {module}"
        for file, line, module in imports()
        if module.startswith("prompt_tuning.")
        and file != "__init__.py"
        and layer_of(module.split(".")[1]) > layer_of(file.split("/")[0].removesuffix(".py"))
    ]
    assert not upward


def test_heavy_libraries_are_imported_in_one_place():
    around = [
        f"{file}:{line} imports {module}"
        for file, line, module in imports()
        if not any(file.startswith(door) for door in DOORS.get(module.split(".")[0], {file}))
    ]
    assert not around


def test_no_private_module_of_a_library_is_imported():
    private = [
        f"{file}:{line} imports {module}"
        for file, line, module in imports()
        if any(part.startswith("_") for part in module.split("."))
    ]
    assert not private


def test_the_import_is_quick_and_brings_no_tensorflow():
    code = "import sys, prompt_tuning; print('tensorflow' in sys.modules, 'jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(
    "command", [["-c", "import prompt_tuning"], ["-m", "prompt_tuning.cli", "--help"]]
)
def test_the_import_and_the_help_take_a_fifth_of_a_second(command):
    """Of CPU time, the best of five, since other tests run beside this one."""

    def cpu_seconds():
        before = os.times()
        subprocess.run([sys.executable, *command], capture_output=True, check=True)
        after = os.times()
        return sum(after[2:4]) - sum(before[2:4])

    assert min(cpu_seconds() for _ in range(5)) < 0.2


FIRST_MINUTE = """
import contextlib, io, sys
from prompt_tuning import cli
import prompt_tuning as pt, prompt_tuning.api
t5 = pt.load_model("pocket_xs", "pocket_xs")
pt.load_prompt(sys.argv[1])
t5.generate(["a fox owns a hat ."], max_decode_length=2)
t5.score(["a fox owns a hat ."], ["True"])
for command in (
    ["--help"], ["train", "--help"], ["prompt", "show", sys.argv[1]],
    ["prompt", "show", sys.argv[1], "--checkpoint=pocket_xs", "--vocabulary=pocket"],
    ["checkpoint", "show", "pocket_xs"], ["checkpoint", "diff", "pocket_xs", "pocket_xs@50"],
    ["checkpoint", "convert", "pocket_xs", sys.argv[2], "--format=hf"],
):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        assert cli.main(command) in (0, 1), command
heavy = ("tensorflow", "tensorflow_text", "tensorflow_datasets", "seqio", "clu")
print([name for name in heavy if name in sys.modules])
"""


def test_first_commands_do_not_import_tensorflow(tmp_path):
    import numpy as np

    np.save(tmp_path / "prompt.npy", np.ones((2, 32), np.float32))
    arguments = [str(tmp_path / "prompt.npy"), str(tmp_path / "hf")]
    done = subprocess.run(
        [sys.executable, "-c", FIRST_MINUTE, *arguments],
        capture_output=True, text=True, env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_every_public_name_is_there():
    import prompt_tuning

    assert all(callable(getattr(prompt_tuning, name)) for name in prompt_tuning.__all__)


def test_the_path_of_the_prompt_has_one_home():
    knowing = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "PROMPT_PATH" in path.read_text() or "encoder/prompt" in _without_doctests(path)
    }
    assert knowing == {"prompts/prompt.py", "methods/prompt_tuning.py"}


def _without_doctests(path):
    tree = ast.parse(path.read_text())
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return "\n".join(text for text in texts if isinstance(text, str) and "\n" not in text)


def test_gin_is_not_a_package():
    """With an __init__.py there, `import gin` would find it instead of gin-config."""
    assert not list((PACKAGE.parent / "gin").rglob("*.py"))


def test_the_core_does_not_know_of_the_pocket_models():
    above = {"pocket", "config", "api", "quickstart", "cli"}
    knowing = [
        f"{file}:{line}"
        for file, line, module in imports()
        if module.startswith("prompt_tuning.pocket")
        and file.split("/")[0].removesuffix(".py") not in above
    ]
    assert not knowing
