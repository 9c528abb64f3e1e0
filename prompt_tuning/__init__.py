"""Prompt tuning of frozen T5 models, after Lester, Al-Rfou and Constant, EMNLP 2021.

    import prompt_tuning as pt

    t5 = pt.load_model('t5_1_1_small', 'gs://.../checkpoint_1100000')
    prompt = pt.load_prompt('runs/cb/prompts/best')
    t5.generate(['hypothesis: ... premise: ...'], prompt=prompt)

The names below are loaded when they are first used, so that the import is quick.
"""

import importlib

__version__ = "0.1.0"

_HOMES = {
    "load_model": "prompt_tuning.api",
    "load_prompt": "prompt_tuning.api",
    "load_run": "prompt_tuning.api",
    "train_run": "prompt_tuning.training.loop",
    "evaluate_run": "prompt_tuning.inference.evaluate",
    "infer_run": "prompt_tuning.inference.infer",
    "ensemble_run": "prompt_tuning.inference.ensemble",
    "explain_prompt": "prompt_tuning.prompts.explain",
    "Greedy": "prompt_tuning.model.decoding",
    "Sample": "prompt_tuning.model.decoding",
    "BeamSearch": "prompt_tuning.model.decoding",
}

__all__ = [*_HOMES]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'prompt_tuning' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
