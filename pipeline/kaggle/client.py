"""Calls of the official kaggle client. Only this file imports it, inside the functions that need it.

The client has no timeouts and rarely retries, so this file adds both. Every function raises BadInput, which names what
failed and the remedy. A time called `until` is a deadline on time.monotonic's clock.
"""

import io
import math
import os
import re
import signal
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from pipeline.base.command import MACHINE_FAULTS
from pipeline.base.errors import BadInput, Damaged, reading_zip
from pipeline.base.progress import say

NO_ACCOUNT = (
    "no Kaggle account is set up: create a token at https://www.kaggle.com/settings (API, Create New Token) and save "
    "it as ~/.kaggle/kaggle.json, or set KAGGLE_USERNAME and KAGGLE_KEY"
)
COMPETITION_PAGE = "https://www.kaggle.com/competitions/"
ANSWER = 60.0  # seconds to wait for one answer
SILENCE = 120.0  # seconds to wait for the next byte of a download
PATIENCE = 600.0  # the longest Retry-After, in seconds, that is obeyed
PAUSES = (1.0, 2.0, 4.0)  # seconds before each retry
CHUNK = 2**16  # bytes the client writes at once; it drops a chunk that was cut off
PAGE = 100  # entries a page
NUMBER = r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?"  # a score as text

Result = TypeVar("Result")


@dataclass(frozen=True)
class Submitted:
    """A submission in Kaggle's list."""

    ref: str
    time: datetime  # UTC
    description: str
    status: str  # PENDING, COMPLETE or ERROR
    public_score: str  # a number, or empty
    private_score: str
    error: str  # Kaggle's message for an ERROR


@dataclass(frozen=True)
class Entry:
    """A team's best score on the public leaderboard."""

    team: str
    score: float


class TookTooLong(BaseException):  # not an Exception: the client catches those and retries
    """The time limit has passed."""


@cache
def client() -> Any:
    """An authenticated kaggle.KaggleApi. Raises BadInput if there are no credentials.

    Importing the package authenticates. Without credentials it prints its help and closes stdin, so this function
    hides both from it.
    """
    stdin = sys.stdin
    sys.stdin = io.StringIO()
    try:
        with within(ANSWER), redirect_stdout(io.StringIO()):  # a token is checked over the network
            from kaggle.api.kaggle_api_extended import KaggleApi

            api = KaggleApi()
            api.args = [option for option in api.args if option != "--verbose"]  # VERBOSE sets it; it prints the key
            api.authenticate()
    except SystemExit:
        raise BadInput(NO_ACCOUNT) from None
    except OSError as error:  # the base class of every requests error
        raise BadInput(f"Kaggle cannot be reached or refuses the credentials ({plain(error)})") from None
    finally:
        sys.stdin = stdin
    return api


def download(competition: str, folder: Path, silence: float = SILENCE) -> Path:
    """Download the competition's zip into `folder` and return its path.

    An interrupted download resumes if the server supports it. There is no time limit while bytes arrive; after
    `silence` seconds without any it raises BadInput. The client shows its own progress bar.
    """
    api = client()
    # No retries in the client: it would write a failing server's error page into the file.
    api.download_file = partial(api.download_file, chunk_size=CHUNK, max_retries=0)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{competition}.zip"

    def fetch() -> None:
        with within(silence, lambda: path.stat().st_size if path.exists() else 0), redirect_stdout(sys.stderr):
            api.competition_download_files(competition, path=os.fspath(folder), quiet=False)
        if not path.exists():
            raise BadInput(
                f"kaggle.com sent no zip for {competition}; `kaggle competitions download -c {competition}` shows more"
            )
        check_end(path)

    ask(competition, fetch, math.inf)
    try:
        with reading_zip(), zipfile.ZipFile(path) as archive:
            if broken := archive.testzip():
                raise Damaged(broken)
    except Damaged as error:
        path.unlink()  # the client checks only the size
        raise BadInput(explain(competition, error)) from None
    return path


def check_end(path: Path) -> None:
    """Remove a file that does not end as a zip does, and raise Damaged.

    If the server gives no length, the client takes a file that was cut off for a complete one.
    """
    try:
        with reading_zip():
            zipfile.ZipFile(path).close()
    except Damaged:
        path.unlink()
        raise


def submit(competition: str, path: Path, description: str, until: float) -> str:
    """Upload a CSV, or a zip of one, and return Kaggle's number for it.

    A failed upload is not repeated, because Kaggle may have received it although its answer was lost.
    """
    api = client()

    def send() -> Any:
        with within(until - time.monotonic()):
            return api.competition_submit(os.fspath(path), description, competition, quiet=not sys.stderr.isatty())

    with redirect_stdout(io.StringIO()) as printed:
        sent = ask(competition, send, until, refused_only=True)
    if not sent.ref:  # the store refused the file; the client's last line has the reason
        reason = plain((printed.getvalue().splitlines() or [sent.message])[-1])
        raise BadInput(f"the upload to {competition} failed ({reason}); run again")
    return str(sent.ref)


def submissions(competition: str, until: float) -> Iterator[Submitted]:
    """The account's submissions, newest first, requested page by page."""
    from kagglesdk.competitions.types.competition_api_service import ApiListSubmissionsRequest

    return pages(competition, "list_submissions", ApiListSubmissionsRequest(), submitted, until)


def leaderboard(competition: str, until: float) -> list[Entry]:
    """The public leaderboard, best first: every team that has a score."""
    from kagglesdk.competitions.types.competition_api_service import ApiGetLeaderboardRequest

    teams = pages(competition, "get_leaderboard", ApiGetLeaderboardRequest(), entry, until)
    return sorted((team for team in teams if not math.isnan(team.score)), key=lambda team: team.score)


