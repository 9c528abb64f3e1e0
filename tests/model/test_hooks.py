"""Tests of prompt_tuning/model/hooks.py: each place, with throw-away modules.

The modules have parameters whose effect can be computed by hand. Nothing is compiled as a whole:
the models are tiny, and all of them share the compiled operations.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from prompt_tuning import trees
from prompt_tuning.model import masks
from prompt_tuning.model.encoder import EncoderLayer
from prompt_tuning.model.hooks import Hooks, merge
from prompt_tuning.model.inputs import as_inputs, reserve_prompt
from prompt_tuning.model.layers import Dense
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.model.transformer import Transformer

H, N, D, F = 8, 2, 4, 16
CONFIG = T5Config(
    name="test",
    vocab_size=32,
    emb_dim=H,
    num_heads=N,
    head_dim=D,
    num_encoder_layers=1,
    num_decoder_layers=1,
    mlp_dim=F,
)
TWO_LAYERS = dataclasses.replace(CONFIG, num_encoder_layers=2, num_decoder_layers=2)
INPUTS = np.array([[5, 6, 7, 1], [8, 9, 1, 0]], np.int32)
FED = np.array([[0, 11, 12, 13, 14], [0, 21, 22, 23, 24]], np.int32)
TARGETS = np.array([[11, 12, 13, 14, 1], [21, 22, 23, 24, 1]], np.int32)


def shapes_of(hooks, config=CONFIG):
    """The shapes of all parameters, by path."""
    init = Transformer(config, hooks).init
    made = jax.eval_shape(init, jax.random.key(0), INPUTS, FED, TARGETS)["params"]
    return {path: leaf.shape for path, leaf in trees.flatten(made).items()}


def drawn(shapes, seed, scale):
    random = np.random.default_rng(seed)
    return {
        path: (scale * random.standard_normal(shape)).astype(np.float32)
        for path, shape in sorted(shapes.items())
    }


@pytest.fixture(scope="module")
def frozen():
    return drawn(shapes_of(Hooks()), 0, 0.5)


class Shift(nn.Module):
    """Adds a vector, by position if `by_position`; takes what any place passes first."""

    by_position: bool = False

    @nn.compact
    def __call__(self, x, inputs):
        vector = self.param("vector", nn.initializers.zeros, (x.shape[-1],))
        shift = jnp.broadcast_to(vector, x.shape)
        return x + (shift * inputs.positions[..., None] if self.by_position else shift)


class Low(nn.Module):
    """A low-rank addition (LoRA) to a product."""

    features: int

    @nn.compact
    def __call__(self, x, multiply):
        a = self.param("a", nn.initializers.normal(1.0), (x.shape[-1], 2))
        b = self.param("b", nn.initializers.zeros, (2, self.features))
        return multiply(x) + x @ a @ b


class Scale(nn.Module):
    """Scales what a sub-layer adds, and adds a share of the residual stream."""

    @nn.compact
    def __call__(self, y, x):
        scale = self.param("scale", nn.initializers.ones, (y.shape[-1],))
        share = self.param("share", nn.initializers.zeros, (y.shape[-1],))
        return y * jnp.broadcast_to(scale, y.shape) + x * jnp.broadcast_to(share, x.shape)


class Prefix(nn.Module):
    """E = 2 keys and values of its own for each of 3 prompts, chosen by the row's prompt id."""

    @nn.compact
    def __call__(self, inputs):
        keys = self.param("keys", nn.initializers.normal(1.0), (3, 2, N, D))
        values = self.param("values", nn.initializers.normal(1.0), (3, 2, N, D))
        if inputs.prompt_ids is None:
            return keys[:1], values[:1]
        return keys[inputs.prompt_ids], values[inputs.prompt_ids]


def only(kind, make):
    """Attaches `make` where the last argument of the factory is `kind`."""
    return lambda *place: make() if place[-1] == kind else None


def lora(path):
    if path.endswith("/query"):
        return Low(N * D, name="lora")
    return Low(H, name="lora") if path.endswith(("attention/out", "mlp/wo")) else None


