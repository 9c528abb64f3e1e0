"""Tests of prompt_tuning/methods/mixing.py: each method in a batch is as if it were alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from prompt_tuning import trees
from prompt_tuning.methods.method import Method, added_shapes
from prompt_tuning.methods.mixing import mixed_arrays, mixed_hooks
from prompt_tuning.methods.model_tuning import model_tuning
from prompt_tuning.methods.prompt_tuning import as_params, hooks_of_several, prompt_tuning
from prompt_tuning.model import dropout
from prompt_tuning.model.hooks import Hooks, merge
from prompt_tuning.model.inputs import as_inputs
from prompt_tuning.model.losses import cross_entropy_loss
from prompt_tuning.model.parameters import parameter_shapes
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.model.transformer import Transformer
from prompt_tuning.prompts.prompt import PROMPT_PATH, soft_prompt_hooks
from prompt_tuning.training.optimizers import adafactor
from prompt_tuning.training.step import TrainState, make_train_step

H = 8
CONFIG = T5Config(
    name="test",
    vocab_size=32,
    emb_dim=H,
    num_heads=2,
    head_dim=4,
    num_encoder_layers=2,
    num_decoder_layers=1,
    mlp_dim=16,
    dropout_rate=0.3,
)
INPUTS = np.array([[5, 6, 7, 1], [8, 1, 0, 0], [9, 4, 1, 0], [3, 1, 0, 0], [2, 6, 9, 1]], np.int32)
TARGETS = np.array([[11, 1], [21, 1], [12, 1], [1, 0], [17, 1]], np.int32)
FED = np.pad(TARGETS, ((0, 0), (1, 0)))[:, :-1]
IDS = np.array([1, 0, 2, 1, 0], np.int32)  # method 3 is in no row
KEYS = jax.random.split(jax.random.key(3), len(INPUTS))


class Mlp(nn.Module):
    """A prompt that is computed from parameters of other shapes."""

    length: int

    @nn.compact
    def __call__(self, width):
        inputs = self.param("inputs", nn.initializers.normal(1.0), (self.length, 3))
        return jnp.tanh(nn.Dense(width)(inputs))


def mlp(length, position):
    vectors = functools.partial(Mlp, length)
    hooks = soft_prompt_hooks(length=length, position=position, vectors=vectors)
    return Method(kind="mlp", hooks=hooks)


def methods_at(position):
    plain = functools.partial(prompt_tuning, position=position)
    return [plain(length=2), plain(length=5), mlp(3, position), mlp(4, position)]


def drawn(shapes, seed):
    random = np.random.default_rng(seed)
    return {
        path: (0.5 * random.standard_normal(shape)).astype(np.float32)
        for path, shape in sorted(shapes.items())
    }


@pytest.fixture(scope="module")
def frozen():
    return drawn(parameter_shapes(CONFIG), 0)


def arrays_of(methods):
    return [drawn(added_shapes(CONFIG, method.hooks), n) for n, method in enumerate(methods, 1)]


def gradient(hooks, own, frozen, rows, **given):
    """The loss of some rows and its gradient, with the dropout of these rows."""
    model = Transformer(CONFIG, hooks)
    inputs = as_inputs(INPUTS[rows])._replace(**given)
    masks = dropout.draw(KEYS[rows], CONFIG, input_length=model.encoder_length(4), length=2)

    @jax.jit
    @jax.value_and_grad
    def loss(own):
        params = {"params": trees.unflatten(trees.merge(frozen, own))}
        logits = model.apply(params, inputs, FED[rows], TARGETS[rows], dropout=masks)
        return cross_entropy_loss(logits, TARGETS[rows])[0]

    return loss(own)


@pytest.mark.parametrize("position", ["prefix", "suffix"])
def test_the_gradient_of_each_method_is_that_of_its_rows_alone(frozen, position):
    """With dropout: a row is at the same positions as alone, and so drops the same."""
    methods = methods_at(position)
    arrays = arrays_of(methods)
    every = np.arange(len(IDS))
    loss, mixed = gradient(
        mixed_hooks(methods), mixed_arrays(arrays), frozen, every, prompt_ids=IDS
    )
    total = 0.0
    for number in range(3):
        rows = every[IDS == number]
        alone_loss, alone = gradient(methods[number].hooks, arrays[number], frozen, rows)
        total += alone_loss
        alone = mixed_arrays([{}] * number + [alone])
        for path, leaf in alone.items():
            np.testing.assert_allclose(mixed[path], leaf, atol=1e-5, rtol=1e-5)
            assert np.abs(leaf).max() > 1e-3
    np.testing.assert_allclose(loss, total, rtol=1e-5)
    absent = [leaf for path, leaf in mixed.items() if "/prompt_3/" in path]
    assert len(absent) == 3 and not any(np.any(leaf) for leaf in absent)


@pytest.mark.parametrize("position", ["prefix", "suffix"])
def test_no_row_depends_on_the_parameters_of_another_method(frozen, position):
    """100 rows of four methods: as with the method alone, and bit for bit as before the change."""
    methods = methods_at(position)
    arrays = arrays_of(methods)
    random = np.random.default_rng(6)
    rows, ids = (random.integers(0, n, 100).astype(np.int32) for n in (len(INPUTS), 4))
    hooks = mixed_hooks(methods)

    @functools.partial(jax.jit, static_argnums=0)
    def logits_of(hooks, own, inputs):
        params = {"params": trees.unflatten(trees.merge(frozen, own))}
        return Transformer(CONFIG, hooks).apply(params, inputs, FED[rows], TARGETS[rows])

    inputs = as_inputs(INPUTS[rows])
    mixed = logits_of(hooks, mixed_arrays(arrays), inputs._replace(prompt_ids=ids))
    for number, method in enumerate(methods):
        alone = logits_of(method.hooks, arrays[number], inputs)
        np.testing.assert_allclose(mixed[ids == number], alone[ids == number], atol=1e-5)
        others = [
            own if n == number else {path: 2 * leaf for path, leaf in own.items()}
            for n, own in enumerate(arrays)
        ]
        changed = logits_of(hooks, mixed_arrays(others), inputs._replace(prompt_ids=ids))
        same = (changed == mixed).all(axis=(1, 2))
        np.testing.assert_array_equal(same, ids == number)


def test_the_gradient_of_a_stack_is_that_of_each_prompt(frozen):
    """What pads a prompt has a gradient of exactly 0, and so has a prompt that is in no row."""
    lengths = np.array([2, 5, 3, 4], np.int32)
    prompts = [drawn({"": (length, H)}, int(length))[""] for length in lengths]
    stack = np.stack([np.pad(x, ((0, 5 - len(x)), (0, 0))) for x in prompts])
    given = {"prompt_ids": IDS, "prompt_lengths": lengths[IDS]}
    hooks = hooks_of_several(4, 5, "prefix")
    every = np.arange(len(IDS))
    (found,) = gradient(hooks, as_params(stack), frozen, every, **given)[1].values()
    for number, length in enumerate(lengths):
        rows = every[IDS == number]
        assert not found[number, length:].any()
        if not len(rows):
            assert not found[number].any()
            continue
        hooks = prompt_tuning(length=int(length)).hooks
        (alone,) = gradient(hooks, as_params(prompts[number]), frozen, rows)[1].values()
        np.testing.assert_allclose(found[number, :length], alone, atol=1e-5, rtol=1e-5)


def test_a_training_step_changes_each_prompt_as_a_step_of_its_own_does(frozen):
    """Adafactor's statistics and clipping are those of each prompt."""
    plain = [prompt_tuning(length=length) for length in (2, 5, 3)]
    arrays = arrays_of(plain)
    optimizer = adafactor(learning_rate=0.3)

    def after(hooks, own, batch):
        step = make_train_step(Transformer(CONFIG, hooks), optimizer)
        own = {path: jnp.array(leaf) for path, leaf in own.items()}
        return step(TrainState(0, own, optimizer.init(own)), frozen, batch)[0].trainable

    def batch_of(rows):
        return {
            "encoder_input_tokens": INPUTS[rows],
            "decoder_input_tokens": FED[rows],
            "decoder_target_tokens": TARGETS[rows],
            "decoder_loss_weights": (TARGETS[rows] > 0).astype(np.float32),
        }

    batch = batch_of(slice(None)) | {"prompt_ids": IDS}
    mixed = after(mixed_hooks(plain), mixed_arrays(arrays), batch)
    for number in range(3):
        (alone,) = after(plain[number].hooks, arrays[number], batch_of(number == IDS)).values()
        found = mixed[f"encoder/prompt/prompt/prompt_{number}/prompt"]
        np.testing.assert_allclose(found, alone, atol=1e-5)
        assert np.abs(alone - arrays[number][PROMPT_PATH]).max() > 0.01


