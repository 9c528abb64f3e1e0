"""Converts official SuperGLUE and GLUE archives on disk to TFDS data, without a network.

    SOURCE/superglue/CB.zip ─┐                        DATA_DIR/super_glue/cb/1.0.2
    SOURCE/glue/SST-2.zip   ─┼─> the TFDS builder ──> DATA_DIR/glue/sst2/2.0.0
    SOURCE/BoolQ/*.jsonl    ─┘   of that dataset

An archive is at the top of SOURCE or in its folder superglue/ or glue/, zipped
under its official name or unpacked. What was built is checked against the
official row counts (Lester et al. 2021, appendix; the SuperGLUE and GLUE papers).
GLUE becomes version 2.0.0, the only one that current TFDS builds.
"""

import contextlib
import dataclasses
import io
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Iterator, Sequence

from prompt_tuning import paths
from prompt_tuning.data.tensorflow_import import tfds


@dataclasses.dataclass(frozen=True)
class Archive:
    """An official archive and the dataset it becomes."""

    file: str  # 'CB.zip'
    folder: str  # The folder inside it.
    members: tuple[str, ...]  # The files the builder reads from that folder.
    rows: dict[str, int]  # Official rows of each split.


JSONL = ("train.jsonl", "val.jsonl", "test.jsonl")
TSV = ("train.tsv", "dev.tsv", "test.tsv")


def _super_glue(folder: str, train: int, validation: int, test: int) -> Archive:
    rows = {"train": train, "validation": validation, "test": test}
    return Archive(f"{folder}.zip", folder, JSONL, rows)


def _glue(file: str, folder: str, train: int, validation: int, test: int) -> Archive:
    return Archive(file, folder, TSV, {"train": train, "validation": validation, "test": test})


def _mnli_half(half: str, validation: int, test: int) -> Archive:
    members = (f"dev_{half}.tsv", f"test_{half}.tsv")
    return Archive("MNLI.zip", "MNLI", members, {"validation": validation, "test": test})


WSC = _super_glue("WSC", 554, 104, 146)
ARCHIVES: dict[str, Archive] = {
    "super_glue/boolq:1.0.2": _super_glue("BoolQ", 9427, 3270, 3245),
    "super_glue/cb:1.0.2": _super_glue("CB", 250, 56, 250),
    "super_glue/copa:1.0.2": _super_glue("COPA", 400, 100, 500),
    "super_glue/multirc:1.0.2": _super_glue("MultiRC", 27243, 4848, 9693),
    "super_glue/record:1.0.2": _super_glue("ReCoRD", 100730, 10000, 10000),
    "super_glue/rte:1.0.2": _super_glue("RTE", 2490, 277, 3000),
    "super_glue/wic:1.0.2": _super_glue("WiC", 5428, 638, 1400),
    "super_glue/wsc:1.0.2": WSC,
    "super_glue/wsc.fixed:1.0.2": WSC,
    "super_glue/axb:1.0.2": Archive("AX-b.zip", "AX-b", ("AX-b.jsonl",), {"test": 1104}),
    "super_glue/axg:1.0.2": Archive("AX-g.zip", "AX-g", ("AX-g.jsonl",), {"test": 356}),
    "glue/cola:2.0.0": _glue("CoLA.zip", "CoLA", 8551, 1043, 1063),
    "glue/sst2:2.0.0": _glue("SST-2.zip", "SST-2", 67349, 872, 1821),
    "glue/qqp:2.0.0": _glue("QQP.zip", "QQP", 363846, 40430, 390965),
    "glue/stsb:2.0.0": _glue("STS-B.zip", "STS-B", 5749, 1500, 1379),
    "glue/mnli:2.0.0": Archive(
        "MNLI.zip",
        "MNLI",
        (
            "train.tsv",
            *(
                f"{split}_{half}.tsv"
                for split in ("dev", "test")
                for half in ("matched", "mismatched")
            ),
        ),
        {
            "train": 392702,
            "validation_matched": 9815,
            "validation_mismatched": 9832,
            "test_matched": 9796,
            "test_mismatched": 9847,
        },
    ),
    "glue/mnli_matched:2.0.0": _mnli_half("matched", 9815, 9796),
    "glue/mnli_mismatched:2.0.0": _mnli_half("mismatched", 9832, 9847),
    "glue/qnli:2.0.0": _glue("QNLIv2.zip", "QNLI", 104743, 5463, 5463),
    "glue/rte:2.0.0": _glue("RTE.zip", "RTE", 2490, 277, 3000),
    "glue/wnli:2.0.0": _glue("WNLI.zip", "WNLI", 635, 71, 146),
}
# Datasets whose TFDS builder reads no archive of the benchmark.
NOT_ARCHIVED = {
    "glue/mrpc:2.0.0": (
        "TFDS builds MRPC from Microsoft's own files, which are in no GLUE archive; with a network "
        "run tfds.load('glue/mrpc:2.0.0', data_dir=...)."
    ),
}
FOLDERS = {"super_glue": ("superglue", "."), "glue": ("glue", ".")}


