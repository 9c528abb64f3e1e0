"""Tests of prompt_tuning/inference/evaluate.py: what is measured, and of what."""

import dataclasses
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
import seqio
import tiny_runs

from prompt_tuning import config, trees
from prompt_tuning.data import batches, registry
from prompt_tuning.inference import evaluate, loading, weights
from prompt_tuning.inference.frozen import load_parameters, transformer
from prompt_tuning.model import decoding
from prompt_tuning.prompts import files
from prompt_tuning.prompts.metadata import PromptMetadata
from prompt_tuning.prompts.prompt import PROMPT_PATH

pytestmark = pytest.mark.usefixtures("quick")

MODEL = transformer(tiny_runs.MODEL)


def written(folder):
    summary = json.loads((Path(folder) / "metrics.json").read_text())
    predictions = {
        path.stem: [json.loads(line) for line in path.read_text().splitlines()]
        for path in (Path(folder) / "predictions").iterdir()
    }
    return summary, predictions


@pytest.fixture
def says(monkeypatch):
    """Makes the model's answers: one function of the examples that returns texts."""
    answer = []

    def predict(model, params, examples, **options):
        rows = [examples.task.vocabulary.encode(text) for text in answer[0](examples)]
        ids = np.zeros((len(rows), 8), np.int32)
        for i, row in enumerate(rows):
            ids[i, : len(row) + 1] = [*row, 1]
        return ids

    monkeypatch.setattr(evaluate, "predict", predict)
    return answer.append


def targets_of(examples):
    return [row["targets_pretokenized"].decode() for row in examples.raw]


def test_the_metric_is_the_share_that_was_right(prompted, tmp_path, says, capsys):
    """Of twenty answers the first five are right: 25 %."""
    says(lambda examples: targets_of(examples)[:5] + ["neither"] * 15)
    run = dataclasses.replace(prompted.run, eval_output_dir=str(tmp_path))
    evaluated = evaluate.evaluate_run(run)
    assert (evaluated.metrics, evaluated.score) == ({"accuracy": 25.0}, 25.0)
    summary, predictions = written(tmp_path)
    best = f"{prompted.run.model_dir}/prompts/best.safetensors"
    assert summary == {
        "evaluated": f"prompt {best}",
        "task": "generated_sentiment",
        "split": "validation",
        "examples": 20,
        "labelled": {"generated_sentiment": 20},
        "metrics": {"accuracy": 25.0},
        "dev_score": 25.0,
        "cut": {"generated_sentiment": {"inputs": 0, "targets": 0}},
    }
    (lines,) = predictions.values()
    assert len(lines) == 20
    assert sum(line["prediction"] == line["target"] for line in lines) == 5
    assert re.fullmatch(r"the \w+ \w+ was \w+ \w+ \.", lines[0]["input"])
    assert lines[0]["target"] in ("awful", "great")
    printed = capsys.readouterr().out
    assert re.search(r"best\.safetensors, validation, 20 examples in \d+\.\d s", printed)
    assert re.search(r"accuracy +25\.00\n", printed)


@pytest.fixture
def mixture():
    """Both generated tasks, which share their sentences and differ in the label words."""
    parts = ["generated_sentiment", "generated_sentiment_true_false"]
    info = registry.TaskInfo("generated", "both", None, "validation", ("accuracy",))
    registry.add_mixture("both_generated", info, parts)
    yield "both_generated"
    seqio.MixtureRegistry.remove("both_generated")


def test_a_mixture_is_the_mean_of_its_tasks(prompted, tmp_path, says, mixture):
    """One task is right in 20 of 20 answers, the other in 5: the dev score is 62.5."""
    right = {"generated_sentiment": 20, "generated_sentiment_true_false": 5}
    says(lambda examples: (targets_of(examples)[: right[examples.task.name]] + ["no"] * 15)[:20])
    run = dataclasses.replace(prompted.run, task=mixture, eval_output_dir=str(tmp_path))
    evaluated = evaluate.evaluate_run(run)
    assert evaluated.score == 62.5
    assert evaluated.metrics == {
        "generated_sentiment/accuracy": 100.0,
        "generated_sentiment_true_false/accuracy": 25.0,
    }
    summary, predictions = written(tmp_path)
    assert (summary["dev_score"], summary["examples"]) == (62.5, 40)
    assert predictions.keys() == right.keys()