HOOKS = {
    "encoder_input": Hooks(encoder_input=lambda: Shift(name="shift")),
    "decoder_input": Hooks(decoder_input=lambda: Shift(True, name="shift")),
    "layer_input": Hooks(layer_input=lambda stack, layer: Shift(stack == "decoder", name="shift")),
    "self": Hooks(extra_keys_values=only("self_attention", lambda: Prefix(name="prefix"))),
    "cross": Hooks(extra_keys_values=only("cross_attention", lambda: Prefix(name="prefix"))),
    "dense": Hooks(dense=lora),
    "after_sublayer": Hooks(after_sublayer=lambda *place: Scale(name=f"scale_{place[-1]}")),
}


def attach(frozen, hooks, seed=None):
    """The model and the hooks' parameters: such that they change nothing, or drawn from a seed."""
    shapes = {path: shape for path, shape in shapes_of(hooks).items() if path not in frozen}
    if seed is not None:
        return Transformer(CONFIG, hooks), drawn(shapes, seed, 0.5)
    return Transformer(CONFIG, hooks), {
        path: np.full(shape, path.endswith(("/scale", "/a")), np.float32)
        for path, shape in shapes.items()
    }


def logits_of(model, own, frozen, inputs=INPUTS, fed=FED):
    params = trees.unflatten({**frozen, **own})
    return model.apply({"params": params}, inputs, fed, TARGETS)


# What a place gets, and where its parameters are


@pytest.mark.parametrize(
    ("place", "paths"),
    [
        ("encoder_input", ["encoder/shift/vector"]),
        ("decoder_input", ["decoder/shift/vector"]),
        (
            "layer_input",
            [f"{s}/layers_{i}/shift/vector" for s in ("decoder", "encoder") for i in (0, 1)],
        ),
        (
            "self",
            [
                f"{attention}/prefix/{leaf}"
                for attention in (
                    "decoder/layers_0/self_attention",
                    "decoder/layers_1/self_attention",
                    "encoder/layers_0/attention",
                    "encoder/layers_1/attention",
                )
                for leaf in ("keys", "values")
            ],
        ),
        (
            "cross",
            [
                f"decoder/layers_{i}/encoder_decoder_attention/prefix/{leaf}"
                for i in (0, 1)
                for leaf in ("keys", "values")
            ],
        ),
    ],
)
def test_parameters_are_stored_beside_the_models(place, paths):
    bare, hooked = (shapes_of(hooks, TWO_LAYERS) for hooks in (Hooks(), HOOKS[place]))
    assert sorted(hooked.keys() - bare.keys()) == sorted(paths)


def test_a_dense_hook_gets_the_path_of_its_matrix(frozen):
    told = []
    shapes_of(Hooks(dense=told.append))
    matrices = {path.removesuffix("/kernel") for path in frozen if path.endswith("/kernel")}
    assert set(told) == matrices
    _, own = attach(frozen, HOOKS["dense"])
    assert own["encoder/layers_0/attention/query/lora/a"].shape == (H, 2)
    assert own["decoder/layers_0/mlp/wo/lora/a"].shape == (F, 2)


def test_factories_get_stack_layer_and_kind():
    told = []
    hooks = Hooks(
        layer_input=lambda *place: told.append(place),
        extra_keys_values=lambda *place: told.append(("kv", *place)),
        after_sublayer=lambda *place: told.append(("after", *place)),
    )
    shapes_of(hooks, TWO_LAYERS)
    expected = []
    for i in (0, 1):
        attentions = {"encoder": ["self"], "decoder": ["self", "cross"]}
        for stack, kinds in attentions.items():
            expected.append((stack, i))
            expected += [("kv", stack, i, f"{kind}_attention") for kind in kinds]
            expected += [("after", stack, i, f"{kind}_attention") for kind in kinds]
            expected.append(("after", stack, i, "mlp"))
    assert set(told) == set(expected)


# What it changes


