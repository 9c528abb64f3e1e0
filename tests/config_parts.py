"""A configuration made of parts alone, for the tests of the configuration and of tiny runs."""

from prompt_tuning import config

PARTS = [
    "gin/models/tiny_byt5.gin",
    "gin/tasks/generated_sentiment.gin",
    "gin/prompts/class_labels.gin",
    "gin/decoding/greedy.gin",
    "gin/methods/prompt_tuning.gin",
    "gin/runs/run.gin",
]
REQUIRED = ["MODEL_DIR=/tmp/run", "INITIAL_CHECKPOINT_PATH=random"]


def load(*bindings, without=(), files=()):
    """A run of PARTS less those of some folders, with more files and bindings."""
    parts = [part for part in PARTS if not any(f"/{folder}/" in part for folder in without)]
    return config.load([*parts, *files], [*REQUIRED, *bindings])


def load_text(text, tmp_path):
    (tmp_path / "config.gin").write_text(text)
    return config.load([str(tmp_path / "config.gin")])
