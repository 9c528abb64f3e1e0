"""Refuses settings of a `Run` that cannot work, each in one sentence.

Called as a run is made, before anything is loaded or compiled. `Run` itself is not imported: it
calls these.
"""

import functools
import inspect
import math
from collections.abc import Mapping
from typing import Any

import optax

from prompt_tuning import paths
from prompt_tuning.data.text_prompts import TextPrompt
from prompt_tuning.macros import MACRO_OF_FIELD
from prompt_tuning.methods import model_tuning
from prompt_tuning.methods.method import Method
from prompt_tuning.model import compute, quantization
from prompt_tuning.model.decoding import Strategy
from prompt_tuning.model.losses import NORMALIZING_FACTORS, NUM_REAL_TARGET_TOKENS
from prompt_tuning.model.sizes import DTYPES, T5Config
from prompt_tuning.parallel.mesh import check_axes
from prompt_tuning.prompts.prompt import POSITIONS

PARAM_DTYPES = (*DTYPES, *quantization.KINDS)
TEXTS = ("initial_checkpoint_path", "task", "model_dir", "eval_split")
OPTIONAL_TEXTS = (
    "task_module",
    "data_dir",
    "vocabulary_file",
    "prompt_file",
    "embedding_file",
    "target_prefix",
    "eval_output_dir",
    "infer_output_dir",
)
COUNTS = ("train_steps", "eval_period", "eval_batch_size", "num_decodes")
OPTIONAL_COUNTS = (
    "batch_size",
    "batch_tokens",
    "eval_examples",
    "early_stopping",
    "microbatch_rows",
)
SWITCHES = (
    "restore_accumulators",
    "eval_rank",
    "allow_other_model",
    "pad_to_full_length",
    "packing",
)


def check_method(run: Any, given: Mapping[str, Any]) -> None:
    """Checks the model and the method.

    Args:
      run: whose method is not resolved yet.
      given: the fields that change the method.

    Raises:
      ValueError: says which field, what was expected and what came.
    """
    expected = "the dimensions of a model, such as @T5Config()"
    _require("model", run.model, expected, lambda x: isinstance(x, T5Config))
    checks = {
        "prompt_length": ("a whole number, 1 or more, or None", _is_length),
        "prompt_position": (f"one of {POSITIONS}", POSITIONS.__contains__),
        "prompt_initializer": (
            "a function (rng, shape), such as @from_class_labels without parentheses",
            callable,
        ),
        "trainable": ("a list of patterns, such as ['.*/mlp/.*']", _is_patterns),
    }
    for name, value in given.items():
        _require(name, value, *checks[name])
    expected = "a method, such as @prompt_tuning() with parentheses"
    _require("method", run.method, expected, lambda x: isinstance(x, Method), optional=True)


def check_fields(run: Any) -> None:
    """Checks each field by itself.

    Raises:
      ValueError: see `check_method`.
    """
    for name in TEXTS:
        _require(name, getattr(run, name), "some text", _is_text)
    for name in OPTIONAL_TEXTS:
        _require(name, getattr(run, name), "some text or None", _is_text, optional=True)
    for name in COUNTS:
        _require(name, getattr(run, name), "a whole number, 1 or more", _is_count)
    for name in OPTIONAL_COUNTS:
        value = getattr(run, name)
        _require(name, value, "a whole number, 1 or more, or None", _is_count, optional=True)
    for name in SWITCHES:
        _require(name, getattr(run, name), "True or False", lambda x: isinstance(x, bool))
    _check_numbers(run)
    _require(
        "task_feature_lengths",
        run.task_feature_lengths,
        "like {'inputs': 512, 'targets': 8}",
        lambda x: set(x) == {"inputs", "targets"} and all(_is_count(n) for n in x.values()),
    )
    _require("param_dtype", run.param_dtype, f"one of {[*PARAM_DTYPES]}", PARAM_DTYPES.__contains__)
    expected = "a function that makes an optimizer, such as @adafactor without parentheses"
    _require("optimizer", run.optimizer, expected, callable)
    expected = "a strategy, such as @Greedy() with parentheses"
    _require("decoding", run.decoding, expected, _is_strategy)
    if run.mesh is not None:
        check_axes("MESH", run.mesh)


def check_together(run: Any) -> None:
    """Checks the fields that depend on others.

    Raises:
      ValueError: see `check_method`.
    """
    _check_checkpoint_steps(run)
    _check_compute(run)
    _check_profile_steps(run)
    _check_text_prompt(run)


