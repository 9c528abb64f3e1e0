"""Tests of prompt_tuning/inference/infer.py: what is read, predicted and written."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from prompt_tuning.data.tables import TableTask
from prompt_tuning.inference import evaluate, infer, loading, weights
from prompt_tuning.model import decoding

pytestmark = pytest.mark.usefixtures("quick")

TEXTS = [
    f"the old {thing} was really {word} ." for thing in ("film", "book") for word in "abcdefghi"
]
# 18 inputs in batches of 16, so that the programs of the evaluations serve here too.
STRANGERS = Path(__file__).parents[1] / "data" / "strangers"


@pytest.fixture
def run(prompted, tmp_path):
    return dataclasses.replace(prompted.run, infer_output_dir=str(tmp_path / "out"))


def write(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def lines_of(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.fixture
def of_table(run, tmp_path):
    """The same prompt for a task that is a table: of_table('text,stars\\n...', **settings)."""

    def make(train, **settings):
        path = tmp_path / "train.csv"
        path.write_text(train, encoding="utf-8")
        settings = {"target_column": "stars", "vocabulary": "byt5", **settings}
        table = TableTask("mine", str(path), str(path), **settings)
        return dataclasses.replace(run, task="mine", local_tasks=(table,))

    return make


def test_one_text_per_line(run, tmp_path, capsys):
    """The order is kept; scores are those of the model."""
    source = write(tmp_path / "in.txt", TEXTS)
    inferred = infer.infer_run(run, source)
    assert inferred == infer.Inferred(str(tmp_path / "out/predictions.jsonl"), 18, 0)
    lines = lines_of(inferred.path)
    assert [line["input"] for line in lines] == TEXTS
    assert all(line.keys() == {"input", "prediction", "score", "label_scores"} for line in lines)
    assert f"18 predictions, written to {inferred.path}" in capsys.readouterr().out

    t5, model, params, _ = loading.load_trained(run, loading.prepare_task(run))
    ids = t5.encode(TEXTS[:16], 48).padded(range(16), 48)
    decoded = decoding.generate(model, params, ids, max_decode_length=8)
    assert [line["prediction"] for line in lines[:16]] == [
        t5.vocabulary.decode(row) for row in decoded.tokens[:, 0].tolist()
    ]
    np.testing.assert_allclose(
        [line["score"] for line in lines[:16]], decoded.scores[:, 0], rtol=1e-6
    )
    assert len({line["score"] for line in lines}) == 18


def test_label_scores_are_log_probabilities_of_the_labels(run, tmp_path):
    """Each is what `score` gives that label alone; the largest is rank classification."""
    lines = lines_of(infer.infer_run(run, write(tmp_path / "in.txt", TEXTS)).path)
    t5, model, params, _ = loading.load_trained(run, loading.prepare_task(run))
    ids = t5.encode(TEXTS[:16], 48).padded(range(16), 48)
    alone = {}
    for label in ("awful", "great"):
        targets = np.array([[*t5.vocabulary.encode(label), 1]] * 16, np.int32)
        alone[label] = np.asarray(decoding.score(model, params, ids, targets))
    for i, line in enumerate(lines[:16]):
        scores = line["label_scores"]
        assert list(scores) == ["awful", "great"]
        assert scores == {name: pytest.approx(alone[name][i], abs=1e-4) for name in alone}
        assert max(scores, key=scores.get) == max(alone, key=lambda name: alone[name][i])
        assert max(scores.values()) < 0


def test_a_blank_line_is_an_input_too(run, tmp_path, capsys):
    """So that line 5 of the output belongs to line 5 of the input."""
    lines = ["", *TEXTS[:3], "  ", *TEXTS[3:16]]
    inferred = infer.infer_run(run, write(tmp_path / "in.txt", lines))
    assert [line["input"] for line in lines_of(inferred.path)] == lines
    assert "2 of 18 lines are blank; each is an input, too" in capsys.readouterr().out


TABLE = "text,stars\nnice food,1\ncold food,0\n"


@pytest.mark.parametrize("name", ["new.csv", "new.tsv"])
def test_a_table_is_read_as_in_training(of_table, tmp_path, name):
    """No label in the input, no header as a row; what is not read is passed on."""
    run = of_table(TABLE)
    inferred = infer.infer_run(run, str(STRANGERS / "09-infer-own-table" / name))
    (line,) = lines_of(inferred.path)
    text = "nice food, friendly people 3" if name == "new.csv" else "nice food"
    assert (line["input"], line["text"], line["stars"]) == (f"text: {text}", text, "1")
    assert list(line["label_scores"]) == ["0", "1"]


def test_the_inputs_of_a_table_are_those_of_its_task(of_table, tmp_path):
    """Several columns in their order or a template; with rows that have no label."""
    train = 'b,a,stars\nx,"1, 2",1\ny,,0\n'
    for settings, expected in (
        ({}, ["a: 1, 2 b: x", "a:  b: y"]),
        ({"input_columns": ("b",)}, ["b: x", "b: y"]),
        ({"template": "{b} of {a}?"}, ["x of 1, 2?", "y of ?"]),
    ):
        run = of_table(train, **settings)
        of_file = lines_of(infer.infer_run(run, str(tmp_path / "train.csv")).path)
        of_task = lines_of(infer.infer_run(run).path)
        assert [line["input"] for line in of_file] == expected
        assert [line["input"] for line in of_task] == expected
        assert [line["score"] for line in of_file] == [line["score"] for line in of_task]
        records = [{"b": "x", "a": "1, 2", "id": 7}, {"b": "y", "a": None}]
        source = write(tmp_path / "new.jsonl", map(json.dumps, records))
        lines = lines_of(infer.infer_run(run, source).path)
        assert [line["input"] for line in lines] == expected
        assert (lines[0]["id"], lines[1]["a"]) == (7, None)


def test_a_table_whose_labels_are_missing(of_table):
    run = of_table(TABLE)
    for name in ("none", "partly", "partly_unlabelled_first"):
        inferred = infer.infer_run(run, str(STRANGERS / "10-partly-labelled-test" / f"{name}.csv"))
        lines = lines_of(inferred.path)
        assert [line["input"] for line in lines] == [f"text: nice food {i}" for i in range(10)]


def test_texts_that_are_written_out_already(of_table, tmp_path):
    """As `train` shows its first example; BOMs and Windows' line ends are not part of them."""
    run = of_table(TABLE)
    for name in ("new.jsonl", "new.txt"):
        lines = lines_of(infer.infer_run(run, str(STRANGERS / "08-infer-bom" / name)).path)
        assert [line["input"] for line in lines] == ["text: nice food", "text: cold food"]


