"""Writes a few rows as one of TFDS's own datasets, without a download."""

import os
from collections.abc import Callable, Iterator, Sequence

from prompt_tuning.data.tensorflow_import import tfds


def write(
    name: str,
    rows: Callable[[], Iterator[tuple]],
    splits: Sequence[str],
    folder: str | os.PathLike,
) -> None:
    """Writes the same rows, key and example, to every split; the features are the dataset's own."""
    builder = tfds.builder(name, data_dir=folder)

    class Made(type(builder), skip_registration=True):
        name = builder.name

        def _split_generators(self, *_):
            return {split: rows() for split in splits}

    config = {"config": builder.builder_config.name} if builder.builder_config else {}
    Made(data_dir=folder, version=builder.version, **config).download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )
