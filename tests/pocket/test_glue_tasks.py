"""PocketGLUE as TFDS data and seqio tasks: made at first use, SuperGLUE's formats and metrics."""

import functools
import json
import pathlib

import pytest
import tensorflow_datasets as tfds

from prompt_tuning import cli
from prompt_tuning.data import (
    batches,
    describe,
    evaluation,
    super_glue,
    tasks,
)
from prompt_tuning.pocket import glue_files, glue_rows
from prompt_tuning.pocket import glue_tasks as pocket_glue

LENGTHS = {"inputs": 64, "targets": 10}
SMALL = {"train": 24, "validation": 30, "test": 12}
ALL = (*glue_rows.TASKS, *glue_rows.PAIRS)


DATA = {}  # the data folder of the tests


def get(name):
    return tasks.get(name, **DATA)


@pytest.fixture(scope="module", autouse=True)
def data_dir(tmp_path_factory):
    """An empty data folder, and the official datasets with only a few rows."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        for config in pocket_glue.PocketGlue.builder_configs.values():
            patch.setattr(config, "sizes", SMALL)
        DATA["data_dir"] = folder
        yield folder


def rows(task, split="validation", domain="home"):
    return glue_rows.rows(task, split, SMALL[split], domain=domain)


def name_of(task, start="taskless_", domain=""):
    if task == "wsc":
        return f"{start}pocket_glue_wsc_and_dev{domain}_v100_simple"
    return f"{start}pocket_glue_{task}{domain}_v100"


@functools.cache
def loaded(name, split="validation"):
    """Examples from the module's own data folder."""
    return examples(name, split)


def examples(name, split="validation"):
    (found,) = evaluation.eval_set(get(name), split, LENGTHS)
    return found


def measured(name, predict):
    found = loaded(name)
    said = [predict(row["targets_pretokenized"].decode()) for row in found.raw]
    return evaluation.measure(found, said).metrics


@pytest.mark.parametrize("task", ALL)
def test_features_are_those_of_tfds(task, tmp_path):
    builder = pocket_glue.make(task, sizes={**SMALL, "train": 10}, data_dir=tmp_path)
    dataset, config = pocket_glue.OFFICIAL[task]
    official = tfds.builder_cls(dataset)(config=config, data_dir=tmp_path)
    assert repr(builder.info.features) == repr(official.info.features)
    per_row = 8 if task == "multirc" else 1
    assert builder.info.splits["train"].num_examples == 10 * per_row
    assert builder.info.splits["test"].num_examples == 12 * per_row
    for row in builder.as_dataset("test").as_numpy_iterator():
        assert row.get("label") != -1


def test_names_tell_what_differs():
    def name(*arguments, **options):
        return pocket_glue.PocketGlueConfig(*arguments, **options).name

    assert name("cb") == name("cb", sizes=glue_rows.SIZES["cb"]) == "cb"
    assert name("cb", domain="sea") == "cb_sea"
    assert name("wsc", seed=2, sizes={"test": 7, "train": 5}) == "wsc.fixed_seed2_train5_test7"
    assert set(pocket_glue.PocketGlue.builder_configs) == {
        *("boolq", "cb", "copa", "multirc", "record", "rte", "wic", "wsc.fixed", "qqp", "mrpc"),
        *("boolq_sea", "cb_sea", "copa_sea", "multirc_sea", "record_sea", "rte_sea", "wic_sea"),
        "wsc.fixed_sea",
    }


@pytest.mark.parametrize(
    "options, message",
    [
        ({"task": "axb"}, r"no task 'axb'; known: boolq, .*, mrpc\."),
        ({"task": "cb", "domain": "moon"}, r"no domain 'moon'; known: home, sea\."),
        ({"task": "cb", "sizes": {"dev": 3}}, r"no split 'dev'; known: train, validation, test\."),
        ({"task": "cb", "sizes": {"train": 0}}, r"at least 1 row; got {'train': 0}\."),
    ],
)
def test_wrong_arguments_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        pocket_glue.make(**options, data_dir=tmp_path)


def test_other_seeds_and_sizes_are_read_by_name(tmp_path):
    pocket_glue.make_named("pocket_glue/cb_sea_seed1_train4_validation3_test2:1.0.0", tmp_path)
    builder = tfds.builder(
        "pocket_glue/cb_sea_seed1_train4_validation3_test2:1.0.0", data_dir=tmp_path
    )
    read = [row["premise"].decode() for row in tfds.as_numpy(builder.as_dataset("train"))]
    expected = glue_rows.rows("cb", "train", 4, seed=1, domain="sea")
    assert sorted(read) == sorted(row["premise"] for row in expected)
    with pytest.raises(ValueError, match=r"no dataset 'pocket_glue/axb:1.0.0'; PocketGLUE 1.0.0"):
        pocket_glue.make_named("pocket_glue/axb:1.0.0", tmp_path)


@pytest.fixture
def fresh(tmp_path, data_dir):
    DATA["data_dir"] = tmp_path
    yield tmp_path
    DATA["data_dir"] = data_dir


