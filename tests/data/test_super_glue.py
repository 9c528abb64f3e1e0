"""SuperGLUE tasks from hand-made archives, through the real TFDS builders; and the score."""

import dataclasses
import json
import zipfile

import pytest

from prompt_tuning.data import batches, evaluation, prepare, super_glue, tasks

LENGTHS = {"inputs": 400, "targets": 24}
MULTIRC = {
    "idx": 3,
    "passage": {
        "text": "<b>Sent 1: </b>It rained.<br>",
        "questions": [
            {
                "question": "What fell?",
                "idx": 7,
                "answers": [
                    {"text": "Rain", "idx": 20, "label": 1},
                    {"text": "Snow", "idx": 21, "label": 0},
                ],
            }
        ],
    },
}
RECORD = {
    "idx": 5,
    "passage": {
        "text": "Ann met Bob\n@highlight\nBob sang",
        "entities": [{"start": 0, "end": 2}, {"start": 8, "end": 10}],
    },
    "qas": [
        {
            "query": "@placeholder sang.",
            "idx": 9,
            "answers": [
                {"start": 8, "end": 10, "text": "Bob"},
                {"start": 0, "end": 2, "text": "Ann"},
            ],
        }
    ],
}


def wsc_row(idx, noun, label):
    target = {"span1_text": noun, "span1_index": 0, "span2_text": "he", "span2_index": 4}
    return {"idx": idx, "text": "Bob left Tim as he slept.", "target": target, "label": label}


ROWS = {
    "BoolQ": {"question": "is it wet", "passage": "Rain is wet.", "idx": 0, "label": True},
    "CB": {"premise": "It rained.", "hypothesis": "It was wet.", "idx": 1, "label": "neutral"},
    "COPA": {
        "premise": "It rained.",
        "choice1": "It was wet.",
        "choice2": "It was dry.",
        "question": "effect",
        "idx": 2,
        "label": 1,
    },
    "MultiRC": MULTIRC,
    "ReCoRD": RECORD,
    "RTE": {"premise": "A.", "hypothesis": "B.", "idx": 4, "label": "not_entailment"},
    "WiC": {
        "word": "bank",
        "sentence1": "A bank.",
        "sentence2": "The bank.",
        "start1": 2,
        "end1": 6,
        "start2": 4,
        "end2": 8,
        "idx": 6,
        "label": False,
        "version": 1.1,
    },
}


def unlabelled(value):
    """Rows as the official test files have them."""
    if isinstance(value, list):
        return [unlabelled(item) for item in value]
    if not isinstance(value, dict):
        return value
    answers_are_labels = "query" in value  # ReCoRD's
    dropped = {"label"} | ({"answers"} if answers_are_labels else set())
    return {key: unlabelled(item) for key, item in value.items() if key not in dropped}


DATA = {}  # the module's data folder


def get(name):
    return tasks.get(name, **DATA)


