"""configs/released: all but the download of T5 Base resolves."""

import pytest

from prompt_tuning import config
from prompt_tuning.data import prepare
from prompt_tuning.inference import evaluate, loading
from prompt_tuning.model.parameters import parameter_shapes
from prompt_tuning.prompts import files


@pytest.mark.parametrize("name", ["sst2", "mrpc", "rte"])
def test_the_run_resolves(name):
    run = config.load([f"configs/released/{name}.gin"], ["PROMPT_FILE='given.npy'"])
    assert (run.model.name, run.prompt_length, run.prompt_file) == ("t5_1_1_base", 100, "given.npy")
    assert run.initial_checkpoint_path.endswith("t5_1_1_lm100k_base/checkpoint_1100000")
    assert name in run.task
    assert parameter_shapes(run.model)["token_embedder/embedding"] == (32_128, 768)


def test_only_the_checkpoint_is_missing(real_data, tmp_path):
    """Data, vocabulary, lengths and prompt are in place; reading the model is what fails."""
    prepare.prepare(real_data / "data", tmp_path / "data", ["rte"])
    settings = {
        "PROMPT_FILE": str(real_data / "released_prompts" / "t5_1_1_lm100k_base_rte.npy"),
        "VOCABULARY_FILE": str(real_data / "vocab" / "t5_sentencepiece.model"),
        "DATA_DIR": str(tmp_path / "data"),
        "INITIAL_CHECKPOINT_PATH": str(tmp_path / "base"),
        "MODEL_DIR": str(tmp_path / "run"),
    }
    run = config.load(
        ["configs/released/rte.gin"], [f"{name}={value!r}" for name, value in settings.items()]
    )
    (examples,) = evaluate.load_eval_sets(run, loading.prepare_task(run))
    assert (len(examples), examples.cut["inputs"]) == (277, 0)
    with pytest.raises(ValueError, match=r"There is no checkpoint '.*base'"):
        evaluate.evaluate_run(run)
    prompt = files.read_prompt(settings["PROMPT_FILE"])
    files.check_fits(
        prompt, width=run.model.emb_dim, model_name=run.model.name, fingerprint=lambda: ""
    )
