"""The command line: `prompt-tuning train | eval | infer | plan | tasks | data | prompt | ...`.

    prompt-tuning train --gin_file=configs/pocket/quickstart.gin --gin.TRAIN_STEPS=200

`--gin.NAME=VALUE` sets any name of the configuration; text needs no quotes. An error that the user
can fix is one sentence and exit code 2, and --debug shows its traceback; a bug always shows it.
Each command imports the libraries that it needs, so that --help is quick.
"""

import argparse
import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator, Sequence

from prompt_tuning import (
    cli_errors,
    cli_files,
    cli_plan,
    cli_processes,
    cli_sweep,
    compilation_cache,
    huge_pages,
)

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # a shell's exit code after SIGINT
COMPUTES = ("train", "eval", "infer", "ensemble", "pretrain", "quickstart", "sweep")


def script() -> int:
    """The program `prompt-tuning`: `main` in a process that has what makes it fast."""
    if any(argument in COMPUTES for argument in sys.argv[1:]):
        huge_pages.restart()
    return main()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
      0; 1 if `checkpoint diff` found a difference; 2 after an error that is reported in one
      sentence; 130 after Ctrl-C. Training that was interrupted exits with a code of its own, see
      `training/termination.py`. A bug raises, with its traceback.
    """
    _let_every_character_through()
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in arguments
    try:
        with contextlib.nullcontext() if debug else _quiet_threads():
            return _run(arguments)
    except BrokenPipeError:  # the reader closed the pipe, as `... | head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        if debug:
            raise
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        sentence = None if debug else cli_errors.explain(error)
        if sentence is None:
            error.add_note(cli_errors.BUG)
            raise
        print(f"error: {sentence}", file=sys.stderr)
        return EXIT_USER_ERROR


def _run(arguments: list[str]) -> int:
    bindings, rest = _take_bindings(arguments)
    options = _parser().parse_args(rest)
    options.bindings = bindings + getattr(options, "bindings", [])
    if bindings and not hasattr(options, "gin_file"):
        raise ValueError(
            f"--gin.{bindings[0]} cannot be set: this command reads no gin configuration."
        )
    from prompt_tuning.pocket import register

    register.register_models()
    _find_modules_of_the_working_directory()
    return options.command(options) or 0


def _find_modules_of_the_working_directory() -> None:
    """As `python -m` does: @my_methods.mlp_prompt is a file beside the user's data."""
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.append(folder)  # last, so that it hides no library


