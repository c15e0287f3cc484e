"""The competition behind the server: it accepts submissions, scores them and has a leaderboard."""

import io
import tempfile
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.base.errors import BadInput
from pipeline.competition import submission
from pipeline.competition.images import read_images
from pipeline.competition.index import boxes_of, read_index
from pipeline.competition.metric import rmse
from tools.kaggle_server.server import COMPETITION, SIGNED, STORE, Answer, KaggleServer, Request, refusal, reply, rpc

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


class Contest:
    """Checks and unpacks each upload, and scores it after `polls` requests.

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
