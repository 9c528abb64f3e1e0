"""The same logits as transformers and peft on fresh random models, in both directions.

Needs torch, transformers and peft: pip install 'prompt-tuning[parity]'.
"""

import functools
import json
import os

import jax
import numpy as np
import pytest

REASON = "torch, transformers and peft are not installed: pip install 'prompt-tuning[parity]'"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch", reason=REASON)
transformers = pytest.importorskip("transformers", reason=REASON)
peft_library = pytest.importorskip("peft", reason=REASON)

from prompt_tuning import trees  # noqa: E402
from prompt_tuning.checkpoints import checkpoint, convert, hugging_face  # noqa: E402
from prompt_tuning.inference.frozen import load_parameters  # noqa: E402
from prompt_tuning.model.decoding import generate  # noqa: E402
from prompt_tuning.model.transformer import Transformer  # noqa: E402
from prompt_tuning.prompts import files, peft  # noqa: E402
from prompt_tuning.prompts.metadata import PromptMetadata  # noqa: E402
from prompt_tuning.prompts.prompt import PROMPT_PATH, soft_prompt_hooks  # noqa: E402

SIZES = {
    "vocab_size": 96,
    "d_model": 24,
    "d_kv": 5,
    "d_ff": 40,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 3,
    "dropout_rate": 0.0,
    "decoder_start_token_id": 0,
}
T5, MT5 = "T5ForConditionalGeneration", "MT5ForConditionalGeneration"
# The class, its settings, and whether an lm_head of its own is put in.
MODELS = {
    "T5 1.0, relu, tied": (T5, {"feed_forward_proj": "relu"}, False),
    "T5 1.1, gated gelu, untied": (
        T5,
        {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        True,
    ),
    "gated gelu, tied without scaling": (
        T5,
        {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        False,
    ),
    "gated silu, untied, more decoder layers": (
        T5,
        {
            "feed_forward_proj": "gated-silu",
            "tie_word_embeddings": False,
            "num_layers": 1,
            "num_decoder_layers": 3,
        },
        True,
    ),
    "mT5, untied": (MT5, {"feed_forward_proj": "gated-gelu"}, True),
}
BATCH, LENGTH, TARGETS, PROMPT_LENGTH = 2, 150, 7, 6  # beyond the last bucket, 128


def new_model(kind, seed=3):
    """A random model of transformers whose norms are not all ones; seed 3 writes varied text."""
    name, settings, has_head = MODELS[kind]
    model_class = getattr(transformers, name)
    model = model_class(model_class.config_class(**{**SIZES, **settings})).eval()
    generator = torch.Generator().manual_seed(seed)
    if has_head:
        model.lm_head.weight = torch.nn.Parameter(torch.zeros(96, 24))
    with torch.no_grad():
        for parameter in model.parameters():
            wide = 0.2 if parameter.ndim == 2 else 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * wide)
    return model


@pytest.fixture(scope="module")
def tokens():
    rng = np.random.default_rng(3)
    inputs = rng.integers(2, 96, (BATCH, LENGTH))
    inputs[1, 100:] = 0
    targets = rng.integers(2, 96, (BATCH, TARGETS))
    fed = np.concatenate([np.zeros((BATCH, 1), int), targets[:, :-1]], axis=1)
    return inputs.astype(np.int32), fed.astype(np.int32), targets.astype(np.int32)


def their_logits(model, tokens):
    inputs, fed, _ = (torch.tensor(each.astype(np.int64)) for each in tokens)
    with torch.no_grad():
        output = model(input_ids=inputs, attention_mask=(inputs > 0).long(), decoder_input_ids=fed)
    return output.logits.numpy()


def their_greedy(model, tokens):
    inputs = torch.tensor(tokens[0].astype(np.int64))
    with torch.no_grad():
        written = model.generate(
            input_ids=inputs, attention_mask=(inputs > 0).long(), max_new_tokens=8, num_beams=1,
            do_sample=False,
        )  # fmt: skip
    return written.numpy()[:, 1:]


@functools.partial(jax.jit, static_argnames="model")
def apply(model, params, *tokens):
    return model.apply({"params": params}, *tokens)


def our_logits(config, flat, tokens, prompt=None):
    if prompt is None:
        return np.asarray(apply(Transformer(config), trees.unflatten(flat), *tokens))
    model = Transformer(config, soft_prompt_hooks(length=len(prompt)))
    return np.asarray(apply(model, trees.unflatten({**flat, PROMPT_PATH: prompt}), *tokens))


def assert_same_tokens(ours, theirs):
    """Up to the first EOS; after it transformers pads, too."""
    assert len(np.unique(theirs)) > 2
    ours = np.pad(ours, [(0, 0), (0, 8)])[:, : theirs.shape[1]]
    np.testing.assert_array_equal(ours, theirs)


def assert_close(ours, theirs):
    assert np.abs(theirs).max() > 0.1
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()


@pytest.mark.parametrize("kind", MODELS)
def test_both_ways(kind, tokens, tmp_path):
    model = new_model(kind)
    theirs = their_logits(model, tokens)
    model.save_pretrained(tmp_path / "theirs")
    config = checkpoint.hugging_face_model(tmp_path / "theirs")
    flat = load_parameters(config, str(tmp_path / "theirs"))
    assert_close(our_logits(config, flat, tokens), theirs)

    # to T5X and from there, in several files, to transformers
    convert.convert(str(tmp_path / "theirs"), str(tmp_path / "t5x"), "t5x")
    found = checkpoint.leaves(tmp_path / "t5x")
    hugging_face.write(tmp_path / "ours", found, config, shard_bytes=20_000)
    assert len(list((tmp_path / "ours").glob("model-*.safetensors"))) > 2
    again, report = type(model).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.get(what) for what in ("missing_keys", "unexpected_keys"))
    np.testing.assert_array_equal(their_logits(again.eval(), tokens), theirs)


