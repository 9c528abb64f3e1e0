"""Hugging Face's T5 checkpoints, read and written under T5X's names, without torch.

    config.json                        see hugging_face_config.py
    model.safetensors                  all tensors, or
    model-00001-of-00002.safetensors   a part of them, with
    model.safetensors.index.json       the file of each tensor

torch keeps matrices as [outputs, inputs], T5X as [inputs, outputs], so all but the
embedding table are transposed:

    shared.weight                                        token_embedder/embedding
    encoder.block.0.layer.0.SelfAttention.q.weight       encoder/layers_0/attention/query/kernel
    encoder.block.0.layer.1.DenseReluDense.wi_0.weight   encoder/layers_0/mlp/wi_0/kernel
    lm_head.weight                                       decoder/logits_dense/kernel
    ...                                                  see `_parameters`

Nothing may be missing and nothing left over; a pickle (pytorch_model.bin) is never opened.
"""

import dataclasses
import functools
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from prompt_tuning import folders
from prompt_tuning.checkpoints import hugging_face_config, tensor_files
from prompt_tuning.checkpoints import leaves as leaves_lib
from prompt_tuning.checkpoints.leaves import Leaf
from prompt_tuning.model.layers import NUM_BUCKETS
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.model.transformer import EMBEDDING_PATH

CONFIG_FILE = "config.json"
SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
SHARD_BYTES = 5 * 10**9

_LOGITS = "decoder/logits_dense/kernel"
_HEAD = "lm_head.weight"
_TABLE_NAMES = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# Older files hold this one of Mesh TensorFlow's; transformers leaves it unread, too.
_UNUSED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"

_logger = logging.getLogger(__name__)


class _Parameter(NamedTuple):
    theirs: str
    ours: str
    shape: tuple[int, ...]  # as T5X has it


def recognises(folder: str) -> bool:
    """Whether the folder is a Hugging Face model, of whatever kind."""
    return leaves_lib.is_file(folder, CONFIG_FILE)


def is_file_of_one(path: str) -> bool:
    """Whether a path names a file of such a folder instead of the folder."""
    folder, name = os.path.split(path)
    named = name in (CONFIG_FILE, SINGLE_FILE, INDEX_FILE) and os.path.isfile(path)
    return named and os.path.isfile(os.path.join(folder, CONFIG_FILE))


def leaves(folder: str) -> dict[str, Leaf]:
    """Lists the parameters of a checkpoint without reading them.

    Args:
      folder: a local folder, with config.json and safetensors.

    Raises:
      ValueError: it is no T5 that can be computed here, its parameters do not match its
        config.json, or it has no safetensors. Reading the embedding table raises it, too, where the
        file holds several that differ.
    """
    described = _described(folder)
    if described.unknown:
        _logger.warning(
            "%s has settings that are not known here and are taken to change nothing: %s.",
            _where(folder),
            ", ".join(described.unknown),
        )
    tensors = _tensors(folder)
    tensors.pop(_UNUSED, None)
    table, head = _table_and_head(folder, tensors, described)
    found = {EMBEDDING_PATH: table}
    if head is not None:
        found[_LOGITS] = head
    wanted = [p for p in _parameters(described.model) if p.ours not in (EMBEDDING_PATH, _LOGITS)]
    missing = [p.theirs for p in wanted if p.theirs not in tensors]
    left = sorted(tensors.keys() - {p.theirs for p in wanted})
    if missing or left:
        wrong = [
            f"{what} ({len(names)}): {leaves_lib.some(names)}."
            for what, names in (("missing", missing), ("left over", left))
            if names
        ]
        raise ValueError(f"{folder!r} does not match its {CONFIG_FILE}: {' '.join(wrong)}")
    found |= {p.ours: _flipped(tensors[p.theirs]) for p in wanted}
    for p in _parameters(described.model):
        if p.ours in found and found[p.ours].shape != p.shape:
            raise ValueError(
                f"{folder!r} holds {p.theirs} as {list(found[p.ours].shape)} in T5X's order, but "
                f"its {CONFIG_FILE} gives {list(p.shape)}. The folder mixes two models."
            )
    return found


def read_model(folder: str) -> T5Config:
    """The dimensions that config.json states.

    Raises:
      ValueError: see `hugging_face_config.read`.
    """
    return _described(folder).model


def check_model(folder: str, model: T5Config) -> None:
    """Refuses a folder whose config.json is not that of the model.

    Raises:
      ValueError: lists every setting that differs.
    """
    hugging_face_config.check_same(read_model(folder), model, _where(folder))


def shapes(model: T5Config) -> dict[str, tuple[int, ...]]:
    """Every parameter of a T5, T5X's name and shape."""
    return {p.ours: p.shape for p in _parameters(model)}


