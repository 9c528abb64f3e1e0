"""Tests of prompt_tuning/config_values.py: names, references and the settings they keep."""

import importlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from config_parts import load, load_text

from prompt_tuning.model.decoding import BeamSearch
from prompt_tuning.prompts import initializers


def first_rate(optimizer):
    """The learning rate of Adafactor's first step."""
    gradient = {"p": jnp.ones((2, 2))}
    changes, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
    return -float(changes["p"][0, 0])


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


def test_the_fallback_of_class_labels_is_configured_by_its_own_name():
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


def test_a_singleton_is_one_object_of_one_load(own_module):
    own_module(
        "shared_package", "class Table: pass\ndef start(rng, shape, one=0, two=0): return 0\n"
    )
    bindings = (
        "PROMPT_INITIALIZER=@shared_package.start",
        "shared_package.start.one=@words/gin.singleton()",
        "shared_package.start.two=@words/gin.singleton()",
        "words/gin.singleton.constructor=@shared_package.Table",
    )
    first, second = (load(*bindings, without=("prompts",)) for _ in range(2))
    one = first.prompt_initializer.keywords
    assert type(one["one"]).__name__ == "Table"
    assert one["one"] is one["two"]
    assert second.prompt_initializer.keywords["one"] is not one["one"]


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


def test_two_functions_of_the_same_name_are_distinguished_by_their_modules(own_module):
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


def test_names_that_gin_keeps_for_itself_are_unknown():
    with pytest.raises(ValueError, match="nothing called 'constant'"):
        load("adafactor.learning_rate=@constant()", "constant.learning_rate=0.3")
