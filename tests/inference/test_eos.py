"""A vocabulary whose EOS is not id 1: what the model writes ends there, in every function."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
import sentencepiece
import tiny_runs

from prompt_tuning.data import metrics, registry, seqio_vocabularies, vocabularies
from prompt_tuning.data.tensorflow_import import seqio, tf
from prompt_tuning.inference import evaluate, infer
from prompt_tuning.inference.frozen import FrozenT5, load_parameters
from prompt_tuning.model.cached_decoder import Decoded
from prompt_tuning.model.sizes import T5Config

pytestmark = pytest.mark.usefixtures("quick")

MODEL = T5Config(name="tiny", vocab_size=128, **tiny_runs.DIMENSIONS)
TASK = "answers_cab"


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    """The letters a, b, c, d; id 1 is unknown, 2 is EOS."""
    path = str(tmp_path_factory.mktemp("vocabulary") / "letters")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["abc cab", "bad dad cab", "a bad cab"] * 9), model_prefix=path,
        model_type="char", vocab_size=8, pad_id=0, unk_id=1, eos_id=2, bos_id=-1,
        hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    return vocabularies.get("t5", path + ".model")


@pytest.fixture(scope="module")
def task(vocabulary):
    """Two rows, both to be answered 'cab'."""

    def dataset(split, shuffle_files):
        return tf.data.Dataset.from_tensor_slices({"inputs": ["a", "bad"], "targets": ["cab"] * 2})

    registry.add(
        TASK,
        registry.TaskInfo("custom", TASK, None, "validation", ("accuracy",)),
        source=seqio.FunctionDataSource(dataset, splits=["validation"]),
        preprocessors=[],
        postprocess_fn=None,
        metric_fns=[metrics.accuracy],
        output_features=seqio_vocabularies.output_features(
            seqio_vocabularies.SentencePieceVocabulary(vocabulary)
        ),
    )
    yield TASK
    registry.remove(TASK)


@pytest.fixture(scope="module")
def writes_cab(vocabulary):
    """A decoding strategy that writes 'cab', EOS, and 'bad' after it."""
    cab, bad = vocabulary.encode("cab"), vocabulary.encode("bad")

    def strategy(decoder, *, max_decode_length, num_decodes, eos_id, rng):
        row = np.zeros(max_decode_length, np.int32)
        written = [*cab, eos_id, *bad]
        row[: len(written)] = written
        tokens = jnp.tile(row, (decoder.batch_size, 1, 1))
        return Decoded(tokens, jnp.zeros(tokens.shape[:2]))

    return strategy


@pytest.fixture
def run(task, writes_cab, tmp_path):
    return dataclasses.replace(
        tiny_runs.make_run(tmp_path, model=MODEL, prompt_length=None, task=task),
        task_feature_lengths={"inputs": 16, "targets": 12},
        eval_output_dir=str(tmp_path / "eval"),
        infer_output_dir=str(tmp_path / "infer"),
        decoding=writes_cab,
    )


def test_generate(vocabulary, writes_cab):
    t5 = FrozenT5(MODEL, load_parameters(MODEL, "random"), vocabulary)
    ((prediction,),) = t5.generate(["a"], strategy=writes_cab, max_decode_length=12)
    assert prediction.text == "cab"


def test_evaluate(run):
    assert evaluate.evaluate_run(run).metrics == {"accuracy": 100.0}


def test_infer(run, tmp_path):
    (tmp_path / "in.txt").write_text("bad\n")
    (line,) = open(infer.infer_run(run, str(tmp_path / "in.txt")).path)
    assert json.loads(line)["prediction"] == "cab"


def test_a_vocabulary_without_eos_is_refused():
    vocabulary = seqio.PassThroughVocabulary(size=128)
    with pytest.raises(ValueError, match="PassThroughVocabulary has no EOS, so no text can end"):
        FrozenT5(MODEL, load_parameters(MODEL, "random"), vocabulary)
