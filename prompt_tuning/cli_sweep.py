"""The command `prompt-tuning sweep run | status | report`: many runs, one table."""

import argparse

from prompt_tuning import compilation_cache
from prompt_tuning.cli_files import count


def add_command(commands) -> None:
    """Adds the command."""
    sweep = commands.add_parser("sweep", help="many runs, one table")
    actions = sweep.add_subparsers(required=True, metavar="ACTION")
    run = actions.add_parser(
        "run", help="run what has no result yet; start it as often as there are devices"
    )
    run.set_defaults(command=_run)
    status = actions.add_parser("status", help="what is done, running, failed and left")
    status.set_defaults(command=_status)
    report = actions.add_parser("report", help="write the tables, the figures and the page")
    report.set_defaults(command=_report)
    for action in (run, status, report):
        action.add_argument("file", help="of the sweep, or its folder: experiments/figure1_scale")
    for action in (run, status):
        action.add_argument("--shard", metavar="I/N", help="shard I of N, from 0: 0/2 and 1/2")
        action.add_argument("--only", action="append", default=[], metavar="AXIS=VALUE")
    run.add_argument("--retry_failed", action="store_true", help="also run what has failed before")
    run.add_argument(
        "--dry_run",
        action="store_true",
        help="print the command of each run, and hours and devices for the sizes of T5 1.1",
    )
    run.add_argument("--on", metavar="SLICE", help="of the hours of --dry_run; default: v5e:2x2")
    run.add_argument(
        "--keep", default="prompts", help="what to keep of a run's folder: prompts, nothing or all"
    )
    run.add_argument(
        "--lease_seconds",
        type=count,
        default=180,
        help="after how long without a sign of life other workers take over its run (180)",
    )
    run.add_argument(
        "--together",
        type=count,
        default=1,
        metavar="N",
        help="train up to N runs at once that differ only in what trains, over one frozen model",
    )


def _run(options: argparse.Namespace) -> None:
    if options.dry_run:
        _print_commands(options)
        return
    if options.on:
        raise ValueError("--on is the slice that --dry_run gives hours for; add --dry_run.")
    from prompt_tuning.sweeps.runner import run_sweep

    compilation_cache.use()
    run_sweep(
        options.file,
        shard=options.shard,
        only=options.only,
        keep=options.keep,
        lease_seconds=options.lease_seconds,
        together=options.together,
        retry_failed=options.retry_failed,
    )


def _print_commands(options: argparse.Namespace) -> None:
    from prompt_tuning.planning import planned
    from prompt_tuning.sweeps import grid

    sweep = grid.read_sweep(options.file)
    cells = grid.select(sweep, options.shard, options.only)
    print("\n".join(planned.dry_run(sweep, cells, options.on or planned.SLICE)))


def _status(options: argparse.Namespace) -> None:
    from prompt_tuning.sweeps import status

    print(status.read(options.file, options.shard, options.only))


def _report(options: argparse.Namespace) -> None:
    from prompt_tuning.sweeps.report import write_report

    for path in write_report(options.file):
        print(f"written to {path}")
