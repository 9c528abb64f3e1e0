"""The command `prompt-tuning plan`: what a run, or a sweep, needs of devices that are not there."""

import argparse
from collections.abc import Callable

# A plan reads no checkpoint and writes nothing, so these need not be set.
UNREAD = ("Run.model_dir='unused'", "Run.initial_checkpoint_path='random'")


def add_command(commands, add_gin_options: Callable) -> None:
    """Adds the command.

    Args:
      commands: of the parser.
      add_gin_options: adds the options that name a run.
    """
    command = commands.add_parser(
        "plan", help="memory, time and cost of a run, on a TPU without a TPU, or on this machine"
    )
    add_gin_options(command)
    command.add_argument(
        "--on",
        action="append",
        default=[],
        metavar="SLICE",
        help="such as v5e:4x4; may be repeated; default: this machine",
    )
    command.add_argument("--sweep", metavar="FILE", help="plan all runs of a sweep instead")
    command.add_argument(
        "--quick", action="store_true", help="do not look for the largest batch that fits"
    )
    command.set_defaults(command=_plan)


def _plan(options: argparse.Namespace) -> None:
    from prompt_tuning.planning import chips, report, targets

    for name in options.on:
        chips.find(name)
    if options.sweep and (options.gin_file or options.bindings):
        raise ValueError(
            "A plan is that of a run (--gin_file) or of a sweep (--sweep); name one of them."
        )
    if options.on:
        targets.use_host()
    if options.sweep:
        _plan_sweep(options)
        return
    from prompt_tuning import config
    from prompt_tuning.planning import plan

    paths = [path for path in options.gin_search_paths.split(",") if path]
    run = config.load(options.gin_file, [*options.bindings, *UNREAD], paths)
    title = f"{run.model.name}, batch {run.batch_size}, {run.task_feature_lengths['inputs']} inputs"
    wanted = [targets.tpu(name) for name in options.on] or [targets.host(run.model.dtype)]
    for target in wanted:
        plan.check(run, target)
    for target in wanted:
        print(report.text(plan.make(run, target, largest=not options.quick), title), flush=True)


def _plan_sweep(options: argparse.Namespace) -> None:
    from prompt_tuning.planning import report, sweeping, targets

    for target in [targets.tpu(name) for name in options.on] or [targets.host()]:
        print(report.sweep(sweeping.make(options.sweep, target), target), flush=True)
