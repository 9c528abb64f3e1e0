"""A fake gs://: what is in a bucket is in a local folder.

Three libraries reach a bucket: etils.epath, whose file system is replaced here; tensorstore, which
talks to a server of this process in Google's JSON API; and google-cloud-storage, which Orbax asks
what kind of a bucket it is.
"""

import http.server
import json
import os
import sys
import threading
import types
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from etils.epath import backend, gpath

TOKEN_ERROR = RuntimeError("no credentials\nand a second line")


class Bucket(backend._OsPathBackend):
    """Stands in for TensorFlow's file system.

    Attributes:
      folder: gs://NAME/FILE is folder/NAME/FILE.
      error: raised by every call, if set.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.error: Exception | None = None

    def local(self, path: Any) -> Any:
        """The local path of gs://...; another one stays."""
        if self.error is not None:
            raise self.error
        text = os.fspath(path)
        if not text.startswith("gs://"):
            return path
        return os.path.join(self.folder, text.removeprefix("gs://"))


def _translated(name: str):
    original = getattr(backend._OsPathBackend, name)

    def method(self, path, *rest, **named):
        if name == "open":  # a bucket has no folders: a file may be written anywhere
            os.makedirs(os.path.dirname(self.local(path)), exist_ok=True)
        rest = [self.local(x) if isinstance(x, str) and "://" in x else x for x in rest]
        found = original(self, self.local(path), *rest, **named)
        if name == "glob":
            return [f"gs://{os.path.relpath(each, self.folder)}" for each in found]
        return found

    return method


_NAMES = (
    "open", "exists", "isdir", "listdir", "glob", "makedirs", "mkdir", "rmtree", "remove",
    "rename", "replace", "copy", "stat",
)  # fmt: skip
for _name in _NAMES:
    setattr(Bucket, _name, _translated(_name))


class Objects(http.server.BaseHTTPRequestHandler):
    """The part of https://cloud.google.com/storage/docs/json_api that tensorstore asks for."""

    protocol_version = "HTTP/1.1"
    folder: Path  # set by `serve`
    lock = threading.Lock()

    def do_GET(self):
        bucket, name, asked = self._asked()
        if name is None:
            root = self.folder / bucket
            files = [path for path in root.rglob("*") if path.is_file()]
            names = sorted(path.relative_to(root).as_posix() for path in files)
            first, end = asked.get("startOffset", ""), asked.get("endOffset", "\U0010ffff")
            prefix = asked.get("prefix", "")
            names = [each for each in names if first <= each < end and each.startswith(prefix)]
            self._answer(200, json.dumps({"items": [{"name": each} for each in names]}).encode())
            return
        path = self.folder / bucket / name
        if not path.is_file():
            self._answer(404)
            return
        content, generation = path.read_bytes(), path.stat().st_mtime_ns
        if asked.get("alt") != "media":
            about = {"name": name, "size": str(len(content)), "generation": str(generation)}
            self._answer(200, json.dumps(about).encode())
            return
        wanted = self.headers.get("Range")
        if wanted is None:
            self._answer(200, content, generation)
            return
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start = int(first) if first else len(content) - int(last)
        end = int(last) + 1 if first and last else len(content)
        part = f"bytes {start}-{min(end, len(content)) - 1}/{len(content)}"
        self._answer(206, content[start:end], generation, {"Content-Range": part})

    def do_POST(self):
        bucket, _, asked = self._asked()
        content = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.folder / bucket / asked["name"]
        with self.lock:
            old = path.stat().st_mtime_ns if path.is_file() else 0
            if int(asked.get("ifGenerationMatch", old)) != old:
                self._answer(412)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            generation = path.stat().st_mtime_ns
        about = {"name": asked["name"], "generation": str(generation)}
        self._answer(200, json.dumps(about).encode())

    def do_DELETE(self):
        bucket, name, _ = self._asked()
        (self.folder / bucket / name).unlink(missing_ok=True)
        self._answer(204)

    def log_message(self, *_):
        pass

    def _asked(self) -> tuple[str, str | None, dict[str, str]]:
        """The bucket, the object and the parameters of .../b/BUCKET/o/OBJECT?..."""
        url = urllib.parse.urlsplit(self.path)
        bucket, _, rest = url.path.partition("/b/")[2].partition("/o")
        name = urllib.parse.unquote(rest.removeprefix("/")) or None
        return bucket, name, dict(urllib.parse.parse_qsl(url.query))

    def _answer(self, status, content=b"", generation=None, headers=()):
        self.send_response(status)
        for header, value in dict(headers).items():
            self.send_header(header, value)
        if generation is not None:
            self.send_header("x-goog-generation", str(generation))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def installed(patch: pytest.MonkeyPatch, folder: Path) -> Iterator[Bucket]:
    """Makes gs:// the folder, for us and for Orbax."""
    fake = Bucket(folder)
    real = gpath._GPath._backend.fget
    patch.setattr(
        gpath._GPath, "_backend", property(lambda self: fake if self._uri_scheme else real(self))
    )
    storage = types.ModuleType("google.cloud.storage")
    flat = types.SimpleNamespace(hierarchical_namespace_enabled=False)
    storage.Client = lambda: types.SimpleNamespace(get_bucket=lambda name: flat)
    patch.setitem(sys.modules, storage.__name__, storage)
    handler = type("Handler", (Objects,), {"folder": folder})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    patch.setenv("TENSORSTORE_GCS_HTTP_URL", f"http://127.0.0.1:{server.server_port}")
    patch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "token")
    yield fake
    server.shutdown()
    server.server_close()
