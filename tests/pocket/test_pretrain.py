"""Tests of `prompt-tuning pretrain`: its stages, what it skips, and the model it leaves."""

import contextlib
import io
import json
from pathlib import Path

import pytest
import tiny_runs

from prompt_tuning import config, trees
from prompt_tuning.checkpoints import checkpoint
from prompt_tuning.model.parameters import parameter_shapes
from prompt_tuning.pocket import models, pretrain

BINDINGS = (
    "PocketCorpus.documents=200",
    "PocketCorpus.validation_documents=12",
    "Run.eval_examples=4",
    "Run.eval_batch_size=4",
)


@pytest.fixture(scope="module")
def made(compiled_programs, tmp_path_factory):
    """Two steps of span corruption, two of adaptation and two more of span corruption, twice."""
    folder = tmp_path_factory.mktemp("pretrain")
    arguments = {"model_dir": str(folder / "runs"), "out": str(folder / "out")}
    arguments |= {"span_only": True, "steps_scale": 1e-4, "bindings": BINDINGS}
    printed = []
    with tiny_runs.quick(compiled_programs):
        for _ in range(2):
            with contextlib.redirect_stdout(io.StringIO()) as text:
                pretrain.pretrain("pocket_xs", config.load, **arguments)
            printed.append(text.getvalue())
    return folder, printed


@pytest.mark.slow
def test_the_model_and_its_card_are_left(made):
    folder, _ = made
    card = json.loads((folder / "out/card.json").read_text())
    names = [f"pocket_xs@{variant}" for variant in ("0", "10", "50", "100", "span")]
    assert list(card["checkpoints"]) == names
    assert [one["step"] for one in card["checkpoints"].values()] == [2, 2, 3, 4, 4]
    shapes = parameter_shapes(config.read_model("pocket_xs"))
    prints = set()
    for one in card["checkpoints"].values():
        loaded = checkpoint.load_model(folder / "out" / one["file"], shapes)
        assert trees.fingerprint(loaded) == one["fingerprint"]
        assert set(one["probe_scores"]) == {"span_corruption", "prefix_lm"}
        prints.add(one["fingerprint"])
    assert len(prints) == 3  # 10% of two steps is none, and the first step is at learning rate 0
    assert card["parameters"] == trees.count(loaded)
    assert card["command"] == (
        "prompt-tuning pretrain pocket_xs --span_only --steps_scale=0.0001 "
        + " ".join(f"--gin.{binding}" for binding in BINDINGS)
    )
    assert card["corpus"]["documents"] == 200
    assert [(one["name"], one["from"], one["steps"]) for one in card["stages"]] == [
        ("span", "random_repeats:0", 2), ("adapt", "span", 2), ("span_only", "span", 2),
    ]  # fmt: skip
    assert "pretrained on 200 documents" in (folder / "out/README.md").read_text()


@pytest.mark.slow
def test_a_stage_starts_from_the_one_before(made):
    folder, _ = made
    read = {
        name: trees.fingerprint(checkpoint.load_model(folder / "runs" / name, shapes))
        for shapes in [parameter_shapes(config.read_model("pocket_xs"))]
        for name in ("span/checkpoint_2", "adapt/checkpoint_0", "adapt/checkpoint_2")
    }
    assert read["span/checkpoint_2"] == read["adapt/checkpoint_0"] != read["adapt/checkpoint_2"]


@pytest.mark.slow
def test_what_is_done_is_not_done_again(made):
    _, (first, second) = made
    assert first.count("done: best dev score") == 3 and "already" not in first
    assert "span (2 steps), then adapt (2 steps), then span_only (2 steps)" in first
    assert second.count("is finished already") == 3 and "done: best dev score" not in second


@pytest.mark.slow
def test_other_settings_need_another_folder(made):
    folder, _ = made
    with pytest.raises(ValueError, match="runs/span holds this stage with other settings"):
        pretrain.pretrain(
            "pocket_xs", config.load, model_dir=str(folder / "runs"), steps_scale=1e-3
        )


