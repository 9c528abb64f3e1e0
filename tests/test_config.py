"""Tests of prompt_tuning/config.py: what loads, and the one sentence for what does not."""

import re
from pathlib import Path

import jax.numpy as jnp
import optax
import pytest

from prompt_tuning import config
from prompt_tuning.macros import MACROS
from prompt_tuning.model.decoding import Greedy
from prompt_tuning.prompts.prompt import PROMPT_PATH

ROOT = Path(__file__).parent.parent
PARTS = [
    "gin/models/tiny_byt5.gin",
    "gin/tasks/generated_sentiment.gin",
    "gin/prompts/class_labels.gin",
    "gin/decoding/greedy.gin",
    "gin/methods/prompt_tuning.gin",
    "gin/runs/run.gin",
]
REQUIRED = ["MODEL_DIR=/tmp/run", "INITIAL_CHECKPOINT_PATH=random"]


def test_parts_make_a_run_with_the_papers_defaults():
    run = config.load(PARTS, REQUIRED)
    assert (run.prompt_length, run.train_steps, run.batch_size) == (100, 30_000, 32)
    assert (run.model.dropout_rate, run.eval_period, run.seed) == (0.1, 1_000, 0)
    assert (run.z_loss, run.label_smoothing, run.loss_normalizing_factor) == (1e-4, 0.0, None)
    assert run.trainable == (PROMPT_PATH,)
    assert run.decoding == Greedy()
    assert run.prompt_initializer.func.__name__ == "from_class_labels"


def test_a_run_keeps_its_settings_when_another_is_loaded():
    """gin itself would look them up when they are called, in what was loaded last."""
    slow = config.load(PARTS, [*REQUIRED, "adafactor.learning_rate=0.1", "CLASS_LABELS=['a', 'b']"])
    config.load(PARTS, [*REQUIRED, "adafactor.learning_rate=0.7"])
    gradient = {"p": jnp.ones((2, 2))}
    optimizer = slow.optimizer()
    changes, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
    assert jnp.allclose(changes["p"], jnp.full((2, 2), -0.1))
    assert slow.prompt_initializer.keywords == {"labels": ["a", "b"]}


def test_equal_settings_are_one_optimizer():
    """So that the runs of a sweep compile their step once."""
    first, second = (config.load(PARTS, REQUIRED).optimizer() for _ in range(2))
    assert first is second
    other = config.load(PARTS, [*REQUIRED, "adafactor.learning_rate=0.1"]).optimizer()
    assert other is not first


def test_the_optimizer_is_the_papers():
    """One step from zero: learning rate 0.3 times a clipped update of RMS 1."""
    optimizer = config.load(PARTS, REQUIRED).optimizer()
    prompt = jnp.zeros((2, 2))
    gradient = jnp.array([[5.0, -5.0], [5.0, 5.0]])
    changes, _ = optimizer.update(gradient, optimizer.init(prompt), prompt)
    expected = jnp.array([[-0.3, 0.3], [-0.3, -0.3]])
    assert jnp.allclose(optax.apply_updates(prompt, changes), expected, atol=1e-6)


def test_the_order_of_parts_changes_nothing():
    assert (
        config.load(PARTS, REQUIRED).config_text == config.load(PARTS[::-1], REQUIRED).config_text
    )


def test_the_resolved_configuration_loads_as_the_same_run(tmp_path):
    run = config.load(PARTS, [*REQUIRED, "TRAIN_STEPS=7", "Run.eval_examples=3"])
    (tmp_path / "config.gin").write_text(run.config_text)
    again = config.load([str(tmp_path / "config.gin")])
    assert again.config_text == run.config_text
    assert (again.train_steps, again.eval_examples) == (7, 3)


def test_bindings_override_files_and_need_no_quotes():
    run = config.load(PARTS, [*REQUIRED, "TRAIN_STEPS=5", "Run.trainable=['.*']"])
    assert run.model_dir == "/tmp/run"
    assert run.train_steps == 5
    assert run.trains_model


def test_model_tuning_has_no_prompt_and_the_papers_learning_rate():
    parts = [part for part in PARTS if "prompts/" not in part and "methods/" not in part]
    run = config.load([*parts, "gin/methods/model_tuning.gin"], REQUIRED)
    assert run.prompt_length is None
    assert "adafactor.learning_rate = 0.001" in run.config_text


