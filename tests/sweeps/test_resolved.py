"""Tests of prompt_tuning/sweeps/resolved.py: what a result depends on, wherever it is set."""

import pytest

from prompt_tuning import trees
from prompt_tuning.inference.frozen import load_parameters
from prompt_tuning.pocket import models
from prompt_tuning.sweeps import grid, resolved


@pytest.fixture
def digests(sweep_file):
    """Edits the sweep, and gives the digest of each cell."""

    def digests(old="", new=""):
        sweep_file.write_text(sweep_file.read_text().replace(old, new, 1))
        cells = grid.read_sweep(str(sweep_file)).cells
        runs = resolved.load_runs(cells, {})
        return {cell.key: resolved.digest(runs[cell.key], cell.train) for cell in cells}

    return digests


def test_cells_of_other_settings_have_other_digests(digests):
    """Of the fifteen cells six differ from another one in the seed alone."""
    before = digests()
    assert len(set(before.values())) == 9
    assert before["awful-a-prompt-0"] == before["awful-a-prompt-1"]
    after = digests("PROMPT_LENGTH = 4", "PROMPT_LENGTH = 5")
    changed = [key for key in before if before[key] != after[key]]
    assert changed == [key for key in before if "prompt" in key]


@pytest.mark.parametrize("name", ["TRAIN_STEPS = 4", "EVAL_PERIOD = 2", "'random'"])
def test_how_long_a_run_is_and_where_its_model_is_count(digests, name):
    before, after = digests(), digests(name, name.replace("4", "5").replace("2", "1").replace(
        "random", "random:1"))  # fmt: skip
    assert not {*before.values()} & {*after.values()}


def test_the_content_of_the_files_counts_and_not_their_names(digests, tmp_path):
    before = digests()
    part = tmp_path / "mine.gin"
    part.write_text("include 'gin/methods/prompt_tuning.gin'\nPROMPT_LENGTH = 4\n")
    named = 'gin_files = ["gin/methods/prompt_tuning.gin"]\nbindings = ["PROMPT_LENGTH = 4"]'
    assert digests(named, f'gin_files = ["{part}"]') == before
    part.write_text(part.read_text().replace("4", "5"))
    after = digests()
    assert [key for key in before if before[key] != after[key]] == [
        key for key in before if "prompt" in key
    ]
    assert digests('"BATCH_SIZE = 8"', '"Run.eval_batch_size = 7", "BATCH_SIZE = 8"') == after


def test_a_cell_that_cannot_be_loaded_is_named(digests):
    with pytest.raises(ValueError, match="awful-a-prompt-0: .*BATCH_SIEZ"):
        digests('bindings = ["PROMPT_LENGTH = 4"]', 'bindings = ["BATCH_SIEZ = 4"]')


def test_a_fingerprint_is_stated_or_read(sweep_file):
    cells = grid.read_sweep(str(sweep_file)).cells
    run = resolved.load_run(cells[0])
    assert resolved.fingerprint(run, reads=False) is None
    expected = trees.fingerprint(load_parameters(run.model, "random"))
    assert resolved.fingerprint(run, reads=True) == expected
    sweep_file.write_text(sweep_file.read_text().replace("'random'", "'pocket_s@10'"))
    run = resolved.load_run(grid.read_sweep(str(sweep_file)).cells[0])
    card = models.read_card("pocket_s")["checkpoints"]["pocket_s@10"]["fingerprint"]
    assert resolved.fingerprint(run, reads=False) == card
