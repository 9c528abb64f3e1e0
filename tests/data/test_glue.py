"""GLUE tasks from hand-made archives, through the real TFDS builders."""

import zipfile

import pytest

from prompt_tuning.data import batches, evaluation, glue, prepare, preprocessors, tasks
from prompt_tuning.data.tensorflow_import import tf

LENGTHS = {"inputs": 128, "targets": 20}
COLA = "gj04\t1\t\tIt rains.\nbc01\t0\t*\tRains it the.\n"
NLI = "index\tsentence1\tsentence2\tgold_label\n0\tIt rains.\tIt is wet.\tentailment\n"
FILES = {
    "CoLA": {"train.tsv": COLA, "dev.tsv": COLA, "test.tsv": "index\tsentence\n0\tIt.\n"},
    "STS-B": {
        f"{split}.tsv": "index\tsentence1\tsentence2\tscore\n0\tA.\tB.\t3.33\n1\tC.\tD.\t0.8\n"
        for split in ("train", "dev", "test")
    },
    "QQP": {
        f"{split}.tsv": "id\tquestion1\tquestion2\tis_duplicate\n0\tWhy?\tHow come?\t1\n"
        for split in ("train", "dev", "test")
    },
    "MNLI": {
        **{"train.tsv": NLI},
        **{
            f"{split}_{half}.tsv": NLI.replace("rains", half)
            for split in ("dev", "test")
            for half in ("matched", "mismatched")
        },
    },
}


DATA = {}  # the module's data folder


def get(name):
    return tasks.get(name, **DATA)


@pytest.fixture(scope="module", autouse=True)
def _data_dir(tmp_path_factory):
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("data")
    for task, files in FILES.items():
        with zipfile.ZipFile(source / f"{task}.zip", "w") as archive:
            for name, text in files.items():
                archive.writestr(f"{task}/{name}", text)
    members = ["cola", "stsb", "qqp", "mnli", "mnli_matched", "mnli_mismatched"]
    prepare.prepare(source, folder, members)
    DATA["data_dir"] = folder


def texts(name, split="validation"):
    return sorted(
        (row["inputs_pretokenized"].decode(), row["targets_pretokenized"].decode())
        for row in batches.load_examples(get(name), split, LENGTHS).raw
    )


@pytest.mark.parametrize(
    "name, expected",
    [
        (
            "byt5_glue_cola_v200",
            [
                ("cola sentence: It rains.", "acceptable"),
                ("cola sentence: Rains it the.", "unacceptable"),
            ],
        ),
        (
            "byt5_taskless_glue_stsb_v200",
            [("sentence1: A. sentence2: B.", "3.4"), ("sentence1: C. sentence2: D.", "0.8")],
        ),
        (
            "byt5_taskless_glue_qqp_v200",
            [("question1: Why? question2: How come?", "duplicate")],
        ),
        (
            "byt5_glue_mnli_matched_v200",
            [("mnli hypothesis: It is wet. premise: It matched.", "entailment")],
        ),
    ],
)
def test_formats(name, expected):
    assert texts(name) == expected


def test_a_data_folder_belongs_to_one_task_alone(tmp_path):
    name = "byt5_glue_cola_v200"
    here, nowhere = get(name), tasks.get(name, data_dir=tmp_path)
    with pytest.raises(ValueError, match="which is not in the data folder"):
        batches.load_examples(nowhere, "validation", LENGTHS)
    assert len(batches.load_examples(here, "validation", LENGTHS)) == 2
    with pytest.raises(ValueError, match="which is not in the data folder"):
        batches.load_examples(nowhere, "validation", LENGTHS)


def test_a_missing_similarity_never_counts():
    """The first row has a score, the second has none."""
    rows = {"sentence1": ["A", "C", "E"], "sentence2": ["B", "D", "F"]}
    scores = tf.constant([3.33, -1.0, float("nan")])
    dataset = tf.data.Dataset.from_tensor_slices({**rows, "label": scores, "idx": [0, 1, 2]})
    targets = [row["targets"].numpy() for row in preprocessors.stsb(dataset, name="")]
    assert targets == [b"3.4", b"<unk>", b"<unk>"]


def test_unlabelled_rows_are_unk():
    assert texts("byt5_taskless_glue_cola_v200", "test") == [("sentence: It.", "<unk>")]


def test_mnli_mixture_has_two_dev_sets():
    sets = evaluation.eval_set(get("byt5_taskless_glue_mnli_and_dev_v200"), "validation", LENGTHS)
    assert [examples.task.name for examples in sets] == [
        "byt5_taskless_glue_mnli_matched_v200",
        "byt5_taskless_glue_mnli_mismatched_v200",
    ]
    mixture = get("byt5_taskless_glue_mnli_and_dev_v200")
    train = batches.train_batches(mixture, "train", LENGTHS, 2, seed=0)
    assert train.tasks(0) == ["byt5_taskless_glue_mnli_v200"]


def test_mnlis_own_dev_split_is_the_matched_one():
    assert get("glue_mnli_v200").info.eval_split == "validation_matched"


@pytest.mark.parametrize(
    "member, said, expected",
    [
        ("cola", ["acceptable", "unacceptable"], {"matthews_corrcoef": 100.0}),
        ("stsb", ["3.0", "1.0"], {"pearson_corrcoef": 100.0, "spearman_corrcoef": 100.0}),
        ("qqp", ["not_duplicate"], {"f1": 0.0, "accuracy": 0.0}),
        ("mnli_matched", ["entailment"], {"accuracy": 100.0}),
    ],
)
def test_metrics(member, said, expected):
    (examples,) = evaluation.eval_set(get(f"byt5_glue_{member}_v200"), "validation", LENGTHS)
    by_input = dict(zip(texts(f"byt5_glue_{member}_v200"), said, strict=True))
    order = [
        by_input[row["inputs_pretokenized"].decode(), row["targets_pretokenized"].decode()]
        for row in examples.raw
    ]
    assert evaluation.measure(examples, order).metrics == pytest.approx(expected)
    assert get(f"glue_{member}_v200").info.metrics == tuple(expected)


def test_every_dataset_has_labels_and_metrics():
    assert set(glue.METRICS) == set(glue.LABELS)
    assert glue.LABELS["stsb"] is None
