"""A stand-in for Kaggle on 127.0.0.1, for the unmodified client: a table of answers, and a record of what was asked.

    with KaggleServer() as server:
        server.answers[rpc("DownloadDataFiles")] = redirect("http://storage.test/photo-reconstruction.zip")
        server.answers["GET", "/photo-reconstruction.zip"] = Answer(body=path)
        run("python -m pipeline.fetch", env=server.environment(home))
        assert server.asked(rpc("DownloadDataFiles"))[0].json == {"competitionName": "photo-reconstruction"}

The client is told to use http://localhost, and this server as its proxy for every address: it reaches nothing else.
"""

import hashlib
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

USER, KEY = "tester", "k3y"
Key = tuple[str, str]  # method, path


@dataclass
class Request:
    method: str
    url: str
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    """`body` may be a file. A file or bytes with an ETag can be asked for from a byte on; `cut` sends less than it says
    and hangs up."""

    status: int = 200
    body: bytes | Path = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


Answers = Answer | list[Answer] | Callable[[Request], Answer]  # a list: one after the other, the last from then on


def rpc(method: str, service: str = "competitions.CompetitionApiService") -> Key:
    """The key of one of the API's methods."""
    return "POST", f"/api/v1/{service}/{method}"


def reply(value: Any, status: int = 200) -> Answer:
    """What the API answers."""
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


def refusal(status: int, message: str = "") -> Answer:
    """What the API answers where it refuses."""
    return reply({"code": status, "message": message or f"refused with {status}"}, status)


def redirect(url: str) -> Answer:
    return Answer(302, headers={"Location": url})


def download(body: bytes | Path) -> Answer:
    """A file as the store serves it: with its checksum, and from any byte on."""
    data = body.read_bytes() if isinstance(body, Path) else body
    etag = f'"{hashlib.sha256(data).hexdigest()}"'
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Type": "application/zip"}
    return Answer(body=body, headers=headers | {"Last-Modified": "Wed, 01 Mar 2023 08:00:00 GMT"})


class KaggleServer:
    """Answers on 127.0.0.1 until the block ends."""

    def __init__(self) -> None:
        self.answers: dict[Key, Answers] = {}
        self.requests: list[Request] = []
        self.lock = threading.Lock()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> "KaggleServer":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def environment(self, home: Path, credentials: bool = True) -> dict[str, str]:
        """What the client needs in its environment to come here and nowhere else."""
        proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), self.url)
        proxies |= dict.fromkeys(("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"), "")
        account = {"KAGGLE_USERNAME": USER, "KAGGLE_KEY": KEY} if credentials else {}
        homes = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")}
        return {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", **homes, **proxies, **account}

    def asked(self, key: Key) -> list[Request]:
        """The requests of this key, in order."""
        return [request for request in self.requests if (request.method, urlsplit(request.url).path) == key]

    def answer(self, request: Request) -> Answer:
        """Look the answer up; what is not in the table is a 404, and a tunnel to the real site is refused."""
        with self.lock:
            self.requests.append(request)
            found = self.answers.get((request.method, urlsplit(request.url).path))
            if isinstance(found, list):
                found = found.pop(0) if len(found) > 1 else found[0]
        if callable(found):
            found = found(request)
        return found or refusal(404, f"there is no answer to {request.method} {request.url}")

    def handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                self.send(server.answer(Request(self.command, self.path, headers, body)), headers)

            do_GET = do_POST = do_PUT = do_HEAD = do_CONNECT = handle_any  # noqa: N815

            def send(self, answer: Answer, asked: dict[str, str]) -> None:
                body = answer.body.read_bytes() if isinstance(answer.body, Path) else answer.body
                status, headers = answer.status, dict(answer.headers)
                start = int(asked.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
                etag = headers.get("ETag")
                if start and etag and asked.get("if-range", etag) == etag:
                    status = 206
                    headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
                    body = body[start:]
                self.send_response(status)
                for name, value in (headers | {"Content-Length": str(len(body))}).items():
                    self.send_header(name, value)
                self.end_headers()
                with suppress(ConnectionError):  # the client may hang up once it has seen the headers
                    self.wfile.write(b"" if self.command == "HEAD" else body[: answer.cut])
                self.close_connection = answer.cut is not None or self.command == "CONNECT"

            def log_message(self, *_: object) -> None:
                pass

        return Handler
