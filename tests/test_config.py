"""Tests of prompt_tuning/config.py: what loads, and that it keeps its settings."""

import dataclasses
import functools
import importlib
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import seqio

from prompt_tuning import config, config_files
from prompt_tuning.data import tables
from prompt_tuning.inference import loading
from prompt_tuning.macros import MACROS
from prompt_tuning.model.decoding import BeamSearch, Greedy
from prompt_tuning.pocket import corpus_tasks
from prompt_tuning.prompts import initializers
from prompt_tuning.prompts.prompt import PROMPT_PATH
from prompt_tuning.run import Run
from prompt_tuning.sweeps import grid

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


def load(*bindings, without=(), files=()):
    """A run of PARTS less those of some folders, with more files and bindings."""
    parts = [part for part in PARTS if not any(f"/{folder}/" in part for folder in without)]
    return config.load([*parts, *files], [*REQUIRED, *bindings])


def load_text(text, tmp_path):
    (tmp_path / "config.gin").write_text(text)
    return config.load([str(tmp_path / "config.gin")])


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


def first_rate(optimizer):
    """The learning rate of Adafactor's first step."""
    gradient = {"p": jnp.ones((2, 2))}
    changes, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
    return -float(changes["p"][0, 0])


# What loads.


def test_parts_make_a_run_with_the_papers_defaults():
    run = load()
    assert (run.prompt_length, run.train_steps, run.batch_size) == (100, 30_000, 32)
    assert (run.model.dropout_rate, run.eval_period, run.seed) == (0.1, 1_000, 0)
    assert (run.z_loss, run.label_smoothing, run.loss_normalizing_factor) == (1e-4, 0.0, None)
    assert run.trainable == (PROMPT_PATH,)
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
    sweep = grid.load(str(ROOT / "experiments/pocket/sweep.toml"))
    cells = {tuple(cell.values.items()): cell for cell in sweep.cells}
    for cell in cells.values():
        run = config.load(cell.gin_files, [*cell.bindings, "RANDOM_SEED=1", "MODEL_DIR='x'"])
        assert_same_run(run, load_text(run.config_text, tmp_path))


# References keep their settings.


def test_a_fallback_keeps_its_settings_when_another_run_is_loaded():
    """Three levels down: the run, its initialiser, the initialiser's fallback."""
    settings = ("CLASS_LABELS=['a']", "from_class_labels.fallback=@from_random_uniform")
    first = load(*settings, "from_random_uniform.low=3.0", "from_random_uniform.high=4.0")
    load(*settings, "from_random_uniform.low=7.0", "from_random_uniform.high=8.0")
    load()
    make = initializers.bind(
        first.prompt_initializer, embeddings=np.zeros((5, 2)), tokenize=lambda text: [1]
    )
    prompt = make(jax.random.key(0), (4, 2))
    assert np.all(prompt[0] == 0.0)  # the label
    assert np.all((prompt[1:] >= 3.0) & (prompt[1:] < 4.0))


def test_an_optimizer_and_its_schedule_keep_their_settings():
    schedule = ("adafactor.learning_rate=@linear_decay()", "linear_decay.total_steps=10")
    first = load(*schedule, "linear_decay.learning_rate=0.1")
    load(*schedule, "linear_decay.learning_rate=0.7")
    load("adafactor.learning_rate=0.5")
    assert first_rate(first.optimizer()) == pytest.approx(0.1)


def test_a_strategy_keeps_its_settings():
    beams = "DECODING=@BeamSearch()"
    first = load(beams, "BeamSearch.num_beams=2")
    load(beams, "BeamSearch.num_beams=3")
    load()
    assert first.decoding == BeamSearch(num_beams=2)


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """Writes modules that a configuration can name."""
    monkeypatch.syspath_prepend(tmp_path)
    written = []

    def write(name, text):
        path = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        importlib.invalidate_caches()
        written.append(name)

    yield write
    for name in written:
        for one in (name, name.split(".")[0]):
            sys.modules.pop(one, None)


NESTED = """
def inner(x, scale=1): return scale * x
def middle(x, parts=()): return [part(x) for part in parts]
def outer(rng, shape, table=None): return table["a"](shape[0])
"""