def entry(team: Any) -> Entry:
    """Convert an entry of the client's leaderboard; a team without a score gets NaN."""
    return Entry(plain(team.team_name), float(number_of(team.score) or "nan"))


def pages(
    competition: str, method: str, request: Any, convert: Callable[[Any], Result], until: float
) -> Iterator[Result]:
    """The converted entries that a method of the API lists, page by page."""
    api = client()
    request.competition_name, request.page_size = competition, PAGE

    def page() -> tuple[list[Result], str]:
        with within(min(ANSWER, until - time.monotonic())), api.build_kaggle_client() as kaggle:
            answer = getattr(kaggle.competitions.competition_api_client, method)(request)
            return [convert(listed) for listed in answer.submissions or []], answer.next_page_token

    while True:
        entries, token = ask(competition, page, until)
        yield from entries
        if not token:
            return
        request.page_token = token


def submitted(listed: Any) -> Submitted:
    """Convert an entry of the client's list of submissions."""
    return Submitted(
        ref=str(listed.ref),
        time=(listed.date or datetime.now(UTC)).replace(tzinfo=UTC),
        description=plain(listed.description),
        status=listed.status.name,
        public_score=number_of(listed.public_score),
        private_score=number_of(listed.private_score),
        error=plain(listed.error_description),
    )


def number_of(score: Any) -> str:
    """The client's score (a number, text or None) as text. Raises ValueError if the text is not a number."""
    text = "" if score is None else str(score).strip()
    if text and not re.fullmatch(NUMBER, text):
        raise ValueError(f"the score {text!r}")
    return text


def plain(text: Any) -> str:
    """Text from outside made safe to print: one line, no control characters, no query strings of signed links."""
    line = " ".join(str(text or "").split())
    return re.sub(r"\?\S*=\S*", "?...", "".join(letter for letter in line if letter.isprintable()))


@contextmanager
def within(seconds: float, size: Callable[[], int] = lambda: 0) -> Iterator[None]:
    """Raise BadInput from the block once `size()` has not changed for this many seconds.

    A timer signal interrupts the main thread, whatever call of the client it waits in.
    """
    seconds = max(seconds, 0)
    seen, since = size(), time.monotonic()

    def check(*_: object) -> None:
        nonlocal seen, since
        if (now := size()) != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since >= seconds:
            raise TookTooLong

    before = signal.signal(signal.SIGALRM, check)
    interval = min(max(seconds / 4, 0.05), 1.0)
    signal.setitimer(signal.ITIMER_REAL, interval, interval)
    try:
        yield
    except TookTooLong:
        raise BadInput(f"Kaggle sent nothing for {seconds:.0f} s; run again, nothing is lost") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def ask(competition: str, call: Callable[[], Result], until: float, refused_only: bool = False) -> Result:
    """The call's result. If Kaggle fails or asks to wait, wait and retry, a few times and never past `until`.

    With `refused_only` it retries only if Kaggle certainly did not execute the request.
    """
    for pause in (*PAUSES, None):
        try:
            return call()
        except (OSError, Damaged) as error:  # every requests error is an OSError
            status = status_of(error)
            if getattr(error, "errno", None) in MACHINE_FAULTS:
                raise
            temporary = status == 429 or (not refused_only and (status is None or status >= 500))
            wait = retry_after(error) if status == 429 else None
            wait = pause if wait is None else wait
            if pause is None or not temporary or wait > min(PATIENCE, until - time.monotonic()):
                raise BadInput(explain(competition, error)) from None
            say(f"{explain(competition, error).partition(';')[0]}; trying again in {wait:.0f} s")
            time.sleep(wait)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(
                f"the kaggle client does not understand Kaggle's answer ({plain(repr(error))}); look at "
                f"{COMPETITION_PAGE}{competition}, or set a newer client in requirements.txt"
            ) from None
    raise AssertionError("the last attempt returns or raises")


def status_of(error: Exception) -> int | None:
    """The HTTP status of a failed request; None if there was no answer."""
    return getattr(getattr(error, "response", None), "status_code", None)


def retry_after(error: Exception) -> float | None:
    """The seconds in Retry-After, which is a number or a date; None if it is missing or neither."""
    value = error.response.headers.get("Retry-After", "")  # type: ignore[attr-defined]
    if value.isdecimal():
        return float(value)
    try:
        return max((parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds(), 0)
    except (TypeError, ValueError):  # not a date, or a date without a time zone
        return None


def explain(competition: str, error: Exception) -> str:
    """The message for a failed request: what it means, and the remedy."""
    page = COMPETITION_PAGE + competition
    if isinstance(error, Damaged):
        return f"the download of {competition} arrived broken ({error}) and was removed; run again"
    match status_of(error):
        case 401:
            return "Kaggle refuses the credentials (401): create a new token at https://www.kaggle.com/settings"
        case 403:
            return f"Kaggle refuses access to {competition} (403): join it and accept its rules at {page}/rules"
        case 404:
            return f"there is no competition {competition} (404): check fetch.competition against {page}"
        case 429:
            wait = retry_after(error)
            again = "in a few minutes" if wait is None else f"in {wait:.0f} s"
            return f"Kaggle asks to wait (429, too many requests): run again {again}"
        case int(status) if status < 500:
            return f"Kaggle refuses ({status}): {plain(error)}"
        case int(status):
            return f"Kaggle answers with an error ({status}); run again later"
    return f"the connection to Kaggle failed ({plain(error)}); run again, a download resumes where it stopped"
