"""Tests of prompt_tuning/config_files.py: where files are found, and what overrides what."""

import itertools
import re
from pathlib import Path

import pytest
from config_parts import PARTS, REQUIRED

from prompt_tuning import config, config_files

ROOT = Path(__file__).parent.parent


def test_the_order_of_parts_changes_nothing():
    assert (
        config.load(PARTS, REQUIRED).config_text == config.load(PARTS[::-1], REQUIRED).config_text
    )


def test_a_run_overrides_the_parts_in_any_order(tmp_path):
    mine = tmp_path / "mine.gin"
    mine.write_text("TRAIN_STEPS = 9\nadafactor.learning_rate = 0.25\nRun.eval_split = 'test'\n")
    files = ["PARTS", str(mine), "gin/runs/run.gin"]
    for order in itertools.permutations(files):
        names = [name for one in order for name in (PARTS[:-1] if one == "PARTS" else [one])]
        run = config.load(names, REQUIRED)
        assert (run.train_steps, run.eval_split) == (9, "test"), order
        assert run.optimizer.keywords["learning_rate"] == 0.25, order


def test_later_run_files_override_earlier_ones_and_the_command_line_all(tmp_path):
    one, two = tmp_path / "one.gin", tmp_path / "two.gin"
    one.write_text("TRAIN_STEPS = 1\nBATCH_SIZE = 1\nRANDOM_SEED = 1\n")
    two.write_text("TRAIN_STEPS = 2\nBATCH_SIZE = 2\n")

    def found(*files):
        run = config.load(files, [*REQUIRED, "TRAIN_STEPS=3"])
        return run.train_steps, run.batch_size, run.seed

    assert found(str(one), str(two), *PARTS) == (3, 2, 1)
    assert found(*PARTS, str(two), str(one)) == (3, 1, 1)


@pytest.mark.parametrize("place", ["first", "last"])
def test_a_file_overrides_what_it_includes_wherever_the_include_is(place, tmp_path):
    (tmp_path / "base.gin").write_text("TRAIN_STEPS = 1\nBATCH_SIZE = 1\n")
    lines = [f"include '{tmp_path / 'base.gin'}'", "TRAIN_STEPS = 2"]
    lines = lines if place == "first" else lines[::-1]
    (tmp_path / "mine.gin").write_text("\n".join(lines) + "\n")
    run = config.load([str(tmp_path / "mine.gin"), *PARTS], REQUIRED)
    assert (run.train_steps, run.batch_size) == (2, 1)


def test_a_file_that_includes_itself_is_refused(tmp_path):
    a, b = tmp_path / "a.gin", tmp_path / "b.gin"
    a.write_text(f"include '{b}'\n")
    b.write_text(f"include '{a}'\n")
    with pytest.raises(ValueError, match="a.gin includes itself"):
        config.load([str(a)])


def test_files_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.gin").write_text("include 'gin/runs/run.gin'\nTRAIN_STEPS = 9\n")
    parts = [part for part in PARTS if "runs/" not in part]
    assert config.load(["mine.gin", *parts], REQUIRED).train_steps == 9
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "other.gin").write_text("TRAIN_STEPS = 4\n")
    run = config.load([*PARTS, "other.gin"], REQUIRED, [str(folder)])
    assert run.train_steps == 4


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "search").mkdir()
    (tmp_path / "mine.gin").write_text("TRAIN_STEPS = 4\n")
    (tmp_path / "search" / "other.gin").write_text("BATCH_SIZE = 5\n")
    run = config.load([*PARTS, "~/mine.gin", "other.gin"], REQUIRED, ["~/search"])
    assert (run.train_steps, run.batch_size) == (4, 5)


def test_a_byte_order_mark_and_windows_line_ends_mean_nothing(tmp_path):
    (tmp_path / "mine.gin").write_bytes(b"\xef\xbb\xbfTRAIN_STEPS = 4\r\nBATCH_SIZE = 5\r\n")
    run = config.load([*PARTS, str(tmp_path / "mine.gin")], REQUIRED)
    assert (run.train_steps, run.batch_size) == (4, 5)


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "mine.gin").write_bytes("TRAIN_STEPS = 4\n".encode("utf-16"))
    with pytest.raises(ValueError, match="mine.gin is not UTF-8 text: .* Save it as UTF-8"):
        config.load([str(tmp_path / "mine.gin")])


def test_an_unknown_file_names_close_ones():
    with pytest.raises(ValueError, match="no configuration file .*t5_1_1_smal.*mean"):
        config.load(["gin/models/t5_1_1_smal.gin"])


def test_a_file_in_a_bucket_is_refused():
    message = "A configuration file has to be in a local folder, got 'gs://b/run/config.gin'. Copy"
    with pytest.raises(ValueError, match=message):
        config.load(["gs://b/run/config.gin"])


def test_a_syntax_error_names_its_line(tmp_path):
    (tmp_path / "bad.gin").write_text("A = 1\nB = = 2\n")
    with pytest.raises(ValueError, match="bad.gin, line 2: not gin syntax"):
        config.load([str(tmp_path / "bad.gin")])


def test_an_import_that_fails_is_one_sentence(tmp_path):
    (tmp_path / "bad.gin").write_text("import no_such_module\n")
    with pytest.raises(ValueError, match="bad.gin imports no_such_module, which fails: Module"):
        config.load([str(tmp_path / "bad.gin")])


def test_no_file_at_all_says_what_to_type():
    with pytest.raises(ValueError, match="--gin_file=configs/"):
        config.load([])


def parts_by_kind():
    """The parts of each folder; those of gin/t5x take the place of runs, methods and decoding."""
    kinds = {}
    for path in sorted((ROOT / "gin").rglob("*.gin")):
        kinds.setdefault(path.parent.name, []).append(path)
    return kinds


def test_parts_of_different_kinds_set_different_names_and_include_nothing():
    """So that any choice of one part a kind goes together, in any order."""
    kinds = parts_by_kind()
    _check_disjoint({kind: paths for kind, paths in kinds.items() if kind != "t5x"})
    instead = ("runs", "methods", "decoding")
    _check_disjoint({kind: paths for kind, paths in kinds.items() if kind not in instead})


def _check_disjoint(kinds):
    owner = {}
    for kind, paths in kinds.items():
        for path in paths:
            assert "include" not in re.sub("#.*", "", path.read_text()), path
            for statement in config_files.read_statements(path):
                assert owner.setdefault(statement.name, kind) == kind, (statement.name, path)
