"""The official kaggle client: the only file that imports it, and only inside the functions that need it.

The client waits for ever and seldom tries again, so both are done here. Every function raises BadInput naming what
failed and the remedy. Times named `until` are of time.monotonic.
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
from pipeline.base.errors import DAMAGED, BadInput
from pipeline.base.progress import say

NO_ACCOUNT = (
    "no Kaggle account is set up: create a token at https://www.kaggle.com/settings (API, Create New Token) and save "
    "it as ~/.kaggle/kaggle.json, or set KAGGLE_USERNAME and KAGGLE_KEY"
)
ANSWER = 60.0  # seconds that one answer may take
SILENCE = 120.0  # seconds of a download without a byte
PATIENCE = 600.0  # seconds that Kaggle may ask to wait
PAUSES = (1.0, 2.0, 4.0)  # seconds before each further try
CHUNK = 2**16  # bytes the client writes at once; of a chunk that is cut it keeps nothing
PAGE = 100  # entries asked for at once
NUMBER = r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?"  # how a score is written

Result = TypeVar("Result")


@dataclass(frozen=True)
class Submitted:
    """A submission as Kaggle lists it."""

    ref: str
    time: datetime  # UTC
    description: str
    status: str  # PENDING, COMPLETE or ERROR
    public_score: str  # a number, or empty
    private_score: str
    error: str  # what Kaggle says of an ERROR


@dataclass(frozen=True)
class Entry:
    """A team's best score on the public leaderboard."""

    team: str
    score: float


class TookTooLong(BaseException):  # no Exception: the client catches those and tries again
    """The time is over."""


@cache
def client() -> Any:
    """An authenticated kaggle.KaggleApi. Raises BadInput where there are no credentials.

    Importing the package authenticates; without credentials it prints its help and closes stdin, so both are
    kept from it.
    """
    stdin = sys.stdin
    sys.stdin = io.StringIO()
    try:
        with within(ANSWER), redirect_stdout(io.StringIO()):  # a token is asked about over the network
            from kaggle.api.kaggle_api_extended import KaggleApi

            api = KaggleApi()
            api.args = [option for option in api.args if option != "--verbose"]  # it prints the key; VERBOSE sets it
            api.authenticate()
    except SystemExit:
        raise BadInput(NO_ACCOUNT) from None
    except OSError as error:  # every error of requests is one
        raise BadInput(f"Kaggle cannot be reached or refuses the credentials ({plain(error)})") from None
    finally:
        sys.stdin = stdin
    return api


def download(competition: str, folder: Path, silence: float = SILENCE) -> Path:
    """The competition's zip in `folder`, whole; a download that was cut goes on where the server allows it.

    It may take any time while bytes come, but is given up after `silence` seconds without any. The client shows its
    own progress bar.
    """
    api = client()
    # One try a call: in its own tries the client takes whatever a failing server answers for the file.
    api.download_file = partial(api.download_file, chunk_size=CHUNK, max_retries=0)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{competition}.zip"

    def load() -> None:
        with within(silence, lambda: path.stat().st_size if path.exists() else 0), redirect_stdout(sys.stderr):
            api.competition_download_files(competition, path=os.fspath(folder), quiet=False)
        if not path.exists():
            raise BadInput(
                f"kaggle.com sent no zip for {competition}; `kaggle competitions download -c {competition}` shows more"
            )
        check_end(path)

    ask(competition, load, math.inf)
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except DAMAGED as error:
        broken = str(error)
    if broken is not None:
        path.unlink()  # the client keeps a file of the right size, however broken it is inside
        raise BadInput(f"the download of {competition} arrived broken ({broken}) and was removed; run again")
    return path


def check_end(path: Path) -> None:
    """Removes a file that has not the end of a zip, as when it was cut and the server had not said how long it is.

    The client takes it for whole. Raises zipfile.BadZipFile.
    """
    try:
        zipfile.ZipFile(path).close()
    except zipfile.BadZipFile:
        path.unlink()
        raise


def submit(competition: str, path: Path, description: str, until: float) -> str:
    """Send a file, a csv or a zip of one; its number at Kaggle. It is sent once: what arrived may not be heard of."""
    api = client()

    def send() -> Any:
        with within(until - time.monotonic()):
            return api.competition_submit(os.fspath(path), description, competition, quiet=not sys.stderr.isatty())

    with redirect_stdout(io.StringIO()) as said:
        sent = ask(competition, send, until, refused_only=True)
    if not sent.ref:  # the client's way to say that the store did not take the file; it prints the reason last
        reason = plain((said.getvalue().splitlines() or [sent.message])[-1])
        raise BadInput(f"the upload to {competition} failed ({reason}); run again")
    return str(sent.ref)


def submissions(competition: str, until: float) -> Iterator[Submitted]:
    """The account's submissions, newest first, asked for page by page."""
    api = client()
    from kagglesdk.competitions.types.competition_api_service import ApiListSubmissionsRequest

    request = ApiListSubmissionsRequest()
    request.competition_name = competition
    yield from pages(api, competition, "list_submissions", request, submitted, until)