@pytest.mark.slow
def test_a_killed_stage_is_not_resumed_with_other_settings(tmp_path, monkeypatch):
    def killed(run):
        raise KeyboardInterrupt

    arguments = {"model_dir": str(tmp_path / "runs"), "out": str(tmp_path / "out")}
    with monkeypatch.context() as patched:
        patched.setattr(pretrain, "train_run", killed)
        patched.setattr(pretrain, "_write", _only_before_training(pretrain._write))
        with pytest.raises(KeyboardInterrupt):
            pretrain.pretrain("pocket_xs", config.load, bindings=BINDINGS, **arguments)
    with pytest.raises(ValueError, match="runs/span holds this stage with other settings"):
        pretrain.pretrain("pocket_xs", config.load, **arguments)


def _only_before_training(write):
    """A process that is killed writes nothing any more."""
    calls = []
    return lambda *arguments: calls or (calls.append(1), write(*arguments))


@pytest.mark.parametrize(
    ("stage", "config_name"),
    enumerate(["pretrain_span", "pretrain_adapt", "pretrain_span_only"]),
)
def test_the_stages_by_themselves_are_those_of_pocket_s(stage, config_name):
    made = pretrain.make_stages(pretrain.RECIPES["pocket_s"], "m", True)[stage]
    files = ["gin/models/pocket_s.gin", f"configs/pocket/{config_name}.gin"]
    by_itself = config.load(files)
    in_recipe = pretrain._load("pocket_s", made, "m", config.load, ())
    for name in ("train_steps", "batch_size", "eval_period", "checkpoint_steps", "seed"):
        assert getattr(by_itself, name) == getattr(in_recipe, name), name
    rates = [
        [float(run.optimizer.keywords["learning_rate"](step)) for step in (5, 60, 300)]
        for run in (by_itself, in_recipe)
    ]
    assert rates[0] == rates[1]


def test_a_stage_whose_settings_gin_wrote_down_is_recognised(tmp_path, monkeypatch):
    """An earlier version kept all settings, those without effect and in gin's layout."""
    old = (Path(__file__).parents[1] / "data/old_configs/pretrain_span.gin").read_text()
    monkeypatch.chdir(tmp_path)  # its MODEL_DIR is 'm/span'
    kept = {"config": old, "is_done": True, "record": {"seconds": 1.0}}
    (tmp_path / "m/span").mkdir(parents=True)
    (tmp_path / "m/span/stage.json").write_text(json.dumps(kept))
    stage = pretrain.make_stages(pretrain.RECIPES["pocket_xs"], "m", False, 1e-2)[0]

    def train(*bindings):
        run = pretrain._load("pocket_xs", stage, "m", config.load, bindings)
        return pretrain._train(stage, run, config.load)

    assert train("PocketCorpus.documents=200") == {"seconds": 1.0}
    with pytest.raises(ValueError, match="holds this stage with other settings"):
        train("PocketCorpus.documents=300")


def test_the_stages_of_a_size():
    span, adapt, only = pretrain.make_stages(pretrain.RECIPES["pocket_s"], "m", True, seed=4)
    assert span.start == "random_repeats:4"
    assert adapt.start == only.start == "m/span/checkpoint_500"
    assert adapt.steps == only.steps == 6400
    assert (span.seed, adapt.seed, only.seed) == (4, 4, 5)
    assert set(pretrain.RECIPES) == set(models.SIZES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": "pocket_xxl"}, "no pocket model 'pocket_xxl'; the sizes are pocket_xs, "),
        ({"steps_scale": 0.0}, "steps_scale must be above 0"),
        ({"bindings": ["TRAIN_STEPS=3"]}, "TRAIN_STEPS is set by the recipe of pocket_xs"),
    ],
)
def test_what_cannot_be_asked_for(changes, message, tmp_path):
    arguments = {"size": "pocket_xs", "model_dir": str(tmp_path / "runs")} | changes
    with pytest.raises(ValueError, match=message):
        pretrain.pretrain(arguments.pop("size"), config.load, **arguments)
    assert not (tmp_path / "runs").exists()
