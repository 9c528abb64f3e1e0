"""Reads the results of a sweep, and refuses those of other settings or another frozen model.

    results/KEY.json    one cell each, written by `sweep run`, see leases.py
    results.jsonl       one line each: what `cat results/*.json` makes of them, to be kept in one
                        file; a cell's own file comes before its line

A record has the cell (key, values, seed), `settings` and `frozen_model`, the dev metrics of the
best and the last evaluation, `curve`, `levels` (the score of each level of difficulty), `floor` (of
a constant answer), `steps`, `seconds`, `trainable_parameters` and others, what the run took (see
costs.py) and forgot (forgetting.py), its scores on other tasks (`evaluated`, see elsewhere.py), and
its origin. Older records lack some; a report shows what is not there, or is null, as missing.

A result counts for a cell as long as the cell's resolved configuration and the fingerprint of the
frozen model are those that it was made with.
"""

import concurrent.futures
import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prompt_tuning import paths
from prompt_tuning.run import Run
from prompt_tuning.sweeps import grid, leases, resolved

Record = Mapping[str, Any]
_PARALLEL_READS = 16


def read_results(sweep: grid.Sweep, loaded: resolved.Loaded | None = None) -> dict[str, Record]:
    """Reads the finished runs of a sweep, by key; truncated lines are ignored.

    Args:
      sweep: the sweep.
      loaded: configurations loaded earlier; new ones are added.

    Raises:
      ValueError: see `check_settings`.
      OSError: the folder cannot be reached.
    """
    keys = {cell.key for cell in sweep.cells}
    lines = [line for line in _read_lines(sweep.collected) if "error" not in line]
    records: dict[str, Record] = {line["key"]: line for line in lines if line["key"] in keys}
    done = leases.done(sweep.results)
    records |= read_cells(sweep, [cell.key for cell in sweep.cells if cell.key in done])
    check_settings(sweep, records, {} if loaded is None else loaded)
    return records


def read_cells(sweep: grid.Sweep, keys: Sequence[str]) -> dict[str, Record]:
    """Reads the files of cells that are done."""
    with concurrent.futures.ThreadPoolExecutor(_PARALLEL_READS) as pool:
        found = pool.map(lambda key: leases.read_result(sweep.results, key), keys)
        return {key: record for key, record in zip(keys, found, strict=True) if record is not None}


def check_settings(
    sweep: grid.Sweep, records: Mapping[str, Record], loaded: resolved.Loaded
) -> None:
    """Refuses results that do not belong to the sweep as it is described now.

    Args:
      sweep: the sweep.
      records: results, by key.
      loaded: configurations loaded earlier; new ones are added.

    Raises:
      ValueError: a run was made with other settings than the sweep has now, or its frozen model
        has another fingerprint now, as far as that is known without reading it.
    """
    cells = {cell.key: cell for cell in sweep.cells}
    runs = resolved.load_runs((cells[key] for key in records), loaded)
    for key, record in records.items():
        others = resolved.load_evaluations(cells[key], loaded=loaded)
        if record["settings"] != resolved.digest(runs[key], cells[key].train, others):
            file, what = _place(sweep, key)
            raise ValueError(
                f"{file} holds a result of {key} that was made with other settings than "
                f"{sweep.path} describes now. Remove that {what} to run it again."
            )
        _check_model(sweep, record, runs[key], resolved.fingerprint(runs[key], reads=False))


def check_models(
    sweep: grid.Sweep,
    done: Mapping[str, Record],
    left: Iterable[grid.Cell],
    loaded: resolved.Loaded,
) -> None:
    """Refuses to add to results that were made with another model; reads each model once."""
    cells, left = [cell for cell in sweep.cells if cell.key in done], list(left)
    runs = resolved.load_runs([*cells, *left], loaded)
    models = {(runs[cell.key].model, runs[cell.key].initial_checkpoint_path) for cell in left}
    for cell in cells:
        run = runs[cell.key]
        if (run.model, run.initial_checkpoint_path) in models:
            found = resolved.fingerprint(run, reads=True)
            _check_model(sweep, done[cell.key], run, found)


def _check_model(sweep: grid.Sweep, record: Record, run: Run, fingerprint: str | None) -> None:
    made_with = record.get("frozen_model")
    if fingerprint not in (None, made_with):
        file, what = _place(sweep, record["key"])
        raise ValueError(
            f"{file} holds a result of {record['key']} that was made with another "
            f"{run.initial_checkpoint_path} (fingerprint {made_with}) than there is now "
            f"({fingerprint}). Remove that {what} to run it again."
        )


def _place(sweep: grid.Sweep, key: str) -> tuple[str, str]:
    """The file that a result is in, and what of it to remove."""
    if leases.read_result(sweep.results, key) is None:
        return sweep.collected, "line"
    return leases.result_path(sweep.results, key), "file"


def _read_lines(path: str) -> list[Record]:
    """Reads JSON lines and ignores truncated ones; without a file there are none."""
    if not paths.is_file(path):
        return []
    records = []
    for line in paths.read_bytes(path).decode().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return records