def test_the_parameters_of_each_method_have_a_number():
    methods = methods_at("prefix")
    arrays = mixed_arrays(arrays_of(methods))
    assert {path: leaf.shape for path, leaf in arrays.items()} == {
        "encoder/prompt/prompt/prompt_0/prompt": (2, H),
        "encoder/prompt/prompt/prompt_1/prompt": (5, H),
        "encoder/prompt/prompt/prompt_2/inputs": (3, 3),
        "encoder/prompt/prompt/prompt_2/Dense_0/kernel": (3, H),
        "encoder/prompt/prompt/prompt_2/Dense_0/bias": (H,),
        "encoder/prompt/prompt/prompt_3/inputs": (4, 3),
        "encoder/prompt/prompt/prompt_3/Dense_0/kernel": (3, H),
        "encoder/prompt/prompt/prompt_3/Dense_0/bias": (H,),
    }
    expected = added_shapes(CONFIG, mixed_hooks(methods))
    assert {path: leaf.shape for path, leaf in arrays.items()} == expected


def adapter(hooks):
    return Method(kind="adapter", hooks=hooks)


DENSE = Hooks(dense=lambda path: None)
OWN_MODULE = Hooks(encoder_input=lambda: None)


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ([], "Expected one or more methods to mix, got none"),
        ([prompt_tuning(2), model_tuning()], "method 1, model_tuning, attaches nothing. Use it in"),
        ([adapter(DENSE)], "Only methods that put a prompt .* method 0, adapter, attaches dense."),
        ([adapter(OWN_MODULE)], "method 0, adapter, attaches encoder_input."),
        (
            [adapter(merge(prompt_tuning(2).hooks, DENSE))],
            "adapter, attaches reserve, encoder_input, dense.",
        ),
        (
            [prompt_tuning(2), prompt_tuning(2), prompt_tuning(2, position="suffix")],
            "that of method 0 is a prefix, that of method 2 a suffix. Mix each kind by itself",
        ),
    ],
)
def test_what_cannot_be_mixed_is_refused(methods, message):
    with pytest.raises(ValueError, match=message):
        mixed_hooks(methods)


@pytest.mark.parametrize(
    "hooks", [mixed_hooks(methods_at("prefix")), hooks_of_several(2, 3, "prefix")]
)
def test_a_batch_that_does_not_say_which_prompt_is_refused(frozen, hooks):
    with pytest.raises(ValueError, match="do not say which row uses which. Set Inputs.prompt_ids"):
        jax.eval_shape(
            Transformer(CONFIG, hooks).apply,
            {"params": trees.unflatten(frozen | drawn(added_shapes(CONFIG, hooks), 1))},
            INPUTS, FED, TARGETS,
        )  # fmt: skip


@pytest.mark.parametrize("wrong", [-1, 4])
def test_a_number_that_no_method_has_gives_no_other_methods_prompt(frozen, wrong):
    methods = methods_at("prefix")
    ids = IDS.copy()
    ids[2] = wrong
    params = trees.unflatten(frozen | mixed_arrays(arrays_of(methods)))
    inputs = as_inputs(INPUTS)._replace(prompt_ids=ids)
    logits = Transformer(CONFIG, mixed_hooks(methods)).apply(
        {"params": params}, inputs, FED, TARGETS
    )
    assert np.isnan(logits[2]).all() and np.isfinite(np.delete(logits, 2, axis=0)).all()
