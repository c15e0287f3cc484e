"""A fake Kaggle on 127.0.0.1 for the unmodified client: a table of answers and a record of the requests.

By hand, in a repository whose submission is for a drawn competition:

    python -m tools.kaggle_server

It prints what to export in another terminal, so that `python -m pipeline.upload -m "a try"` connects to it.

In a test:

    with KaggleServer() as server:
        server.answers[rpc("DownloadDataFiles")] = redirect("http://storage.test/photo-reconstruction.zip")
        server.answers["GET", "/photo-reconstruction.zip"] = Answer(body=path)
        run("python -m pipeline.fetch", env=server.environment(home))
        assert server.asked(rpc("DownloadDataFiles"))[0].json == {"competitionName": "photo-reconstruction"}

The client connects to http://localhost and uses this server as its proxy for every address, so it reaches nothing else.
A Contest is the competition behind the answers: it accepts submissions, scores them and has a leaderboard.
"""

import argparse
import base64
import hashlib
import io
import json
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline import paths
from pipeline.base.errors import BadInput
from pipeline.competition import submission
from pipeline.competition.images import read_images
from pipeline.competition.index import boxes_of, read_index
from pipeline.competition.metric import rmse

USER, KEY = "tester", "k3y"
Key = tuple[str, str]  # method, path


@dataclass
class Request:
    method: str
    url: str
    headers: dict[str, str]  # lower-case names
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    """`body` may be a file. A client may request the rest of a body that has an ETag."""

    status: int = 200
    body: bytes | Path = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: bool = True  # send Content-Length; otherwise the end of the connection ends the body
    cut: int | None = None  # hang up after this many bytes of the body
    stall: int | None = None  # send nothing more after this many bytes of the body; -1: send nothing at all
    pause: float = 0.0  # seconds after each PIECE of the body


PIECE = 2**14  # bytes
Answers = Answer | list[Answer] | Callable[[Request], Answer]  # a list: one after the other; the last one repeats


def rpc(method: str, service: str = "competitions.CompetitionApiService") -> Key:
    """The key of a method of the API."""
    return "POST", f"/api/v1/{service}/{method}"


def reply(value: Any, status: int = 200) -> Answer:
    """An answer of the API."""
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


def refusal(status: int, message: str = "") -> Answer:
    """An error answer of the API."""
    return reply({"code": status, "message": message or f"refused with {status}"}, status)


def wait_first(seconds: float | str) -> Answer:
    """An answer of the API that asks to wait."""
    answer = refusal(429, "slow down")
    answer.headers["Retry-After"] = str(seconds)
    return answer


def redirect(url: str) -> Answer:
    return Answer(302, headers={"Location": url})


def download(body: bytes | Path) -> Answer:
    """A file as the store serves it, with its checksum, so that a download can resume."""
    data = body.read_bytes() if isinstance(body, Path) else body
    etag = f'"{hashlib.sha256(data).hexdigest()}"'
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Type": "application/zip"}
    return Answer(body=body, headers=headers | {"Last-Modified": "Wed, 01 Mar 2023 08:00:00 GMT"})


class Handler(BaseHTTPRequestHandler):
    """Sends a KaggleServer's answers: every request goes to `self.server.owner`."""

    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.send(self.server.owner.answer(Request(self.command, self.path, headers, body)), headers)

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
        self.close_connection = True
        if answer.stall == -1:
            self.server.owner.closing.wait()
            return
        self.send_response(status)
        for name, value in (headers | ({"Content-Length": str(len(body))} if answer.length else {})).items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(ConnectionError):  # the client may hang up after the headers
            self.send_body(b"" if self.command == "HEAD" else body[: answer.cut][: answer.stall], answer.pause)
        if answer.stall is not None:
            self.server.owner.closing.wait()
        self.close_connection = not answer.length or answer.cut is not None or self.command == "CONNECT"

    def send_body(self, body: bytes, pause: float) -> None:
        size = PIECE if pause else max(len(body), 1)
        for start in range(0, len(body), size):
            self.wfile.write(body[start : start + size])
            time.sleep(pause)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