def test_references_in_lists_and_dicts_keep_their_settings(own_module):
    own_module("nested_package", NESTED)
    bindings = (
        "PROMPT_INITIALIZER=@nested_package.outer",
        "nested_package.outer.table={'a': @nested_package.middle}",
        "nested_package.middle.parts=[@nested_package.inner, @ten/nested_package.inner]",
        "ten/nested_package.inner.scale=10",
    )
    first = load(*bindings, "nested_package.inner.scale=2", without=("prompts",))
    load(*bindings, "nested_package.inner.scale=5", without=("prompts",))
    assert first.prompt_initializer(None, (3, 4)) == [6, 30]


def test_the_vocabulary_behind_class_labels_is_configured_by_its_own_name():
    """The initialiser of the positions that the labels leave is a reference like any other."""
    run = load("from_sampled_vocabulary.population_size=7", "PROMPT_LENGTH=5")
    seen = []

    def tokenize(text):
        seen.append(text)
        return [9]

    table = np.arange(20.0)[:, None] * np.ones((1, 64))
    make = initializers.bind(run.prompt_initializer, embeddings=table, tokenize=tokenize)
    prompt = np.asarray(make(jax.random.key(0), (9, 64)))
    assert seen == ["awful", "great"]
    assert sorted(prompt[2:, 0]) == [0, 1, 2, 3, 4, 5, 6]


def test_a_scoped_reference_has_the_settings_of_its_scope():
    run = load("Run.optimizer=@slow/adafactor", "slow/adafactor.learning_rate=0.25")
    assert run.optimizer.keywords["learning_rate"] == 0.25
    assert run.optimizer.keywords["decay_rate"] == 0.8  # of no scope


def test_a_scope_holds_further_down():
    run = load(
        "PROMPT_INITIALIZER=@mine/from_class_labels",
        "from_class_labels.fallback=@from_random_uniform",
        "mine/from_random_uniform.low=-3.0",
    )
    assert run.prompt_initializer.keywords["fallback"].keywords == {"low": -3.0}


# Names.


def test_an_initialiser_of_your_own_plugs_in_by_reference(own_module):
    own_module("my_package", "def zeros(rng, shape):\n    return shape\n")
    run = load("PROMPT_INITIALIZER=@my_package.zeros", without=("prompts",))
    assert run.prompt_initializer(None, (3, 2)) == (3, 2)


def test_a_function_of_your_own_may_have_the_name_of_one_of_ours(own_module, tmp_path):
    own_module("my_package", "def from_file(rng, shape, *, path):\n    return path\n")
    own_module("initializers", "def from_file(rng, shape, *, path):\n    return path * 2\n")
    for name, expected in (("my_package", "x"), ("initializers", "xx")):
        run = load(
            f"PROMPT_INITIALIZER=@{name}.from_file",
            f"{name}.from_file.path='x'",
            without=("prompts",),
        )
        assert run.prompt_initializer(None, (3, 2)) == expected
        again = load_text(run.config_text, tmp_path)
        assert again.prompt_initializer(None, (3, 2)) == expected
    ours = load("PROMPT_FILE='p.npy'", without=("prompts",), files=["gin/prompts/file.gin"])
    assert ours.prompt_initializer.func is initializers.from_file


def test_two_functions_of_the_same_name_are_told_apart_by_their_modules(own_module):
    own_module("first_package", "def start(rng, shape, *, scale=1, fallback=None):\n    return 1\n")
    own_module("second_package", "def start(rng, shape, *, scale=1):\n    return scale\n")
    bindings = (
        "PROMPT_INITIALIZER=@first_package.start",
        "first_package.start.fallback=@second_package.start",
        "second_package.start.scale=2",
    )
    run = load(*bindings, "first_package.start.scale=3", without=("prompts",))
    assert run.prompt_initializer.keywords["scale"] == 3
    assert run.prompt_initializer.keywords["fallback"].keywords == {"scale": 2}
    with pytest.raises(ValueError, match=r"'start' is one of first_package.start, second_package"):
        load(*bindings, "start.scale=3", without=("prompts",))