def test_every_example_is_decoded_once_and_in_order(prompted):
    """Twenty examples in batches of 16: the second batch is filled up, and cut again."""
    run = prompted.run
    (examples,) = evaluate.load_eval_sets(run, loading.prepare_task(run))
    _, model, params, _ = loading.load_trained(run, loading.prepare_task(run))
    options = {"strategy": run.decoding, "batch_size": 16}
    ids = evaluate.predict(model, params, examples, **options)
    assert ids.shape == (20, 8)
    for rows in (range(16), range(4, 20)):
        decoded = decoding.generate(
            model, params, examples.batch(rows)["encoder_input_tokens"], max_decode_length=8
        )
        np.testing.assert_array_equal(ids[rows.start : rows.stop], decoded.tokens[:, 0])
    assert len({row.tobytes() for row in ids}) > 1, "the rows must differ to tell their order"


def test_eval_gives_the_dev_score_of_training(prompted, tmp_path):
    run = dataclasses.replace(prompted.run, eval_output_dir=str(tmp_path))
    evaluated = evaluate.evaluate_run(run)
    assert evaluated.score == prompted.trained.best_score


def test_results_go_below_the_model_dir_by_default(prompted, says):
    says(targets_of)
    evaluate.evaluate_run(prompted.run)
    summary, _ = written(Path(prompted.run.model_dir) / "eval")
    assert summary["metrics"] == {"accuracy": 100.0}


def save_prompt(path, *, width=16, **metadata):
    prompt = np.full((4, width), 0.5, np.float32)
    about = {"model": "t5_1_1_small", "model_fingerprint": "0123456789abcdef"} | metadata
    files.save(path, prompt, PromptMetadata(length=4, width=width, **about))
    return f"{path}.safetensors"


def test_a_prompt_of_other_parameters_needs_the_flag(prompted, tmp_path, says):
    says(targets_of)
    path = save_prompt(tmp_path / "other")
    run = dataclasses.replace(prompted.run, prompt_file=path, eval_output_dir=str(tmp_path))
    message = "was made for t5_1_1_small with fingerprint 0123456789abcdef, but the model given"
    with pytest.raises(ValueError, match=message):
        evaluate.evaluate_run(run)
    evaluate.evaluate_run(dataclasses.replace(run, allow_other_model=True))
    summary, _ = written(tmp_path)
    assert summary["evaluated"] == f"prompt {path}"


@pytest.mark.parametrize("allowed", [False, True])
def test_a_prompt_of_another_width_never_passes(prompted, tmp_path, allowed):
    path = save_prompt(tmp_path / "wide", width=32)
    run = dataclasses.replace(prompted.run, prompt_file=path, allow_other_model=allowed)
    with pytest.raises(ValueError, match="has width 32, made for t5_1_1_small .* has width 16"):
        evaluate.evaluate_run(run)


def test_a_prompt_is_evaluated_where_it_was_trained(tmp_path, scores):
    """Trained as a suffix; as a prefix it would be another function, whatever is allowed."""
    scores += [1.0]
    suffix = tiny_runs.make_run(tmp_path, train_steps=2, prompt_position="suffix")
    tiny_runs.train(suffix)
    assert files.read_prompt(tmp_path / "prompts/best").metadata.position == "suffix"
    loaded = loading.load_trained(suffix, loading.prepare_task(suffix))
    assert loaded.what.startswith("prompt ")
    prefix = dataclasses.replace(suffix, prompt_position="prefix", allow_other_model=True)
    message = "was trained as a suffix of the input, but is used here as a prefix. Set Run.prompt_"
    with pytest.raises(ValueError, match=message):
        evaluate.evaluate_run(prefix)


def test_a_run_that_started_from_a_prompt_is_measured_with_its_own(tmp_path, scores, prompted):
    """Its configuration names the prompt that it started from; another one is still taken."""
    scores += [1.0]
    start = f"{prompted.run.model_dir}/prompts/best"
    bindings = ["PROMPT_INITIALIZER=@from_file", "from_file.path=%PROMPT_FILE", "TRAIN_STEPS=2"]
    run = tiny_runs.load_run(tmp_path, *bindings, f"PROMPT_FILE='{start}'")
    tiny_runs.train(run)
    kept = config.load([f"{tmp_path}/config.gin"])
    assert kept.prompt_file == start
    own, other = f"{tmp_path}/prompts/best.safetensors", f"{tmp_path}/prompts/step_000002.npy"
    for prompt_file, expected in ((start, own), (other, other)):
        asked = dataclasses.replace(kept, prompt_file=prompt_file)
        loaded = loading.load_trained(asked, loading.prepare_task(asked, trained=True))
        assert loaded.what == f"prompt {expected}"