def write(
    folder: str | os.PathLike,
    flat: Mapping[str, Leaf],
    model: T5Config,
    *,
    shard_bytes: int = SHARD_BYTES,
) -> str:
    """Writes parameters as a folder that transformers opens, whole or not at all.

    Reads and writes one parameter at a time; none changes its type.

    Args:
      folder: must not exist.
      flat: {path: leaf}, T5X's names.
      model: its dimensions and its activations, for config.json.
      shard_bytes: a file holds no more, unless a single tensor does.

    Returns:
      The folder.

    Raises:
      ValueError: the folder exists, or the parameters are not those of the model.
    """
    tensors = _to_write(flat, model)
    largest = max(tensors.values(), key=lambda leaf: math.prod(leaf.shape))
    config = hugging_face_config.write(model, largest.dtype.name)
    ids = ("pad_token_id", "eos_token_id", "decoder_start_token_id")
    with folders.new_folder(folder) as temporary:
        _write_shards(temporary, tensors, shard_bytes)
        _write_json(temporary, "generation_config.json", {name: config[name] for name in ids})
        _write_json(temporary, CONFIG_FILE, config)
    return os.path.abspath(folder)


def _parameters(model: T5Config) -> Iterator[_Parameter]:
    """Every parameter of a T5, by both names."""
    width, inner = model.emb_dim, model.num_heads * model.head_dim
    yield _Parameter(_TABLE_NAMES[0], EMBEDDING_PATH, (model.vocab_size, width))
    sides = (("encoder", model.num_encoder_layers), ("decoder", model.num_decoder_layers))
    for side, layers in sides:
        yield _Parameter(
            f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            f"{side}/relpos_bias/rel_embedding",
            (model.num_heads, NUM_BUCKETS),
        )
        for i in range(layers):
            for theirs, ours, shape in _of_a_layer(side, model, width, inner):
                yield _Parameter(
                    f"{side}.block.{i}.layer.{theirs}.weight", f"{side}/layers_{i}/{ours}", shape
                )
        final = (f"{side}.final_layer_norm.weight", f"{side}/{side}_norm/scale")
        yield _Parameter(*final, (width,))
    if not model.logits_via_embedding:
        yield _Parameter(_HEAD, _LOGITS, (width, model.vocab_size))


def _of_a_layer(
    side: str, model: T5Config, width: int, inner: int
) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    attentions = {
        "encoder": [("SelfAttention", "attention", "attention")],
        "decoder": [
            ("SelfAttention", "self_attention", "self_attention"),
            ("EncDecAttention", "encoder_decoder_attention", "cross_attention"),
        ],
    }[side]
    for number, (theirs, ours, norm) in enumerate(attentions):
        yield f"{number}.layer_norm", f"pre_{norm}_layer_norm/scale", (width,)
        for letter, name in (("q", "query"), ("k", "key"), ("v", "value")):
            yield f"{number}.{theirs}.{letter}", f"{ours}/{name}/kernel", (width, inner)
        yield f"{number}.{theirs}.o", f"{ours}/out/kernel", (inner, width)
    last = len(attentions)
    yield f"{last}.layer_norm", "pre_mlp_layer_norm/scale", (width,)
    for wi in ("wi",) if len(model.mlp_activations) == 1 else ("wi_0", "wi_1"):
        yield f"{last}.DenseReluDense.{wi}", f"mlp/{wi}/kernel", (width, model.mlp_dim)
    yield f"{last}.DenseReluDense.wo", "mlp/wo/kernel", (model.mlp_dim, width)


def _where(folder: str) -> str:
    return f"{leaves_lib.join(folder, CONFIG_FILE)!r}"


def _described(folder: str) -> hugging_face_config.Described:
    config = _read_json(folder, CONFIG_FILE)
    return hugging_face_config.read(config, _where(folder))


def _read_json(folder: str, name: str) -> dict[str, Any]:
    try:
        content = json.loads(leaves_lib.read_file(folder, name) or b"")
        if not isinstance(content, dict):
            raise ValueError("not a JSON object")
    except ValueError as error:
        raise ValueError(
            f"{leaves_lib.join(folder, name)!r} is truncated or damaged ({error}). Copy it again."
        ) from error
    return content


def _tensors(folder: str) -> dict[str, Leaf]:
    inside = leaves_lib.subfolders(folder)
    if "://" in folder:
        raise ValueError(
            f"{folder!r} is a Hugging Face model in a bucket; copy it to a local folder."
        )
    if SINGLE_FILE in inside:
        return tensor_files.leaves(os.path.join(folder, SINGLE_FILE))
    if INDEX_FILE in inside:
        return _sharded_tensors(folder, inside)
    raise ValueError(without_safetensors(folder, inside))


def _sharded_tensors(folder: str, inside: set[str]) -> dict[str, Leaf]:
    places = _read_json(folder, INDEX_FILE).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ValueError(f"{folder!r}: {INDEX_FILE} has no weight_map. Copy it again.")
    files = sorted(set(places.values()))
    absent = [name for name in files if name not in inside]
    if absent:
        raise ValueError(
            f"{folder!r} lacks {', '.join(absent)}, which {INDEX_FILE} names. The model is "
            f"incomplete; copy it again."
        )
    found: dict[str, Leaf] = {}
    for name in files:
        tensors = tensor_files.leaves(os.path.join(folder, name))
        listed = {tensor for tensor, place in places.items() if place == name}
        if listed != tensors.keys():
            first = min(listed ^ tensors.keys())
            raise ValueError(
                f"{folder!r}: {INDEX_FILE} and {name} disagree on {len(listed ^ tensors.keys())} "
                f"tensors, first {first}. The folder mixes two models; copy it again."
            )
        found |= tensors
    return found