def test_the_end_of_a_path_is_enough_to_set_something(own_module):
    own_module("my_package", "def zeros(rng, shape, scale=1):\n    return scale\n")
    run = load("PROMPT_INITIALIZER=@my_package.zeros", "zeros.scale=4", without=("prompts",))
    assert run.prompt_initializer(None, (3, 2)) == 4


def test_a_module_that_was_edited_and_reloaded_counts(own_module):
    own_module("edited_package", "def start(rng, shape):\n    return 'old'\n")
    load("PROMPT_INITIALIZER=@edited_package.start", without=("prompts",))
    own_module("edited_package", "def start(rng, shape):\n    return 'newer'\n")
    importlib.reload(sys.modules["edited_package"])
    run = load("PROMPT_INITIALIZER=@edited_package.start", without=("prompts",))
    assert run.prompt_initializer(None, (3, 2)) == "newer"


def test_a_function_of_a_notebook_can_be_named(monkeypatch):
    def start(rng, shape):
        return "here"

    monkeypatch.setattr(sys.modules["__main__"], "start", start, raising=False)
    run = load("PROMPT_INITIALIZER=@__main__.start", without=("prompts",))
    assert run.prompt_initializer(None, (3, 2)) == "here"


def test_imports_of_a_gin_file_name_and_register(own_module, tmp_path):
    own_module(
        "my_package.registered",
        "import gin\n@gin.configurable\ndef start_here(rng, shape, scale=1):\n    return scale\n",
    )
    own_module("my_package.plain", "def zeros(rng, shape, scale=1):\n    return scale\n")
    file = tmp_path / "own.gin"
    for line, name in (
        ("import my_package.registered", "start_here"),
        ("from my_package import plain", "plain.zeros"),
        ("import my_package.plain as p", "p.zeros"),
    ):
        file.write_text(f"{line}\nPROMPT_INITIALIZER = @{name}\n{name}.scale = 3\n")
        run = load(without=("prompts",), files=[str(file)])
        assert run.prompt_initializer(None, (3, 2)) == 3
        again = load_text(run.config_text, tmp_path)
        assert again.prompt_initializer(None, (3, 2)) == 3


# Loading leaves nothing behind.


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


def test_loading_registers_no_task_and_preparing_does(table):
    names = [f"TableTask.{name}" for name in ("train_file", "validation_file")]
    settings = ["MIXTURE_OR_TASK_NAME='only_loaded'", *table]
    run = load(*settings, without=("tasks",), files=["gin/tasks/from_file.gin"])
    assert run.local_tasks[0].name == "only_loaded", names
    assert "only_loaded" not in seqio.TaskRegistry.names()
    assert loading.prepare_task(run).name == "only_loaded"


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
    try:
        for name, run in (("few", few), ("many", many), ("few again", few)):
            task = loading.prepare_task(run)
            rows[name] = len(task.source.get_dataset("train", shuffle=False))
    finally:
        corpus_tasks.PocketCorpus().register()
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
    "prompt_length": "3",
    "prompt_initializer": "@from_random_uniform",
    "prompt_position": "'suffix'",
    "prompt_file": "'p'",
    "embedding_file": "'e'",
    "allow_other_model": "True",
    "trainable": "['.*']",
    "optimizer": "@sgd",
    "weight_decay_rate": "0.5",
    "train_steps": "5",
    "batch_size": "6",
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
    "num_decodes": "2",
    "eval_output_dir": "'o'",
    "infer_output_dir": "'i'",
}
ALSO = {"optimizer": ["sgd.learning_rate=0.5"], "checkpoint_steps": ["Run.trainable=['.*']"]}


def test_every_field_is_tried():
    fields = {field.name for field in dataclasses.fields(Run)}
    assert set(FIELDS) == fields - {"config_text", "local_tasks"}


@pytest.mark.parametrize("field", FIELDS)
def test_a_run_with_a_field_set_directly_loads_again(field, tmp_path):
    run = load(f"Run.{field}={FIELDS[field]}", *ALSO.get(field, []))
    assert_same_run(run, load_text(run.config_text, tmp_path))
    if not FIELDS[field].startswith("@"):
        assert f"\nRun.{field} = {FIELDS[field]}\n" in run.config_text


def test_a_file_may_be_overridden_field_by_field(tmp_path):
    """TRAIN_STEPS of the file has no effect then, and that is no mistake."""
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
