"""Pocket models by name: where they are looked for, what is written, and the errors."""

import json

import numpy as np
import pytest

from prompt_tuning import trees
from prompt_tuning.checkpoints import checkpoint
from prompt_tuning.pocket import models

PARAMS = {
    "decoder/scale": np.array([1.0, -2.5], np.float32),
    "token_embedder/embedding": np.array([[0.1, 2049.0]], np.float32),
}
SHAPES = {name: value.shape for name, value in PARAMS.items()}


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Assets and a cache of the test's own."""
    monkeypatch.setattr(models, "ASSETS", tmp_path / "assets")
    monkeypatch.setenv("PROMPT_TUNING_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_a_model_is_loaded_by_name_as_float16_rounded_it(folders):
    written = models.export(folders / "cache/pocket_s", "100", PARAMS)
    loaded = checkpoint.load_model("pocket_s", SHAPES)
    assert loaded["decoder/scale"].tolist() == [1.0, -2.5]
    assert loaded["token_embedder/embedding"].tolist() == [[0.0999755859375, 2048.0]]
    assert loaded["decoder/scale"].dtype == np.float32
    assert written["fingerprint"] == trees.fingerprint(loaded)
    path = folders / "cache/pocket_s/adapted_100.safetensors"
    assert written["bytes"] == path.stat().st_size
    assert checkpoint.variables(str(path))["decoder/scale"] == ((2,), np.float16)
    assert not list(path.parent.glob("*.tmp*"))


def test_what_is_shipped_comes_first_and_variants_are_distinguished(folders):
    for number, (place, variant) in enumerate(
        [("cache", "100"), ("assets", "100"), ("cache", "10"), ("cache", "span")]
    ):
        value = {"decoder/scale": np.full(2, number, np.float32)}
        models.export(folders / place / "pocket_xs", variant, value)
    names = ("pocket_xs", "pocket_xs@100", "pocket_xs@10", "pocket_xs@span")
    found = [
        checkpoint.load_model(name, {"decoder/scale": (2,)})["decoder/scale"][0] for name in names
    ]
    assert found == [1, 1, 2, 3]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pocket_xm", "no pocket model 'pocket_xm'; did you mean pocket_"),
        ("pocket_s@20", "no checkpoint 'pocket_s@20': expected one of 0, 10, 50, 100, s"),
        ("pocket_s@", "no checkpoint 'pocket_s@'"),
        ("pocket_xl", "Make it with `prompt-tuning pretrain pocket_xl`"),
        ("pocket_m@span", "cache/pocket_m does not hold span_only.*pretrain pocket_m --span_only`"),
    ],
)
def test_what_is_not_there_is_one_sentence(name, message):
    with pytest.raises(ValueError, match=message):
        checkpoint.load_model(name, SHAPES)


def test_a_folder_of_that_name_is_written_with_a_dot(folders, monkeypatch):
    monkeypatch.chdir(folders)
    (folders / "pocket_s").mkdir()
    with pytest.raises(ValueError, match="no checkpoint './pocket_s'"):
        checkpoint.find("./pocket_s")


def test_a_damaged_file_and_another_model_are_refused(folders):
    models.export(folders / "cache/pocket_s", "100", PARAMS)
    with pytest.raises(ValueError, match="does not fit the model. Missing in the .*encoder/x"):
        checkpoint.load_model("pocket_s", SHAPES | {"encoder/x": (1,)})
    path = folders / "cache/pocket_s/adapted_100.safetensors"
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(ValueError, match="damaged or incomplete"):
        checkpoint.load_model("pocket_s", SHAPES)


def test_a_value_beyond_float16_is_not_exported(folders):
    with pytest.raises(ValueError, match="x holds 70000.0, but the largest float16 is 65504"):
        models.export(folders / "out", "0", {"x": np.array([7e4])})
    assert not (folders / "out").exists()


def test_the_card_for_programs_and_for_people(folders):
    folder = folders / "cache/pocket_s"
    scores = {"prefix_lm": 71.25, "span_corruption": 20.0}
    card = {
        "model": "pocket_s",
        "command": "prompt-tuning pretrain pocket_s",
        "parameters": 345_088,
        "corpus": {"documents": 500_000, "seed": 0},
        "stages": [
            {"name": "span", "from": "random:0", "steps": 1200, "batch_size": 64,
             "learning_rate": 0.003, "seconds": 90.0}
        ],
        "checkpoints": {
            "pocket_s@0": {"step": 1200, "fingerprint": "ab12", "probe_scores": scores,
                           "float16_less_float32": {"prefix_lm": -0.1, "span_corruption": 0.0}}
        },
        "hardware": "2 x x86_64, cpu",
        "created": "2026-01-01",
        "versions": {"jax": "0.10.2"},
    }  # fmt: skip
    models.export(folder, "0", PARAMS)
    with pytest.raises(ValueError, match="no card .*cache/pocket_s/card.json"):
        models.read_card("pocket_s@0")
    models.write_card(folder, card)
    assert models.fingerprint("pocket_s@0") == "ab12"
    assert models.fingerprint("pocket_s") is None
    assert models.read_card("pocket_s@0") == card == json.loads((folder / "card.json").read_text())
    text = (folder / "README.md").read_text()
    assert "A T5 1.1 of 345,088 parameters, pretrained on 500,000 documents" in text
    assert "Made in 1.5 minutes on 2 x x86_64, cpu, 2026-01-01" in text
    assert "| span | random:0 | 1,200 | 64 | 0.003 | 90 |" in text
    assert "| `pocket_s@0` | 1,200 | 71.25 | -0.10 | 20.00 | +0.00 | `ab12` |" in text
