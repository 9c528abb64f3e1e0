"""Converts a Hugging Face T5's config.json to a `T5Config` and back.

Every setting is one of four kinds. It has a place in `T5Config`; or it must have the one
value that the T5 here computes with, and any other is refused by name; or it is known to
change nothing that the network computes; or it is unknown, and the reader warns of it.

How the logits are read off differs between the versions of transformers:

    config.json                            lm_head.weight   logits
    t5, tie_word_embeddings true           not there        table / sqrt(H)   (T5 1.0)
    tie_word_embeddings false (4)          there            lm_head           (T5 1.1, mT5)
    true, scale_decoder_outputs false (5)  there            lm_head           (T5 1.1, saved by 5)
    true, scale_decoder_outputs false (5)  not there        table, unscaled

transformers 5 always writes `tie_word_embeddings: true`, and ties only what is not in the
file; for mT5 it never scales.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from prompt_tuning.model.layers import MAX_DISTANCE, NUM_BUCKETS, RMSNorm
from prompt_tuning.model.sizes import T5Config

MODEL_TYPES = ("t5", "mt5")  # ByT5 is a t5
_FIELDS = {
    "vocab_size": "vocab_size",
    "d_model": "emb_dim",
    "num_heads": "num_heads",
    "d_kv": "head_dim",
    "num_layers": "num_encoder_layers",
    "d_ff": "mlp_dim",
}
_FIXED = {
    "is_encoder_decoder": True,
    "is_decoder": False,
    "relative_attention_num_buckets": NUM_BUCKETS,
    "relative_attention_max_distance": MAX_DISTANCE,
    "layer_norm_epsilon": RMSNorm.epsilon,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
    "tie_encoder_decoder": False,
    "add_cross_attention": False,
    "pruned_heads": {},
    "quantization_config": None,
    "per_layer_config": None,
}
# transformers' 'gelu_new' is the tanh approximation, jax.nn's default; its 'gelu' is the exact one.
_ACTIVATIONS = {
    "relu": "relu",
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "silu": "silu",
    "swish": "silu",
    "linear": "linear",
}
_OF_THE_LOGITS = ("tie_word_embeddings", "scale_decoder_outputs")
_OF_THE_MLP = ("feed_forward_proj", "dense_act_fn", "is_gated_act")
_COMPARED = (
    *_FIELDS.values(),
    "num_decoder_layers",
    "mlp_activations",
    "logits_via_embedding",
)
# Names, training, other heads, how results are returned; and how to generate, which is
# chosen here by gin/decoding.
_WITHOUT_EFFECT = frozenset(
    """
    _attn_implementation _commit_hash _from_model_config _name_or_path architectures
    attn_implementation auto_map chunk_size_feed_forward classifier_dropout
    cross_attention_hidden_size dtype experts_implementation finetuning_task
    gradient_checkpointing id2label initializer_factor label2id model_type n_positions
    name_or_path num_labels output_attentions output_hidden_states output_past problem_type
    return_dict task_specific_params tf_legacy_loss tokenizer_class torch_dtype torchscript
    transformers_version use_bfloat16 use_cache

    bad_words_ids begin_suppress_tokens bos_token_id diversity_penalty do_sample
    early_stopping encoder_no_repeat_ngram_size exponential_decay_length_penalty
    forced_bos_token_id forced_eos_token_id length_penalty max_length max_new_tokens
    min_length no_repeat_ngram_size num_beam_groups num_beams num_return_sequences
    output_scores prefix remove_invalid_values repetition_penalty return_dict_in_generate
    sep_token_id suppress_tokens temperature top_k top_p typical_p
    """.split()
)


@dataclasses.dataclass(frozen=True)
class Described:
    """The content of a config.json.

    Attributes:
      model: the dimensions; its name is the type of the model.
      shares_table: whether, without an lm_head in the file, the logits are read off the
        embedding table.
      unknown: settings that are not known here.
    """

    model: T5Config
    shares_table: bool
    unknown: tuple[str, ...]


def read(config: Mapping[str, Any], where: str) -> Described:
    """Parses a config.json.

    Args:
      config: its content.
      where: names the file in messages.

    Raises:
      ValueError: a setting that changes the function is one that the T5 here lacks, or a
        dimension is missing.
    """
    model_type = config.get("model_type")
    if model_type not in MODEL_TYPES:
        raise ValueError(
            f"{where} has model_type {model_type!r}; {' and '.join(map(repr, MODEL_TYPES))} are "
            f"read (T5 1.0, T5 1.1, mT5, ByT5)."
        )
    _check_fixed(config, where)
    missing = [name for name in _FIELDS if not isinstance(config.get(name), int)]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}, which must be whole numbers.")
    known = (
        _FIELDS.keys() | _FIXED.keys() | _WITHOUT_EFFECT | {"num_decoder_layers", "dropout_rate"}
    )
    unknown = sorted(config.keys() - known - {*_OF_THE_LOGITS, *_OF_THE_MLP})
    scaled, shares_table = _logits(config, where)
    layers = config.get("num_decoder_layers")
    model = T5Config(
        name=model_type,
        num_decoder_layers=config["num_layers"] if layers is None else layers,
        mlp_activations=_mlp_activations(config, where),
        logits_via_embedding=scaled,
        dropout_rate=config.get("dropout_rate", T5Config.dropout_rate),
        **{ours: config[theirs] for theirs, ours in _FIELDS.items()},
    )
    return Described(model, shares_table, tuple(unknown))


def write(model: T5Config, dtype: str) -> dict[str, Any]:
    """Makes a config.json with which transformers 4 and 5 compute the same function.

    Args:
      model: the dimensions; one whose name begins with 'mt5' becomes an mT5.
      dtype: of the parameters in the file, 'float32'.

    Raises:
      ValueError: transformers has no such feed-forward layer.
    """
    model_type = "mt5" if model.name.startswith("mt5") and not model.logits_via_embedding else "t5"
    act, gated = _theirs(model.mlp_activations)
    projection = "gelu" if gated and act == "gelu_new" else act
    return {
        "architectures": [f"{'MT5' if model_type == 'mt5' else 'T5'}ForConditionalGeneration"],
        "model_type": model_type,
        **{theirs: getattr(model, ours) for theirs, ours in _FIELDS.items()},
        "num_decoder_layers": model.num_decoder_layers,
        "feed_forward_proj": f"gated-{projection}" if gated else projection,
        "dense_act_fn": act,
        "is_gated_act": gated,
        "tie_word_embeddings": model.logits_via_embedding,
        "dropout_rate": model.dropout_rate,
        "initializer_factor": 1.0,
        "use_cache": True,
        "torch_dtype": dtype,
        **{
            name: _FIXED[name]
            for name in (
                "is_encoder_decoder",
                "relative_attention_num_buckets",
                "relative_attention_max_distance",
                "layer_norm_epsilon",
                "pad_token_id",
                "eos_token_id",
                "decoder_start_token_id",
            )
        },
    }


def check_same(found: T5Config, model: T5Config, where: str) -> None:
    """Refuses a config.json of another model than the one that gin names.

    Raises:
      ValueError: lists every setting that differs.
    """
    different = [
        f"{name} {getattr(found, name)!r} here, {getattr(model, name)!r} there"
        for name in _COMPARED
        if getattr(found, name) != getattr(model, name)
    ]
    if different:
        raise ValueError(
            f"{where} describes another model than {model.name}: {'; '.join(different)}. Name the "
            f"gin file of that model (gin/models/NAME.gin), or the checkpoint of {model.name}."
        )


def _check_fixed(config: Mapping[str, Any], where: str) -> None:
    for name, needed in _FIXED.items():
        value = config.get(name)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]  # "eos_token_id": [1]
        if value is not None and value != needed:
            only = "without it" if needed is None else f"with {needed!r}"
            raise ValueError(
                f"{where} has {name} {config[name]!r}; the T5 here computes only {only}, so the "
                f"model cannot be read."
            )


def _mlp_activations(config: Mapping[str, Any], where: str) -> tuple[str, ...]:
    default = "gated-gelu" if config["model_type"] == "mt5" else "relu"
    projection = config.get("feed_forward_proj", default)
    first, _, rest = projection.partition("-")
    act = "gelu_new" if projection == "gated-gelu" else rest or first
    act = config.get("dense_act_fn", act)  # where both are there, transformers takes this one
    gated = config.get("is_gated_act", first == "gated")
    if act not in _ACTIVATIONS or rest and first != "gated":
        raise ValueError(
            f"{where} has feed_forward_proj {projection!r} and so the activation {act!r}; the T5 "
            f"here has {', '.join(_ACTIVATIONS)}."
        )
    return (_ACTIVATIONS[act], "linear") if gated else (_ACTIVATIONS[act],)


def _theirs(activations: tuple[str, ...]) -> tuple[str, bool]:
    names = {ours: theirs for theirs, ours in reversed(_ACTIVATIONS.items())}
    if len(activations) > 2 or activations[1:] not in ((), ("linear",)):
        raise ValueError(
            f"transformers has no T5 with mlp_activations {activations}; it has one activation, "
            f"alone or gated by 'linear'."
        )
    return names[activations[0]], len(activations) == 2


def _logits(config: Mapping[str, Any], where: str) -> tuple[bool, bool]:
    """Whether logits are read off the table and scaled, and whether off it without a head."""
    tied, scaled = (config.get(name) for name in _OF_THE_LOGITS)
    if config["model_type"] == "t5":
        scaled = tied is not False if scaled is None else scaled
        return scaled, scaled or tied is not False
    major = str(config.get("transformers_version")).split(".")[0]
    by_five = major.isdecimal() and int(major) >= 5
    if scaled or (tied and not by_five):
        setting = _OF_THE_LOGITS[1] if scaled else _OF_THE_LOGITS[0]
        raise ValueError(
            f"{where} has {setting} True for an mT5: transformers 4 divides such logits by "
            f"sqrt(d_model), transformers 5 does not. "
            f"Load the model with the version it was trained with and save it untied."
        )
    return False, bool(tied)