def _let_every_character_through() -> None:
    """Prints characters that the terminal cannot encode as \\u.... instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def _quiet_threads() -> Iterator[None]:
    """Drops the tracebacks of an error that the main thread raises as well.

    Orbax logs what went wrong in its saving threads and then raises it from the next call;
    tensorstore's threads log errors about the closed event loop.
    """

    def is_news(record: logging.LogRecord) -> bool:
        return not record.exc_info

    def hook(unraisable):
        if str(unraisable.exc_value) != "Event loop is closed":
            previous(unraisable)

    logger, previous = logging.getLogger("absl"), sys.unraisablehook
    logger.addFilter(is_news)
    sys.unraisablehook = hook
    try:
        yield
    finally:
        logger.removeFilter(is_news)
        sys.unraisablehook = previous


def _take_bindings(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Takes `--gin.NAME=VALUE` and `--gin.NAME VALUE` out of the arguments."""
    bindings, rest = [], []
    remaining = iter(arguments)
    for argument in remaining:
        if not argument.startswith("--gin."):
            rest.append(argument)
        elif "=" in argument:
            bindings.append(argument.removeprefix("--gin."))
        else:
            value = next(remaining, "--")
            if value.startswith("--"):
                raise ValueError(f"{argument} has no value; write {argument}=VALUE.")
            bindings.append(f"{argument.removeprefix('--gin.')}={value}")
    return bindings, rest


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="prompt-tuning", description="Prompt tuning of frozen T5 models."
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a prompt, or a model; resumes if interrupted")
    train.set_defaults(command=_train)
    train.add_argument(
        "--profile_steps",
        metavar="FIRST:LAST",
        type=cli_files.step_range,
        help="write a trace of these steps to MODEL_DIR/profile, for TensorBoard and Perfetto",
    )
    evaluate = commands.add_parser("eval", help="evaluate a prompt on a task's dev split")
    evaluate.set_defaults(command=_eval)
    infer = commands.add_parser("infer", help="predict on new text, or on a split of the task")
    infer.add_argument(
        "--input",
        metavar="FILE",
        help="one text per line, or .jsonl, .csv or .tsv; default: the split",
    )
    infer.add_argument("--output", metavar="FILE", help="JSON lines; default: in INFER_OUTPUT_DIR")
    infer.set_defaults(command=_infer)
    ensemble = commands.add_parser("ensemble", help="evaluate several prompts, and their vote")
    ensemble.add_argument(
        "--prompts",
        nargs="+",
        required=True,
        metavar="PATH",
        help="prompts of one task, or the MODEL_DIRs of their runs",
    )
    ensemble.set_defaults(command=_ensemble)
    for command in (train, evaluate, infer, ensemble):
        _add_gin_options(command)
    for command in (evaluate, infer, ensemble):
        command.add_argument(
            "--split", help="the split to use instead of the configured one", metavar="NAME"
        )
    for command in (evaluate, infer):
        command.add_argument(
            "--allow_other_model",
            action="store_true",
            help="use a prompt that was trained with different parameters",
        )

    tasks = commands.add_parser("tasks", help="list the tasks, or show one task's examples")
    tasks.add_argument("name", nargs="?", help="the task to show")
    tasks.add_argument("--split", default=None, help="default: the dev split")
    tasks.add_argument("--inputs", type=cli_files.count, default=512, help="input length in tokens")
    tasks.add_argument("--targets", type=cli_files.count, default=8, help="target length in tokens")
    tasks.add_argument("--examples", type=cli_files.count, default=3, help="how many to print")
    _add_data_options(tasks)
    tasks.set_defaults(command=_tasks)

    data = commands.add_parser("data", help="prepare official archives for use without a network")
    kinds = data.add_subparsers(required=True, metavar="ACTION")
    prepare = kinds.add_parser("prepare", help="convert archives on disk to TFDS data")
    prepare.add_argument("--source", required=True, help="folder with the official archives")
    prepare.add_argument("--data_dir", required=True, help="folder to write TFDS data to")
    prepare.add_argument("--only", nargs="+", metavar="DATASET", help="such as super_glue/cb")
    prepare.set_defaults(command=_prepare)
    pocket = kinds.add_parser("pocket", help="write PocketGLUE as the official JSONL files")
    pocket.add_argument("--out", help="folder to write to; default: only print the table")
    pocket.add_argument("--tasks", nargs="+", metavar="TASK", help="such as boolq; default: all")
    pocket.add_argument("--domain", default="home", help="home (default) or sea")
    pocket.add_argument("--seed", type=int, default=0, help="seed of the rows")
    pocket.add_argument("--difficulty", type=int, default=2, help="1, 2 (default) or 3")
    for split in ("train", "validation", "test"):
        pocket.add_argument(f"--{split}", type=int, metavar="N", help=f"rows of the {split} split")
    pocket.set_defaults(command=_pocket)

    cli_plan.add_command(commands, _add_gin_options)
    _add_pretrain_command(commands)
    cli_files.add_prompt_commands(commands)
    cli_files.add_checkpoint_commands(commands)
    _add_quickstart_and_plot(commands)
    cli_sweep.add_command(commands)
    return parser


def _add_gin_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--gin_file",
        action="append",
        default=[],
        metavar="FILE",
        help="a configuration; may be repeated",
    )
    command.add_argument(
        "--gin_search_paths",
        default="",
        metavar="DIRS",
        help="folders of gin files, separated by commas",
    )
    cli_processes.add_options(command)
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.epilog = "--gin.NAME=VALUE sets a name of the configuration:\n" + _macro_help()


def _macro_help() -> str:
    from prompt_tuning.macros import MACROS

    return "\n".join(f"  {name:26}{meaning}" for name, meaning in MACROS.items())


def _add_data_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data_dir", help="prepared TFDS data")
    command.add_argument("--vocabulary_file", help="sentencepiece model on disk")
    command.add_argument("--module", help="Python module that registers more tasks")


def _add_pretrain_command(commands) -> None:
    pretrain = commands.add_parser("pretrain", help="pretrain a pocket model; resumes")
    pretrain.add_argument("size", help="pocket_xs, pocket_s, pocket_m, pocket_l or pocket_xl")
    pretrain.add_argument("--model_dir", help="folder of the runs; default: runs/pretrain_SIZE")
    pretrain.add_argument("--out", help="folder of the model; default: in the cache")
    pretrain.add_argument(
        "--span_only", action="store_true", help="also train a variant on span corruption alone"
    )
    pretrain.add_argument(
        "--steps_scale", type=float, default=1.0, help="multiplies all step counts"
    )
    pretrain.add_argument(
        "--seed", type=int, default=0, help="of the parameters and the order of the text"
    )
    pretrain.set_defaults(command=_pretrain, gin_file=[])
    pretrain.epilog = "Settings such as --gin.PocketCorpus.documents=100000 apply to all stages."


