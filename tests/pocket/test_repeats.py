"""Tests of pocket/repeats.py: what it changes, and that equal tokens find each other."""

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.inference.frozen import load_parameters
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.pocket import repeats

CONFIG = T5Config(
    name="t", vocab_size=40, emb_dim=32, num_heads=2, head_dim=16, num_encoder_layers=2,
    num_decoder_layers=1, mlp_dim=8,
)  # fmt: skip


def test_only_keys_and_near_positions_of_the_encoder_change():
    drawn = load_parameters(CONFIG, "random:3")
    changed = load_parameters(CONFIG, "random_repeats:3")
    differ = {name for name in drawn if not np.array_equal(drawn[name], changed[name])}
    bias = "encoder/relpos_bias/rel_embedding"
    assert differ == {bias, *(f"encoder/layers_{i}/attention/key/kernel" for i in (0, 1))}
    for i in (0, 1):
        layer = f"encoder/layers_{i}/attention"
        queries = changed[f"{layer}/query/kernel"]
        np.testing.assert_array_equal(changed[f"{layer}/key/kernel"], 4 * queries)  # sqrt(16)
    shift = np.zeros((2, 32), np.float32)
    shift[0, [0, 1, 2, 17, 18]] = -4  # every other head, distances 0, -1, -2, 1, 2
    np.testing.assert_allclose(changed[bias] - drawn[bias], shift, atol=1e-6)


def test_a_token_attends_to_its_equal():
    """Tokens 7, 1..8, 7: from the last place, half of a head's attention goes to the first."""
    params = load_parameters(CONFIG, "random_repeats:0")
    tokens = jnp.array([7, 1, 2, 3, 4, 5, 6, 8, 9, 7])
    x = params["token_embedder/embedding"][tokens]
    x = x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True))
    layer = "encoder/layers_0/attention"
    q, k = ((x @ params[f"{layer}/{name}/kernel"]).reshape(10, 2, 16) for name in ("query", "key"))
    scores = jnp.einsum("nd,snd->ns", q[-1], k)
    others = np.delete(np.asarray(scores), [0, 9], axis=1)
    assert (np.asarray(scores[:, 0]) > others.max(axis=1) + 0.5).all()
    assert abs(np.asarray(scores[:, 0]).mean() - 4) < 1.5  # sqrt(D)
    assert repeats.NEAR_BIAS < 0
