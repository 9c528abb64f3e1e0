"""Tests of prompt_tuning/inference/frozen.py: a model, its parameters and its vocabulary."""

import dataclasses
import inspect

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from prompt_tuning import trees
from prompt_tuning.checkpoints import t5x_native
from prompt_tuning.data import vocabularies
from prompt_tuning.inference import frozen
from prompt_tuning.inference.frozen import FrozenT5, load_parameters
from prompt_tuning.methods.prompt_tuning import hooks
from prompt_tuning.model import decoding
from prompt_tuning.model.parameters import parameter_shapes
from prompt_tuning.prompts import files
from prompt_tuning.prompts.metadata import PromptMetadata

pytestmark = pytest.mark.usefixtures("quick")

BYTES = vocabularies.family("byt5").vocabulary


@pytest.fixture(scope="module")
def t5(quick):
    return FrozenT5(tiny_runs.MODEL, load_parameters(tiny_runs.MODEL, "random"), BYTES)


@pytest.fixture
def hashed(monkeypatch):
    """Counts how often a model's parameters are hashed, which takes long for a large one."""
    calls = []
    fingerprint = trees.fingerprint
    monkeypatch.setattr(trees, "fingerprint", lambda flat: calls.append(1) or fingerprint(flat))
    return calls


def prompt_file(width=16, metadata=True, fingerprint="0123456789abcdef"):
    about = PromptMetadata("t5_1_1_small", fingerprint, length=3, width=width)
    return files.PromptFile(
        "p.safetensors", np.ones((3, width), np.float32), about if metadata else None
    )


def test_random_parameters_are_the_same_for_the_same_seed(t5):
    again = load_parameters(tiny_runs.MODEL, "random:0")
    assert trees.fingerprint(again) == t5.fingerprint
    assert trees.count(again) * 4 == tiny_runs.MODEL_BYTES
    other = load_parameters(tiny_runs.MODEL, "random:7")
    assert other.keys() == again.keys()
    assert trees.fingerprint(other) != t5.fingerprint
    assert parameter_shapes(tiny_runs.MODEL) == {path: x.shape for path, x in other.items()}


def test_parameters_may_be_kept_in_bfloat16(t5):
    """The fingerprint is that of the float32 ones."""
    coarse = load_parameters(tiny_runs.MODEL, "random", dtype="bfloat16")
    assert {str(leaf.dtype) for leaf in coarse.values()} == {"bfloat16"}
    assert trees.fingerprint(coarse) == t5.fingerprint


def test_a_checkpoint_loads_as_it_was_written(t5, tmp_path):
    path = t5x_native.write(tmp_path, t5.params, 5)
    loaded = load_parameters(tiny_runs.MODEL, path)
    assert trees.diff(loaded, t5.params).is_empty
    wider = dataclasses.replace(tiny_runs.MODEL, mlp_dim=64)
    with pytest.raises(ValueError, match="wi_0/kernel"):
        load_parameters(wider, path)


@pytest.mark.parametrize("path", ["random:abc", "random:-1", "random:1.5"])
def test_a_seed_that_is_no_number_is_refused(path):
    message = f"asked for as 'random' or 'random:7'; got '{path}'"
    with pytest.raises(ValueError, match=message):
        load_parameters(tiny_runs.MODEL, path)


def test_a_vocabulary_larger_than_the_table_is_refused(t5):
    small = dataclasses.replace(tiny_runs.MODEL, vocab_size=128)
    with pytest.raises(
        ValueError, match="has 259 ids, but tiny_byt5 embeds 128.*tasks begin with 'mt5_'"
    ):
        FrozenT5(small, t5.params, BYTES)


def test_texts_become_ids_with_eos(t5):
    """A byte's id is its value plus 3."""
    ids = t5.encode(["ab", ""], 512)
    assert [ids[row].tolist() for row in range(2)] == [[100, 101, 1], [1]]
    assert t5.encode(["x" * 9], 10)[0][-1] == 1
    assert t5.decode([100, 101, 1, 102]) == "ab"
    assert t5.decode([100, 0, 102]) == "a"
    np.testing.assert_array_equal(
        t5.encode_labels(["a", "bcd"]), [[100, 1, 0, 0], [101, 102, 103, 1]]
    )


def test_a_text_that_is_too_long_is_cut_or_refused(t5):
    """Seven bytes and EOS in five places: three tokens are lost."""
    ids, cut = t5.encode_cut(["abcdefg", "abcd"], 5)
    assert cut == [3, 0]
    assert [ids[row].tolist() for row in range(2)] == [[100, 101, 102, 103, 1]] * 2
    with pytest.raises(ValueError, match="Text 2 has 8 tokens, .* at most 5 fit"):
        t5.encode(["abcd", "abcdefg"], 5)


