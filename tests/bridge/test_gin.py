"""Every model of gin/models resolves with the parts of gin/t5x, down to T5X's own objects."""

import sys
from pathlib import Path

import pytest

import gin

pytest.importorskip("prompt_tuning.bridge", exc_type=ImportError)

import t5x.eval
import t5x.infer
import t5x.train
from t5x import decoding, gin_utils

from prompt_tuning import config
from prompt_tuning.bridge import network, saving
from prompt_tuning.data import tasks

ROOT = Path(__file__).parent.parent.parent
MODELS = sorted(path.stem for path in (ROOT / "gin" / "models").glob("*.gin"))
TASK = {"mt5": "mt5_super_glue_cb_v102", "byt5": "byt5_super_glue_cb_v102"}
POCKET = "taskless_pocket_glue_rte_v100"
PROGRAMS = {
    "train": (t5x.train, "train"),
    "eval": (t5x.eval, "evaluate"),
    "infer": (t5x.infer, "infer"),
}
OWN = {
    "train": ["MODEL_DIR='run'", "INITIAL_CHECKPOINT_PATH='frozen'", "TRAIN_STEPS=9"],
    "eval": ["CHECKPOINT_PATH='run/checkpoint_9'", "EVAL_OUTPUT_DIR='out'"],
    "infer": ["CHECKPOINT_PATH='run/checkpoint_9'", "INFER_OUTPUT_DIR='out'"],
}


@pytest.fixture(autouse=True)
def _no_data(monkeypatch):
    """Nothing is read; only what the configuration names is made."""
    monkeypatch.setattr(tasks, "require_data", lambda task: None)
    monkeypatch.chdir(ROOT)
    yield
    gin.clear_config()


@pytest.fixture
def resolve(monkeypatch):
    """Reads gin files as a program of T5X does; returns the arguments it is then called with."""

    def run(program, files, bindings=(), last=()):
        module, function = PROGRAMS[program]
        gin.clear_config()
        monkeypatch.setitem(sys.modules, "__main__", module)
        files = [f"gin/{name}.gin" for name in [*files, "t5x/model", f"t5x/{program}", *last]]
        gin_utils.parse_gin_flags(["."], files, [*OWN[program], *bindings])
        return gin.get_bindings(getattr(module, function))

    return run


def task_of(model):
    family = model.split("_")[0]
    name = POCKET if family == "pocket" else TASK.get(model.removeprefix("tiny_").split("_")[0])
    name = name or "super_glue_cb_v102"
    return [
        f"MIXTURE_OR_TASK_NAME='{name}'",
        "MIXTURE_OR_TASK_MODULE='prompt_tuning.data.tasks'",
        "TASK_FEATURE_LENGTHS={'inputs': 16, 'targets': 4}",
        "CLASS_LABELS=['a', 'b']",
    ]


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("model", MODELS)
def test_every_model_resolves_for_every_program(resolve, model, program):
    prompts = ["prompts/class_labels"] if program == "train" else []
    arguments = resolve(program, [f"models/{model}", *prompts], task_of(model))
    module = arguments["model"].module
    expected = config.read_model(model)
    assert type(module) is network.PromptTransformer
    assert module.prompt_length == 100
    for name in ("vocab_size", "emb_dim", "num_heads", "head_dim", "num_encoder_layers",
                 "num_decoder_layers", "mlp_dim", "mlp_activations", "dropout_rate",
                 "logits_via_embedding"):  # fmt: skip
        assert getattr(module.config, name) == getattr(expected, name), name
    assert module.config.dtype == expected.activation_dtype
    assert tuple(arguments["partitioner"].logical_axis_rules)[-2:] == network.AXIS_RULES


@pytest.mark.parametrize(
    ("part", "bindings"),
    [
        ("class_labels", []),
        ("embedded_string", ["PROMPT_TEXT='a text'"]),
        ("file", ["PROMPT_FILE='mine.npy'"]),
        ("random_uniform", []),
        ("random_uniform_official", []),
        ("sampled_vocabulary", []),
    ],
)
def test_every_initialiser_resolves(resolve, part, bindings):
    files = ["models/tiny_byt5", "tasks/generated_sentiment", f"prompts/{part}"]
    arguments = resolve("train", files, bindings)
    assert arguments["model"].module.initializer.__module__ == "prompt_tuning.bridge.start"


