"""Where pretrained weights are found: in a folder, or at a commit of the hub; a local server stands in for it."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pipeline.base.errors import BadInput
from pipeline.systems.shared.hub import locate

HUB_ID, COMMIT = "keras-io/CycleGAN", "4196a07fe2b504e8cb126329a975e54b5fe45a5b"
FILES = {"README.md": b"what it is", "saved_model.pb": b"graph", "variables/variables.index": b"names"}


@dataclass
class Hub:
    """A stand-in for huggingface.co with FILES at one commit; it keeps the paths of all requests."""

    url: str
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str) -> tuple[int, bytes]:
        self.asked.append(path)
        if path == f"/api/models/{HUB_ID}/tree/{COMMIT}":
            listing = [
                {"type": "file", "path": name, "size": len(content), "oid": f"{number:040x}"}
                for number, (name, content) in enumerate(FILES.items())
            ]
            return 200, json.dumps(listing).encode()
        name = path.removeprefix(f"/{HUB_ID}/resolve/{COMMIT}/")
        return (200, FILES[name]) if name in FILES else (404, b"")


@pytest.fixture
def hub() -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, content = found.answer(urlsplit(self.path).path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Hub(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture
def located(tmp_path, code_here):
    """`located(id, HF_HUB_OFFLINE="1")`: a new process's output, since the client reads its variables once."""
    code = """
import sys
from pathlib import Path
from pipeline.base.errors import BadInput
from pipeline.systems.shared.hub import locate
try:
    print(locate(*sys.argv[1:], Path("downloads"), ("saved_model.pb", "variables/*")))
except BadInput as error:
    print("BadInput:", error)
"""

    def run(hub_id: str, **variables: str) -> str:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        done = subprocess.run(
            [sys.executable, "-c", code, hub_id, COMMIT],
            env=inherited | code_here | {"HF_HOME": str(tmp_path / "home")} | variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


def test_a_folder_is_used_with_any_revision(tmp_path):
    assert locate(str(tmp_path), "", tmp_path / "downloads") == tmp_path
    assert locate(str(tmp_path), COMMIT, tmp_path / "downloads") == tmp_path
    assert not (tmp_path / "downloads").exists()


def test_a_folder_with_the_name_of_a_hub_id_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(HUB_ID).mkdir(parents=True)
    assert locate(HUB_ID, "", tmp_path / "downloads") == Path(HUB_ID)


@pytest.mark.parametrize("pretrained", ["weights", "/no/such/folder", "a/b/c", "two words/x"])
def test_anything_else_is_refused(tmp_path, pretrained):
    with pytest.raises(BadInput, match=f"pretrained is '{pretrained}': neither a folder here nor a hub id"):
        locate(pretrained, COMMIT, tmp_path)


@pytest.mark.parametrize("revision", ["", "main", COMMIT[:7], COMMIT.upper(), COMMIT + "0"])
def test_a_hub_id_needs_a_whole_commit(tmp_path, revision):
    with pytest.raises(
        BadInput, match=f"revision '{revision}': set revision to the 40 hexadecimal digits .*{HUB_ID}/commits"
    ):
        locate(HUB_ID, revision, tmp_path)


def test_offline_one_line_says_what_to_do(located):
    line = located(HUB_ID, HF_HUB_OFFLINE="1")
    assert line.startswith(f"BadInput: {HUB_ID} at {COMMIT} is not in downloads and could not be downloaded")
    assert line.endswith("connect to the network, or download it elsewhere and set pretrained to its folder")
    assert len(line.splitlines()) == 1


@pytest.mark.slow
def test_the_needed_files_are_downloaded_once(hub, located, tmp_path):
    folder = Path(located(HUB_ID, HF_ENDPOINT=hub.url))
    assert folder.is_relative_to(tmp_path / "downloads")
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == {name: content for name, content in FILES.items() if name != "README.md"}
    assert hub.asked
    hub.asked.clear()
    assert Path(located(HUB_ID, HF_ENDPOINT=hub.url)) == folder and hub.asked == []
    assert Path(located(HUB_ID, HF_HUB_OFFLINE="1")) == folder


def test_a_repository_that_does_not_exist_is_named(hub, located):
    line = located("keras-io/Nothing", HF_ENDPOINT=hub.url)
    assert line.startswith(f"BadInput: keras-io/Nothing at {COMMIT}") and "404" in line
    assert len(line.splitlines()) == 1 and f"/api/models/keras-io/Nothing/tree/{COMMIT}" in hub.asked