@pytest.mark.parametrize(
    "place", ["encoder_input", "decoder_input", "layer_input", "dense", "after_sublayer"]
)
def test_a_module_that_changes_nothing_leaves_every_bit(frozen, place):
    """Vectors and `b` of zero, scales of one."""
    bare = logits_of(Transformer(CONFIG), {}, frozen)
    model, own = attach(frozen, HOOKS[place])
    np.testing.assert_array_equal(logits_of(model, own, frozen), bare)
    model, own = attach(frozen, HOOKS[place], seed=1)
    assert np.abs(logits_of(model, own, frozen) - bare).max() > 0.01


def test_encoder_and_decoder_input_are_the_embedding(frozen):
    """A vector added there is a vector added to the embedding table."""
    for stack, hooks in (
        ("encoder", HOOKS["encoder_input"]),
        ("decoder", Hooks(decoder_input=lambda: Shift(name="shift"))),
    ):
        vector = np.linspace(-1, 1, H, dtype=np.float32)
        found = logits_of(Transformer(CONFIG, hooks), {f"{stack}/shift/vector": vector}, frozen)
        table = frozen["token_embedder/embedding"]
        kernel = frozen["decoder/logits_dense/kernel"]
        params = {
            **frozen,
            "token_embedder/embedding": np.concatenate([table, table + vector[None]]),
            "decoder/logits_dense/kernel": np.pad(kernel, ((0, 0), (0, 32))),
        }
        twice = Transformer(dataclasses.replace(CONFIG, vocab_size=64))  # id + 32 is shifted
        inputs, fed = (INPUTS + 32, FED) if stack == "encoder" else (INPUTS, FED + 32)
        valid = as_inputs(INPUTS).valid
        read = as_inputs(inputs)._replace(valid=valid)
        expected = logits_of(twice, {}, params, read, fed)[..., :32]
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_first_layers_input_is_the_encoders(frozen):
    vector = jnp.linspace(-1, 1, H)
    first = Hooks(
        layer_input=lambda stack, layer: (
            Shift(name="shift") if (stack, layer) == ("encoder", 0) else None
        )
    )
    by_layer = {"encoder/layers_0/shift/vector": vector}
    by_input = {"encoder/shift/vector": vector}
    np.testing.assert_allclose(
        logits_of(Transformer(CONFIG, first), by_layer, frozen),
        logits_of(Transformer(CONFIG, HOOKS["encoder_input"]), by_input, frozen),
        atol=1e-5,
    )


def test_a_low_rank_addition_is_an_addition_to_the_matrix(frozen):
    model, own = attach(frozen, HOOKS["dense"], seed=2)
    merged = dict(frozen)
    for path in own:
        if path.endswith("/lora/a"):
            kernel = path.replace("/lora/a", "/kernel")
            merged[kernel] = frozen[kernel] + own[path] @ own[path[:-1] + "b"]
    assert len(own) == 2 * (3 + 5)
    found = logits_of(model, own, frozen)
    expected = logits_of(Transformer(CONFIG), {}, merged)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_a_matrix_of_several_dimensions_is_flat_to_its_hook():
    seen = []

    class Twice(nn.Module):
        def __call__(self, x, multiply):
            y = multiply(x)
            seen.append((x.shape, y.shape))
            return 2 * y

    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))
    plain, hooked = (
        Dense((6, 7), contracted=2, hooks=hooks)
        for hooks in (Hooks(), Hooks(dense=lambda _: Twice()))
    )
    params = plain.init(jax.random.key(1), x)
    found = hooked.apply(params, x)
    assert found.shape == (2, 3, 6, 7) and seen == [((2, 3, 20), (2, 3, 42))]
    np.testing.assert_array_equal(found, 2 * plain.apply(params, x))


def test_a_sublayer_that_adds_nothing_may_as_well_have_a_matrix_of_zero(frozen):
    model, own = attach(frozen, HOOKS["after_sublayer"])
    scales = {
        "encoder/layers_0/scale_self_attention/scale": "encoder/layers_0/attention/out/kernel",
        "encoder/layers_0/scale_mlp/scale": "encoder/layers_0/mlp/wo/kernel",
        "decoder/layers_0/scale_self_attention/scale": "decoder/layers_0/self_attention/out/kernel",
        "decoder/layers_0/scale_cross_attention/scale": (
            "decoder/layers_0/encoder_decoder_attention/out/kernel"
        ),
        "decoder/layers_0/scale_mlp/scale": "decoder/layers_0/mlp/wo/kernel",
    }
    for scale, kernel in scales.items():
        silent = {**own, scale: np.zeros(H, np.float32)}
        expected = {**frozen, kernel: np.zeros_like(frozen[kernel])}
        np.testing.assert_allclose(
            logits_of(model, silent, frozen),
            logits_of(Transformer(CONFIG), {}, expected),
            atol=1e-5,
        )