def test_the_settings_of_a_run_are_the_papers(resolve):
    parts = ["models/t5_1_1_small", "prompts/class_labels"]
    arguments = resolve("train", parts, [*task_of("t5_1_1_small"), "DROPOUT_RATE=0.05"])
    model, settings = arguments["model"], arguments["model"].optimizer_def.hyper_params[0]
    assert model.module.config.dropout_rate == 0.05
    assert (model._z_loss, model._label_smoothing) == (1e-4, 0)
    assert model._loss_normalizing_factor is None
    assert (settings.decay_rate, settings.weight_decay_rate, settings.step_offset) == (0.8, 1e-5, 0)
    assert not settings.multiply_by_parameter_scale
    assert settings.factored
    assert gin.query_parameter("t5x.utils.create_learning_rate_scheduler.base_learning_rate") == 0.3
    data = arguments["train_dataset_cfg"]
    assert (data.batch_size, data.pack, data.split) == (32, False, "train")
    save = arguments["checkpoint_cfg"].save
    assert [fn.__module__ for fn in save.state_transformation_fns] == [saving.__name__]
    restore = arguments["checkpoint_cfg"].restore
    assert (restore.path, restore.fallback_to_scratch) == ("frozen", True)
    features = tasks.registered("super_glue_cb_v102").output_features
    assert model.input_vocabulary == features["inputs"].vocabulary


@pytest.mark.parametrize("program", ["eval", "infer"])
def test_a_prompt_file_takes_the_place_of_the_checkpoints_prompt(resolve, program):
    files = ["models/tiny_byt5", "tasks/generated_sentiment"]
    own = resolve(program, files)
    assert not own["restore_checkpoint_cfg"].fallback_to_scratch
    given = resolve(program, files, ["PROMPT_FILE='mine.npy'"], ["t5x/prompt_file"])
    assert given["restore_checkpoint_cfg"].fallback_to_scratch
    assert given["fallback_init_rng"] == 0
    with pytest.raises(ValueError, match="There is no prompt file 'mine.npy'"):
        given["model"].module.initializer(None, (2, 64))


def test_decoding_is_chosen_by_a_part(resolve):
    files = ["models/tiny_byt5", "tasks/generated_sentiment"]
    settings = {}
    for part in ("greedy", "beam_search", "nucleus_sampling"):
        model = resolve("eval", files, [], [f"t5x/{part}"])["model"]
        chosen = decoding.beam_search if part == "beam_search" else decoding.temperature_sample
        assert getattr(model.decode_fn, "__wrapped__", model.decode_fn) is chosen
        settings[part] = gin.get_bindings(f"t5x.decoding.{chosen.__name__}")
    assert settings == {
        "greedy": {"temperature": 0.0, "topk": 1},
        "beam_search": {"alpha": 0.6},
        "nucleus_sampling": {"temperature": 1.0, "topp": 0.9, "topk": 0},
    }


def test_the_parts_may_be_named_in_any_order(resolve):
    forwards = resolve("eval", ["models/tiny_byt5", "tasks/generated_sentiment"])
    text = gin.config_str()
    gin.clear_config()
    files = ["t5x/eval", "t5x/model", "tasks/generated_sentiment", "models/tiny_byt5"]
    gin_utils.parse_gin_flags(["."], [f"gin/{name}.gin" for name in files], OWN["eval"])
    assert gin.config_str() == text
    assert forwards["dataset_cfg"].task_feature_lengths == {"inputs": 48, "targets": 8}


def test_a_name_that_is_not_set_is_reported(resolve):
    with pytest.raises(ValueError, match="MIXTURE_OR_TASK_NAME"):
        resolve("eval", ["models/tiny_byt5"])