def test_without_training_there_is_nothing_to_evaluate(tmp_path):
    with pytest.raises(ValueError, match="There is no trained prompt in .*Train first") as error:
        evaluate.evaluate_run(tiny_runs.make_run(tmp_path))
    assert "--gin.PROMPT_FILE=..." in str(error.value)
    with pytest.raises(ValueError, match=f"There is no tuned model in {tmp_path}. Train first"):
        evaluate.evaluate_run(tiny_runs.make_run(tmp_path, **tiny_runs.MODEL_TUNING))
    both = tiny_runs.make_run(
        tmp_path, trainable=(".*",), prompt_file=save_prompt(tmp_path / "p"), allow_other_model=True
    )
    with pytest.raises(ValueError, match="There is no tuned model"):
        evaluate.evaluate_run(both)
    assert not (tmp_path / "eval").exists()


def test_the_model_as_it_is_can_be_measured(tmp_path, says):
    says(targets_of)
    evaluate.evaluate_run(tiny_runs.make_run(tmp_path, prompt_length=None))
    summary, _ = written(tmp_path / "eval")
    assert summary["evaluated"] == "untuned model random"


def test_the_tuned_model_is_what_is_evaluated(tuned):
    loaded = loading.load_trained(tuned.run, loading.prepare_task(tuned.run))
    best = load_parameters(tiny_runs.MODEL, tuned.trained.path)
    assert trees.diff(trees.flatten(loaded.params), best).is_empty
    assert trees.diff(loaded.t5.params, best).is_empty
    assert loaded.what == f"tuned model {tuned.trained.path}"


def test_one_model_at_a_time_is_in_memory(tuned, monkeypatch):
    """The model before tuning is not loaded where no prompt has to be compared with it."""
    loaded, load = [], weights.load

    def load_and_note(config, path, **options):
        loaded.append(path)
        return load(config, path, **options)

    monkeypatch.setattr(weights, "load", load_and_note)
    loading.load_trained(tuned.run, loading.prepare_task(tuned.run))
    assert loaded == [tuned.trained.path]


def test_a_prompt_and_a_tuned_model_go_together(tuned, prompted):
    """The prompt is compared with the model before tuning, and put before the tuned one."""
    run = dataclasses.replace(
        tuned.run, prompt_length=4, prompt_file=f"{prompted.run.model_dir}/prompts/best"
    )
    loaded = loading.load_trained(run, loading.prepare_task(run))
    best = files.read_prompt(run.prompt_file)
    flat = trees.flatten(loaded.params)
    np.testing.assert_array_equal(flat.pop(PROMPT_PATH), best.prompt)
    assert trees.diff(flat, load_parameters(tiny_runs.MODEL, tuned.trained.path)).is_empty
    assert loaded.what == f"prompt {best.path} and tuned model {tuned.trained.path}"


def test_a_pattern_that_is_the_prompt_alone_needs_no_tuned_model(prompted):
    run = dataclasses.replace(prompted.run, trainable=(".*/prompt",))
    _, _, params, what = loading.load_trained(run, loading.prepare_task(run))
    best = files.read_prompt(f"{run.model_dir}/prompts/best").prompt
    np.testing.assert_array_equal(trees.flatten(params)[PROMPT_PATH], best)
    assert what.startswith("prompt ")


def test_sampling_draws_from_the_seed(prompted):
    run = prompted.run
    (examples,) = evaluate.load_eval_sets(run, loading.prepare_task(run))
    _, model, params, _ = loading.load_trained(run, loading.prepare_task(run))

    def drawn(seed):
        options = {"strategy": decoding.Sample(), "batch_size": 16, "seed": seed}
        return evaluate.predict(model, params, examples, **options)

    np.testing.assert_array_equal(drawn(0), drawn(0))
    assert (drawn(0) != drawn(1)).any()
    assert (drawn(0)[:4] != drawn(0)[16:]).any(), "each batch has its own draws"


