"""Kaggle's kernels, through the official client: push a script, follow its log, fetch its output.

A kernel is named by its slug; its owner is the account. Every function raises BadInput as those of client.py do.
"""

import io
import json
import math
import os
import re
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from http import HTTPStatus
from pathlib import Path
from typing import Any

from pipeline.base.errors import BadInput
from pipeline.base.progress import say
from pipeline.kaggle.client import (
    ANSWER,
    COMPETITION_PAGE,
    UNKNOWN_ANSWER,
    Listing,
    Result,
    ask,
    brief,
    client,
    explain,
    status_of,
    within,
    words,
)
from pipeline.kaggle.credentials import SETTINGS
from pipeline.kaggle.on_kaggle import LARGEST_SOURCE

SERVICE = "kernels.KernelsApiService"
SCRIPT = "train.py"
UNDER_WAY = ("QUEUED", "RUNNING", "NEW_SCRIPT")  # any other status is an end
LOG_SILENCE = 60.0  # seconds to wait for the next line of a log before the status is asked for again
FILE_SILENCE = 1800.0  # seconds for one file of the output, which the client writes when all of it has arrived
LONGEST_PAUSE = 30.0  # seconds between two requests for the status
FULL = r"quota|session count|too many"  # in Kaggle's words if no GPU is free for this account


def owned(slug: str) -> str:
    """The full name of a kernel: the account's name and the slug."""
    name = client().get_config_value("username")
    if not name:
        raise BadInput(f"the Kaggle account has no username here; create a new token at {SETTINGS} (API)")
    return f"{name}/{slug}"


def page(slug: str) -> str:
    return f"https://www.kaggle.com/code/{owned(slug)}"


def describe(slug: str, competition: str, before: str) -> dict[str, Any]:
    """A kernel's metadata: a private script with the competition's data, a GPU, the internet, and the output of the
    kernel `before`, if it is not ""."""
    return {
        "id": owned(slug),
        "title": slug.replace("-", " "),  # Kaggle makes the slug from it
        "code_file": SCRIPT,
        "language": "python",
        "kernel_type": "script",
        "is_private": True,
        "enable_gpu": True,
        "enable_internet": True,
        "competition_sources": [competition],
        "kernel_sources": [owned(before)] if before else [],
    }


def push(folder: Path, metadata: dict[str, Any], source: str, accelerator: str) -> None:
    """Push a script, which Kaggle then runs; `folder` keeps what was sent.

    It is not repeated, because Kaggle may have received it although its answer was lost: state tells.
    """
    if (size := len(source.encode())) > LARGEST_SOURCE:
        raise BadInput(f"the code to push has {size:,} bytes, but Kaggle takes {LARGEST_SOURCE:,}; remove large files")
    api, (competition,) = client(), metadata["competition_sources"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SCRIPT).write_text(source, encoding="utf-8")
    (folder / api.KERNEL_METADATA_FILE).write_text(json.dumps(metadata), encoding="utf-8")

    def send() -> Any:
        try:
            with within(ANSWER):
                return api.kernels_push(os.fspath(folder), acc=accelerator)
        except OSError as error:
            if status_of(error) in range(400, 500) and re.search(FULL, reason := words(error.response), re.IGNORECASE):
                raise BadInput(no_gpu(reason)) from None
            raise

    with redirect_stdout(io.StringIO()):
        sent = ask(competition, send, math.inf, refused_only=True)
    if sent.error:
        reason = brief(sent.error)
        full = re.search(FULL, reason, re.IGNORECASE)
        raise BadInput(no_gpu(reason) if full else f"Kaggle refuses the kernel: {reason}; look at {SETTINGS}")
    if sent.invalid_competition_sources:
        remedy = f"join it and accept its rules at {COMPETITION_PAGE}{competition}/rules, then run again with --again"
        raise BadInput(f"Kaggle does not give the kernel the data of {competition}: {remedy}")
    if sent.invalid_kernel_sources:
        missing = ", ".join(sent.invalid_kernel_sources)
        raise BadInput(f"Kaggle does not give the kernel the output of {missing}; run again with --again")


