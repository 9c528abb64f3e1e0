"""Tests of prompt_tuning/config_checks.py and config_types.py: what is refused, in one sentence."""

import collections.abc
import pathlib
from typing import Any

import jax
import optax
import pytest
from config_parts import PARTS, REQUIRED

from prompt_tuning import config, config_types

TABLE = [
    "TableTask.train_file='t.csv'",
    "TableTask.validation_file='t.csv'",
    "TableTask.target_column='stars'",
    "CLASS_LABELS=['a', 'b']",
]


def assert_refused(files, bindings, message):
    with pytest.raises(ValueError, match=message) as caught:
        config.load(files, bindings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (REQUIRED[:1], r"Not set: INITIAL_CHECKPOINT_PATH \(the frozen model"),
        ([], "Not set: INITIAL_CHECKPOINT_PATH .*; MODEL_DIR "),
        (
            [*REQUIRED, "TRAIN_STEP=5"],
            "TRAIN_STEP is set .* not a name .* Did you mean TRAIN_STEPS",
        ),
        ([*REQUIRED, "PROMPT_TEXT=x"], "PROMPT_TEXT is set on the command line, but nothing"),
        ([*REQUIRED, "T5Config.emb_dmi=3"], "has no setting 'emb_dmi'. Did you mean emb_dim"),
        (
            [*REQUIRED, "from_class_labels.words=['a']"],
            "from_class_labels has no setting 'words'. "
            "It has rng, shape, labels, embeddings, tokenize, fallback",
        ),
        ([*REQUIRED, "T5Confg.emb_dim=3"], "T5Confg.*Did you mean T5Config"),
        ([*REQUIRED, "Xyz.emb_dim=3"], "'Xyz'. Known are Run, T5Config, .*@my_package.my_function"),
        ([*REQUIRED, "Run.optimizer=@adafactr"], "adafactr.*Did you mean adafactor"),
        ([*REQUIRED, "TRAIN_STEPS=many"], "train_steps.*TRAIN_STEPS.*1 or more; got 'many'"),
        ([*REQUIRED, "TRAIN_STEPS=0"], "1 or more; got 0"),
        ([*REQUIRED, "DROPOUT_RATE=1.5"], r"dropout rate must be in \[0, 1\); got 1.5"),
        ([*REQUIRED, "TASK_FEATURE_LENGTHS={'inputs': 5}"], "like {'inputs': 512, 'targets': 8}"),
        ([*REQUIRED, "Run.trainable='.*'"], "must be a list of patterns"),
        ([*REQUIRED, "Run.prompt_position='middle'"], "prompt_position must be one of"),
        ([*REQUIRED, "TRAIN_STEPS"], "A binding is NAME=VALUE"),
        ([*REQUIRED, "Run.optimizer=@no_such_module.thing"], "cannot be imported: No module"),
        ([*REQUIRED, "Run.config_text='x'"], "Run has no setting 'config_text'"),
        ([*REQUIRED, "Run.local_tasks=[1]"], "Run has no setting 'local_tasks'"),
        ([*REQUIRED, "TRAIN_STEPS=%TRAIN_STEPS"], "%TRAIN_STEPS refers to itself"),
        ([*REQUIRED, "Run.seed=%RANDOM_SED"], "Not set: RANDOM_SED. Did you mean RANDOM_SEED"),
        ([*REQUIRED, "RANDOM_SEED=%gin.REQUIRED"], r"Not set: RANDOM_SEED \(seed of prompt"),
    ],
)
def test_what_is_missing_or_unknown_is_one_sentence(bindings, message):
    assert_refused(PARTS, bindings, message)


def test_two_parts_of_one_kind_exclude_each_other():
    message = "gin/models/tiny_byt5.gin and gin/models/tiny_t5.gin"
    assert_refused([*PARTS, "gin/models/tiny_t5.gin"], REQUIRED, message)


def test_a_run_without_a_model_lists_the_models():
    assert_refused(PARTS[1:], REQUIRED, "No model is named.* byt5_base, .*t5_1_1_small")


def test_a_configuration_without_a_run_says_what_to_add():
    assert_refused(PARTS[:1], [], r"Not set: Run.model, .*Add --gin_file=gin/runs/run.gin")


# A setting that nothing uses.


@pytest.mark.parametrize(
    ("binding", "owner"),
    [
        ("BeamSearch.num_beams=2", "BeamSearch"),
        ("Sample.top_p=0.5", "Sample"),
        ("adamw.learning_rate=0.1", "adamw"),
        ("linear_decay.total_steps=7", "linear_decay"),
        ("from_embedded_string.text='x'", "from_embedded_string"),
        ("from_random_uniform.low=0.0", "from_random_uniform"),
    ],
)
def test_a_setting_that_nothing_uses_is_refused_by_name(binding, owner):
    name = binding.partition("=")[0]
    assert_refused(
        PARTS,
        [*REQUIRED, binding],
        f"^{name} is set on the command line, but nothing in this configuration uses {owner}. "
        "In use are Greedy, adafactor, from_class_labels, from_sampled_vocabulary, prompt_tuning. "
        "Remove",
    )


