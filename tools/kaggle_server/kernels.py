"""The kernels of an account: each pushed script really runs, in folders that look like Kaggle's.

    with KaggleServer() as server, Kernels(server, folder, archive) as kernels:
        run("python -m pipeline.remote residual", env=server.environment(home))
        assert kernels.pushed == ["train-residual-0123456789ab"]

A script runs in a child process with the Python of this one, without network. Its log and its output stay in `folder`.
"""

import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

from tools.kaggle_server.server import (
    COMPETITION,
    SIGNED,
    STORE,
    USER,
    Answer,
    KaggleServer,
    Request,
    refusal,
    reply,
    rpc,
)

SAVE, STATUS, FILES = (
    rpc(method, "kernels.KernelsApiService")
    for method in ("SaveKernel", "GetKernelSessionStatus", "ListKernelSessionOutput")
)
PAGE = 3  # files of an output that are listed at once
OFFLINE = {"PIP_NO_INDEX": "1", "UV_OFFLINE": "1"}


class Kernels:
    """The kernels of one account. A test may set what the next ones meet: `limit`, `refuse`, `mount`, `ends`."""

    def __init__(self, server: KaggleServer, folder: Path, archive: Path) -> None:
        self.server, self.folder, self.archive = server, folder, archive
        self.pushed: list[str] = []  # slugs, in order
        self.running: dict[str, subprocess.Popen] = {}
        self.ends: dict[str, str] = {}  # the status of a kernel, instead of its process's
        self.limit = ""  # seconds, as REMOTE_LIMIT
        self.refuse: dict[str, Any] = {}  # in the answer to a push, instead of running it
        self.mount = "competitions/{}"  # where a competition lies below the input; Kaggle had "{}" before
        for key, answer in {SAVE: self.save, STATUS: self.status, FILES: self.files}.items():
            server.answers[key] = partial(self.checked, answer)

    def __enter__(self) -> "Kernels":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()

    def checked(self, answer: Any, request: Request) -> Answer:
        if request.headers.get("authorization") != SIGNED:
            return refusal(401, "Unauthorized")
        return answer(request.json)

    def save(self, asked: dict[str, Any]) -> Answer:
        owner, slug = asked["slug"].split("/")
        if owner != USER or slug != re.sub(r"\W+", "-", asked["newTitle"].lower()) or not asked["isPrivate"]:
            return refusal(400, "the title does not give the slug, or the kernel is not private")
        if self.refuse:
            return reply(self.refuse)
        if asked["competitionDataSources"] != [COMPETITION]:
            return reply({"invalidCompetitionSources": asked["competitionDataSources"]})
        self.pushed.append(slug)
        self.ends.pop(slug, None)
        self.start(slug, asked["text"], [name.split("/")[1] for name in asked.get("kernelDataSources", [])])
        self.server.answers["GET", f"/api/v1/kernels/logs/stream/{USER}/{slug}"] = self.log(slug)
        return reply({"ref": f"/code/{USER}/{slug}", "url": f"https://www.kaggle.com/code/{USER}/{slug}"})

    def output(self, slug: str) -> Path:
        return self.folder / slug / "working"

    def start(self, slug: str, text: str, sources: list[str]) -> None:
        """Run a script as a new version of a kernel."""
        folder = self.folder / slug
        rmtree(folder, ignore_errors=True)
        copytree(self.archive, folder / "input" / self.mount.format(COMPETITION))
        for source in sources:
            copytree(self.output(source), folder / "input" / "notebooks" / USER / source)
        self.output(slug).mkdir()
        (folder / "script.py").write_text(text, encoding="utf-8")
        places = {"INPUT": "input", "OUTPUT": "working", "SCRATCH": "scratch"}
        remote = {f"REMOTE_{name}": str(folder / place) for name, place in places.items()}
        remote |= {"REMOTE_LIMIT": self.limit} if self.limit else {}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("KAGGLE_", "PYTHONPATH"))}
        proxies = self.server.environment(folder / "home")
        with (folder / "log").open("wb") as log:
            self.running[slug] = subprocess.Popen(
                [sys.executable, "script.py"],
                cwd=folder,
                env=kept | proxies | OFFLINE | remote | {"DVC_SITE_CACHE_DIR": str(folder / "dvc")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def status(self, asked: dict[str, Any]) -> Answer:
        slug = asked["kernelSlug"]
        if slug not in self.running:
            return refusal(403, "Permission 'kernels.get' was denied")
        code = self.running[slug].poll()
        status = self.ends.get(slug) or ("RUNNING" if code is None else "ERROR" if code else "COMPLETE")
        return reply({"status": status} | ({"failureMessage": f"exit {code}"} if status == "ERROR" else {}))

    def log(self, slug: str) -> Any:
        """The answer to a request for a kernel's log: events as far as there are, then it hangs up."""

        def answer(_: Request) -> Answer:
            lines = (self.folder / slug / "log").read_text(encoding="utf-8", errors="replace").splitlines()
            events = [json.dumps({"stream_name": "stdout", "time": 0, "data": f"{line}\n"}) for line in lines]
            if self.running[slug].poll() is not None:
                return Answer(200, f"[{','.join(events)}]".encode(), {"Content-Type": "application/json"})
            body = "".join(f"data: {event}\n\n" for event in events).encode()
            return Answer(200, body, {"Content-Type": "text/event-stream"}, length=False)

        return answer

    def files(self, asked: dict[str, Any]) -> Answer:
        """A page of the list of a kernel's output. The client then gets each file from the store."""
        slug, start = asked["kernelSlug"], int(asked.get("pageToken") or 0)
        folder = self.output(slug)
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        listed = []
        for path in paths[start : start + PAGE]:
            name = path.relative_to(folder).as_posix()
            self.server.answers.setdefault(("GET", f"/output/{slug}/{name}"), lambda _, path=path: Answer(body=path))
            listed.append({"url": f"{STORE}/output/{slug}/{name}?signature=s3cret", "fileName": name})
        more = str(start + PAGE) if len(paths) > start + PAGE else ""
        return reply({"files": listed, "log": "[]", "nextPageToken": more})
