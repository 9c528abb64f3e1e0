"""Tests of prompt_tuning/config.py: what loads, what it leaves behind, and how it is written."""

import dataclasses
import functools
from pathlib import Path

import jax.numpy as jnp
import optax
import pytest
import seqio
from config_parts import load, load_text

import gin
from prompt_tuning import api, config, config_files
from prompt_tuning.data import tables
from prompt_tuning.inference import loading
from prompt_tuning.macros import MACROS
from prompt_tuning.model.decoding import Greedy
from prompt_tuning.run import Run
from prompt_tuning.sweeps import grid

ROOT = Path(__file__).parent.parent


def assert_same_run(first, second):
    """Equal in every field; a schedule is a new function at every load, so its values count."""
    for field in dataclasses.fields(Run):
        if field.name != "optimizer":
            assert getattr(first, field.name) == getattr(second, field.name), field.name
    one, other = (_with_rates(run.optimizer) for run in (first, second))
    assert one == other


def _with_rates(optimizer):
    if not isinstance(optimizer, functools.partial):
        return optimizer
    settings = dict(optimizer.keywords)
    if callable(rate := settings.get("learning_rate")):
        settings["learning_rate"] = [float(rate(step)) for step in (0, 5, 60, 300)]
    return optimizer.func, settings


# What loads.


def test_parts_make_a_run_with_the_papers_defaults():
    run = load()
    assert (run.prompt_length, run.train_steps, run.batch_size) == (100, 30_000, 32)
    assert (run.model.dropout_rate, run.eval_period, run.seed) == (0.1, 1_000, 0)
    assert (run.z_loss, run.label_smoothing, run.loss_normalizing_factor) == (1e-4, 0.0, None)
    assert (run.method.kind, run.trainable) == ("prompt_tuning", ())
    assert run.decoding == Greedy()
    assert run.prompt_initializer.func.__name__ == "from_class_labels"


def test_equal_settings_are_one_optimizer():
    """So that the runs of a sweep compile their step once."""
    first, second = (load().optimizer() for _ in range(2))
    assert first is second
    assert load("adafactor.learning_rate=0.1").optimizer() is not first


def test_the_optimizer_is_the_papers():
    """One step from zero: learning rate 0.3 times a clipped update of RMS 1."""
    optimizer = load().optimizer()
    prompt = jnp.zeros((2, 2))
    gradient = jnp.array([[5.0, -5.0], [5.0, 5.0]])
    changes, _ = optimizer.update(gradient, optimizer.init(prompt), prompt)
    expected = jnp.array([[-0.3, 0.3], [-0.3, -0.3]])
    assert jnp.allclose(optax.apply_updates(prompt, changes), expected, atol=1e-6)


def test_bindings_override_files_and_need_no_quotes():
    run = load("TRAIN_STEPS=5", "Run.trainable=['.*']")
    assert run.model_dir == "/tmp/run"
    assert run.train_steps == 5
    assert run.trains_model


def test_model_tuning_has_no_prompt_and_the_papers_learning_rate():
    run = load(without=("methods", "prompts"), files=["gin/methods/model_tuning.gin"])
    assert run.prompt_length is None
    assert run.optimizer.keywords["learning_rate"] == 0.001


def test_a_prompt_beside_a_tuned_model_starts_at_the_class_labels():
    run = load("Run.prompt_length=9", without=("methods",), files=["gin/methods/model_tuning.gin"])
    assert run.prompt_initializer.keywords["labels"] == ["awful", "great"]
    assert "\nRun.prompt_initializer = @from_class_labels\n" in run.config_text


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs").rglob("*.gin")), ids=lambda path: path.stem
)
def test_every_run_of_the_project_loads_and_its_configuration_loads_as_the_same(path, tmp_path):
    # a stage of pretraining takes any pocket model
    model = ["gin/models/pocket_xs.gin"] if path.stem.startswith("pretrain_") else []
    run = config.load([str(path), *model])
    assert_same_run(run, load_text(run.config_text, tmp_path))