def test_a_sublayers_module_gets_what_it_is_added_to(frozen):
    """A last sub-layer that adds x doubles it, and the final norm divides the 2 away."""
    model, own = attach(frozen, HOOKS["after_sublayer"])
    own["decoder/layers_0/scale_mlp/scale"] = np.zeros(H, np.float32)
    own["decoder/layers_0/scale_mlp/share"] = np.ones(H, np.float32)
    silent = {**frozen, "decoder/layers_0/mlp/wo/kernel": np.zeros((F, H), np.float32)}
    np.testing.assert_allclose(
        logits_of(model, own, frozen), logits_of(Transformer(CONFIG), {}, silent), atol=1e-4
    )


def attend(q, keys, values, bias):
    """Attention of one head, by hand."""
    weights = np.exp(q @ keys.T + bias)
    return weights / weights.sum(axis=1, keepdims=True) @ values


def test_extra_keys_come_first_without_a_bias(frozen):
    """The first encoder layer's attention for both rows, worked out head by head."""
    model, own = attach(frozen, HOOKS["self"], seed=3)
    _, state = model.apply(
        {"params": trees.unflatten({**frozen, **own})},
        INPUTS,
        method="encode",
        capture_intermediates=True,
    )
    made = state["intermediates"]["encoder"]
    found = made["layers_0"]["attention"]["__call__"][0]
    x = np.asarray(made["layers_0"]["pre_attention_layer_norm"]["__call__"][0])
    (bias,) = made["relpos_bias"]["__call__"]  # [1, N, T, T]
    layer = "encoder/layers_0/attention"
    q, k, v = (
        (x @ frozen[f"{layer}/{name}/kernel"]).reshape(2, 4, N, D)
        for name in ("query", "key", "value")
    )
    extra_k, extra_v = (np.asarray(own[f"{layer}/prefix/{name}"])[0] for name in ("keys", "values"))
    mixed = np.zeros((2, 4, N, D))
    for b, real in ((0, 4), (1, 3)):  # the second row has three tokens
        for n in range(N):
            keys = np.concatenate([extra_k[:, n], k[b, :real, n]])
            values = np.concatenate([extra_v[:, n], v[b, :real, n]])
            scores = np.concatenate([np.zeros((4, 2)), bias[0, n, :, :real]], axis=1)
            mixed[b, :, n] = attend(q[b, :, n], keys, values, scores)
    expected = mixed.reshape(2, 4, N * D) @ frozen[f"{layer}/out/kernel"]
    np.testing.assert_allclose(found[0], expected[0], atol=1e-4)
    np.testing.assert_allclose(found[1, :3], expected[1, :3], atol=1e-4)


def test_extra_keys_of_the_cross_attention_are_like_more_input(frozen):
    """Keys and values projected from two vectors are as two more positions of the encoder."""
    vectors = jax.random.normal(jax.random.key(7), (1, 2, H))
    own = {}
    layer = "decoder/layers_0/encoder_decoder_attention"
    for leaf, name in (("keys", "key"), ("values", "value")):
        projected = (vectors @ frozen[f"{layer}/{name}/kernel"]).reshape(1, 2, N, D)
        own[f"{layer}/prefix/{leaf}"] = jnp.tile(projected, (3, 1, 1, 1))
    found = logits_of(Transformer(CONFIG, HOOKS["cross"]), own, frozen)
    bare = Transformer(CONFIG).bind({"params": trees.unflatten(frozen)})
    encoded = bare.encode(INPUTS)
    values = jnp.concatenate([jnp.tile(vectors, (2, 1, 1)), encoded.values], axis=1)
    longer = encoded._replace(values=values, inputs=reserve_prompt(encoded.inputs, length=2))
    np.testing.assert_allclose(found, bare.decode(longer, FED, TARGETS), atol=1e-5)