def test_a_task_makes_its_data_once(fresh, capsys):
    first = examples("taskless_pocket_glue_cb_v100")
    assert capsys.readouterr().out == f"making pocket_glue/cb in {fresh}\n"
    assert examples("taskless_pocket_glue_cb_v100").raw[0].keys() == first.raw[0].keys()
    assert capsys.readouterr().out == ""
    assert [path.name for path in (fresh / "pocket_glue").iterdir()] == ["cb"]


def test_two_runs_may_make_it_in_parallel(fresh, monkeypatch):
    """While one makes it another one finishes; both continue, and no temporary folder is left."""
    make_rows, calls = glue_rows.rows, []

    def interrupted(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 4:  # The first three calls are the fingerprint's.
            pocket_glue.make("rte", data_dir=fresh)
        return make_rows(*arguments, **options)

    monkeypatch.setattr(glue_rows, "rows", interrupted)
    builder = pocket_glue.make("rte", data_dir=fresh)
    assert builder.info.splits["train"].num_examples == 24
    assert len(calls) > 8
    assert [path.name for path in (fresh / "pocket_glue").iterdir()] == ["rte"]


def test_data_of_another_generator_is_refused(fresh, monkeypatch):
    pocket_glue.make("rte", data_dir=fresh)
    make_rows = glue_rows.rows
    monkeypatch.setattr(
        glue_rows,
        "rows",
        lambda *a, **o: [row | {"label": "entailment"} for row in make_rows(*a, **o)],
    )
    with pytest.raises(ValueError, match=r"The rows in '.*/rte/1.0.0' are not those .* remove"):
        examples("taskless_pocket_glue_rte_v100")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "pocket_glue").write_text("a file is in the way")
    with pytest.raises(ValueError, match=r"cannot be made in '.*': .*Name a folder .* DATA_DIR"):
        pocket_glue.make("cb", data_dir=tmp_path)


def first_text(name, split="validation"):
    row = min(batches.load_examples(get(name), split, LENGTHS).raw, key=lambda row: row["idx"])
    return row["inputs_pretokenized"].decode(), row["targets_pretokenized"].decode()


def test_formats_are_superglues():
    row = rows("boolq")[0]
    text = f"passage: {row['passage']} question: {row['question']}"
    assert first_text("taskless_pocket_glue_boolq_v100") == (text, str(row["label"]))
    assert first_text("pocket_glue_boolq_v100") == (f"boolq {text}", str(row["label"]))
    row = rows("cb", "train", "sea")[0]
    assert first_text("taskless_pocket_glue_cb_sea_v100", "train") == (
        f"hypothesis: {row['hypothesis']} premise: {row['premise']}",
        row["label"],
    )
    row = rows("qqp", "test")[0]
    assert first_text("pocket_glue_qqp_v100", "test") == (
        f"qqp question1: {row['question1']} question2: {row['question2']}",
        ("not_duplicate", "duplicate")[row["label"]],
    )


def test_wsc_marks_the_pronoun_and_trains_on_true_rows():
    row = rows("wsc")[0]
    pronoun = row["target"]["span2_text"]
    text = row["text"].replace(f" {pronoun} ", f" *{pronoun}* ")
    name = "taskless_pocket_glue_wsc_v100_simple"
    assert first_text(f"{name}_eval") == (text, row["target"]["span1_text"])
    assert first_text("pocket_glue_wsc_v100_simple_eval")[0] == f"wsc: {text}"
    right = sum(row["label"] for row in rows("wsc", "train"))
    assert len(batches.load_examples(get(f"{name}_train"), "train", LENGTHS)) == right
    train = batches.train_batches(get(name_of("wsc")), "train", LENGTHS, 4, seed=0)
    assert train.tasks(0) == [f"{name}_train"]


@pytest.mark.parametrize("task", ALL)
def test_perfect_and_constant_predictions(task):
    """Right answers score 100; the best constant answer scores the floor that is printed."""
    name = name_of(task)
    perfect = measured(name, lambda target: target)
    all_rows = {split: rows(task, split) for split in glue_rows.SPLITS}
    facts = glue_files.facts(task, all_rows)
    assert facts.sizes["validation"] == len(loaded(name))
    if task == "wsc":  # Its target is the noun asked about, right or not.
        right = 100 * sum(row["label"] for row in rows("wsc")) / 30
        assert perfect == {"accuracy": pytest.approx(right)}
    else:
        assert set(perfect.values()) == {100.0}
    answers = get(name).labels or {row["targets_pretokenized"].decode() for row in loaded(name).raw}
    constant = [measured(name, lambda target, one=one: one) for one in answers]
    means = [sum(numbers.values()) / len(numbers) for numbers in constant]
    assert facts.floor == pytest.approx(max(means))


@pytest.mark.parametrize("task", glue_rows.TASKS)
def test_no_input_is_cut(task):
    for domain in ("", "_sea"):
        assert examples(name_of(task, "", domain), "test").cut == {"inputs": 0, "targets": 0}