def _add_quickstart_and_plot(commands) -> None:
    quickstart = commands.add_parser("quickstart", help="train a first prompt; downloads nothing")
    quickstart.add_argument("--model_dir", help="the folder to use instead of MODEL_DIR")
    quickstart.set_defaults(command=_quickstart)

    plot = commands.add_parser("plot", help="draw the learning curve of a run")
    plot.add_argument("model_dir", help="the run's MODEL_DIR")
    plot.add_argument("--output", metavar="FILE", help="default: learning_curve.png in the run")
    plot.set_defaults(command=_plot)


def _load_run(options):
    return _load(options, "load")


def _load(options, load: str):
    """Calls a function of config.py with the options of a command."""
    cli_processes.start(options)
    from prompt_tuning import config

    bindings = list(options.bindings)
    if getattr(options, "split", None):
        bindings.append(f"Run.eval_split={options.split}")
    if getattr(options, "allow_other_model", False):
        bindings.append("Run.allow_other_model=True")
    if getattr(options, "profile_steps", None):
        bindings.append(f"Run.profile_steps={options.profile_steps}")
    paths = [path for path in options.gin_search_paths.split(",") if path]
    return getattr(config, load)(options.gin_file, bindings, paths)


def _train(options) -> None:
    runs = _load(options, "load_all")
    compilation_cache.use()
    from prompt_tuning.training import loop, together

    if list(runs) == [""]:
        loop.train_run(runs[""])
        return
    outcomes = together.train_runs(list(runs.values()), list(runs))
    if errors := [one for one in outcomes if isinstance(one, FloatingPointError)]:
        raise errors[0]


def _pretrain(options) -> None:
    from prompt_tuning import config
    from prompt_tuning.pocket.pretrain import pretrain

    compilation_cache.use()
    pretrain(
        options.size,
        config.load,
        model_dir=options.model_dir,
        out=options.out,
        span_only=options.span_only,
        steps_scale=options.steps_scale,
        seed=options.seed,
        bindings=options.bindings,
    )


def _eval(options) -> None:
    run = _load_run(options)
    compilation_cache.use()
    from prompt_tuning.inference.evaluate import evaluate_run

    evaluate_run(run)


def _infer(options) -> None:
    run = _load_run(options)
    compilation_cache.use()
    from prompt_tuning.inference.infer import infer_run

    infer_run(run, options.input, options.output)


def _ensemble(options) -> None:
    run = _load_run(options)
    compilation_cache.use()
    from prompt_tuning.inference.ensemble import ensemble_run

    ensemble_run(run, options.prompts)


def _tasks(options) -> None:
    from prompt_tuning.data import describe, tasks
    from prompt_tuning.pocket import register

    register.register_tasks()
    if options.module:
        tasks.import_task_module(options.module)
    if options.name is None:
        print("\n".join(tasks.task_names()))
        return
    task = tasks.get(
        options.name, data_dir=options.data_dir, vocabulary_file=options.vocabulary_file
    )
    lengths = {"inputs": options.inputs, "targets": options.targets}
    print(describe.describe(task, lengths, options.split, options.examples))


def _prepare(options) -> None:
    from prompt_tuning.data import prepare

    for row in prepare.prepare(options.source, options.data_dir, options.only):
        print(row.message)


def _pocket(options) -> None:
    from prompt_tuning.pocket import glue_files

    given = {split: getattr(options, split) for split in glue_files.FILES}
    sizes = {split: count for split, count in given.items() if count is not None}
    found = glue_files.write(
        options.out,
        tasks=options.tasks,
        domain=options.domain,
        seed=options.seed,
        sizes=sizes,
        difficulty=options.difficulty,
    )
    print(glue_files.table(found))


def _quickstart(options) -> None:
    from prompt_tuning.quickstart import quickstart

    compilation_cache.use()
    quickstart(model_dir=options.model_dir)


def _plot(options) -> None:
    from prompt_tuning.training.plots import learning_curve

    print(f"written to {learning_curve(options.model_dir, options.output)}")


if __name__ == "__main__":
    sys.exit(script())