@dataclasses.dataclass(frozen=True)
class Prepared:
    """The result for one dataset.

    Attributes:
      dataset: the TFDS name, as 'super_glue/cb:1.0.2'.
      status: 'complete', 'partial' (fewer or more rows than officially), 'missing' (no archive)
        or 'unsupported' (cannot be made from an archive).
      rows, official: rows of each split, found and expected.
      built: whether this call built it; False if it was there already or could not be built.
      message: all this in one line.
    """

    dataset: str
    status: str
    rows: dict[str, int]
    official: dict[str, int]
    built: bool
    message: str


def prepare(
    source: str | os.PathLike,
    data_dir: str | os.PathLike,
    tasks: Sequence[str] | None = None,
) -> list[Prepared]:
    """Builds every dataset whose archive is found; one that exists already is kept.

    Args:
      source: folder with the archives.
      data_dir: folder for the TFDS data, local or gs://; it is made if it does not exist.
      tasks: build only these: 'cb', 'super_glue/cb' or 'super_glue/cb:1.0.2'. A name that both
        benchmarks have, 'rte', means both.

    Returns:
      One row a dataset, in the order of the table above.

    Raises:
      ValueError: there is no such folder or task; no archive at all was found; an archive is
        damaged or holds other files than the official one.
    """
    source = pathlib.Path(paths.local(source, "The folder of archives")).resolve()
    if not source.is_dir():
        raise ValueError(f"There is no folder {str(source)!r} to read archives from.")
    data_dir = paths.absolute(data_dir)
    paths.check_folder(data_dir, "--data_dir")
    tfds.disable_progress_bar()
    rows = [_prepare_one(source, data_dir, dataset) for dataset in _chosen(tasks)]
    if all(row.status in ("missing", "unsupported") for row in rows):
        files = sorted({ARCHIVES[row.dataset].file for row in rows if row.dataset in ARCHIVES})
        raise ValueError(
            f"{str(source)!r} holds none of the archives {', '.join(files) or '(none exist)'}, "
            "neither at its top nor in superglue/ or glue/."
        )
    return rows


def _chosen(tasks: Sequence[str] | None) -> list[str]:
    known = [*ARCHIVES, *NOT_ARCHIVED]
    if tasks is None:
        return known
    names = {dataset: {dataset, dataset.split(":")[0], _config(dataset)} for dataset in known}
    for task in tasks:
        if not any(task in aliases for aliases in names.values()):
            raise ValueError(
                f"There is no dataset {task!r} to prepare; they are "
                f"{', '.join(dataset.split(':')[0] for dataset in known)}."
            )
    return [dataset for dataset in known if names[dataset] & set(tasks)]


def _config(dataset: str) -> str:
    return dataset.split("/")[1].split(":")[0]