def test_the_pocket_score():
    numbers = {
        name_of(task): dict.fromkeys(super_glue.METRIC_NAMES[task], 80.0)
        for task in glue_rows.TASKS
    }
    assert super_glue.superglue_score(numbers) == 80.0
    at_sea = {name.replace("_v100", "_sea_v100"): value for name, value in numbers.items()}
    assert super_glue.superglue_score(at_sea) == 80.0
    mixed = {**numbers, name_of("cb", domain="_sea"): numbers[name_of("cb")]}
    mixed.pop(name_of("cb"))
    with pytest.raises(ValueError, match=r"of one benchmark; '.*' and '.*' are of two"):
        super_glue.superglue_score(mixed)
    with pytest.raises(ValueError, match=r"'pocket_glue_qqp_v100' is not a SuperGLUE task"):
        super_glue.superglue_score({"pocket_glue_qqp_v100": {"f1": 1.0}})
    with pytest.raises(ValueError, match=r"'glue_rte_v200' is not a SuperGLUE task"):
        super_glue.superglue_score({"glue_rte_v200": {"accuracy": 1.0}})


def test_facts_of_the_tasks():
    info = get("taskless_pocket_glue_cb_v100").info
    assert (info.family, info.member, info.eval_split) == ("pocket_glue", "cb", "validation")
    assert info.labels == ("entailment", "contradiction", "neutral")
    assert get("pocket_glue_wic_sea_v100").info.family == "pocket_glue_sea"
    assert get("pocket_glue_mrpc_v100").info.metrics == ("f1", "accuracy")
    with pytest.raises(ValueError, match="Did you mean .*taskless_pocket_glue_cb_v100"):
        get("taskless_pocket_glue_cb_v102")


def test_describe_shows_examples():
    shown = str(describe.describe(get("taskless_pocket_glue_cb_v100"), LENGTHS, n=1))
    assert "labels: entailment, contradiction, neutral" in shown
    assert "hypothesis: " in shown and " truncated)" not in shown


def test_floors_by_hand():
    """30 rows: 15 true, or 10 of each of three labels."""
    assert glue_files.floor("boolq", [{"value": 1}] * 2 + [{"value": 0}]) == pytest.approx(200 / 3)
    # One of three classes named always: accuracy 1/3, F1 (1/2 + 0 + 0) / 3.
    balanced = [{"value": value} for value in (0, 1, 2)]
    assert glue_files.floor("cb", balanced) == pytest.approx(100 * (1 / 3 + 1 / 6) / 2)
    answers = [{"value": 1, "group": 0}, {"value": 0, "group": 0}, {"value": 1, "group": 1}]
    # Always True: F1 4/5, and one of the two questions is all right.
    assert glue_files.floor("multirc", answers) == pytest.approx(100 * (4 / 5 + 1 / 2) / 2)
    names = [{"value": ["leo"], "group": (0, 0)}, {"value": ["emma"], "group": (1, 1)}]
    assert glue_files.floor("record", names) == pytest.approx(50)


def test_files_on_disk(tmp_path, capsys):
    code = cli.main(
        ["data", "pocket", "--out", str(tmp_path), "--tasks", "cb", "qqp", "--domain", "sea"]
        + ["--seed", "4", "--train", "30", "--validation", "6", "--test", "3"]
    )
    assert code == 0
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.jsonl"))
    expected = [f"{folder}/{split}.jsonl" for folder in ("CB", "QQP") for split in FILES]
    assert files == [pathlib.Path(file) for file in expected]
    read = [json.loads(line) for line in (tmp_path / "CB/val.jsonl").read_text().splitlines()]
    assert read == glue_rows.rows("cb", "validation", 6, seed=4, domain="sea")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:4] for line in lines[1:]] == [
        ["cb", "30", "6", "3"],
        ["qqp", "30", "6", "3"],
    ]
    assert "entailment 33.3%, contradiction 33.3%, neutral 33.3%" in lines[1]


FILES = ("test", "train", "val")


def test_the_command_line_explains_itself(capsys):
    assert cli.main(["data", "pocket", "--tasks", "axb"]) == cli.EXIT_USER_ERROR
    assert "PocketGLUE has no task 'axb'; known: boolq" in capsys.readouterr().err


def test_transfer_between_the_paraphrase_tasks():
    """The rows of MRPC with QQP's words for the same classes, and the other way round."""
    words = {"equivalent": "duplicate", "not_equivalent": "not_duplicate"}
    back = {new: old for old, new in words.items()}
    for source, target, written in (("qqp", "mrpc", words), ("mrpc", "qqp", back)):
        own = tasks.get(f"taskless_pocket_glue_{target}_v100")
        other = tasks.get(f"taskless_pocket_glue_{target}_from_{source}_v100")
        pairs = zip(tasks.rows(own, "validation"), tasks.rows(other, "validation"), strict=True)
        seen = set()
        for mine, theirs in pairs:
            assert mine["inputs_pretokenized"] == theirs["inputs_pretokenized"]
            label = mine["targets_pretokenized"].numpy().decode()
            assert theirs["targets_pretokenized"].numpy().decode() == written[label]
            seen.add(label)
        assert seen == {*written}
        assert other.labels == tasks.get(f"pocket_glue_{source}_v100").labels