def test_each_batch_is_drawn_with_a_key_of_its_own(prompted):
    """Batch k of a sampled evaluation draws from fold_in(key(seed), k): 0, 1, 2 and no other."""
    run = prompted.run
    task = loading.prepare_task(run)
    _, model, params, _ = loading.load_trained(run, task)
    (examples,) = evaluate.load_eval_sets(run, task)
    same = dataclasses.replace(
        examples,
        inputs=batches.Ragged.from_rows([examples.inputs[0]] * 20),
        targets=batches.Ragged.from_rows([examples.targets[0]] * 20),
    )
    ids = evaluate.predict(model, params, same, strategy=decoding.Sample(), batch_size=8, seed=7)
    keys = [jax.random.fold_in(jax.random.key(7), k) for k in range(3)]
    batch = same.batch(range(8))["encoder_input_tokens"]
    expected = [
        decoding.generate(
            model, params, batch, max_decode_length=8, strategy=decoding.Sample(), rng=key
        ).tokens[:, 0]
        for key in keys
    ]
    np.testing.assert_array_equal(ids, np.concatenate(expected)[:20])
    assert not np.array_equal(ids[:8], ids[8:16])


def test_rank_accuracy_counts_the_likeliest_label(prompted, monkeypatch):
    """The likeliest label is 'great', the second, throughout; half of the answers are 'great'."""
    (examples,) = evaluate.load_eval_sets(prompted.run, loading.prepare_task(prompted.run))
    scored = []

    def rank(model, params, inputs, labels):
        scored.append((inputs.shape, [bytes(x - 3 for x in row if x > 1) for row in labels]))
        return np.tile([[-2.0, -1.0]], (len(inputs), 1))

    monkeypatch.setattr(decoding, "rank", rank)
    assert evaluate.rank_accuracy(MODEL, None, examples, 16) == 50.0
    assert scored == [((16, 40), [b"awful", b"great"])] * 2  # twenty examples in two batches


def test_rank_accuracy_leaves_out_rows_without_a_label(prompted, monkeypatch):
    """'great' is likelier throughout; of four rows with a label one is 'great', oddly written."""
    (examples,) = evaluate.load_eval_sets(prompted.run, loading.prepare_task(prompted.run))
    targets = [b"awful", b" great ", b"awful", b"awful", *[b"<unk>"] * 16]
    rows = [
        {**row, "targets_pretokenized": target}
        for row, target in zip(examples.raw, targets, strict=True)
    ]
    monkeypatch.setattr(
        decoding, "rank", lambda model, params, inputs, labels: [[-2.0, -1.0]] * len(inputs)
    )
    some = dataclasses.replace(examples, raw=tuple(rows))
    assert evaluate.rank_accuracy(MODEL, None, some, 16) == 25.0


def test_rows_without_a_label_are_counted_and_reported(
    prompted, tmp_path, says, capsys, monkeypatch
):
    """Five of twenty rows have a label, and the model gets one of them right."""
    load = evaluate.load_eval_sets

    def partly_labelled(run, task):
        (examples,) = load(run, task)
        rows = [{**row, "targets_pretokenized": b"<unk>"} for row in examples.raw[5:]]
        return [dataclasses.replace(examples, raw=(*examples.raw[:5], *rows))]

    monkeypatch.setattr(evaluate, "load_eval_sets", partly_labelled)
    says(lambda examples: targets_of(examples)[:1] + ["neither"] * 4 + ["<unk>"] * 15)
    run = dataclasses.replace(prompted.run, eval_output_dir=str(tmp_path))
    assert evaluate.evaluate_run(run).metrics == {"accuracy": 20.0}
    summary, predictions = written(tmp_path)
    assert summary["labelled"] == {"generated_sentiment": 5}
    assert summary["examples"] == len(predictions["generated_sentiment"]) == 20
    assert "15 of 20 rows have no label and are left out of the metrics" in capsys.readouterr().out


def test_rank_accuracy_is_measured_where_it_is_asked_for(prompted, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "share_right", lambda *given: 62.5)
    run = dataclasses.replace(prompted.run, eval_rank=True, eval_output_dir=str(tmp_path))
    evaluated = evaluate.evaluate_run(run)
    assert evaluated.rank == {"rank_accuracy": 62.5}
    assert evaluated.score == evaluated.metrics["accuracy"]  # it is not part of the dev score
    assert written(tmp_path)[0]["rank"] == {"rank_accuracy": 62.5}
    assert re.search(r"rank_accuracy +62.50", capsys.readouterr().out)


def test_free_text_has_no_labels_to_rank(prompted):
    (examples,) = evaluate.load_eval_sets(prompted.run, loading.prepare_task(prompted.run))
    info = dataclasses.replace(examples.task.info, labels=None)
    examples = dataclasses.replace(examples, task=dataclasses.replace(examples.task, info=info))
    with pytest.raises(ValueError, match=r"'generated_sentiment' has no class labels, so there is"):
        evaluate.rank_accuracy(MODEL, None, examples, 16)
