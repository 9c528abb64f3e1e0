"""The options of a run of several processes; T5X has the same ones."""

import argparse
import os
import sys


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds them to a command."""
    group = command.add_argument_group("several processes, one for each host")
    group.add_argument("--coordinator_address", metavar="HOST:PORT", help="of process 0")
    group.add_argument("--process_count", type=int, metavar="N", help="how many there are")
    group.add_argument("--process_index", type=int, metavar="I", help="of this one, from 0")
    group.add_argument(
        "--multiprocess",
        action="store_true",
        help="take these from the cluster: a TPU pod, Slurm and what else JAX knows",
    )


def start(options: argparse.Namespace) -> None:
    """Joins the other processes, if there are any; the first one alone prints.

    Raises:
      ValueError: see `processes.start`.
    """
    given = options.coordinator_address, options.process_count, options.process_index
    if options.multiprocess or given != (None, None, None):
        from prompt_tuning.parallel import processes  # imports JAX

        processes.start(*given, detects=options.multiprocess)
        if not processes.is_first():
            sys.stdout = open(os.devnull, "w")  # what is printed is the same in all