def test_predictions_of_a_table_can_be_fed_back(of_table, tmp_path):
    run = of_table(TABLE)
    first = lines_of(infer.infer_run(run, str(tmp_path / "train.csv")).path)
    source = write(tmp_path / "again.jsonl", map(json.dumps, first))
    assert lines_of(infer.infer_run(run, source).path) == first


def test_columns_of_a_csv_that_is_no_table(run, tmp_path):
    records = [f'{i},"{text}"' for i, text in enumerate(TEXTS)]
    lines = lines_of(infer.infer_run(run, write(tmp_path / "in.csv", ["id,text", *records])).path)
    assert [(line["id"], line["input"]) for line in lines] == [
        (str(i), text) for i, text in enumerate(TEXTS)
    ]


def test_an_earlier_output_is_replaced_by_a_whole_one(run, tmp_path, monkeypatch):
    source = write(tmp_path / "in.txt", TEXTS)
    path = Path(infer.infer_run(run, source).path)
    before = path.read_bytes()

    def breaks_off(*_):
        yield {"input": "a"}
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(infer, "_records", breaks_off)
        with pytest.raises(KeyboardInterrupt):
            infer.infer_run(run, source)
    assert path.read_bytes() == before
    write(tmp_path / "in.txt", TEXTS[:16])
    assert infer.infer_run(run, source).examples == 16
    assert len(lines_of(path)) == 16
    assert [entry.name for entry in path.parent.iterdir()] == ["predictions.jsonl"]