def test_an_initialiser_of_your_own_plugs_in_by_reference(tmp_path, monkeypatch):
    (tmp_path / "my_package.py").write_text("def zeros(rng, shape):\n    return shape\n")
    monkeypatch.syspath_prepend(tmp_path)
    parts = [part for part in PARTS if "prompts/" not in part]
    run = config.load(parts, [*REQUIRED, "PROMPT_INITIALIZER=@my_package.zeros"])
    assert run.prompt_initializer(None, (3, 2)) == (3, 2)


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


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (REQUIRED[:1], r"Not set: INITIAL_CHECKPOINT_PATH \(the frozen model"),
        ([], "Not set: INITIAL_CHECKPOINT_PATH .*; MODEL_DIR "),
        ([*REQUIRED, "TRAIN_STEP=5"], "TRAIN_STEP, .* did you mean TRAIN_STEPS"),
        ([*REQUIRED, "PROMPT_TEXT=x"], "PROMPT_TEXT, .* nothing in this configuration uses it"),
        ([*REQUIRED, "T5Config.emb_dmi=3"], "has no setting 'emb_dmi'; did you mean emb_dim"),
        ([*REQUIRED, "T5Confg.emb_dim=3"], "T5Confg.*did you mean T5Config"),
        ([*REQUIRED, "Run.optimizer=@adafactr"], "adafactr.*did you mean adafactor"),
        ([*REQUIRED, "TRAIN_STEPS=many"], "train_steps.*TRAIN_STEPS.*1 or more; got 'many'"),
        ([*REQUIRED, "TRAIN_STEPS=0"], "1 or more; got 0"),
        ([*REQUIRED, "DROPOUT_RATE=1.5"], r"dropout rate must lie in \[0, 1\); got 1.5"),
        ([*REQUIRED, "TASK_FEATURE_LENGTHS={'inputs': 5}"], "like {'inputs': 512, 'targets': 8}"),
        ([*REQUIRED, "Run.trainable='.*'"], "must be a list of patterns"),
        ([*REQUIRED, "Run.prompt_position='middle'"], "prompt_position must be one of"),
        ([*REQUIRED, "TRAIN_STEPS"], "A binding is NAME=VALUE"),
        ([*REQUIRED, "Run.optimizer=@no_such_module.thing"], "cannot be imported: No module"),
    ],
)
def test_what_is_wrong_is_one_sentence(bindings, message):
    with pytest.raises(ValueError, match=message) as caught:
        config.load(PARTS, bindings)
    assert "\n" not in str(caught.value)


def test_an_unknown_file_names_close_ones():
    with pytest.raises(ValueError, match="no configuration file .*t5_1_1_smal.*mean"):
        config.load(["gin/models/t5_1_1_smal.gin"])


def test_two_parts_of_one_kind_exclude_each_other():
    with pytest.raises(ValueError, match="gin/models/tiny_byt5.gin and gin/models/tiny_t5.gin"):
        config.load([*PARTS, "gin/models/tiny_t5.gin"], REQUIRED)


def test_a_syntax_error_names_its_line(tmp_path):
    (tmp_path / "bad.gin").write_text("A = 1\nB = = 2\n")
    with pytest.raises(ValueError, match="bad.gin, line 2: not gin syntax"):
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
            text = path.read_text()
            assert "include" not in re.sub("#.*", "", text), path
            for statement in config._read(str(path), text):
                assert owner.setdefault(statement.name, kind) == kind, (statement.name, path)


def test_every_macro_of_a_part_is_documented():
    names = {
        statement.name
        for paths in parts_by_kind().values()
        for path in paths
        for statement in config._read(str(path), path.read_text())
        if statement.is_macro
    }
    assert names <= set(MACROS)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs").rglob("*.gin")), ids=lambda path: path.stem
)
def test_every_run_of_the_project_loads(path):
    # a stage of pretraining takes any pocket model
    model = ["gin/models/pocket_xs.gin"] if path.stem.startswith("pretrain_") else []
    assert config.load([str(path), *model]).config_text