def _prepare_one(source: pathlib.Path, data_dir: str, dataset: str) -> Prepared:
    if dataset in NOT_ARCHIVED:
        message = f"{dataset}: not supported from an archive. {NOT_ARCHIVED[dataset]}"
        return Prepared(dataset, "unsupported", {}, {}, False, message)
    archive = ARCHIVES[dataset]
    builder = tfds.builder(dataset, data_dir=data_dir)
    built = False
    if not (builder.data_path / "dataset_info.json").exists():
        with _archive_file(source, dataset) as file:
            if file is None:
                message = f"{dataset}: missing, no {archive.file} or folder {archive.folder}."
                return Prepared(dataset, "missing", {}, archive.rows, False, message)
            _build(builder, file)
        built = True
    rows = {split: info.num_examples for split, info in builder.info.splits.items()}
    status = "complete" if rows == archive.rows else "partial"
    counts = ", ".join(
        f"{split} {count:,}"
        + ("" if count == archive.rows.get(split) else f" of {archive.rows.get(split, 0):,}")
        for split, count in rows.items()
    )
    when = "built" if built else "already there"
    return Prepared(
        dataset, status, rows, archive.rows, built, f"{dataset}: {status}, {when} ({counts})."
    )


def _build(builder: tfds.core.DatasetBuilder, file: pathlib.Path) -> None:
    """Runs the builder with the archive in place of its download URL."""
    config = builder.builder_config
    official_url = config.data_url
    with tempfile.TemporaryDirectory() as downloads:
        try:
            # A path that is not http is copied, and not compared with a checksum.
            config.data_url = str(file)
            with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints its own progress.
                builder.download_and_prepare(
                    download_dir=downloads,
                    download_config=tfds.download.DownloadConfig(try_download_gcs=False),
                )
        except (KeyError, ValueError, AssertionError) as error:
            raise ValueError(
                f"The rows in {str(file)!r} are not those of {builder.info.full_name}: "
                f"{type(error).__name__}: {error}"
            ) from error
        finally:
            config.data_url = official_url  # The configuration is shared by the process.


@contextlib.contextmanager
def _archive_file(source: pathlib.Path, dataset: str) -> Iterator[pathlib.Path | None]:
    """Finds the archive of a dataset; an unpacked one is zipped into a temporary file."""
    archive = ARCHIVES[dataset]
    wrong = []
    for place in FOLDERS[dataset.split("/")[0]]:
        zipped, unpacked = source / place / archive.file, source / place / archive.folder
        if zipped.is_file():
            missing = _missing_members(zipped, archive)
            if not missing:
                yield zipped
                return
            wrong.append((zipped, missing))
        if all((unpacked / member).is_file() for member in archive.members):
            with tempfile.TemporaryDirectory() as folder:
                yield _zip(unpacked, archive, pathlib.Path(folder) / archive.file)
            return
    # Both benchmarks have an RTE.zip: at the top of `source` it may be the other one's.
    wrong = [
        found for found in wrong if not (found[0].parent == source and archive.file == "RTE.zip")
    ]
    if wrong:
        file, missing = wrong[0]
        raise ValueError(
            f"{str(file)!r} is not the official archive of {dataset}; "
            f"it lacks {', '.join(missing)}."
        )
    yield None


def _missing_members(file: pathlib.Path, archive: Archive) -> list[str]:
    try:
        with zipfile.ZipFile(file) as opened:
            damaged = opened.testzip()
            names = set(opened.namelist())
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise ValueError(
            f"The archive {str(file)!r} is damaged ({error}); get it again."
        ) from error
    if damaged:
        raise ValueError(f"The archive {str(file)!r} is damaged at {damaged}; get it again.")
    members = [f"{archive.folder}/{member}" for member in archive.members]
    return [member for member in members if member not in names]


def _zip(folder: pathlib.Path, archive: Archive, file: pathlib.Path) -> pathlib.Path:
    with zipfile.ZipFile(file, "w") as opened:
        for member in archive.members:
            opened.write(folder / member, f"{archive.folder}/{member}")
    return file