def without_safetensors(source: str, inside: set[str]) -> str:
    """Describes what to do about a model without safetensors, a folder or a name on the Hub."""
    pickles = sorted(name for name in inside if name.endswith((".bin", ".pt", ".pth")))
    has = "no safetensors"
    if pickles:
        has += f", only a pickle ({', '.join(pickles[:2])}), which could run code and is not opened"
    name, _, revision = source.partition("@")
    given = f"'{name}'" + (f", revision='{revision}'" if revision else "")
    return (
        f"{source!r} has {has}. Take a revision that has {SINGLE_FILE} (on the Hub often "
        f"@refs/pr/N, made by its conversion bot), or convert it where torch and transformers are: "
        f'python -c "from transformers import AutoModelForSeq2SeqLM as M; '
        f"M.from_pretrained({given}).save_pretrained('NEW_FOLDER')\"."
    )


def _table_and_head(
    folder: str, tensors: dict[str, Leaf], described: hugging_face_config.Described
) -> tuple[Leaf, Leaf | None]:
    """Takes the embedding table and the logits' matrix out of the tensors."""
    tables = {name: tensors.pop(name) for name in _TABLE_NAMES if name in tensors}
    head = tensors.pop(_HEAD, None)
    if described.model.logits_via_embedding and head is not None:
        tables[_HEAD] = head  # saved twice, or under this name only
    if not tables:
        raise ValueError(f"{folder!r} holds no embedding table ({' or '.join(_TABLE_NAMES)}).")
    table = _the_same(tables, folder)
    if described.model.logits_via_embedding:
        return table, None
    if head is None and not described.shares_table:
        raise ValueError(
            f"{folder!r} lacks {_HEAD}, although its {CONFIG_FILE} has tie_word_embeddings False. "
            f"transformers would initialise it at random; take the complete model."
        )
    return table, _flipped(table if head is None else head)


def _the_same(tensors: Mapping[str, Leaf], folder: str) -> Leaf:
    """A tensor that is stored under several names, which must agree when it is read."""
    (name, leaf), *others = tensors.items()

    def read(index: tuple[slice, ...] = ()) -> np.ndarray:
        array = leaf.read(index)
        for other, its_leaf in others:
            if not np.array_equal(array, its_leaf.read(index)):
                raise ValueError(
                    f"{folder!r} holds {name} and {other} with different values; the T5 here has "
                    f"one table for both. Save the model with the two tied."
                )
        return array

    return dataclasses.replace(leaf, read=read) if others else leaf


def _flipped(leaf: Leaf) -> Leaf:
    """Transposes a matrix; a vector stays as it is."""
    return Leaf(leaf.shape[::-1], leaf.dtype, functools.partial(_read_flipped, leaf))


def _read_flipped(leaf: Leaf, index: tuple[slice, ...] = ()) -> np.ndarray:
    return leaf.read(index[::-1]).T if index else leaf.read().T


def _to_write(flat: Mapping[str, Leaf], model: T5Config) -> dict[str, Leaf]:
    wanted = {p.ours: p for p in _parameters(model)}
    missing, left = sorted(wanted.keys() - flat.keys()), sorted(flat.keys() - wanted.keys())
    if missing or left:
        wrong = [
            f"{what} ({len(names)}): {leaves_lib.some(names)}."
            for what, names in (("missing", missing), ("without a place", left))
            if names
        ]
        raise ValueError(f"These are not the parameters of {model.name}: {' '.join(wrong)}")
    for path, p in wanted.items():
        if flat[path].shape != p.shape:
            raise ValueError(
                f"{path} has shape {list(flat[path].shape)}, that of {model.name} has "
                f"{list(p.shape)}. Name the model that the checkpoint is of."
            )
    return {
        p.theirs: flat[path] if path == EMBEDDING_PATH else _flipped(flat[path])
        for path, p in wanted.items()
    }


def _write_shards(folder: str, tensors: Mapping[str, Leaf], shard_bytes: int) -> None:
    shards: list[dict[str, Leaf]] = [{}]
    filled = 0
    for name, leaf in tensors.items():
        size = tensor_files.nbytes(leaf)
        if shards[-1] and filled + size > shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = leaf
        filled += size
    if len(shards) == 1:
        tensor_files.write(os.path.join(folder, SINGLE_FILE), tensors, {"format": "pt"})
        return
    places = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        tensor_files.write(os.path.join(folder, file), shard, {"format": "pt"})
        places |= dict.fromkeys(shard, file)
    total = sum(map(tensor_files.nbytes, tensors.values()))
    index = {"metadata": {"total_size": total}, "weight_map": places}
    _write_json(folder, INDEX_FILE, index)


def _write_json(folder: str, name: str, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2) + "\n"
    folders.write_synced(os.path.join(folder, name), text.encode())
