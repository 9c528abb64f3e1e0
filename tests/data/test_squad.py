"""SQuAD, MRQA, DPR and the transfer of paraphrases: a few rows through the TFDS builders."""

import pytest
import tfds_rows

from prompt_tuning.data import batches, evaluation, registry, squad, super_glue, tasks

LENGTHS = {"inputs": 256, "targets": 64}
CONTEXT = "The Broncos (of Denver) won, 24-10."
GLUE_ROWS = {
    "qqp": {"question1": "Why?", "question2": "How come?", "label": 1, "idx": 0},
    "mrpc": {"sentence1": "It rains.", "sentence2": "Rain falls.", "label": 1, "idx": 0},
}
OTHERS = {"qqp": ("Who?", "When?"), "mrpc": ("It rains.", "It snows.")}


def squad_rows():
    answers = {"text": ["Broncos", "The Broncos"], "answer_start": [4, 0]}
    yield "a", {
        "id": "a", "title": "Super Bowl", "context": CONTEXT, "question": "Who won?",
        "answers": answers,
    }  # fmt: skip


def mrqa_rows():
    nothing = {"tokens": [], "offsets": []}
    yield "b", {
        "subset": "BioASQ", "context": "Zinc binds p53.", "context_tokens": nothing, "qid": "b",
        "question": "What binds p53?", "question_tokens": nothing,
        "detected_answers": {"text": [], "char_spans": [], "token_spans": []},
        "answers": ["Zinc", "zinc (Zn)"],
    }  # fmt: skip


def dpr_rows():
    candidates = ["the bee", "the flower"]
    rows = [("The bee landed on the flower because it had pollen.", "it", 1),
            ("The bee, which itched, sat; it hummed and it flew.", "it", 0)]  # fmt: skip
    for number, (sentence, pronoun, label) in enumerate(rows):
        yield number, {
            "sentence": sentence, "pronoun": pronoun, "candidates": candidates, "label": label,
        }  # fmt: skip


def pair_rows(member):
    row = GLUE_ROWS[member]
    texts = [key for key in row if key not in ("label", "idx")]
    yield 0, row
    yield 1, dict(zip(texts, OTHERS[member], strict=True)) | {"label": 0, "idx": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    tfds_rows.write(squad.SQUAD, squad_rows, ("train", "validation"), folder)
    tfds_rows.write("mrqa/bio_asq:1.0.0", mrqa_rows, ("test",), folder)
    tfds_rows.write("definite_pronoun_resolution:1.1.0", dpr_rows, ("train", "test"), folder)
    for member in GLUE_ROWS:
        splits = ("train", "validation")
        tfds_rows.write(
            f"glue/{member}:2.0.0", lambda member=member: pair_rows(member), splits, folder
        )
    return folder


def load(data, name, split="validation"):
    return batches.load_examples(tasks.get(name, data_dir=data), split, LENGTHS)


def texts(examples):
    return [
        (row["inputs_pretokenized"].decode(), row["targets_pretokenized"].decode())
        for row in examples.raw
    ]


def test_squad_pads_punctuation_and_targets_the_first_answer(data):
    examples = load(data, "byt5_squad_v010_allanswers")
    context = "The Broncos ( of Denver ) won , 24 - 10 . "
    assert texts(examples) == [(f"question: Who won ? context: {context}", "Broncos")]


@pytest.mark.parametrize(
    ("said", "exact", "f1"),
    [("the broncos!", 100.0, 100.0), ("Broncos of Denver", 0.0, 50.0), ("Denver", 0.0, 0.0)],
)
def test_every_answer_of_squad_is_right(data, said, exact, f1):
    measured = evaluation.measure(load(data, "byt5_squad_v010_allanswers"), [said])
    assert measured.metrics == {"em": exact, "f1": f1}


def test_mrqa_evaluates_on_the_test_split_of_tfds(data):
    examples = load(data, "byt5_mrqa_bioasq_v001")
    assert texts(examples) == [("question: What binds p53 ? context: Zinc binds p53 . ", "Zinc")]
    assert evaluation.measure(examples, ["zinc Zn"]).metrics == {"em": 100.0, "f1": 100.0}
    with pytest.raises(ValueError, match="has no split 'train'; it has validation"):
        load(data, "byt5_mrqa_bioasq_v001", "train")


def test_a_mixture_trains_on_squad_and_evaluates_on_both(data):
    mixture = tasks.get("byt5_squad_to_bioasq", data_dir=data)
    names = [part.name for part in tasks.parts(mixture, "train")]
    assert names == ["byt5_squad_v010_allanswers"]
    names = [part.name for part in tasks.parts(mixture, "validation")]
    assert names == ["byt5_mrqa_bioasq_v001", "byt5_squad_v010_allanswers"]
    assert len(tasks.get("squad_to_mrqa").members) == 7


def test_dpr_marks_the_first_pronoun_and_names_the_right_candidate(data):
    examples = load(data, "byt5_dpr_v001_simple", "train")
    assert texts(examples) == [
        ("wsc: The bee landed on the flower because *it* had pollen.", "the flower"),
        ("wsc: The bee, which itched, sat; *it* hummed and it flew.", "the bee"),
    ]
    test = load(data, "byt5_taskless_dpr_v001_simple", "test")
    assert all(text.startswith("The bee") for text, _ in texts(test))
    assert evaluation.measure(test, ["flower", "flower"]).metrics == {"accuracy": 50.0}


@pytest.mark.parametrize(
    ("source", "target", "labels"),
    [
        ("qqp", "mrpc", ("not_duplicate", "duplicate")),
        ("mrpc", "qqp", ("not_equivalent", "equivalent")),
    ],
)
def test_a_transfer_has_the_labels_of_the_task_trained_on(data, source, target, labels):
    examples = load(data, f"byt5_taskless_glue_{target}_from_{source}_v200")
    assert [target for _, target in texts(examples)] == [labels[1], labels[0]]
    assert examples.task.labels == labels
    right = evaluation.measure(examples, [labels[1], labels[0]]).metrics
    own = {"qqp": "duplicate", "mrpc": "equivalent"}[target]
    wrong = evaluation.measure(examples, [own, labels[0]]).metrics
    assert (right, wrong) == ({"f1": 100.0, "accuracy": 100.0}, {"f1": 0.0, "accuracy": 50.0})
    mixture = tasks.get(f"byt5_taskless_glue_{target}_from_{source}_zeroshot_v200", data_dir=data)
    trained = [part.name for part in tasks.parts(mixture, "train")]
    assert trained == [f"byt5_taskless_glue_{source}_v200"]


def test_the_proportional_mixture_has_the_sizes_of_the_data():
    mixture = tasks.get("super_glue_v102_proportional")
    rates = {member.name: mixture.rate(member) for member in mixture.members}
    sizes = {f"super_glue_{task}_v102": n for task, n in super_glue.TRAIN_EXAMPLES.items()}
    wsc = sizes.pop("super_glue_wsc_v102")
    sizes |= {f"super_glue_wsc_v102_simple_{part}": wsc for part in ("train", "eval")}
    sizes["dpr_v001_simple"] = sizes.pop("super_glue_dpr_v102")
    assert rates == sizes
    without = tasks.get("super_glue_v102_without_dpr_proportional")
    assert {m.name for m in mixture.members} - {m.name for m in without.members} == {
        "dpr_v001_simple"
    }


def test_the_facts_of_the_tasks():
    assert registry.info("squad_v010_allanswers").metrics == ("em", "f1")
    assert registry.info("dpr_v001_simple").eval_split == "test"