def _check_numbers(run: Any) -> None:
    _require("seed", run.seed, "a whole number from 0 to 4,294,967,295", _is_seed)
    _require("label_smoothing", run.label_smoothing, "in [0, 1)", lambda x: 0 <= x < 1)
    _require("weight_decay_rate", run.weight_decay_rate, "in [0, 1)", lambda x: 0 <= x < 1)
    _require("z_loss", run.z_loss, "a number, 0 or more", lambda x: x >= 0)
    factor = run.loss_normalizing_factor
    expected = f"a number above 0, None or one of {[*NORMALIZING_FACTORS]}"
    _require("loss_normalizing_factor", factor, expected, _is_factor, optional=True)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_seed(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**32  # JAX would use the lower 32 bits


def _is_strategy(value: Any) -> bool:
    """Whether it can be called as `generate` calls it; BeamSearch without parentheses cannot."""
    first, *keywords = list(inspect.signature(Strategy.__call__).parameters)[1:]
    try:
        inspect.signature(value).bind(first, **dict.fromkeys(keywords))
    except (TypeError, ValueError):
        return False
    return True


def _is_factor(value: Any) -> bool:
    if isinstance(value, str):
        return value.upper() in NORMALIZING_FACTORS
    return not isinstance(value, bool) and 0 < value < math.inf


def _is_length(value: Any) -> bool:
    return value is None or _is_count(value)


def _is_patterns(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(map(_is_text, value))


def _check_checkpoint_steps(run: Any) -> None:
    _require(
        "checkpoint_steps",
        run.checkpoint_steps,
        f"a list of steps from 0 to TRAIN_STEPS, {run.train_steps}",
        lambda steps: (
            isinstance(steps, list | tuple)
            and all(type(step) is int and 0 <= step <= run.train_steps for step in steps)
        ),
    )
    if run.checkpoint_steps and not run.trains_model:
        raise ValueError(
            "Run.checkpoint_steps writes the whole model, and in this run only a prompt trains; "
            "prompts are written at every evaluation. Leave it empty."
        )
    if run.checkpoint_steps and run.param_dtype in quantization.KINDS:
        raise ValueError(
            "Run.checkpoint_steps writes the whole model, which Run.param_dtype="
            f"{run.param_dtype!r} keeps rounded. Leave it empty, or set Run.param_dtype='float32'."
        )


def _check_profile_steps(run: Any) -> None:
    _require(
        "profile_steps",
        run.profile_steps,
        f"the first and the last step to trace, from 1 to TRAIN_STEPS, {run.train_steps}, such as "
        "(10, 13)",
        lambda steps: all(map(_is_count, steps)) and _is_range(*steps, run.train_steps),
        optional=True,
    )
    if run.profile_steps is not None and paths.is_remote(run.model_dir):
        raise ValueError(
            "Run.profile_steps writes a trace to MODEL_DIR, which must be local for it; got "
            f"{run.model_dir!r}."
        )


def _check_text_prompt(run: Any) -> None:
    expected = "a prompt in words, such as @TextPrompt() with parentheses"
    _require(
        "text_prompt", run.text_prompt, expected, lambda x: isinstance(x, TextPrompt), optional=True
    )
    method = run.method
    if run.text_prompt is not None and (method.trainable or method.kind != model_tuning.KIND):
        raise ValueError(
            f"Run.text_prompt is for a model of which nothing trains, and Run.method is "
            f"{method.kind}; use gin/methods/prompt_design.gin in place of another method."
        )


def _is_range(first: int, last: int, end: int) -> bool:
    return first <= last <= end


def _check_compute(run: Any) -> None:
    for name, known in compute.CHOICES.items():
        compute.check(f"Run.{name}", getattr(run, name), (compute.AUTO, *known))
    factor = run.loss_normalizing_factor
    if run.packing and isinstance(factor, str) and factor.upper() != NUM_REAL_TARGET_TOKENS:
        raise ValueError(
            f"Run.packing puts several examples into a row, and LOSS_NORMALIZING_FACTOR {factor!r} "
            f"counts rows. Set it to None, a number or {NUM_REAL_TARGET_TOKENS!r}."
        )
    if run.packing and run.pad_to_full_length:
        raise ValueError("Run.packing and Run.pad_to_full_length exclude each other; set one.")
    if run.packing or run.microbatch_rows is None:
        return
    if run.batch_size % run.microbatch_rows:
        raise ValueError(
            f"Run.microbatch_rows must divide BATCH_SIZE, {run.batch_size}; got "
            f"{run.microbatch_rows}."
        )


def _require(name: str, value: Any, expected: str, test, optional: bool = False) -> None:
    if optional and value is None:
        return
    try:
        fits = test(value)
    except (TypeError, AttributeError):
        fits = False
    if not fits:
        macro = MACRO_OF_FIELD.get(name)
        hint = f" (set by {macro})" if macro else ""
        raise ValueError(f"Run.{name}{hint} must be {expected}; got {_shown(value)}.")


def _shown(value: Any) -> str:
    if isinstance(value, functools.partial | type):
        return f"@{getattr(value, 'func', value).__name__} without parentheses"
    if isinstance(value, optax.GradientTransformation):
        return "an optimizer that was made already"
    return repr(value)
