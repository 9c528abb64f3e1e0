"""Tests of prompt_tuning/prompts/initializers.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.prompts import files, initializers
from prompt_tuning.prompts.metadata import PromptMetadata

RNG = jax.random.key(0)
TABLE = np.arange(12, dtype=np.float32).reshape(6, 2)  # row i is (2i, 2i + 1)
WORDS = {"yes": [3], "no": [4, 5], "": []}
tokenize = WORDS.__getitem__


def test_uniform_covers_the_papers_range():
    drawn = initializers.from_random_uniform(RNG, (500, 8))
    assert -0.5 <= drawn.min() < -0.49
    assert 0.49 < drawn.max() <= 0.5


def test_uniform_covers_the_official_codes_range():
    drawn = initializers.from_random_uniform(RNG, (500, 8), low=0.0, high=0.5)
    assert 0 <= drawn.min() < 0.01
    assert 0.49 < drawn.max() < 0.5


def test_sampled_vocabulary_copies_different_rows():
    drawn = initializers.from_sampled_vocabulary(RNG, (4, 2), embeddings=TABLE, population_size=4)
    assert sorted(drawn[:, 0].tolist()) == [0, 2, 4, 6]


def test_sampled_vocabulary_leaves_out_what_is_excluded():
    drawn = initializers.from_sampled_vocabulary(
        RNG, (3, 2), embeddings=TABLE, excluded_ids=(0, 1, 2)
    )
    assert sorted(drawn[:, 0].tolist()) == [6, 8, 10]


def test_sampled_vocabulary_refuses_too_few_tokens():
    with pytest.raises(ValueError, match="length 5 needs as many .* only 4 can be chosen"):
        initializers.from_sampled_vocabulary(RNG, (5, 2), embeddings=TABLE, population_size=4)


def test_class_labels_take_the_mean_of_their_tokens_then_the_fallback():
    drawn = initializers.from_class_labels(
        RNG,
        (3, 2),
        labels=["no", "yes"],
        embeddings=TABLE,
        tokenize=tokenize,
        fallback=lambda rng, shape: jnp.full(shape, 7.0),
    )
    # 'no' is the mean of rows 4 and 5: ((8 + 10) / 2, (9 + 11) / 2)
    np.testing.assert_array_equal(drawn, [[9, 10], [6, 7], [7, 7]])


def test_class_labels_may_fill_the_whole_prompt():
    drawn = initializers.from_class_labels(
        RNG, (1, 2), labels=["yes"], embeddings=TABLE, tokenize=tokenize
    )
    np.testing.assert_array_equal(drawn, [[6, 7]])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("yes", "needs a list of label strings"),
        ([], "needs a list of label strings"),
        (["yes", "no", "yes"], "3 class labels but only 2 prompt positions"),
        (["yes", ""], "'' has no tokens"),
    ],
)
def test_class_labels_refuses(labels, message):
    with pytest.raises(ValueError, match=message):
        initializers.from_class_labels(
            RNG, (2, 2), labels=labels, embeddings=TABLE, tokenize=tokenize
        )


def test_embedded_string_comes_first():
    drawn = initializers.from_embedded_string(
        RNG,
        (3, 2),
        text="no",
        embeddings=TABLE,
        tokenize=tokenize,
        fallback=lambda rng, shape: jnp.zeros(shape),
    )
    np.testing.assert_array_equal(drawn, [[8, 9], [10, 11], [0, 0]])


def test_embedded_string_must_fit():
    with pytest.raises(ValueError, match="has 2 tokens, but the prompt only 1 positions"):
        initializers.from_embedded_string(
            RNG, (1, 2), text="no", embeddings=TABLE, tokenize=tokenize
        )


@pytest.mark.parametrize("name", ["prompt.npy", "prompt.safetensors", "prompt"])
def test_file_gives_back_what_was_saved(tmp_path, name):
    saved = np.array([[1.5, -2.0]], np.float32)
    metadata = PromptMetadata(model="m", model_fingerprint="f", length=1, width=2)
    files.save(tmp_path / "prompt", saved, metadata)
    drawn = initializers.from_file(RNG, (1, 2), path=str(tmp_path / name))
    np.testing.assert_array_equal(drawn, saved)


def test_file_of_another_shape_is_refused(tmp_path):
    np.save(tmp_path / "prompt.npy", np.zeros((4, 2), np.float32))
    with pytest.raises(ValueError, match=r"shape \(4, 2\).* needs \(3, 2\).* PROMPT_LENGTH=4"):
        initializers.from_file(RNG, (3, 2), path=str(tmp_path / "prompt.npy"))


@pytest.mark.parametrize(("task", "largest"), [("sst2", 748), ("mrpc", 225), ("rte", 330)])
def test_released_prompts_load(real_data, task, largest):
    (path,) = (real_data / "released_prompts").rglob(f"*_{task}.npy")
    drawn = initializers.from_file(RNG, (100, 768), path=str(path))
    assert round(float(jnp.abs(drawn).max())) == largest


def test_bind_supplies_only_what_is_asked_for():
    def own(rng, shape, *, tokenize):
        return jnp.full(shape, float(tokenize("yes")[0]))

    bound = initializers.bind(own, embeddings=TABLE, tokenize=tokenize)
    np.testing.assert_array_equal(bound(RNG, (1, 2)), [[3, 3]])


def test_bind_sees_through_a_partial():
    chosen = functools.partial(initializers.from_sampled_vocabulary, population_size=1)
    bound = initializers.bind(chosen, embeddings=TABLE, tokenize=tokenize)
    np.testing.assert_array_equal(bound(RNG, (1, 2)), [[0, 1]])


def test_initialize_refuses_another_shape():
    with pytest.raises(ValueError, match=r"asked for .* shape \(2, 2\) and made .*\(1, 2\)"):
        initializers.initialize(lambda rng, shape: jnp.zeros((1, 2)), RNG, (2, 2))


def test_initialize_refuses_what_is_not_finite():
    with pytest.raises(ValueError, match="not finite"):
        initializers.initialize(lambda rng, shape: jnp.full(shape, jnp.nan), RNG, (2, 2))