def no_gpu(reason: str) -> str:
    return f"Kaggle has no GPU for this account now: {reason}; run again when {SETTINGS} shows free hours"


def state(competition: str, slug: str, until: float) -> tuple[str, str] | None:
    """A kernel's status, as Kaggle names it, and its message of failure; None if there is no such kernel.

    While the network is gone or Kaggle fails, it asks again, until the deadline.
    """
    from kagglesdk.kernels.types.kernels_api_service import ApiGetKernelSessionStatusRequest

    api, request = client(), ApiGetKernelSessionStatusRequest()
    request.user_name, request.kernel_slug = owned(slug).split("/")

    def get() -> tuple[str, str] | None:
        try:
            with within(ANSWER), api.build_kaggle_client() as kaggle:
                answer = kaggle.http_client().call(SERVICE, "GetKernelSessionStatus", request, Listing)
        except OSError as error:
            if status_of(error) in (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND):
                return None
            raise
        return str(answer.get("status") or "QUEUED").upper(), brief(answer.get("failureMessage"))

    return ask(competition, persistent(competition, get, until), until)


def persistent(competition: str, call: Callable[[], Result], until: float) -> Callable[[], Result]:
    """The call, repeated while the network is gone or Kaggle fails, until the deadline."""

    def attempt() -> Result:
        pause = 1.0
        while True:
            try:
                return call()
            except (OSError, BadInput) as error:  # BadInput: no answer
                status = status_of(error)
                refused = status is not None and status < 500 and status != HTTPStatus.TOO_MANY_REQUESTS
                if refused or time.monotonic() + pause > until:
                    raise
                if pause == 1:
                    say(f"{explain(competition, error)[0]}; asking again until it works")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    return attempt


def follow(competition: str, slug: str, until: float, show: Callable[[str], None]) -> tuple[str, str]:
    """Show a kernel's log, line by line, until it ends; its last status and message of failure.

    Raises BadInput at the deadline; the kernel runs on.
    """
    shown, pause = 0, 1.0
    while True:
        found = state(competition, slug, until)
        if found is None:
            raise BadInput(f"the kernel {page(slug)} was deleted; the same command pushes it again")
        news = show_log(slug, shown, show)
        if found[0] not in UNDER_WAY:
            return found
        if time.monotonic() >= until:
            raise BadInput(f"the deadline is over and {page(slug)} still runs; the same command goes on waiting for it")
        shown, pause = shown + news, 1.0 if news else min(2 * pause, LONGEST_PAUSE)
        time.sleep(max(min(pause, until - time.monotonic()), 0))


def show_log(slug: str, skipped: int, show: Callable[[str], None]) -> int:
    """Show the entries of a kernel's log after the first ones, until the stream ends; how many those were.

    Kaggle starts the log from its beginning at each request. Whatever breaks it off, the next request goes on.
    """
    from urllib3.exceptions import HTTPError

    count = 0
    try:
        with within(LOG_SILENCE, lambda: count):
            for event in client().kernels_logs_stream(owned(slug)):
                count += 1
                if count > skipped:
                    for line in str(event.get("data", "")).splitlines():
                        show("".join(letter for letter in line if letter.isprintable()))
    except (BadInput, OSError, HTTPError, *UNKNOWN_ANSWER):
        pass
    return max(count - skipped, 0)


def fetch(competition: str, slug: str, folder: Path, pattern: str) -> None:
    """Download the files of a kernel's output whose names match a regular expression into a folder, which may be
    absent. Nobody checks here that they are complete: the client does not."""
    folder.mkdir(parents=True, exist_ok=True)

    def size() -> int:
        return sum(path.stat().st_size for path in folder.rglob("*"))

    def download() -> None:
        with within(FILE_SILENCE, size):
            client().kernels_output(owned(slug), os.fspath(folder), file_pattern=pattern, force=True)

    with redirect_stdout(io.StringIO()):
        ask(competition, download, math.inf)