def test_a_setting_that_nothing_uses_is_refused_in_a_file(tmp_path):
    (tmp_path / "my.gin").write_text("BeamSearch.num_beams = 2\n")
    message = "BeamSearch.num_beams is set in .*my.gin, but nothing in this configuration uses"
    assert_refused([*PARTS, str(tmp_path / "my.gin")], REQUIRED, message)


def test_a_task_that_is_not_the_runs_is_refused():
    message = "nothing .* uses TableTask. It describes no task.*this run's task is 'generated_sent"
    assert_refused(PARTS, [*REQUIRED, *TABLE[:1]], message)
    named = [*REQUIRED, *TABLE[:1], "TableTask.name='mine'"]
    assert_refused(PARTS, named, "TableTask. It describes the task 'mine'; this run's task is 'gen")
    message = "nothing .* uses PocketCorpus. It describes the tasks pocket_corpus_span.* and pocket"
    assert_refused(PARTS, [*REQUIRED, "PocketCorpus.documents=5"], message)


def test_the_settings_of_a_function_of_your_own_are_checked(tmp_path, monkeypatch):
    (tmp_path / "unused_package.py").write_text("def zeros(rng, shape, scale=1): return 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    message = "unused_package.zeros.scale|zeros.scale is set .* nothing .* uses unused_package.zero"
    assert_refused(PARTS, [*REQUIRED, "unused_package.zeros.scale=2"], message)
    named = [*REQUIRED, "PROMPT_INITIALIZER=@unused_package.zeros", "unused_package.zeros.scle=2"]
    assert_refused(PARTS, named, "zeros has no setting 'scle'. Did you mean scale")


def test_a_scope_that_nothing_uses_is_refused():
    message = "^other/adafactor.learning_rate is set .* no effect: adafactor is used in another"
    assert_refused(PARTS, [*REQUIRED, "other/adafactor.learning_rate=1.0"], message)


def test_a_macro_whose_only_use_was_overridden_before_is_refused(tmp_path):
    message = "TRAIN_STEPS is set .* uses it: Run.train_steps is set directly on the command line"
    assert_refused(PARTS, [*REQUIRED, "Run.train_steps=6", "TRAIN_STEPS=5"], message)
    (tmp_path / "my.gin").write_text("TRAIN_STEPS = 5\nRun.train_steps = 6\n")
    assert_refused([*PARTS, str(tmp_path / "my.gin")], REQUIRED, "Run.train_steps is set directly")
    resolved = config.load(PARTS, [*REQUIRED, "Run.train_steps=6"]).config_text
    (tmp_path / "config.gin").write_text(resolved)
    assert_refused([str(tmp_path / "config.gin")], ["TRAIN_STEPS=5"], "Run.train_steps is set dir")
    run = config.load(PARTS, [*REQUIRED, "TRAIN_STEPS=5", "Run.train_steps=6"])
    assert run.train_steps == 6


def test_class_labels_mean_nothing_to_a_tuned_model():
    parts = [part for part in PARTS if "methods" not in part] + ["gin/methods/model_tuning.gin"]
    message = "^from_class_labels.labels is set .* nothing in this configuration uses"
    assert_refused(parts, [*REQUIRED, "from_class_labels.labels=['a']"], message)


def test_a_part_may_set_what_another_choice_leaves_unused():
    run = config.load(PARTS, [*REQUIRED, "Run.optimizer=@sgd", "sgd.learning_rate=0.5"])
    assert run.optimizer.func is optax.sgd


def test_the_command_line_may_choose_otherwise_than_a_file(tmp_path):
    (tmp_path / "my.gin").write_text("DECODING = @BeamSearch()\nBeamSearch.num_beams = 2\n")
    files = [*PARTS, str(tmp_path / "my.gin")]
    run = config.load(files, [*REQUIRED, "DECODING=@Greedy()"])
    assert "BeamSearch" not in run.config_text


def test_a_later_file_may_use_what_an_earlier_one_sets(tmp_path):
    (tmp_path / "one.gin").write_text("BeamSearch.num_beams = 2\n")
    (tmp_path / "two.gin").write_text("DECODING = @BeamSearch()\n")
    run = config.load([str(tmp_path / "one.gin"), str(tmp_path / "two.gin"), *PARTS], REQUIRED)
    assert run.decoding.num_beams == 2


# A setting of the wrong type.


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (["CLASS_LABELS='True'"], r"from_class_labels.labels \(set by CLASS_LABELS\) must be a "
         r"list of text; got 'True'. Write \['True'\]."),
        (["CLASS_LABELS=['a', 3]"], r"must be a list of text; got \['a', 3\]"),
        (["adafactor.learning_rate=0,3"], "learning_rate must be a number or a function; got "
         "'0,3'. Decimals have a point, as in 0.3."),
        (["adafactor.learning_rate=(0, 3)"], r"got \(0, 3\). Decimals have a point"),
        (["adafactor.learning_rate=@linear_decay", "linear_decay.total_steps=5"],
         r"adafactor.learning_rate must be .* or @linear_decay\(\); got @linear_decay without"),
        (["Run.optimizer=@sgd", "sgd.learning_rate=@linear_warmup", "linear_warmup.warmup_steps=5"],
         r"sgd.learning_rate must be .*; got @linear_warmup without parentheses"),
        (["Run.optimizer=@sgd", "sgd.learning_rate='fast'"], "sgd.learning_rate must be .*'fast'"),
        (["Run.optimizer=@sgd"], "optimizer cannot be made, set sgd.*: .*'learning_rate'"),
        (["Run.optimizer=@adafactor()"], "an optimizer, such as @adafactor without parentheses; "
         "got an optimizer that was made already"),
        (["Run.optimizer=@Greedy"], "Run.optimizer must make an optimizer .*; Greedy makes Greedy"),
        (["adafactor.beta1='x'"], "adafactor.beta1 must be a number or None; got 'x'"),
        (["adafactor.decay_rate=None"], "adafactor.decay_rate must be a number; got None"),
        (["DECODING=@BeamSearch"], r"Run.decoding \(set by DECODING\) must be a strategy, such as "
         r"@Greedy\(\) with parentheses; got @BeamSearch without parentheses"),
        (["DECODING=@BeamSearch()", "BeamSearch.num_beams=2.5"],
         "BeamSearch.num_beams must be a whole number; got 2.5"),
        (["DECODING=@Sample()", "Sample.temperature='x'"], "temperature must be a number; got 'x'"),
        (["Run.model=@T5Config"], r"such as @T5Config\(\); got @T5Config without parentheses"),
        (["T5Config.emb_dim='512'"], "T5Config.emb_dim must be a whole number; got '512'"),
        (["T5Config.logits_via_embedding='no'"], "must be True or False; got 'no'"),
        (["PROMPT_LENGTH=100.0"], r"length \(set by PROMPT_LENGTH\) must be a whole .*; got 100.0"),
        (["PROMPT_INITIALIZER=@from_class_labels()"], "write @from_class_labels if the function"),
        (["PROMPT_INITIALIZER=@from_embedded_string"], r"from_embedded_string\(rng, shape\): "
         ".*'text'.* is set in the configuration, as from_embedded_string.NAME = VALUE"),
        (["PROMPT_INITIALIZER=@os.getpid"], r"getpid\(rng, shape\): too many positional"),
        (["from_class_labels.fallback='x'"], "fallback must be a function; got 'x'"),
        (["Run.allow_other_model='yes'"], "Run.allow_other_model must be True or False; got 'yes'"),
    ],
)  # fmt: skip
def test_what_has_the_wrong_type_is_one_sentence(bindings, message):
    assert_refused(PARTS, [*REQUIRED, *bindings], message)


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        (
            "TableTask.label_words=['a', 'b']",
            "label_words must be a dict or None; "
            r"got \['a', 'b'\]. Write \{'NAME': VALUE\}",
        ),
        ("TableTask.input_columns='text'", r"must be a list of text; got 'text'. Write \['text'\]"),
        ("TableTask.free_text='yes'", "free_text must be True or False; got 'yes'"),
        ("TableTask.train_file=3", "train_file must be text; got 3"),
    ],
)
def test_a_table_of_the_wrong_type_is_one_sentence(binding, message):
    files = [part for part in PARTS if "tasks" not in part] + ["gin/tasks/from_file.gin"]
    assert_refused(files, [*REQUIRED, *TABLE, binding], message)