def test_every_cell_of_the_pocket_sweep_loads_as_the_same(tmp_path):
    sweep = grid.read_sweep(str(ROOT / "experiments/figure1_scale/sweep.toml"))
    cells = {tuple(cell.values.items()): cell for cell in sweep.cells}
    for cell in cells.values():
        run = config.load(cell.gin_files, [*cell.bindings, "RANDOM_SEED=1", "MODEL_DIR='x'"])
        assert_same_run(run, load_text(run.config_text, tmp_path))


def test_a_path_may_be_given_in_python(tmp_path):
    run = api.load_run(ROOT / "configs/pocket/quickstart.gin", MODEL_DIR=tmp_path, TRAIN_STEPS=2)
    assert (run.model_dir, run.train_steps) == (str(tmp_path), 2)


def test_gin_itself_reads_an_initialiser_as_t5x_does(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    gin.clear_config()
    try:
        gin.parse_config_file("gin/prompts/class_labels.gin")
        gin.parse_config(["CLASS_LABELS = ['a']", "from_sampled_vocabulary.population_size = 7"])
        fallback = gin.get_bindings("from_class_labels")["fallback"]
        assert gin.get_bindings(fallback) == {"population_size": 7}
    finally:
        gin.clear_config()


# Loading leaves nothing behind.


def test_what_gin_holds_for_other_programs_stays():
    """T5X may use gin in the same process."""
    gin.clear_config()
    try:
        gin.parse_config("adafactor.learning_rate = 0.125\nsgd.learning_rate = 0.5\n")
        before = gin.config_str()
        run = load("adafactor.decay_rate=0.5")
        assert run.optimizer.keywords["learning_rate"] == 0.3
        assert gin.config_str() == before
        assert not gin.config_is_locked()
    finally:
        gin.clear_config()


@pytest.fixture
def table(tmp_path):
    """The bindings of a task from two files, less its name."""
    rows = "".join(f"text {i},{i % 2}\n" for i in range(6))
    (tmp_path / "t.csv").write_text("text,stars\n" + rows)
    path = tmp_path / "t.csv"
    return [
        f"TableTask.train_file='{path}'",
        f"TableTask.validation_file='{path}'",
        "TableTask.target_column='stars'",
        "TableTask.vocabulary='byt5'",
        "CLASS_LABELS=['0', '1']",
    ]


def test_neither_loading_nor_preparing_registers_a_task(table):
    settings = ["MIXTURE_OR_TASK_NAME='only_loaded'", *table]
    run = load(*settings, without=("tasks",), files=["gin/tasks/from_file.gin"])
    assert run.local_tasks[0].name == "only_loaded"
    assert loading.prepare_task(run).name == "only_loaded"
    assert "only_loaded" not in seqio.TaskRegistry.names()


def test_a_run_has_its_own_tasks_whatever_was_loaded_after_it(table):
    corpus = ["gin/tasks/pocket_corpus_prefix_lm.gin"]
    few, many = (
        load(f"PocketCorpus.documents={count}", without=("tasks",), files=corpus)
        for count in (5, 50)
    )
    plain = load(without=("tasks",), files=corpus)
    assert [run.local_tasks[0].documents for run in (few, many, plain)] == [5, 50, 500_000]
    assert load().local_tasks == ()
    rows = {}
    for name, run in (("few", few), ("many", many), ("few again", few)):
        task = loading.prepare_task(run).seqio_task
        rows[name] = len(task.source.get_dataset("train", shuffle=False))
    assert rows == {"few": 5, "many": 50, "few again": 5}


def test_a_table_is_the_runs_own(table):
    settings = ["MIXTURE_OR_TASK_NAME='own_table'", *table]
    files = ["gin/tasks/from_file.gin"]
    first = load(*settings, without=("tasks",), files=files)
    load(*settings, "TableTask.target_column='text'", without=("tasks",), files=files)
    assert isinstance(first.local_tasks[0], tables.TableTask)
    assert first.local_tasks[0].target_column == "stars"


# The resolved configuration.


def test_the_resolved_configuration_holds_what_acts_and_no_more(tmp_path):
    run = load("Run.optimizer=@sgd", "sgd.learning_rate=0.5", "Run.prompt_length=None")
    assert "\nsgd.learning_rate = 0.5\n" in run.config_text
    assert "adafactor" not in run.config_text
    assert "PROMPT_LENGTH" not in run.config_text
    assert_same_run(run, load_text(run.config_text, tmp_path))


FIELDS = {
    "model": "@T5Config()",
    "initial_checkpoint_path": "'random:3'",
    "param_dtype": "'bfloat16'",
    "task": "'generated_sentiment_true_false'",
    "task_feature_lengths": "{'inputs': 9, 'targets': 3}",
    "task_module": "None",
    "data_dir": "'d'",
    "vocabulary_file": "'v'",
    "model_dir": "'m'",
    "method": "@model_tuning()",
    "prompt_length": "3",
    "prompt_initializer": "@from_random_uniform",
    "prompt_position": "'suffix'",
    "prompt_file": "'p'",
    "embedding_file": "'e'",
    "allow_other_model": "True",
    "trainable": "['.*']",
    "optimizer": "@sgd",
    "restore_accumulators": "False",
    "weight_decay_rate": "0.5",
    "train_steps": "5",
    "batch_size": "6",
    "batch_tokens": "960",
    "label_smoothing": "0.25",
    "z_loss": "0.5",
    "loss_normalizing_factor": "3.0",
    "seed": "8",
    "eval_period": "2",
    "eval_split": "'test'",
    "eval_batch_size": "4",
    "eval_examples": "2",
    "checkpoint_steps": "[1]",
    "early_stopping": "1",
    "decoding": "@Sample()",
    "eval_rank": "True",
    "text_prompt": "@TextPrompt()",
    "target_prefix": "'<extra_id_0>'",
    "num_decodes": "2",
    "eval_output_dir": "'o'",
    "infer_output_dir": "'i'",
    "layers": "'scan'",
    "remat": "'layer'",
    "attention": "'blockwise'",
    "microbatch_rows": "1",
    "pad_to_full_length": "True",
    "packing": "True",
    "profile_steps": "(1, 2)",
    "mesh": "{'data': 2, 'model': 1}",
}
ALSO = {
    "optimizer": ["sgd.learning_rate=0.5"],
    "checkpoint_steps": ["Run.trainable=['.*']"],
    "text_prompt": ["Run.prompt_length=None", "TextPrompt.shots=2"],
}


def test_every_field_is_tried():
    fields = {field.name for field in dataclasses.fields(Run)}
    assert set(FIELDS) == fields - {"config_text", "local_tasks", "resolved"}


@pytest.mark.parametrize("field", FIELDS)
def test_a_run_with_a_field_set_directly_loads_again(field, tmp_path):
    run = load(f"Run.{field}={FIELDS[field]}", *ALSO.get(field, []))
    assert_same_run(run, load_text(run.config_text, tmp_path))
    if not FIELDS[field].startswith("@"):
        assert f"\nRun.{field} = {FIELDS[field]}\n" in run.config_text


def test_a_file_may_be_overridden_field_by_field(tmp_path):
    """TRAIN_STEPS of the file has no effect then, and that is not a mistake."""
    run = config.load(
        ["configs/pocket/quickstart.gin"], ["Run.train_steps=5", "Run.prompt_length=3"]
    )
    assert (run.train_steps, run.prompt_length) == (5, 3)
    assert_same_run(run, load_text(run.config_text, tmp_path))


OLD = Path(__file__).parent / "data" / "old_configs"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fields_set_directly", {"train_steps": 5, "prompt_length": 3, "model_dir": "runs/quick"}),
        ("frozen", {"prompt_length": None, "train_steps": 30_000}),
        ("adamw", {"train_steps": 30_000, "weight_decay_rate": 1e-5}),
    ],
)
def test_a_config_that_gin_wrote_loads_with_all_that_has_no_effect(name, expected, tmp_path):
    """Runs made before the configuration left out what nothing uses."""
    run = config.load([str(OLD / f"{name}.gin")])
    assert {field: getattr(run, field) for field in expected} == expected
    assert_same_run(run, load_text(run.config_text, tmp_path))


def test_every_macro_of_a_part_is_documented():
    names = {
        statement.name
        for path in (ROOT / "gin").rglob("*.gin")
        for statement in config_files.read_statements(path)
        if not statement.owner
    }
    assert names <= set(MACROS)