class KaggleServer:
    """Answers on 127.0.0.1 until the block ends."""

    def __init__(self) -> None:
        self.answers: dict[Key, Answers] = {}
        self.requests: list[Request] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()  # ends stalled answers
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.owner = self
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> "KaggleServer":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def environment(self, home: Path, credentials: bool = True) -> dict[str, str]:
        """The environment with which the client connects to this server and nowhere else."""
        proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), self.url)
        proxies |= dict.fromkeys(("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"), "")
        account = {"KAGGLE_USERNAME": USER, "KAGGLE_KEY": KEY} if credentials else {}
        homes = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")}
        return {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", **homes, **proxies, **account}

    def asked(self, key: Key) -> list[Request]:
        """The requests with this key, in order."""
        return [request for request in self.requests if (request.method, urlsplit(request.url).path) == key]

    def answer(self, request: Request) -> Answer:
        """Look the answer up: 404 if the table has none, as for a tunnel to the real site."""
        with self.lock:
            self.requests.append(request)
            found = self.answers.get((request.method, urlsplit(request.url).path))
            if isinstance(found, list):
                found = found.pop(0) if len(found) > 1 else found[0]
        if callable(found):
            found = found(request)
        return found or refusal(404, f"there is no answer to {request.method} {request.url}")


COMPETITION = "photo-reconstruction"
STORE = "http://storage.test"
FILES, START, CREATE, LIST, BOARD, LIMITS = map(
    rpc,
    (
        "DownloadDataFiles",
        "StartSubmissionUpload",
        "CreateSubmission",
        "ListSubmissions",
        "GetLeaderboard",
        "GetSubmissionLimits",
    ),
)
SIGNED = "Basic " + base64.b64encode(f"{USER}:{KEY}".encode()).decode()


class Contest:
    """The competition behind a server: it checks and unpacks each upload, and scores it after `polls` requests.

    `score` returns a CSV's score, or raises BadInput that names its fault.
    """

    def __init__(self, server: KaggleServer, score: Callable[[bytes], float], polls: int = 1) -> None:
        self.server, self.score, self.polls = server, score, polls
        self.submissions: list[dict[str, Any]] = []  # in the API's form, newest first
        self.teams: list[dict[str, Any]] = []  # the leaderboard, best first
        self.promised: dict[str, int] = {}  # the announced size of each upload, in bytes
        self.received: dict[str, bytes] = {}
        self.page = 20  # entries a page, whatever the client requests
        self.daily = 20  # submissions allowed a day
        answers = {START: self.start, CREATE: self.create, LIST: self.listed, BOARD: self.board, LIMITS: self.limits}
        for key, answer in answers.items():
            server.answers[key] = partial(self.checked, answer)

    def checked(self, answer: Callable[[dict[str, Any]], Answer], request: Request) -> Answer:
        """The answer, if the request comes from the user and names this competition."""
        if request.headers.get("authorization") != SIGNED:
            return refusal(401, "Unauthorized")
        if request.json["competitionName"] != COMPETITION:
            return refusal(404, "Not Found")
        return answer(request.json)

    def start(self, asked: dict[str, Any]) -> Answer:
        if not (asked["fileName"] and asked["lastModifiedEpochSeconds"]):
            return refusal(400, "a file has a name and a date")
        token = f"token{len(self.promised)}"
        self.promised[token] = asked["contentLength"]
        self.server.answers["PUT", f"/upload/{token}"] = partial(self.put, token)
        return reply({"token": token, "createUrl": f"{STORE}/upload/{token}?signature=s3cret"})

    def put(self, token: str, request: Request) -> Answer:
        if "authorization" in request.headers or len(request.body) != self.promised[token]:
            return Answer(400)
        self.received[token] = request.body
        return Answer()

    def create(self, asked: dict[str, Any]) -> Answer:
        data = self.received.pop(asked["blobFileTokens"], None)
        if data is None:
            return refusal(400, "no such upload")
        if self.today() >= self.daily:
            return refusal(400, f"Your team has used its daily Submission allowance ({self.daily}) today.")
        ref = 1000 + len(self.submissions)
        self.submissions.insert(0, self.judged(data) | {"ref": ref, "description": asked["submissionDescription"]})
        return reply({"message": "Successfully submitted", "ref": ref})

    def judged(self, data: bytes) -> dict[str, Any]:
        """A new, pending submission; `later` has its result."""
        now = time.strftime("%Y-%m-%dT%H:%M:%S.123Z", time.gmtime())
        base = {"date": now, "totalBytes": len(data), "status": "PENDING", "polls": self.polls}
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                (name,) = archive.namelist()
                score = self.score(archive.read(name))
        except BadInput as error:
            return base | {"later": {"status": "ERROR", "errorDescription": str(error)}}
        return base | {"later": {"status": "COMPLETE", "publicScore": f"{score:.5f}", "privateScore": ""}}

    def listed(self, asked: dict[str, Any]) -> Answer:
        for entry in self.submissions:
            if entry.get("polls", -1) == 0:
                entry |= entry.pop("later")
            entry["polls"] = entry.get("polls", -1) - 1
        return self.paged(self.submissions, asked)

    def today(self) -> int:
        """How many valid submissions were sent today, UTC."""
        valid = [entry for entry in self.submissions if entry["status"] != "ERROR"]
        return sum(entry["date"].startswith(time.strftime("%Y-%m-%d", time.gmtime())) for entry in valid)

    def limits(self, _: dict[str, Any]) -> Answer:
        used, left = self.today(), max(self.daily - self.today(), 0)
        return reply({"numToday": used, "numTotal": len(self.submissions), "numAllowedNow": left})

    def board(self, asked: dict[str, Any]) -> Answer:
        return self.paged(self.teams, asked)

    def paged(self, entries: list[dict[str, Any]], asked: dict[str, Any]) -> Answer:
        start = int(asked.get("pageToken") or 0)
        stop = start + self.page
        shown = [{key: value for key, value in entry.items() if key not in ("polls", "later")} for entry in entries]
        return reply({"submissions": shown[start:stop], "nextPageToken": str(stop) if stop < len(entries) else ""})


def scorer(
    index: Path, truth: Path, channels: submission.Channels = "bgr", scale: submission.Scale = "minmax"
) -> Callable[[bytes], float]:
    """A function that scores a CSV against a drawn competition's targets, in Kaggle's channel order and scale."""
    rows = read_index(index)
    test = rows[rows["split"] == "test"]
    names, boxes = test["filename"].tolist(), boxes_of(test)
    answer = submission.encode(read_images([truth / name for name in names]), boxes, channels, scale)

    def score(csv: bytes) -> float:
        with tempfile.NamedTemporaryFile(suffix=".csv") as file:
            file.write(csv)
            file.flush()
            return rmse(submission.read(Path(file.name), names, boxes), answer)

    return score


def main() -> None:
    parser = argparse.ArgumentParser(description="A fake Kaggle on this machine, for a drawn competition.")
    parser.add_argument(
        "--archive",
        type=Path,
        help="the competition's zip, for fetch.source: kaggle, or its folder: only pipeline.remote then",
    )
    parser.add_argument("--index", type=Path, default=paths.INDEX)
    parser.add_argument("--truth", type=Path, default=paths.TRUTH, help="the test images without holes")
    parser.add_argument("--polls", type=int, default=3, help="requests before a submission is scored")
    arguments = parser.parse_args()
    with KaggleServer() as server, ExitStack() as running:
        if arguments.archive and arguments.archive.is_dir():
            from tools.kaggle_kernels import Kernels  # it imports this file

            folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
            running.enter_context(Kernels(server, folder, arguments.archive))
        else:
            contest = Contest(server, scorer(arguments.index, arguments.truth), arguments.polls)
            contest.teams = [
                {"teamId": k, "teamName": f"team {k}", "score": f"{0.15 + k / 100:.5f}"} for k in range(30)
            ]
            if arguments.archive:
                server.answers[FILES] = redirect(f"{STORE}/{COMPETITION}.zip")
                server.answers["GET", f"/{COMPETITION}.zip"] = download(arguments.archive)
        for name, value in server.environment(Path.home()).items():
            if name not in ("HOME", "XDG_CONFIG_HOME"):  # git and DVC need the user's own
                print(f"export {name}={value}")
        print("# Ctrl-C ends it", flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