def test_a_table_lacks_what_is_required():
    files = [part for part in PARTS if "tasks" not in part] + ["gin/tasks/from_file.gin"]
    message = "Not set: TableTask.target_column; TableTask.train_file; TableTask.validation_file"
    assert_refused(files, [*REQUIRED, "CLASS_LABELS=['a']"], message)


@pytest.mark.parametrize(
    ("value", "kind", "is_right"),
    [
        (True, int, False),
        (1, bool, False),
        (None, int | None, True),
        (("a", 1), tuple[str, int], True),
        (("a", "b"), tuple[str, int], False),
        (("a", "b"), tuple[str, ...], True),
        ("a", collections.abc.Sequence[str], False),
        ({"a": 1}, collections.abc.Mapping[str, str], True),  # what is in it is the task's matter
        ("a", pathlib.Path, True),
        ("a", jax.Array, False),
        (object(), jax.Array, True),  # made by a call, so not checked
        ("a", Any, True),
        ("a", "a name that means nothing", True),
        (len, collections.abc.Callable[[int], int], True),
        (int, type[int], True),
        (dict, collections.abc.Mapping[str, str], False),  # @dict without parentheses
        (3, collections.abc.Callable[[int], int], False),
    ],
)
def test_a_value_fits_a_type_or_does_not(value, kind, is_right):
    assert config_types.fits(value, kind) is is_right