def test_as_transformers_4_saved_it(tokens, tmp_path):
    model = new_model("T5 1.1, gated gelu, untied")
    model.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    del settings["scale_decoder_outputs"]
    settings |= {"tie_word_embeddings": False, "transformers_version": "4.57.6"}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    config = checkpoint.hugging_face_model(tmp_path)
    ours = our_logits(config, load_parameters(config, str(tmp_path)), tokens)
    assert_close(ours, their_logits(model, tokens))
    again = type(model).from_pretrained(tmp_path).eval()
    np.testing.assert_array_equal(their_logits(again, tokens), their_logits(model, tokens))


def test_greedy(tokens, tmp_path):
    model = new_model("T5 1.1, gated gelu, untied")
    model.save_pretrained(tmp_path)
    config = checkpoint.hugging_face_model(tmp_path)
    params = trees.unflatten(load_parameters(config, str(tmp_path)))
    decoded = generate(Transformer(config), params, tokens[0], max_decode_length=8)
    assert_same_tokens(decoded.tokens[:, 0], their_greedy(model, tokens))


@pytest.mark.parametrize("kind", ["T5 1.0, relu, tied", "T5 1.1, gated gelu, untied"])
def test_our_adapter_in_peft(kind, tokens, tmp_path):
    model = new_model(kind)
    model.save_pretrained(tmp_path / "model")
    config = checkpoint.hugging_face_model(tmp_path / "model")
    flat = load_parameters(config, str(tmp_path / "model"))
    plain = our_logits(config, flat, tokens)
    prompt = np.random.default_rng(1).normal(size=(PROMPT_LENGTH, 24)).astype(np.float32)
    files.save(tmp_path / "p", prompt, PromptMetadata("m", "f", PROMPT_LENGTH, 24))
    base = str(tmp_path / "model")
    folder = peft.export(files.read_prompt(tmp_path / "p"), tmp_path / "adapter", base_model=base)

    prompted = peft_library.PeftModel.from_pretrained(model, folder).eval()
    ours = our_logits(config, flat, tokens, prompt)
    assert_close(ours, their_logits(prompted, tokens))
    assert np.abs(ours - plain).max() > 1e-3 * np.abs(plain).max()
    with_prompt = Transformer(config, soft_prompt_hooks(length=PROMPT_LENGTH))
    params = trees.unflatten({**flat, PROMPT_PATH: prompt})
    decoded = generate(with_prompt, params, tokens[0], max_decode_length=8)
    assert_same_tokens(decoded.tokens[:, 0], their_greedy(prompted, tokens))


@pytest.mark.parametrize("submodules", [1, 2])
def test_their_adapter_here(submodules, tokens, tmp_path):
    model = new_model("T5 1.1, gated gelu, untied")
    model.save_pretrained(tmp_path / "model")
    config = checkpoint.hugging_face_model(tmp_path / "model")
    flat = load_parameters(config, str(tmp_path / "model"))
    torch.manual_seed(0)
    settings = peft_library.PromptTuningConfig(
        task_type="SEQ_2_SEQ_LM",
        num_virtual_tokens=PROMPT_LENGTH,
        num_transformer_submodules=submodules,
    )
    prompted = peft_library.get_peft_model(model, settings).eval()
    theirs = their_logits(prompted, tokens)
    prompted.save_pretrained(tmp_path / "adapter")
    found = peft.read(tmp_path / "adapter")
    assert found.prompt.shape == (PROMPT_LENGTH, 24)
    assert_close(our_logits(config, flat, tokens, found.prompt), theirs)


@pytest.mark.parametrize("kind", ["PrefixTuningConfig", "PromptEncoderConfig", "LoraConfig"])
def test_other_adapters_are_refused_by_name(kind, tmp_path):
    settings = {"task_type": "SEQ_2_SEQ_LM"}
    if kind != "LoraConfig":
        settings["num_virtual_tokens"] = PROMPT_LENGTH
    if kind == "PromptEncoderConfig":
        settings["encoder_hidden_size"] = 8
    settings = getattr(peft_library, kind)(**settings)
    model = transformers.T5ForConditionalGeneration(
        transformers.T5Config(**{**SIZES, "d_kv": 8, "num_layers": 2})
    )
    peft_library.get_peft_model(model, settings).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"is a {settings.peft_type.value} adapter; only PROMPT_T"):
        peft.read(tmp_path)
