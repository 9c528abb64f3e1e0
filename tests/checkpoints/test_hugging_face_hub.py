"""hf:// names: fetched once, pinned, and one sentence for each failure.

The Hub is a fake except in the last test, which needs the real library and reads its cache.
"""

import logging
import shutil
import sys
import types

import pytest

from prompt_tuning.checkpoints import checkpoint, hugging_face_hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Errors(types.ModuleType):
    """The exceptions of huggingface_hub.errors, as they derive from one another."""

    class HFValidationError(ValueError):
        pass

    class RepositoryNotFoundError(OSError):
        pass

    class GatedRepoError(RepositoryNotFoundError):
        pass

    class RevisionNotFoundError(OSError):
        pass

    class LocalEntryNotFoundError(FileNotFoundError):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path, parity):
    """A Hub that has hf_tiny; `hub.asked` lists what was asked of it, `hub.error` is raised."""
    folder = tmp_path / "hub" / "snapshots" / COMMIT
    shutil.copytree(parity / "hf_tiny" / "model", folder)
    module = types.ModuleType("huggingface_hub")
    module.errors = Errors("huggingface_hub.errors")
    module.asked, module.error, module.folder = [], None, folder

    def snapshot_download(repo, *, revision, allow_patterns):
        module.asked.append((repo, revision, allow_patterns))
        if module.error is not None:
            raise module.error
        return str(folder)

    module.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", module.errors)
    return module


def test_a_name_is_read_as_its_folder_is(hub, caplog):
    assert checkpoint.find(f"hf://google/tiny@{COMMIT}") == str(hub.folder)
    files = ["config.json", "model.safetensors", "model.safetensors.index.json"]
    assert hub.asked == [("google/tiny", COMMIT, [*files, "model-*-of-*.safetensors"])]
    assert not caplog.records
    assert len(checkpoint.variables(f"hf://google/tiny@{COMMIT}")) == 52


@pytest.mark.parametrize(
    ("name", "revision"), [("hf://google/tiny", None), ("hf://google/tiny@refs/pr/2", "refs/pr/2")]
)
def test_what_is_not_pinned_is_logged(name, revision, hub, caplog):
    with caplog.at_level(logging.WARNING):
        checkpoint.find(name)
    assert hub.asked[0][:2] == ("google/tiny", revision)
    assert caplog.messages == [
        f"{name} is at commit {COMMIT} now; to pin it, name hf://google/tiny@{COMMIT}."
    ]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Errors.RepositoryNotFoundError("401"), "the Hub has no model 'google/tiny', or a private"),
        (Errors.GatedRepoError("403"), "is gated: accept its terms at"),
        (Errors.RevisionNotFoundError("404"), "google/tiny has no revision 'v9'"),
        (Errors.HFValidationError("two"), "a model is named OWNER/NAME"),
        (
            Errors.LocalEntryNotFoundError("gone"),
            "cannot be reached .* revision 'v9' is not complete",
        ),
        (OSError("disk full\nat line 9"), "OSError: disk full"),
    ],
)
def test_each_failure_is_one_sentence(error, message, hub):
    hub.error = error
    with pytest.raises(ValueError, match=f"^'hf://google/tiny@v9' cannot be fetched: .*{message}"):
        checkpoint.find("hf://google/tiny@v9")


@pytest.mark.parametrize("name", ["hf://", "hf://google/tiny@", "hf://@main"])
def test_a_name_that_is_none(name, hub):
    with pytest.raises(ValueError, match="is named hf://OWNER/NAME or hf://OWNER/NAME@REVISION"):
        checkpoint.find(name)
    assert not hub.asked


def test_a_model_without_safetensors(hub):
    (hub.folder / "model.safetensors").unlink()
    with pytest.raises(ValueError) as error:
        checkpoint.find("hf://google/tiny@v9")
    assert str(error.value).startswith("'google/tiny@v9' has no safetensors. Take a revision that")
    assert "M.from_pretrained('google/tiny', revision='v9').save_pretrained(" in str(error.value)


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"not installed: pip install 'prompt-tuning\[hf\]'"):
        checkpoint.find("hf://google/tiny")


def test_the_real_librarys_cache(monkeypatch, tmp_path, parity, caplog):
    constants = pytest.importorskip(
        "huggingface_hub.constants",
        reason="huggingface_hub is not installed: pip install 'prompt-tuning[hf]'",
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--google--tiny"
    shutil.copytree(parity / "hf_tiny" / "model", repo / "snapshots" / COMMIT)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    for name in ("hf://google/tiny", f"hf://google/tiny@{COMMIT}"):
        assert hugging_face_hub.fetch(name) == str(repo / "snapshots" / COMMIT)
    assert f"at commit {COMMIT}" in caplog.text
    with pytest.raises(
        ValueError, match="cannot be reached .* revision 'v9' is not complete in the"
    ):
        hugging_face_hub.fetch("hf://google/tiny@v9")
    with pytest.raises(ValueError, match="'hf://a/b/c' cannot be fetched: a model is named"):
        hugging_face_hub.fetch("hf://a/b/c")
