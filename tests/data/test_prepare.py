"""Archives become TFDS data, through the real builders and with no network."""

import json
import zipfile

import pytest
import tensorflow_datasets as tfds

from prompt_tuning.data import prepare


def cb_rows(count, labelled=True):
    rows = []
    for idx in range(count):
        row = {"premise": f"P{idx}.", "hypothesis": f"H{idx}.", "idx": idx}
        rows.append({**row, "label": "neutral"} if labelled else row)
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_cb(folder, train=4):
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "CB.zip", "w") as archive:
        archive.writestr("CB/train.jsonl", cb_rows(train))
        archive.writestr("CB/val.jsonl", cb_rows(2))
        archive.writestr("CB/test.jsonl", cb_rows(3, labelled=False))


def test_zip_becomes_data_and_stays(tmp_path):
    write_cb(tmp_path / "source" / "superglue")
    (first,) = prepare.prepare(tmp_path / "source", tmp_path / "data", ["cb"])
    assert first.built and first.status == "partial"
    assert first.rows == {"train": 4, "validation": 2, "test": 3}
    assert first.official == {"train": 250, "validation": 56, "test": 250}
    assert first.message == (
        "super_glue/cb:1.0.2: partial, built (train 4 of 250, validation 2 of 56, test 3 of 250)."
    )
    (tmp_path / "source" / "superglue" / "CB.zip").unlink()
    (again,) = prepare.prepare(tmp_path / "source", tmp_path / "data", ["super_glue/cb"])
    assert not again.built and again.rows == first.rows
    assert "already there" in again.message


def test_the_builder_gets_its_official_address_back(tmp_path):
    write_cb(tmp_path / "source")
    prepare.prepare(tmp_path / "source", tmp_path / "data", ["cb"])
    url = tfds.builder("super_glue/cb", data_dir=str(tmp_path)).builder_config.data_url
    assert url == "https://dl.fbaipublicfiles.com/glue/superglue/data/v2/CB.zip"


def test_unpacked_folder(tmp_path):
    write_cb(tmp_path / "source")
    with zipfile.ZipFile(tmp_path / "source" / "CB.zip") as archive:
        archive.extractall(tmp_path / "source")
    (tmp_path / "source" / "CB.zip").unlink()
    (row,) = prepare.prepare(tmp_path / "source", tmp_path / "data", ["cb"])
    assert row.built and row.rows["train"] == 4


def test_what_is_missing_is_reported(tmp_path):
    write_cb(tmp_path / "source")
    rows = {row.dataset: row for row in prepare.prepare(tmp_path / "source", tmp_path / "data")}
    assert rows["super_glue/cb:1.0.2"].built
    assert rows["super_glue/copa:1.0.2"].status == "missing"
    assert "no COPA.zip or folder COPA" in rows["super_glue/copa:1.0.2"].message
    assert rows["glue/mrpc:2.0.0"].status == "unsupported"
    assert "not supported from an archive" in rows["glue/mrpc:2.0.0"].message
    assert set(rows) == {*prepare.ARCHIVES, *prepare.NOT_ARCHIVED}


def test_glue_archive(tmp_path):
    (tmp_path / "source" / "glue").mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "source" / "glue" / "SST-2.zip", "w") as archive:
        archive.writestr("SST-2/train.tsv", "sentence\tlabel\nfine \t1\nbad \t0\n")
        archive.writestr("SST-2/dev.tsv", "sentence\tlabel\nso so\t0\n")
        archive.writestr("SST-2/test.tsv", "index\tsentence\n0\twho knows\n")
    (row,) = prepare.prepare(tmp_path / "source", tmp_path / "data", ["sst2"])
    assert row.rows == {"train": 2, "validation": 1, "test": 1}


def test_the_other_benchmarks_rte_at_the_top_is_passed_over(tmp_path):
    write_cb(tmp_path / "source")
    with zipfile.ZipFile(tmp_path / "source" / "RTE.zip", "w") as archive:
        for split in ("train", "dev", "test"):
            archive.writestr(f"RTE/{split}.tsv", "index\tsentence1\tsentence2\tlabel\n")
    rows = prepare.prepare(tmp_path / "source", tmp_path / "data", ["cb", "super_glue/rte"])
    assert [row.status for row in rows] == ["partial", "missing"]


def test_damaged_archive_is_named(tmp_path):
    write_cb(tmp_path)
    whole = (tmp_path / "CB.zip").read_bytes()
    (tmp_path / "CB.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"The archive '.*CB.zip' is damaged .*get it again"):
        prepare.prepare(tmp_path, tmp_path / "data", ["cb"])


def test_archive_with_a_flipped_byte_is_named(tmp_path):
    write_cb(tmp_path)
    broken = bytearray((tmp_path / "CB.zip").read_bytes())
    broken[60] ^= 255
    (tmp_path / "CB.zip").write_bytes(bytes(broken))
    with pytest.raises(ValueError, match=r"CB.zip' is damaged"):
        prepare.prepare(tmp_path, tmp_path / "data", ["cb"])


def test_archive_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "CB.zip", "w") as archive:
        archive.writestr("train.jsonl", "{}")
    with pytest.raises(
        ValueError, match=r"not the official archive of super_glue/cb.*CB/train.jso"
    ):
        prepare.prepare(tmp_path, tmp_path / "data", ["cb"])


def test_rows_of_another_form_are_refused_and_leave_nothing(tmp_path):
    with zipfile.ZipFile(tmp_path / "CB.zip", "w") as archive:
        for split in ("train", "val", "test"):
            archive.writestr(f"CB/{split}.jsonl", '{"text": "x", "idx": 0}\n')
    with pytest.raises(ValueError, match=r"The rows in '.*CB.zip' are not those of super_glue/cb"):
        prepare.prepare(tmp_path, tmp_path / "data", ["cb"])
    assert not list((tmp_path / "data").rglob("dataset_info.json"))


def test_empty_source(tmp_path):
    with pytest.raises(
        ValueError, match=r"holds none of the archives .*CB.zip.*superglue/ or glue/"
    ):
        prepare.prepare(tmp_path, tmp_path / "data")
    with pytest.raises(ValueError, match=r"There is no folder '.*nowhere' to read archives from"):
        prepare.prepare(tmp_path / "nowhere", tmp_path / "data")


def test_unknown_task_lists_the_known(tmp_path):
    with pytest.raises(
        ValueError, match=r"no dataset 'squad' to prepare; they are super_glue/boolq"
    ):
        prepare.prepare(tmp_path, tmp_path / "data", ["squad"])
