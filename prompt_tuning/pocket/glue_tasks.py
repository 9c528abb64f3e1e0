"""PocketGLUE: SuperGLUE's tasks in made-up English from a seeded program, as TFDS data and tasks.

    glue_rows.rows ─> official JSONL rows ─> TFDS's own SuperGLUE parser ─> pocket_glue/cb:1.0.0

    [taskless_]pocket_glue_{boolq,cb,copa,multirc,record,rte,wic}_v100[_examples]
    [taskless_]pocket_glue_wsc_v100_simple_{train,eval}[_examples]
    [taskless_]pocket_glue_wsc_and_dev_v100_simple[_examples]
    [taskless_]pocket_glue_{boolq,...,wsc,wsc_and_dev}_sea_v100...   the words of another domain
    [taskless_]pocket_glue_{qqp,mrpc}_v100[_examples]                paraphrases, as in GLUE
    [taskless_]pocket_glue_{qqp_from_mrpc,mrpc_from_qqp}_v100...     transfer, as `glue_transfer`

The features are those of `super_glue/*` and `glue/*`, so formats, metrics and the score are
SuperGLUE's own. A dataset that is not on disk is made at first use, in seconds and with
no network. Test rows keep their labels, since there is no test server.
"""

import contextlib
import hashlib
import io
import itertools
import json
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence

from prompt_tuning.data import glue, glue_transfer, super_glue
from prompt_tuning.data.tensorflow_import import tfds
from prompt_tuning.pocket import glue_rows, vocabulary

VERSION = "1.0.0"
SAMPLED_ROWS = 8  # Of each split; by these, data on disk is known to be of this generator.
# The dataset of TFDS whose features and parser each task takes.
OFFICIAL = {
    **{task: ("super_glue", task) for task in glue_rows.TASKS},
    "wsc": ("super_glue", "wsc.fixed"),
    **{task: ("glue", task) for task in glue_rows.PAIRS},
}
BENCHMARKS = {
    "home": super_glue.Benchmark(
        "pocket_glue", "pocket_glue_{}_v100", f"pocket_glue/{{}}:{VERSION}"
    ),
    "sea": super_glue.Benchmark(
        "pocket_glue_sea", "pocket_glue_{}_sea_v100", f"pocket_glue/{{}}_sea:{VERSION}"
    ),
}


class PocketGlueConfig(tfds.core.BuilderConfig):
    """Which rows a dataset holds; what differs from the defaults is in its name.

    Args:
      task: one of `glue_rows.TASKS` or `glue_rows.PAIRS`.
      domain: one of `glue_rows.DOMAINS`.
      seed: another seed gives other rows of the same kind.
      sizes: rows of each split; those left out are `glue_rows.sizes`. A row of MultiRC is a
        passage.
      difficulty: 1 to 3, see `glue_rows.rows`.

    >>> PocketGlueConfig('wsc', domain='sea', seed=3, sizes={'train': 100}).name
    'wsc.fixed_sea_seed3_train100'

    Raises:
      ValueError: an unknown task, domain or split; a size below 1.
    """

    def __init__(
        self,
        task: str,
        *,
        domain: str = "home",
        seed: int = 0,
        sizes: Mapping[str, int] | None = None,
        difficulty: int = glue_rows.DIFFICULTY,
    ):
        self.task, self.domain, self.seed, self.difficulty = task, domain, seed, difficulty
        self.sizes = full_sizes(task, domain, sizes, difficulty)
        usual = glue_rows.sizes(task, difficulty)
        own = {split: n for split, n in self.sizes.items() if n != usual[split]}
        name = "_".join(
            [
                OFFICIAL[task][1],
                *([domain] if domain != "home" else []),
                *([f"seed{seed}"] if seed else []),
                *(f"{split}{count}" for split, count in own.items()),
                *([f"difficulty{difficulty}"] if difficulty != glue_rows.DIFFICULTY else []),
            ]
        )
        super().__init__(name=name, version=VERSION)