def leaderboard(competition: str, until: float) -> list[Entry]:
    """The public leaderboard, best first: all teams that have a score."""
    api = client()
    from kagglesdk.competitions.types.competition_api_service import ApiGetLeaderboardRequest

    request = ApiGetLeaderboardRequest()
    request.competition_name = competition
    teams = pages(api, competition, "get_leaderboard", request, entry, until)
    return sorted((team for team in teams if not math.isnan(team.score)), key=lambda team: team.score)


def entry(team: Any) -> Entry:
    """An entry of the client's leaderboard; the score is NaN where there is none yet."""
    return Entry(plain(team.team_name), float(number_of(team.score) or "nan"))


def pages(
    api: Any, competition: str, method: str, request: Any, convert: Callable[[Any], Result], until: float
) -> Iterator[Result]:
    """What a method of the API lists, page after page, each entry converted."""
    request.page_size = PAGE

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
    """An entry of the client's list of submissions."""
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
    """A score as the client gives it: text, a number or nothing. Raises ValueError where it is something else."""
    text = "" if score is None else str(score).strip()
    if text and not re.fullmatch(NUMBER, text):
        raise ValueError(f"the score {text!r}")
    return text


def plain(text: Any) -> str:
    """What comes from outside, on one line that a terminal shows as it is, without the secrets of signed links."""
    line = " ".join(str(text or "").split())
    return re.sub(r"\?\S*=\S*", "?...", "".join(letter for letter in line if letter.isprintable()))


@contextmanager
def within(seconds: float, size: Callable[[], int] = lambda: 0) -> Iterator[None]:
    """End the block with BadInput once `size()` has been the same for so many seconds.

    A timer's signal ends any wait of the main thread, whatever the client does there.
    """
    seconds = max(seconds, 0)
    seen, since = size(), time.monotonic()

    def look(*_: object) -> None:
        nonlocal seen, since
        if (now := size()) != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since >= seconds:
            raise TookTooLong

    before = signal.signal(signal.SIGALRM, look)
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
    """What the call gives. Where Kaggle asks to wait or fails, wait and call again, a few times and not past `until`.

    `refused_only` calls again only where Kaggle has surely not done what it was asked.
    """
    for pause in (*PAUSES, None):
        try:
            return call()
        except (OSError, zipfile.BadZipFile) as error:  # every error of requests is an OSError
            status = status_of(error)
            if getattr(error, "errno", None) in MACHINE_FAULTS:
                raise
            passing = status == 429 or (not refused_only and (status is None or status >= 500))
            wait = asked_to_wait(error) if status == 429 else None
            wait = pause if wait is None else wait
            if pause is None or not passing or wait > min(PATIENCE, until - time.monotonic()):
                raise BadInput(explain(competition, error)) from None
            say(f"{explain(competition, error).partition(';')[0]}; trying again in {wait:.0f} s")
            time.sleep(wait)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(
                f"the kaggle client does not understand what Kaggle answers ({plain(repr(error))}); look at "
                f"{page_of(competition)}, and for a newer client in requirements.txt"
            ) from None
    raise AssertionError("the last try returns or raises")


def status_of(error: Exception) -> int | None:
    """The HTTP status of a failed request, None where there was no answer."""
    return getattr(getattr(error, "response", None), "status_code", None)


def asked_to_wait(error: Exception) -> float | None:
    """Seconds that Kaggle asks to wait, in either form that Retry-After has, None where it does not say."""
    value = error.response.headers.get("Retry-After", "")  # type: ignore[attr-defined]
    if value.isdecimal():
        return float(value)
    try:
        return max((parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds(), 0)
    except (TypeError, ValueError):  # no date, or one without its zone
        return None


def page_of(competition: str) -> str:
    """The competition's page."""
    return f"https://www.kaggle.com/competitions/{competition}"


def explain(competition: str, error: Exception) -> str:
    """What a failed request means for the user."""
    page = page_of(competition)
    if isinstance(error, zipfile.BadZipFile):
        return f"the download of {competition} arrived broken ({error}) and was removed; run again"
    match status_of(error):
        case 401:
            return "Kaggle refuses the credentials (401): create a new token at https://www.kaggle.com/settings"
        case 403:
            return f"Kaggle refuses access to {competition} (403): join it and accept its rules at {page}/rules"
        case 404:
            return f"there is no competition {competition} (404): check fetch.competition against {page}"
        case 429:
            wait = asked_to_wait(error)
            again = "in a few minutes" if wait is None else f"in {wait:.0f} s"
            return f"Kaggle asks to wait (429, too many requests): run again {again}"
        case int(status) if status < 500:
            return f"Kaggle refuses ({status}): {plain(error)}"
        case int(status):
            return f"Kaggle answers with an error ({status}); run again later"
    return f"the connection to Kaggle failed ({plain(error)}); run again, a cut download goes on where it stopped"