@pytest.mark.parametrize("kind", ["self", "cross"])
def test_extra_keys_are_chosen_by_the_rows_prompt_id(frozen, kind):
    """Each row as if the prompt of its id were the only one."""
    model, own = attach(frozen, HOOKS[kind], seed=4)
    mixed = logits_of(model, own, frozen, as_inputs(INPUTS)._replace(prompt_ids=np.array([2, 1])))
    for row, prompt in enumerate((2, 1)):
        alone = {path: leaf[prompt:] for path, leaf in own.items()}  # prompt 0 of what is left
        alone = {path: jnp.pad(x, [(0, 3 - len(x))] + [(0, 0)] * 3) for path, x in alone.items()}
        np.testing.assert_allclose(logits_of(model, alone, frozen)[row], mixed[row], atol=1e-5)
    assert np.abs(logits_of(model, own, frozen)[0] - mixed[0]).max() > 0.01


class RowPrompt(nn.Module):
    """An encoder input that writes one of 3 prompts, [3, P, H], into the reserved places."""

    @nn.compact
    def __call__(self, embedded, inputs):
        prompts = self.param("prompts", nn.initializers.normal(1.0), (3, 2, H))
        return embedded.at[:, :2].set(prompts[inputs.prompt_ids])


def test_a_row_takes_the_prompt_of_its_id(frozen):
    reserve = functools.partial(reserve_prompt, length=2)
    model = Transformer(CONFIG, Hooks(reserve=reserve, encoder_input=lambda: RowPrompt(name="mix")))
    prompts = jax.random.normal(jax.random.key(8), (3, 2, H))

    def logits(prompt_ids):
        inputs = as_inputs(INPUTS)._replace(prompt_ids=np.array(prompt_ids))
        return logits_of(model, {"encoder/mix/prompts": prompts}, frozen, inputs)

    mixed, zeros, ones = logits([0, 1]), logits([0, 0]), logits([1, 1])
    np.testing.assert_allclose(mixed, np.stack([zeros[0], ones[1]]), atol=1e-5)
    assert np.abs(zeros - ones).max() > 0.01


# The decoder: causality, and a position at a time


DECODER_PLACES = ["decoder_input", "layer_input", "self", "cross", "dense", "after_sublayer"]


@pytest.mark.parametrize("place", DECODER_PLACES)
def test_steps_with_a_cache_equal_the_whole_target(frozen, place):
    """Two targets for each input, whose rows have different prompt ids."""
    model, own = attach(frozen, HOOKS[place], seed=5)
    params = trees.unflatten({**frozen, **own})
    read = as_inputs(INPUTS)._replace(prompt_ids=np.array([2, 1]))
    targets = np.random.default_rng(6).integers(1, 32, (4, 5)).astype(np.int32)
    fed = jnp.pad(targets, ((0, 0), (1, 0)))[:, :-1]

    bound = model.bind({"params": params})
    encoded = bound.encode(read)
    whole = bound.decode(encoded, fed, targets)
    cache = bound.start_decoding(encoded, rows=4, length=5)
    for i in range(5):
        logits, cache = bound.decode_step(fed[:, i : i + 1], cache, jnp.int32(i))
        np.testing.assert_allclose(logits, whole[:, i], atol=1e-4)


def test_beams_keep_the_extra_keys_of_their_input(frozen):
    """E = 2 before 5 tokens, after beams changed places."""
    model, own = attach(frozen, HOOKS["self"], seed=5)
    bound = model.bind({"params": trees.unflatten({**frozen, **own})})
    read = as_inputs(INPUTS)._replace(prompt_ids=np.array([2, 1]))
    cache = bound.start_decoding(bound.encode(read), rows=4, length=5)
    layer = cache.take(np.array([1, 0, 2, 2])).layers[0]
    assert layer.self_keys.shape == (4, 7, N, D) and layer.cross_keys.shape == (2, 4, N, D)
    keys = own["decoder/layers_0/self_attention/prefix/keys"]
    expected = np.stack([keys[2], keys[2], keys[1], keys[1]])
    np.testing.assert_array_equal(layer.self_keys[:, :2], expected)