def full_sizes(
    task: str,
    domain: str,
    sizes: Mapping[str, int] | None = None,
    difficulty: int = glue_rows.DIFFICULTY,
) -> dict[str, int]:
    """The rows of each split, those of `glue_rows.sizes` where none are given.

    Raises:
      ValueError: an unknown task, domain or split; a size below 1.
    """
    known_tasks = (*glue_rows.TASKS, *glue_rows.PAIRS)
    for what, given, known in (
        ("task", [task], known_tasks),
        ("domain", [domain], glue_rows.DOMAINS),
    ):
        _check_known(what, given, known)
    _check_known("split", sizes or {}, glue_rows.SPLITS)
    full = {**glue_rows.sizes(task, difficulty), **(sizes or {})}
    if min(full.values()) < 1:
        raise ValueError(f"A split of PocketGLUE has at least 1 row; got {dict(sizes or {})}.")
    return full


def _check_known(what: str, given: Sequence[str], known: Sequence[str]) -> None:
    for one in given:
        if one not in known:
            raise ValueError(f"PocketGLUE has no {what} {one!r}; known: {', '.join(known)}.")


class PocketGlue(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of PocketGLUE: SuperGLUE's and GLUE's features, rows from a seeded program.

    `make` runs it.
    """

    VERSION = tfds.core.Version(VERSION)
    BUILDER_CONFIGS = [
        *(PocketGlueConfig(task) for task in (*glue_rows.TASKS, *glue_rows.PAIRS)),
        *(PocketGlueConfig(task, domain="sea") for task in glue_rows.TASKS),
    ]

    def _official(self) -> tfds.core.GeneratorBasedBuilder:
        dataset, config = OFFICIAL[self.builder_config.task]
        return tfds.builder_cls(dataset)(config=config, data_dir=self._data_dir_root)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=self._official().info.features,
            metadata=tfds.core.MetadataDict(rows=_fingerprint(self.builder_config)),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        return {split: self._generate_examples(split) for split in self.builder_config.sizes}

    def _generate_examples(self, split: str) -> Iterator[tuple]:
        config = self.builder_config
        rows = glue_rows.rows(
            config.task,
            split,
            config.sizes[split],
            seed=config.seed,
            domain=config.domain,
            difficulty=config.difficulty,
        )
        if config.task in glue_rows.PAIRS:  # GLUE's files have columns; here the rows have them.
            yield from ((row["idx"], row) for row in rows)
            return
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / f"{split}.jsonl"
            file.write_text(jsonl(rows), encoding="utf-8")
            yield from self._official()._generate_examples(str(file), split)


def jsonl(rows: Sequence[Mapping]) -> str:
    """Writes rows as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def make(
    task: str,
    *,
    domain: str = "home",
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    difficulty: int = glue_rows.DIFFICULTY,
    data_dir: str | os.PathLike | None = None,
) -> tfds.core.DatasetBuilder:
    """Returns the builder of a dataset, made first if it is not on disk.

    With the defaults it is the dataset that the tasks read. Another one has another name, such
    as 'pocket_glue/cb_seed1:1.0.0', for a task of your own; it too is made at first use.

    Args:
      task, domain, seed, sizes, difficulty: see PocketGlueConfig.
      data_dir: folder of TFDS data, made if need be; None is TFDS's own default.

    Raises:
      ValueError: see PocketGlueConfig and `make_named`; more rows than there are.
    """
    config = PocketGlueConfig(task, domain=domain, seed=seed, sizes=sizes, difficulty=difficulty)
    return _make(PocketGlue.builder_configs.get(config.name, config), data_dir)


def make_named(dataset: str, data_dir: str | os.PathLike | None = None) -> None:
    """Makes a dataset, if it is not on disk, by the name its tasks have for it.

    Args:
      dataset: such as 'pocket_glue/cb:1.0.0'.
      data_dir: see `make`.

    Raises:
      ValueError: there is no such dataset; the folder cannot be written; what is on disk
        was made by another version of the generator.
    """
    name = dataset.removeprefix("pocket_glue/").removesuffix(f":{VERSION}")
    tasks = {config: task for task, (_, config) in OFFICIAL.items()}
    pattern = rf"({'|'.join(map(re.escape, tasks))})(_sea)?(?:_seed(\d+))?" + "".join(
        rf"(?:_{split}(\d+))?" for split in glue_rows.SPLITS
    )
    pattern += r"(?:_difficulty(\d))?"
    match = re.fullmatch(pattern, name)
    if match is None:
        raise ValueError(
            f"There is no dataset {dataset!r}; PocketGLUE {VERSION} has "
            f"{', '.join(PocketGlue.builder_configs)}, and others named like cb_seed1_train100."
        )
    config, sea, seed, *counts, difficulty = match.groups()
    sizes = {split: int(n) for split, n in zip(glue_rows.SPLITS, counts, strict=True) if n}
    domain = "sea" if sea else "home"
    make(
        tasks[config],
        domain=domain,
        seed=int(seed or 0),
        sizes=sizes,
        difficulty=int(difficulty or glue_rows.DIFFICULTY),
        data_dir=data_dir,
    )


def _make(config: PocketGlueConfig, data_dir: str | os.PathLike | None) -> tfds.core.DatasetBuilder:
    builder = PocketGlue(config=config, data_dir=data_dir)
    if (builder.data_path / "dataset_info.json").exists():
        _check_generator(builder)
        return builder
    if "://" in str(builder.data_path):
        raise ValueError(
            f"PocketGLUE is made on this machine and not in {str(builder.data_path)!r}; "
            "name a folder here with DATA_DIR or --data_dir."
        )
    final, root = pathlib.Path(builder.data_dir), pathlib.Path(builder._data_dir_root)
    print(f"making pocket_glue/{config.name} in {root}", flush=True)
    tfds.disable_progress_bar()
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        # Made in a temporary folder and moved: several runs may make the same dataset in parallel.
        with tempfile.TemporaryDirectory(prefix="making_", dir=root / "pocket_glue") as aside:
            made = PocketGlue(config=config, data_dir=aside)
            with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints its own progress.
                made.download_and_prepare(
                    download_dir=os.path.join(aside, "downloads"),
                    download_config=tfds.download.DownloadConfig(try_download_gcs=False),
                )
            _move(pathlib.Path(made.data_dir), final)
    except OSError as error:
        raise ValueError(
            f"PocketGLUE cannot be made in {str(root)!r}: {error}. "
            "Name a folder that can be written to, with DATA_DIR or --data_dir."
        ) from error
    return PocketGlue(config=config, data_dir=data_dir)


def _fingerprint(config: PocketGlueConfig) -> str:
    """A digest of some rows of a dataset."""
    text = "".join(
        jsonl(
            glue_rows.rows(
                config.task,
                split,
                min(count, SAMPLED_ROWS),
                seed=config.seed,
                domain=config.domain,
                difficulty=config.difficulty,
            )
        )
        for split, count in config.sizes.items()
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _check_generator(builder: PocketGlue) -> None:
    """Refuses data that another version of the generator made."""
    stored = json.loads((builder.data_path / "metadata.json").read_text())["rows"]
    if stored != _fingerprint(builder.builder_config):
        raise ValueError(
            f"The rows in {str(builder.data_path)!r} are not those that this version of "
            "PocketGLUE makes; remove the folder, and they are made again."
        )


def _move(made: pathlib.Path, final: pathlib.Path) -> None:
    """Moves a folder to its place; if another run was first, its rows are the same."""
    try:
        made.rename(final)
    except OSError:
        if not (final / "dataset_info.json").exists():
            raise


def register() -> None:
    """Registers every PocketGLUE task; idempotent."""
    family = vocabulary.FAMILY
    for taskless, examples in itertools.product((False, True), (False, True)):
        kind = {"taskless": taskless, "examples": examples}
        for benchmark in BENCHMARKS.values():
            for task in glue_rows.TASKS:
                super_glue.add_task(benchmark, family, task, **kind)
        for task in glue_rows.PAIRS:
            glue.add_task(BENCHMARKS["home"], family, task, **kind)
        for source, target in glue_transfer.PAIRS:
            glue_transfer.add_transfer(BENCHMARKS["home"], family, source, target, **kind)
