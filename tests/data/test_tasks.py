"""Finding tasks: names, facts, and the errors when something is missing."""

import pathlib
import sys

import pytest
import seqio

from prompt_tuning.data import registry, super_glue, tasks, vocabularies
from prompt_tuning.pocket import register, vocabulary

register.register_models()


@pytest.mark.parametrize(
    "name",
    [
        "super_glue_cb_v102",
        "super_glue_cb_v102_examples",
        "taskless_super_glue_boolq_v102",
        "mt5_super_glue_copa_v102",
        "mt5_taskless_super_glue_record_v102_examples",
        "byt5_taskless_super_glue_axg_v102",
        "super_glue_wsc_v102_simple_train",
        "super_glue_wsc_v102_simple_eval_examples",
        "taskless_super_glue_wsc_and_dev_v102_simple",
        "mt5_taskless_super_glue_wsc_and_dev_v102_simple_examples",
        "glue_sst2_v002",
        "taskless_glue_mrpc_v200_examples",
        "taskless_glue_mnli_and_dev_v002",
        "generated_sentiment",
    ],
)
def test_official_names_are_registered(name):
    assert tasks.get(name).name == name
    assert name in tasks.task_names()


def test_taskless_mnli_mixes_taskless_tasks():
    mixture = tasks.get("taskless_glue_mnli_and_dev_v200")
    assert [task.name for task in mixture.members] == [
        "taskless_glue_mnli_matched_v200",
        "taskless_glue_mnli_mismatched_v200",
        "taskless_glue_mnli_v200",
    ]


def test_registering_is_idempotent():
    before = tasks.registered("super_glue_cb_v102")
    super_glue.register()
    assert tasks.registered("super_glue_cb_v102") is before


def test_labels():
    assert tasks.get("byt5_super_glue_copa_v102_examples").labels == ("choice1", "choice2")
    assert tasks.get("super_glue_record_v102").labels is None
    assert tasks.get("glue_stsb_v200").labels is None
    assert tasks.get("taskless_glue_mnli_and_dev_v200").labels == (
        "entailment",
        "neutral",
        "contradiction",
    )


def test_info():
    info = tasks.get("mt5_taskless_super_glue_multirc_v102").info
    assert (info.family, info.member, info.eval_split) == ("super_glue", "multirc", "validation")
    assert info.metrics == ("f1", "exact_match")
    assert tasks.get("glue_stsb_v002").info.metrics == ("pearson_corrcoef", "spearman_corrcoef")
    assert tasks.get("super_glue_axb_v102").info.eval_split == "test"


@pytest.mark.parametrize(
    "wrong, close",
    [
        ("taskless_super_glue_cb_v103", "taskless_super_glue_cb_v102"),
        ("generated_sentimant", "generated_sentiment"),
        ("sst2", "glue_sst2_v002"),
    ],
)
def test_unknown_name_lists_close_ones(wrong, close):
    with pytest.raises(ValueError) as caught:
        tasks.get(wrong)
    message = str(caught.value)
    assert f"There is no task '{wrong}'. Did you mean" in message
    assert close in message
    assert "`prompt-tuning tasks` lists all" in message


def test_unprepared_data_says_how_to_prepare(tmp_path):
    with pytest.raises(ValueError) as caught:
        tasks.parts(tasks.get("super_glue_cb_v102", data_dir=tmp_path), "train")
    message = str(caught.value)
    assert "reads super_glue/cb:1.0.2, which is not in the data folder" in message
    assert f"prompt-tuning data prepare --source DIR --data_dir {tmp_path}" in message


def test_old_glue_points_to_the_new(tmp_path):
    with pytest.raises(ValueError, match=r"cannot build; take the task 'glue_rte_v200'"):
        tasks.parts(tasks.get("glue_rte_v002", data_dir=tmp_path), "train")


def test_missing_data_dir(tmp_path):
    with pytest.raises(
        ValueError, match=r"no data folder '.*nowhere'. Make it with `prompt-tuning"
    ):
        tasks.get("generated_sentiment", data_dir=tmp_path / "nowhere")