@pytest.mark.parametrize("place", DECODER_PLACES)
def test_no_hook_lets_a_later_token_in(frozen, place):
    model, own = attach(frozen, HOOKS[place], seed=5)
    before = logits_of(model, own, frozen)
    changed = FED.copy()
    changed[:, 3:] = 30
    after = logits_of(model, own, frozen, INPUTS, changed)
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert (np.abs(before[:, 3:] - after[:, 3:]).max(axis=-1) > 1e-3).all()


@pytest.mark.parametrize("place", HOOKS)
def test_every_parameter_of_a_hook_has_a_gradient(frozen, place):
    model, own = attach(frozen, HOOKS[place], seed=5)
    gradient = jax.grad(lambda own: jnp.sum(logits_of(model, own, frozen) ** 2))(own)
    assert all(np.abs(leaf).max() > 0 for leaf in gradient.values())


# Layers that are stacked and scanned


ALL = Hooks(
    layer_input=lambda *_: Shift(name="shift"),
    extra_keys_values=lambda *_: Prefix(name="prefix"),
    dense=lora,
    after_sublayer=lambda *place: Scale(name=f"scale_{place[-1]}"),
)


class Unrolled(nn.Module):
    @nn.compact
    def __call__(self, x, inputs, bias):
        for i in range(2):
            x = EncoderLayer(CONFIG, ALL, layer=i, name=f"layers_{i}")(x, inputs, (bias,))
        return x


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, x, inputs, bias):
        def body(layer, x, inputs, bias):
            return layer(x, inputs, (bias,)), None

        over_layers = nn.scan(
            body,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast),
            length=2,
        )
        return over_layers(EncoderLayer(CONFIG, ALL, name="layers"), x, inputs, bias)[0]


def test_hooks_survive_layers_that_are_scanned():
    """Two layers with a hook at every place: stacked parameters, [2, ...], the same numbers."""
    inputs = as_inputs(INPUTS)._replace(prompt_ids=jnp.array([2, 1]))
    x = jax.random.normal(jax.random.key(0), (2, 4, H))
    bias = masks.to_bias(masks.self_mask(inputs))
    made = jax.eval_shape(Scanned().init, jax.random.key(1), x, inputs, bias)["params"]
    shapes = {path: leaf.shape for path, leaf in trees.flatten(made).items()}
    assert shapes["layers/shift/vector"] == (2, H)
    assert shapes["layers/attention/prefix/keys"] == (2, 3, 2, N, D)
    assert shapes["layers/attention/query/lora/a"] == (2, H, 2)
    assert shapes["layers/scale_mlp/scale"] == (2, H)
    flat = drawn(shapes, 1, 0.5)
    scanned = Scanned().apply({"params": trees.unflatten(flat)}, x, inputs, bias)
    apart = {
        path.replace("layers/", f"layers_{i}/", 1): leaf[i]
        for path, leaf in flat.items()
        for i in range(2)
    }
    unrolled = Unrolled().apply({"params": trees.unflatten(apart)}, x, inputs, bias)
    np.testing.assert_allclose(scanned, unrolled, rtol=1e-4, atol=1e-4)


# Several hooks


def test_hooks_of_different_places_merge(frozen):
    model, own = attach(frozen, merge(HOOKS["encoder_input"], HOOKS["self"], HOOKS["dense"]), 5)
    apart = {}
    for place in ("encoder_input", "self", "dense"):
        apart |= dict.fromkeys(attach(frozen, HOOKS[place])[1])
    assert own.keys() == apart.keys()
    assert merge() == Hooks() and hash(merge(ALL)) == hash(ALL)


def test_a_place_holds_one_hook():
    message = "Two hooks use dense, layer_input, which holds one. Write one module that does both"
    with pytest.raises(ValueError, match=message):
        merge(ALL, HOOKS["encoder_input"], merge(HOOKS["dense"], HOOKS["layer_input"]))
