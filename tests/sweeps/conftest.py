"""A sweep of runs so small that all of it takes seconds."""

import pytest

SWEEP = """
runs = "{folder}/runs"
gin_files = ["gin/models/tiny_byt5.gin", "gin/prompts/class_labels.gin", "gin/decoding/greedy.gin",
             "gin/runs/run.gin"]
bindings = ["T5Config.emb_dim = 16", "T5Config.num_heads = 2", "T5Config.head_dim = 8",
            "T5Config.num_encoder_layers = 1", "T5Config.num_decoder_layers = 1",
            "INITIAL_CHECKPOINT_PATH = 'random'", "BATCH_SIZE = 8", "Run.eval_examples = 20",
            "TRAIN_STEPS = 4", "EVAL_PERIOD = 2", "DROPOUT_RATE = 0.0"]
seeds = [0, 1]

[report]
score = "dev_score"
panels = "task"
x = "size"
lines = "method"

[axes.task.awful]
gin_files = ["gin/tasks/generated_sentiment.gin"]
[axes.task.true]
gin_files = ["gin/tasks/generated_sentiment_true_false.gin"]

[axes.size.a]
bindings = ["T5Config.mlp_dim = 16"]
[axes.size.b]
bindings = ["T5Config.mlp_dim = 32"]

[axes.method.frozen]
gin_files = ["gin/methods/prompt_tuning.gin"]
bindings = ["Run.prompt_length = None"]
train = false
seeds = [0]
[axes.method.prompt]
gin_files = ["gin/methods/prompt_tuning.gin"]
bindings = ["PROMPT_LENGTH = 4"]
[axes.method.model]
gin_files = ["gin/methods/model_tuning.gin"]

[[exclude]]
task = "true"
size = "b"

[[set]]
size = "b"
method = "model"
bindings = ["adafactor.learning_rate = 0.01"]
"""


@pytest.fixture
def sweep_file(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(SWEEP.format(folder=tmp_path))
    return path


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Compiles with few optimisations; reads and draws the same thing only once."""
    import tiny_runs

    with tiny_runs.quick(tmp_path_factory.mktemp("compiled_programs")):
        yield