def test_an_output_that_cannot_be_written_is_refused_first(run, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "load", lambda *_, **__: pytest.fail("the model was loaded"))
    source = write(tmp_path / "in.jsonl", ['{"input": "a"}'])
    (tmp_path / "link.jsonl").symlink_to(source)
    for output in (source, str(tmp_path / "link.jsonl")):
        with pytest.raises(ValueError, match="jsonl' is the input file; choose another --output"):
            infer.infer_run(run, source, output)
    with pytest.raises(ValueError, match="is a folder; expected a file to write"):
        infer.infer_run(run, source, str(tmp_path))
    assert Path(source).read_text() == '{"input": "a"}\n'


def test_json_lines_keep_their_other_fields(run, tmp_path):
    records = [{"id": i, "text": text, "meta": {"Ü": [1, None]}} for i, text in enumerate(TEXTS)]
    source = write(tmp_path / "in.jsonl", map(json.dumps, records))
    target = str(tmp_path / "deep/er/out.jsonl")
    assert infer.infer_run(run, source, target).path == target
    lines = lines_of(target)
    assert [line["id"] for line in lines] == list(range(18))
    assert all(line["meta"] == {"Ü": [1, None]} and "text" not in line for line in lines)
    assert "Ü" in (tmp_path / "deep/er/out.jsonl").read_text(encoding="utf-8")


def test_predictions_can_be_fed_back(run, tmp_path):
    """What an earlier run predicted does not pass for what this one does."""
    old = {"prediction": "x", "decodes": [], "tokens_cut": 9, "score": 1, "label_scores": {}}
    records = [{"input": text, **old, "id": 1} for text in TEXTS]
    inferred = infer.infer_run(run, write(tmp_path / "in.jsonl", map(json.dumps, records)))
    assert inferred.cut == 0
    expected = {"input", "id", "prediction", "score", "label_scores"}
    assert all(line.keys() == expected for line in lines_of(inferred.path))
    assert all(line["score"] < 0 for line in lines_of(inferred.path))


@pytest.mark.parametrize("strategy", [decoding.Sample(), decoding.BeamSearch(num_beams=3)])
def test_several_decodes_of_one_input_come_best_first(run, tmp_path, strategy):
    run = dataclasses.replace(run, decoding=strategy, num_decodes=3)
    source = write(tmp_path / "in.txt", TEXTS)
    lines = lines_of(infer.infer_run(run, source).path)
    for line in lines:
        assert line.keys() == {"input", "decodes", "label_scores"}
        scores = [each["score"] for each in line["decodes"]]
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)
        assert all(each.keys() == {"prediction", "score"} for each in line["decodes"])
    assert len({each["prediction"] for each in lines[0]["decodes"]}) == 3
    assert lines_of(infer.infer_run(run, source).path) == lines
    if isinstance(strategy, decoding.Sample):
        other = dataclasses.replace(run, seed=1)
        assert lines_of(infer.infer_run(other, source).path) != lines


def test_each_batch_is_drawn_with_a_key_of_its_own(run, tmp_path):
    """The batch that begins at input k draws from fold_in(key(seed), k): 0, 8 and 16."""
    run = dataclasses.replace(run, decoding=decoding.Sample(), eval_batch_size=8, seed=7)
    lines = lines_of(infer.infer_run(run, write(tmp_path / "in.txt", TEXTS[:1] * 18)).path)
    t5, model, params, _ = loading.load_trained(run, loading.prepare_task(run))
    ids = t5.encode(TEXTS[:1] * 8, 48).padded(range(8), 48)
    expected = []
    for start in (0, 8, 16):
        key = jax.random.fold_in(jax.random.key(7), start)
        decoded = decoding.generate(
            model, params, ids, max_decode_length=8, strategy=decoding.Sample(), rng=key
        )
        expected += [t5.decode(row) for row in decoded.tokens[:, 0]]
    predicted = [line["prediction"] for line in lines]
    assert predicted == expected[:18]
    assert predicted[:8] != predicted[8:16]