def test_batches_of_many_sizes_share_few_programs(t5, monkeypatch):
    monkeypatch.setattr(frozen, "BATCH_ROWS", 4)
    shapes = set()

    def rank(model, params, tokens, labels):
        shapes.add(tokens.shape)
        return np.stack([tokens[:, :1], tokens[:, 1:2]], axis=1)[:, :, 0].astype(np.float32)

    monkeypatch.setattr(decoding, "rank", rank)
    for count in range(1, 12):
        texts = [chr(97 + row) * (1 + row % 3) for row in range(count)]
        scores = t5.score(texts, ["yes", "no"])
        assert [chr(int(row[0]) - 3) for row in scores] == [text[0] for text in texts]
    assert shapes == {(1, 8), (2, 8), (4, 8)}


@pytest.mark.parametrize("texts", ["one text", []])
def test_anything_but_a_list_of_texts_is_refused(t5, texts):
    for call in (t5.generate, lambda texts: t5.score(texts, ["yes"])):
        with pytest.raises(ValueError, match="Expected a list of one or more texts"):
            call(texts)
    with pytest.raises(ValueError, match="Expected a list of one or more labels"):
        t5.score(["a text"], texts)


def test_a_prompt_that_does_not_fit_is_refused(t5):
    with pytest.raises(ValueError, match=r"needs a prompt of shape \(P, 16\); got \(3, 8\)"):
        t5.generate(["a"], prompt=np.ones((3, 8), np.float32))
    with_prompt = inspect.unwrap(FrozenT5.with_prompt)
    message = r"array \(P, 16\), or a file that load_prompt has read; got 'prompts/best'"
    with pytest.raises(ValueError, match=message):
        with_prompt(t5, "prompts/best")
    with pytest.raises(ValueError, match=r"needs a prompt of shape \(P, 16\); got \(16,\)"):
        with_prompt(t5, np.ones(16, np.float32))
    with pytest.raises(ValueError, match="made for t5_1_1_small with fingerprint 0123456789"):
        t5.score(["a"], ["yes"], prompt=prompt_file())
    with pytest.raises(ValueError, match="has width 8"):
        t5.generate(["a"], prompt=prompt_file(width=8))


def test_the_parameters_are_hashed_only_to_be_compared_and_once(hashed):
    t5 = FrozenT5(tiny_runs.MODEL, load_parameters(tiny_runs.MODEL, "random"), BYTES)
    t5.check_fits(prompt_file(metadata=False))
    t5.check_fits(prompt_file(), allow_other_model=True)
    t5.with_prompt(np.ones((3, 16), np.float32))
    assert hashed == []
    for _ in range(3):
        with pytest.raises(ValueError, match="was made for"):
            t5.check_fits(prompt_file())
    assert hashed == [1]
    t5.check_fits(prompt_file(fingerprint=t5.fingerprint))
    assert hashed == [1]


def test_several_decodes_come_best_first_with_a_prompt_that_matters(t5):
    """Two prompts of the same length; the prompt before the texts changes the scores."""
    texts = ["so", "the film was fine ."]
    prompts = [np.full((4, 16), value, np.float32) for value in (0.5, -0.5)]
    options = {"strategy": decoding.Sample(), "num_decodes": 2, "max_decode_length": 4}
    first, other = (t5.generate(texts, prompt=prompt, **options) for prompt in prompts)
    assert [len(decodes) for decodes in first] == [2, 2]
    assert all(a.score >= b.score for a, b in first)
    assert first != other
    assert first == t5.generate(texts, prompt=jnp.asarray(prompts[0]), **options)
    assert first != t5.generate(texts, prompt=prompts[0], seed=1, **options)


def test_scores_do_not_depend_on_the_other_texts(t5):
    """A text scores the same beside another one, and a label in another place."""
    scores = t5.score(["so", "the film was fine ."], ["yes", "no"])
    other = t5.score(["so", "x"], ["no", "yes"])
    assert scores.shape == other.shape == (2, 2)
    np.testing.assert_allclose(scores[0], other[0, ::-1], atol=1e-4)
    assert np.abs(scores[1] - other[1, ::-1]).min() > 1e-3
    assert scores[0, 0] != pytest.approx(scores[0, 1], abs=1e-3)
    assert (scores < 0).all()


def test_the_same_model_is_made_once():
    """What compiles for one is there for the next."""
    one, same = (frozen.transformer(tiny_runs.MODEL, hooks(4, "prefix")) for _ in range(2))
    assert one is same
    assert frozen.transformer(tiny_runs.MODEL, hooks(4, "suffix")) is not one
