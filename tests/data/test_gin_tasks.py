"""The parts in gin/tasks: plain macros, existing tasks, the right labels."""

import ast
import pathlib
import re

import pytest

from prompt_tuning.data import registry, squad, tables, tasks, vocabularies
from prompt_tuning.pocket import register

register.register_tasks()

FOLDER = pathlib.Path(__file__).parents[2] / "gin" / "tasks"
PARTS = sorted(path.name for path in FOLDER.glob("*.gin"))
MACROS = {"MIXTURE_OR_TASK_NAME", "MIXTURE_OR_TASK_MODULE", "TASK_FEATURE_LENGTHS", "CLASS_LABELS"}
FREE_TEXT = {"record.gin", "wsc.gin", "stsb.gin", "pocket_record.gin", "pocket_wsc.gin"}
FREE_TEXT |= {"pocket_corpus_span_corruption.gin", "pocket_corpus_prefix_lm.gin"}
QUESTION_ANSWERING = {"squad.gin", *(f"mrqa_{member}.gin" for member in squad.MRQA)}
FREE_TEXT |= {*QUESTION_ANSWERING, "cnn_dailymail.gin", "xsum.gin"}


def read(name):
    """The bindings of a part; each is one line, none is given twice."""
    lines = [line for line in (FOLDER / name).read_text().splitlines() if line]
    bindings = [line.split(" = ", 1) for line in lines if not line.startswith("#")]
    assert len(dict(bindings)) == len(bindings)
    return dict(bindings)


@pytest.mark.parametrize("name", [part for part in PARTS if part != "from_file.gin"])
def test_a_part_names_a_task_and_its_labels(name):
    assert (FOLDER / name).read_text().startswith("# ")
    bindings = {key: ast.literal_eval(value) for key, value in read(name).items()}
    assert set(bindings) == MACROS
    task = bindings["MIXTURE_OR_TASK_NAME"]
    assert tasks.get(task).name == task
    nameless = ("taskless_", "generated_", "pocket_corpus_")
    assert task.startswith(("squad_", "mrqa_") if name in QUESTION_ANSWERING else nameless)
    assert bindings["MIXTURE_OR_TASK_MODULE"] == tasks.__name__
    assert set(bindings["TASK_FEATURE_LENGTHS"]) == {"inputs", "targets"}
    if name in FREE_TEXT:
        assert tasks.get(task).labels is None and bindings["CLASS_LABELS"]
    else:
        assert tuple(bindings["CLASS_LABELS"]) == tasks.get(task).labels


def test_every_superglue_task_has_a_part():
    members = {"boolq", "cb", "copa", "multirc", "record", "rte", "wic", "wsc"}
    assert {f"{member}.gin" for member in members} <= set(PARTS)
    assert {f"pocket_{member}.gin" for member in members | {"qqp", "mrpc"}} <= set(PARTS)


def test_labels_fit_the_lengths_in_t5_tokens(real_data):
    vocabulary = vocabularies.get("t5", real_data / "vocab" / "t5_sentencepiece.model")
    for name in PARTS:
        bindings = read(name)
        if "CLASS_LABELS" in bindings and not name.startswith(("generated", "pocket_")):
            length = ast.literal_eval(bindings["TASK_FEATURE_LENGTHS"])["targets"]
            for label in ast.literal_eval(bindings["CLASS_LABELS"]):
                assert len(vocabulary.encode(label)) + 1 <= length, (name, label)


def test_from_file_binds_fields_of_the_table_task():
    bindings = read("from_file.gin")
    text = (FOLDER / "from_file.gin").read_text()
    fields = set(re.findall(r"TableTask\.(\w+) =", text))
    known = set(tables.TableTask.__dataclass_fields__)
    assert fields <= known
    assert known - fields == set()  # Each is shown, if only in a comment.
    required = {key for key, value in bindings.items() if value == "%gin.REQUIRED"}
    assert required == {
        f"TableTask.{field}" for field in ("train_file", "validation_file", "target_column")
    }
    assert registry.info("from_file").family == "custom"  # Nothing is registered by reading it.