@pytest.fixture(scope="module", autouse=True)
def _data_dir(tmp_path_factory):
    """One row of each dataset, the same in every split, in test without label; two of WSC."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("data")
    files = {task: [row] for task, row in ROWS.items()}
    files["WSC"] = [wsc_row(0, "Bob", True), wsc_row(1, "Tim", False)]
    for task, rows in files.items():
        with zipfile.ZipFile(source / f"{task}.zip", "w") as archive:
            for split in ("train", "val", "test"):
                kept = unlabelled(rows) if split == "test" else rows
                text = "".join(json.dumps(row) + "\n" for row in kept)
                archive.writestr(f"{task}/{split}.jsonl", text)
    axb = {"sentence1": "A.", "sentence2": "B.", "idx": 0, "logic": ""}
    with zipfile.ZipFile(source / "AX-b.zip", "w") as archive:
        archive.writestr("AX-b/AX-b.jsonl", json.dumps(axb) + "\n")
    members = ["boolq", "cb", "copa", "multirc", "record", "super_glue/rte", "wic", "wsc.fixed"]
    prepare.prepare(source, folder, [*members, "axb"])
    DATA["data_dir"] = folder


def texts(name, split="validation"):
    return [
        (row["inputs_pretokenized"].decode(), row["targets_pretokenized"].decode())
        for row in batches.load_examples(get(name), split, LENGTHS).raw
    ]


FORMATS = {
    "boolq": [("passage: Rain is wet. question: is it wet", "True")],
    "cb": [("hypothesis: It was wet. premise: It rained.", "neutral")],
    "copa": [
        (
            "choice1: It was wet. choice2: It was dry. premise: It rained. question: effect",
            "choice2",
        )
    ],
    "multirc": [
        ("question: What fell? answer: Rain paragraph: Sent 1: It rained. ", "True"),
        ("question: What fell? answer: Snow paragraph: Sent 1: It rained. ", "False"),
    ],
    "record": [
        ("query: @placeholder sang. entities: Ann, Bob passage: Ann met Bob. Bob sang", "Ann"),
        ("query: @placeholder sang. entities: Ann, Bob passage: Ann met Bob. Bob sang", "Bob"),
    ],
    "rte": [("hypothesis: B. premise: A.", "not_entailment")],
    "wic": [("sentence1: A bank. sentence2: The bank. word: bank", "False")],
}


@pytest.mark.parametrize("member", FORMATS)
def test_formats(member):
    expected = FORMATS[member]
    assert sorted(texts(f"byt5_taskless_super_glue_{member}_v102")) == sorted(expected)
    named = [(f"{member} {text}", target) for text, target in expected]
    assert sorted(texts(f"byt5_super_glue_{member}_v102")) == sorted(named)


def test_wsc_trains_on_true_rows_and_is_judged_on_all():
    name = "byt5_taskless_super_glue_wsc_v102_simple"
    text = "Bob left Tim as *he* slept."
    assert texts(f"{name}_train", "train") == [(text, "Bob")]
    assert sorted(texts(f"{name}_eval")) == [(text, "Bob"), (text, "Tim")]
    assert texts("byt5_super_glue_wsc_v102_simple_train", "train") == [(f"wsc: {text}", "Bob")]


def test_axb_is_asked_as_rte_and_has_no_labels():
    # AX-b's sentence1 is the premise.
    assert texts("byt5_super_glue_axb_v102", "test") == [
        ("rte hypothesis: B. premise: A.", "<unk>")
    ]


def measured(name, answer):
    """The metrics if `answer`, a function of the target, is what the model writes."""
    (examples,) = evaluation.eval_set(get(name), "validation", LENGTHS)
    said = [answer(row["targets_pretokenized"].decode()) for row in examples.raw]
    return evaluation.measure(examples, said)


@pytest.mark.parametrize(
    "member, metrics",
    [
        ("boolq", {"accuracy": 100.0}),
        ("cb", {"mean_3class_f1": 100 / 3, "accuracy": 100.0}),
        ("multirc", {"f1": 100.0, "exact_match": 100.0}),
        ("record", {"em": 100.0, "f1": 100.0}),
    ],
)
def test_right_answers_score_full(member, metrics):
    found = measured(f"byt5_taskless_super_glue_{member}_v102", lambda target: target)
    assert found.metrics == pytest.approx(metrics)
    assert tuple(found.metrics) == get(f"super_glue_{member}_v102").info.metrics


def test_multirc_needs_all_answers_of_a_question():
    found = measured("byt5_super_glue_multirc_v102", lambda target: "True")
    # Of two answers one is right: precision 1/2, recall 1.
    assert found.metrics == pytest.approx({"f1": 200 / 3, "exact_match": 0.0})


def test_record_takes_any_right_answer_once():
    found = measured("byt5_super_glue_record_v102", lambda target: "bob")
    assert found.metrics == {"em": 100.0, "f1": 100.0}


@pytest.mark.parametrize("member", ["cb", "multirc", "record", "wsc_and_dev", "boolq"])
def test_a_test_split_without_labels_is_no_score(member):
    name = f"byt5_taskless_super_glue_{member}_v102{'_simple' * (member == 'wsc_and_dev')}"
    with pytest.raises(ValueError, match=r"The split 'test' of '.*' has no labels"):
        evaluation.eval_set(get(name), "test", LENGTHS)


def test_an_answer_without_a_label_leaves_its_question_as_it_is():
    """The other answer alone decides; the prediction for this one may be anything."""
    name = "byt5_taskless_super_glue_multirc_v102"
    (examples,) = evaluation.eval_set(get(name), "validation", LENGTHS)
    rows = [{**row, "targets_pretokenized": b"<unk>"} for row in examples.raw]
    rows[0] = examples.raw[0]
    target = rows[0]["targets_pretokenized"].decode()
    some = dataclasses.replace(examples, raw=tuple(rows))
    found = evaluation.measure(some, [target, "dunno"]).metrics
    assert found["exact_match"] == 100.0
    assert evaluation.measure(some, ["dunno", "dunno"]).metrics["exact_match"] == 0.0


def test_wsc_is_judged_on_the_label():
    name = "byt5_taskless_super_glue_wsc_and_dev_v102_simple"
    # Saying Bob is right where the noun is Bob (true) and where it is Tim (false).
    assert measured(name, lambda target: "Bob").metrics == {"accuracy": 100.0}
    assert measured(name, lambda target: target).metrics == {"accuracy": 50.0}


def test_examples_variant_logs_samples_and_scores_the_same():
    found = measured("byt5_taskless_super_glue_cb_v102_examples", lambda target: "dry")
    assert found.metrics == {"mean_3class_f1": 0.0, "accuracy": 0.0}
    assert set(found.samples) == {"cb samples", "cb negative samples"}
    assert found.samples["cb samples"] == (
        "example: hypothesis: It was wet. premise: It rained.\n\ntarget: neutral\n\nprediction: dry"
    )


def test_wsc_examples_variant():
    name = "byt5_taskless_super_glue_wsc_and_dev_v102_simple_examples"
    found = measured(name, lambda target: "Bob")
    assert found.metrics == {"accuracy": 100.0}
    assert found.samples["wsc negative samples"] == ""


FULL = {
    "boolq": {"accuracy": 91.1},
    "cb": {"accuracy": 99.3, "mean_3class_f1": 99.0},
    "copa": {"accuracy": 98.8},
    "multirc": {"exact_match": 65.7, "f1": 88.7},
    "record": {"em": 92.7, "f1": 93.4},
    "rte": {"accuracy": 92.6},
    "wic": {"accuracy": 76.2},
    "wsc": {"accuracy": 95.8},
}


def test_score_is_the_papers():
    """Table 3 of Lester et al.: the average of five T5-XXL prompts is 90.5."""
    assert super_glue.superglue_score(FULL) == pytest.approx(90.4875)


def test_score_takes_official_names_and_leaves_ax_out():
    named = {f"taskless_super_glue_{member}_v102": values for member, values in FULL.items()}
    wsc = named.pop("taskless_super_glue_wsc_v102")
    named["taskless_super_glue_wsc_v102_simple_eval"] = wsc
    named["super_glue_axb_v102"] = {"accuracy": 0.0}
    assert super_glue.superglue_score(named) == pytest.approx(90.4875)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"cb": None}, "missing: cb"),
        ({"cb": {}}, "needs the metrics of 'cb'; got none"),
        ({"super_glue_cb_v102": {"accuracy": 1.0}}, "'cb' are given twice.*'super_glue_cb_v102'"),
        ({"glue_sst2_v200": {"accuracy": 1.0}}, "'glue_sst2_v200' is not a SuperGLUE task"),
    ],
)
def test_score_refuses(change, message):
    numbers = {name: values for name, values in {**FULL, **change}.items() if values is not None}
    with pytest.raises(ValueError, match=message):
        super_glue.superglue_score(numbers)
