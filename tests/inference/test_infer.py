"""Tests of prompt_tuning/inference/infer.py: what is read, predicted and written."""

import dataclasses
import json

import numpy as np
import pytest

from prompt_tuning.inference import evaluate, infer, loading
from prompt_tuning.model import decoding

pytestmark = pytest.mark.usefixtures("quick")

TEXTS = [
    f"the old {thing} was really {word} ." for thing in ("film", "book") for word in "abcdefghi"
]
# 18 inputs in batches of 16, so that the programs of the evaluations serve here too.


@pytest.fixture
def run(prompted, tmp_path):
    return dataclasses.replace(prompted.run, infer_output_dir=str(tmp_path / "out"))


def write(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def lines_of(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_a_text_a_line(run, tmp_path, capsys):
    """Empty lines are no inputs; the order is kept; scores are those of the model."""
    source = write(tmp_path / "in.txt", [*TEXTS[:3], "", "  ", *TEXTS[3:]])
    inferred = infer.infer_run(run, source)
    assert inferred == infer.Inferred(str(tmp_path / "out/predictions.jsonl"), 18, 0)
    lines = lines_of(inferred.path)
    assert [line["input"] for line in lines] == TEXTS
    assert all(line.keys() == {"input", "prediction", "score", "label_scores"} for line in lines)
    assert f"18 predictions, written to {inferred.path}" in capsys.readouterr().out

    t5, model, params, _ = loading.load_trained(run, loading.prepare_task(run))
    ids, _ = t5.encode_cut(TEXTS[:16], 48)
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
    ids, _ = t5.encode_cut(TEXTS[:16], 48)
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


def test_more_decodes_than_greedy_has_are_refused(run, tmp_path):
    run = dataclasses.replace(run, num_decodes=2)
    with pytest.raises(ValueError, match="Greedy decoding has one result per input"):
        infer.infer_run(run, write(tmp_path / "in.txt", TEXTS))


def test_a_long_input_is_cut_counted_and_flagged(run, tmp_path, capsys):
    """60 bytes and the end mark are 13 more than 48; what is left is predicted for."""
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
    assert "1 inputs were longer than 48 tokens and were cut; see 'tokens_cut'" in printed


def test_without_a_file_the_split_of_the_task_is_predicted(run):
    lines = lines_of(infer.infer_run(run).path)
    (examples,) = evaluate.load_eval_sets(run)
    expected = [row["inputs_pretokenized"].decode() for row in examples.raw]
    assert [line["input"] for line in lines] == expected
    assert len(expected) == 20
    # Evaluation and inference decode alike.
    t5, model, params, _ = loading.load_trained(run, loading.prepare_task(run))
    ids = evaluate.predict(model, params, examples, strategy=run.decoding, batch_size=16)
    assert [line["prediction"] for line in lines] == [t5.decode(row) for row in ids]


BAD_FILES = {
    "empty.txt": ("", r"empty\.txt is empty; a text a line was expected"),
    "blank.txt": ("\n  \n", r"blank\.txt is empty"),
    "broken.jsonl": ('{"input": "a"}\n\n{"input": ', r"broken\.jsonl, line 3, is not JSON"),
    "no_input.jsonl": (
        '{"input": "a"}\n{"premise": "b"}',
        r"line 2: an object with a text named 'input' was expected; got '{\"premise\": \"b\"}'",
    ),
    "number.jsonl": ('{"input": 3}', "line 1: an object with a text named 'input'"),
    "list.jsonl": ('["a"]', "line 1: an object with a text named 'input'"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_input_file_is_one_sentence(run, tmp_path, name, monkeypatch):
    """And comes before the model is loaded."""
    monkeypatch.setattr(
        loading, "load_parameters", lambda *_, **__: pytest.fail("the model was loaded")
    )
    content, message = BAD_FILES[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        infer.infer_run(run, str(tmp_path / name))


def test_a_file_that_is_missing_or_no_text_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="missing.txt cannot be read: .*No such file"):
        infer.read_inputs(str(tmp_path / "missing.txt"))
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match="latin.txt cannot be read: .*utf-8"):
        infer.read_inputs(str(tmp_path / "latin.txt"))


def test_lines_keep_their_spaces_and_lose_their_ends(tmp_path):
    (tmp_path / "in.txt").write_bytes(b" a b \r\nc")
    assert [item.text for item in infer.read_inputs(str(tmp_path / "in.txt"))] == [" a b ", "c"]