def test_more_decodes_than_greedy_has_are_refused(run, tmp_path):
    run = dataclasses.replace(run, num_decodes=2)
    with pytest.raises(ValueError, match="Greedy decoding has one result per input"):
        infer.infer_run(run, write(tmp_path / "in.txt", TEXTS))


def test_a_long_input_is_cut_counted_and_flagged(run, tmp_path, capsys):
    """60 bytes and EOS are 13 more than 48; what is left is predicted for."""
    texts = [*TEXTS]
    texts[2] = "x" * 60
    texts[17] = "x" * 47  # 48 tokens: fits
    inferred = infer.infer_run(run, write(tmp_path / "in.txt", texts))
    lines = lines_of(inferred.path)
    assert inferred.cut == 1
    assert [line.get("tokens_cut") for line in lines] == [None] * 2 + [13] + [None] * 15
    assert lines[2]["input"] == "x" * 60
    assert lines[2]["label_scores"] == pytest.approx(lines[17]["label_scores"], abs=1e-4)
    printed = capsys.readouterr().out
    assert "1 inputs were longer than 48 tokens and were truncated; see 'tokens_cut'" in printed


def test_without_a_file_the_split_of_the_task_is_predicted(run):
    lines = lines_of(infer.infer_run(run).path)
    (examples,) = evaluate.load_eval_sets(run, loading.prepare_task(run))
    expected = [row["inputs_pretokenized"].decode() for row in examples.raw]
    assert [line["input"] for line in lines] == expected
    assert len(expected) == 20
    # Evaluation and inference decode in the same way.
    t5, model, params, _ = loading.load_trained(run, loading.prepare_task(run))
    ids = evaluate.predict(model, params, examples, strategy=run.decoding, batch_size=16)
    assert [line["prediction"] for line in lines] == [t5.decode(row) for row in ids]


BAD_FILES = {
    "empty.txt": ("", r"empty\.txt' is empty; expected one text per line"),
    "blank.txt": ("\n  \n", r"blank\.txt' is empty"),
    "latin.txt": (b"caf\xe9", r"Line 1 of .*latin\.txt' is not UTF-8 text"),
    "broken.jsonl": ('{"input": "a"}\n\n{"input": ', r"Line 3 of .*broken\.jsonl' is not JSON"),
    "no_input.jsonl": (
        '{"input": "a"}\n{"premise": "b"}',
        r"Line 2 of .*: expected a text named 'input'; got {\"premise\": \"b\"}",
    ),
    "number.jsonl": ('{"input": 3}', "Line 1 of .*: expected a text named 'input'"),
    "list.jsonl": ('["a"]', "Line 1 of .* must be an object"),
    "half.jsonl": ('{"input": "a"}\n{"input": "\\ud83d"}', r"Line 2 of .* half a character"),
    "other.csv": (
        "premise,label\na,1\n",
        "needs a column named 'input', 'inputs' or 'text'; its columns are premise, label",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_input_file_is_one_sentence(run, tmp_path, name, monkeypatch):
    """And comes before the model is loaded."""
    monkeypatch.setattr(weights, "load", lambda *_, **__: pytest.fail("the model was loaded"))
    content, message = BAD_FILES[name]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        infer.infer_run(run, str(tmp_path / name))


BAD_TABLES = {
    "other.csv": ("body\nA\n", "needs the columns of the table 'mine', a, b, or a column named"),
    "text.csv": ("text\nA\n", "its columns are text"),  # perhaps one of the table's, renamed
    "some.csv": ("a\nA\n", "some.csv' lacks the columns b of the table 'mine'; its columns are a"),
    "row.jsonl": ('{"a": "A", "b": "B"}\n{"input": "C"}\n', "Line 2 of .* none of the columns a"),
    "list.jsonl": ('{"a": "A", "b": ["B"]}\n', "Line 1 of .* column 'b' must hold text"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_file_that_is_not_the_table_is_one_sentence(of_table, tmp_path, name):
    content, message = BAD_TABLES[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        infer.infer_run(of_table("a,b,stars\nx,y,1\n"), str(tmp_path / name))


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="missing.txt' cannot be read: No such file"):
        infer.read_inputs(str(tmp_path / "missing.txt"))
