"""One run: the model, the prompt and the task it names, and all its settings.

A configuration fills in a `Run`, and every command takes one. The defaults are
those of Lester et al. 2021, section 3. Nothing here computes; a setting that
cannot work is refused, see `run_checks.py`, before anything is loaded or compiled.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import optax

from prompt_tuning import paths, run_checks
from prompt_tuning.data.text_prompts import TextPrompt
from prompt_tuning.macros import MACRO_OF_FIELD
from prompt_tuning.methods import of_run
from prompt_tuning.methods.method import Method
from prompt_tuning.model import compute
from prompt_tuning.model.decoding import Greedy, Strategy
from prompt_tuning.model.sizes import T5Config
from prompt_tuning.prompts.initializers import from_class_labels

RANDOM_WEIGHTS = "random"
PATHS = (  # fields that hold one, local or gs://
    "initial_checkpoint_path",
    "data_dir",
    "vocabulary_file",
    "model_dir",
    "prompt_file",
    "embedding_file",
    "eval_output_dir",
    "infer_output_dir",
)
AS_METHOD: Any = "as Run.method says"
BATCH_SIZE = 32  # where neither BATCH_SIZE nor BATCH_TOKENS is set


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """All settings of a run; the macro that usually sets a field is in brackets.

    Attributes:
      model: dimensions of the T5, and its dropout in training [DROPOUT_RATE].
      initial_checkpoint_path: where its parameters come from, a local path (T5X's or Hugging
        Face's), gs:// or hf://NAME@REVISION [INITIAL_CHECKPOINT_PATH], or a pocket model's
        name; 'random' or 'random:SEED' draws them.
      param_dtype: how the frozen parameters are kept: 'float32', 'bfloat16', 'int8' (matrices, the
        rest float32) or 'int8_w8a8' (products of int8 activations, too), see
        `model/quantization.py`.
      task: a seqio task or mixture [MIXTURE_OR_TASK_NAME].
      task_module: a Python module that registers it [MIXTURE_OR_TASK_MODULE].
      task_feature_lengths: tokens of 'inputs' and 'targets', EOS included [TASK_FEATURE_LENGTHS].
      data_dir: prepared TFDS data [DATA_DIR]; None is TFDS's own default.
      vocabulary_file: a sentencepiece model on disk [VOCABULARY_FILE]; None is the
        public one.
      model_dir: the folder that everything is written to [MODEL_DIR].
      method: what trains, where it attaches and how it starts, see `methods/`; None is
        prompt tuning, or model tuning with `prompt_length` None.
      prompt_length, prompt_initializer, prompt_position: P [PROMPT_LENGTH], where the prompt
        starts, and 'prefix' or 'suffix'. They are settings of `prompt_tuning` and repeat its
        values; set here they change it. A length of None removes the prompt.
      trainable: patterns of the parameters that train, whole paths; () is all that the
        method adds. Set here it changes the method.
      prompt_file: the file of what was tuned to evaluate [PROMPT_FILE]; None is the run's own
        best, and so is the file that the run in model_dir was started from.
      embedding_file: a .npy table [V, H] that initialisers use instead of the
        model's own [EMBEDDING_FILE].
      allow_other_model: use a prompt although it was made for other parameters.
      optimizer: makes the optimizer.
      restore_accumulators: where parameters of the model train with Adafactor, continue with the
        second moments and the step of a T5X checkpoint that has them, see
        `training/accumulators.py`.
      weight_decay_rate: share of each trained parameter that every step subtracts, as in T5X not
        multiplied by the learning rate. (AdamW has its own weight decay as well.)
      train_steps: [TRAIN_STEPS].
      batch_size: examples of a step [BATCH_SIZE]; None is 32, or what `batch_tokens` makes.
      batch_tokens: the batch in tokens instead [BATCH_TOKENS]: as many examples as there are times
        the longer of `task_feature_lengths` in it, as in Mesh TensorFlow, rounded down to a
        multiple of the mesh's `data`.
      label_smoothing, z_loss, loss_normalizing_factor: see `losses.py`
        [LOSS_NORMALIZING_FACTOR].
      seed: of the prompt, the order of examples and dropout [RANDOM_SEED].
      eval_period: steps between evaluations, each with a save [EVAL_PERIOD].
      eval_split: the split of evaluations and of inference on a task.
      eval_batch_size: examples decoded together.
      eval_examples: how many examples of the split; None for all.
      checkpoint_steps: after these steps the whole model, what is frozen included, is written
        to MODEL_DIR/checkpoint_STEP in T5X's format; 0 is before the first one. Only where
        more than a prompt trains.
      early_stopping: stop after this many evaluations without a better dev score;
        None never stops early.
      decoding: how predictions are decoded, see `model/decoding.py`.
      eval_rank: also measure how often the likeliest class label is the right one (rank
        classification); it is not part of the dev score.
      text_prompt: an instruction and solved examples written in front of each input, see
        `data/text_prompts.py`; for a model of which nothing trains, in `eval` only. Class labels
        are then predicted by rank classification.
      target_prefix: a text in front of all targets, such as '<extra_id_0>', see
        `data/target_prefix.py`; TASK_FEATURE_LENGTHS must leave room for it.
      num_decodes: predictions that `infer` writes for one input.
      eval_output_dir, infer_output_dir: where `eval` and `infer` write
        [EVAL_OUTPUT_DIR], [INFER_OUTPUT_DIR]; None is inside the model_dir.
      local_tasks: tasks that the configuration itself describes, such as a `TableTask`, see
        `tasks.get`.
      layers, remat, attention: how the model is computed, see `model/compute.py`; 'auto' chooses
        by model and backend.
      microbatch_rows: rows whose gradient is computed at once, a divisor of batch_size; those of
        a step are added up. None chooses by model and backend.
      pad_to_full_length: pad all inputs to task_feature_lengths, as T5X does, instead of to a
        few widths.
      packing: put several examples into each row, see `data/packing.py`; for accelerators, in
        training only. microbatch_rows then counts packed rows.
      profile_steps: the first and the last step of a trace that is written to
        MODEL_DIR/profile, see `training/profiling.py`; None writes none.
      mesh: devices that split the rows of a batch, and that split the model, such as {'data': 4,
        'model': 2} [MESH], see `parallel/mesh.py`; None chooses. A run may resume on another one.
      config_text: the resolved configuration, kept beside what the run writes.
      resolved: what `method`, the four fields that repeat its settings and `batch_size` were
        resolved to; `dataclasses.replace` passes it on, so that changed ones are detected.

    Raises:
      ValueError: a field is of the wrong kind or out of its range.
    """

    model: T5Config
    initial_checkpoint_path: str
    param_dtype: str = "float32"

    task: str
    task_feature_lengths: Mapping[str, int]
    task_module: str | None = None
    data_dir: str | None = None
    vocabulary_file: str | None = None

    model_dir: str

    method: Method | None = None
    prompt_length: int | None = AS_METHOD
    prompt_initializer: Callable[..., Any] = AS_METHOD
    prompt_position: str = AS_METHOD
    trainable: tuple[str, ...] = AS_METHOD
    prompt_file: str | None = None
    embedding_file: str | None = None
    allow_other_model: bool = False

    optimizer: Callable[[], optax.GradientTransformation]
    restore_accumulators: bool = True
    weight_decay_rate: float = 0.0
    train_steps: int = 30_000
    batch_size: int | None = None
    batch_tokens: int | None = None
    label_smoothing: float = 0.0
    z_loss: float = 1e-4
    loss_normalizing_factor: float | str | None = None
    seed: int = 0

    eval_period: int = 1_000
    eval_split: str = "validation"
    eval_batch_size: int = 128
    eval_examples: int | None = None
    checkpoint_steps: tuple[int, ...] = ()
    early_stopping: int | None = None
    decoding: Strategy = Greedy()
    eval_rank: bool = False
    text_prompt: TextPrompt | None = None
    target_prefix: str | None = None
    num_decodes: int = 1
    eval_output_dir: str | None = None
    infer_output_dir: str | None = None
    local_tasks: tuple[Any, ...] = ()
    layers: str = compute.AUTO
    remat: str = compute.AUTO
    attention: str = compute.AUTO
    microbatch_rows: int | None = None
    pad_to_full_length: bool = False
    packing: bool = False
    profile_steps: tuple[int, int] | None = None
    mesh: Mapping[str, int] | None = None
    config_text: str = dataclasses.field(default="", repr=False)
    resolved: dict[str, Any] | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self):
        run_checks.check_method(self, _given(self))
        _resolve_method(self)
        run_checks.check_fields(self)
        for name in PATHS:
            _expand(self, name)
        _resolve_batch(self)
        run_checks.check_together(self)
        object.__setattr__(self, "checkpoint_steps", tuple(self.checkpoint_steps))

    @property
    def trains_model(self) -> bool:
        """Whether patterns name what trains, which may be parameters of the model."""
        return bool(self.method.trainable)


def _expand(run: Run, name: str) -> None:
    """Makes `~` the home folder; a place that cannot be reached is refused under its name."""
    value = getattr(run, name)
    if value is not None:
        also = ("hf",) if name == "initial_checkpoint_path" else ()
        try:
            object.__setattr__(run, name, paths.expand(value, also=also))
        except ValueError as error:
            raise ValueError(f"{MACRO_OF_FIELD[name]}: {error}") from error


def _given(run: Run) -> dict[str, Any]:
    """The fields that change the method: those that were set, not only passed on."""
    before = run.resolved or {}
    return {
        name: getattr(run, name)
        for name in (*of_run.FIELDS, "trainable")
        if getattr(run, name) != before.get(name, AS_METHOD)
    }


def _resolve_method(run: Run) -> None:
    """Makes `method` what the run trains, and the fields that repeat its settings agree."""
    names = (*of_run.FIELDS, "trainable")
    known = {name: getattr(run, name) for name in names if getattr(run, name) != AS_METHOD}
    method = of_run.resolve(run.method, _given(run), known)
    defaults = {"prompt_initializer": from_class_labels, "prompt_position": "prefix"}
    resolved = {"method": method, **defaults, **known, **of_run.fields(method)}
    for name, value in resolved.items():
        object.__setattr__(run, name, value)
    if "batch_size" in (run.resolved or {}):
        resolved["batch_size"] = run.resolved["batch_size"]
    object.__setattr__(run, "resolved", resolved)


def _resolve_batch(run: Run) -> None:
    """Makes `batch_size` a number of examples."""
    size, tokens = run.batch_size, run.batch_tokens
    if tokens is not None:
        if size not in (None, run.resolved.get("batch_size")):
            raise ValueError(
                f"BATCH_SIZE counts examples and BATCH_TOKENS tokens, and both are set, to {size} "
                f"and {tokens:,}; set one of them to None."
            )
        longest = max(run.task_feature_lengths.values())
        data = 1 if run.mesh is None else run.mesh["data"]
        size = tokens // longest // data * data
        if not size:
            raise ValueError(
                f"BATCH_TOKENS, {tokens:,}, is less than {data} x {longest:,} tokens, one example "
                "for each device that splits a batch; raise it."
            )
    object.__setattr__(run, "batch_size", size or BATCH_SIZE)
    run.resolved["batch_size"] = run.batch_size