LIKE_T5 = str(pathlib.Path(__file__).parent / "strangers" / "like_t5.model")


def test_a_vocabulary_file_belongs_to_one_task_alone():
    """Two runs in one process, each with its own file, in any order."""
    small = tasks.get("super_glue_cb_v102", vocabulary_file=LIKE_T5)
    pocket = tasks.get("super_glue_cb_v102", vocabulary_file=vocabulary.FILE)
    assert small.vocabulary.encode("yes") == [7]
    assert pocket.vocabulary.encode("yes") == vocabularies.get("pocket").encode("yes") != [7]
    assert small.vocabulary.encode("yes") == [7]
    assert tasks.registered("super_glue_cb_v102").output_features[
        "targets"
    ].vocabulary.sentence_pieces == vocabularies.get("t5")
    assert small != pocket
    assert small == tasks.get("super_glue_cb_v102", vocabulary_file=LIKE_T5)


def test_a_file_for_a_vocabulary_without_one_is_refused():
    with pytest.raises(ValueError, match=r"VOCABULARY_FILE names 'x.model', .* takes no file"):
        tasks.get("generated_sentiment", vocabulary_file="x.model")


def test_the_members_of_a_mixture_have_its_folder_and_file(tmp_path):
    mixture = tasks.get(
        "super_glue_wsc_and_dev_v102_simple", data_dir=tmp_path, vocabulary_file=LIKE_T5
    )
    assert [member.name for member in mixture.members] == [
        "super_glue_wsc_v102_simple_eval",
        "super_glue_wsc_v102_simple_train",
    ]
    for member in mixture.members:
        assert (member.data_dir, member.vocabulary_file) == (str(tmp_path), LIKE_T5)
        assert member.seqio_task.source.tfds_dataset.data_dir == str(tmp_path)
        assert mixture.rate(member) == 1.0
    assert tasks.registered(mixture.name).tasks[0].source.tfds_dataset.data_dir is None


def test_the_rates_of_a_mixture_in_a_mixture():
    names = ["generated_sentiment", "generated_sentiment_true_false"]
    seqio.MixtureRegistry.add("inner", [(names[0], 1), (names[1], 3)])
    seqio.MixtureRegistry.add("outer", [("inner", 2), (names[0], 1)])
    try:
        outer = tasks.get("outer")
        assert [outer.rate(member) for member in outer.members] == [1.5, 1.5]
    finally:
        seqio.MixtureRegistry.remove("inner")
        seqio.MixtureRegistry.remove("outer")


def test_missing_split_lists_the_splits():
    with pytest.raises(ValueError, match=r"no split 'test'; it has train, validation"):
        tasks.parts(tasks.get("generated_sentiment"), "test")


def test_import_task_module_registers(tmp_path, monkeypatch):
    (tmp_path / "my_task_module.py").write_text(
        "from prompt_tuning.data import registry, vocabularies\n"
        "import seqio\n"
        "if 'my_own_task' not in seqio.TaskRegistry.names():\n"
        "    seqio.TaskRegistry.add(\n"
        "        'my_own_task', source=seqio.FunctionDataSource(\n"
        "            lambda split, shuffle_files: None, splits=['train']),\n"
        "        preprocessors=[], metric_fns=[],\n"
        "        output_features=vocabularies.family('byt5').output_features)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    tasks.import_task_module("my_task_module")
    assert tasks.get("my_own_task").name == "my_own_task"
    assert tasks.get("my_own_task").labels is None
    seqio.TaskRegistry.remove("my_own_task")
    sys.modules.pop("my_task_module")


def test_import_task_module_says_what_is_wrong(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"module 'no.such.module' cannot be imported.*MODULE"):
        tasks.import_task_module("no.such.module")
    (tmp_path / "broken_task_module.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"failed while it was imported: ZeroDivisionError"):
        tasks.import_task_module("broken_task_module")


def test_a_task_registered_elsewhere_has_no_known_labels():
    assert registry.info("somebody_elses").family == "custom"
