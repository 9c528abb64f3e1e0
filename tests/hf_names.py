"""Names of a Hugging Face T5's weights in T5X's words."""

import re

RULES = (
    (r"shared\.weight", "token_embedder/embedding"),
    (r"lm_head\.weight", "decoder/logits_dense/kernel"),
    (r"(encoder|decoder)\.final_layer_norm\.weight", r"\1/\1_norm/scale"),
    (
        r"(encoder|decoder)\.block\.0\.layer\.0\.SelfAttention\.relative_attention_bias\.weight",
        r"\1/relpos_bias/rel_embedding",
    ),
    (r"encoder\.block\.(\d+)\.layer\.0\.layer_norm", r"encoder/layers_\1/pre_attention_layer_norm"),
    (r"encoder\.block\.(\d+)\.layer\.1\.layer_norm", r"encoder/layers_\1/pre_mlp_layer_norm"),
    (
        r"decoder\.block\.(\d+)\.layer\.0\.layer_norm",
        r"decoder/layers_\1/pre_self_attention_layer_norm",
    ),
    (
        r"decoder\.block\.(\d+)\.layer\.1\.layer_norm",
        r"decoder/layers_\1/pre_cross_attention_layer_norm",
    ),
    (r"decoder\.block\.(\d+)\.layer\.2\.layer_norm", r"decoder/layers_\1/pre_mlp_layer_norm"),
    (r"encoder\.block\.(\d+)\.layer\.0\.SelfAttention", r"encoder/layers_\1/attention"),
    (r"decoder\.block\.(\d+)\.layer\.0\.SelfAttention", r"decoder/layers_\1/self_attention"),
    (
        r"decoder\.block\.(\d+)\.layer\.1\.EncDecAttention",
        r"decoder/layers_\1/encoder_decoder_attention",
    ),
    (r"(encoder|decoder)\.block\.(\d+)\.layer\.\d\.DenseReluDense", r"\1/layers_\2/mlp"),
    (r"\.(wi|wi_0|wi_1|wo)\.weight", r"/\1/kernel"),
    (r"layer_norm\.weight", "layer_norm/scale"),
    (r"attention\.q\.weight", "attention/query/kernel"),
    (r"attention\.k\.weight", "attention/key/kernel"),
    (r"attention\.v\.weight", "attention/value/kernel"),
    (r"attention\.o\.weight", "attention/out/kernel"),
)


def to_t5x(weights):
    """Renames a flat dict of weights, and transposes matrices to [inputs, outputs]."""
    renamed = {}
    for name, array in weights.items():
        for pattern, replacement in RULES:
            name = re.sub(pattern, replacement, name)
        flip = name.endswith(("kernel", "rel_embedding"))
        renamed[name] = array.T if flip else array
    return renamed
