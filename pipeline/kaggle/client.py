"""Calls of the official kaggle client. Only this file imports it, inside the functions that need it.

The client has no timeouts and rarely retries, so this file adds both. Every function raises BadInput, which names what
failed and the remedy. A time called `until` is a deadline on time.monotonic's clock.
"""

import io
import json
import math
import os
import re
import signal
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache, partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

from pipeline.base.command import MACHINE_FAULTS
from pipeline.base.errors import BadInput, Damaged, reading_zip
from pipeline.base.progress import say
from pipeline.kaggle.credentials import SETTINGS, Account, find_account

COMPETITION_PAGE = "https://www.kaggle.com/competitions/"
ANSWER = 60.0  # seconds to wait for one answer
SHORT_ANSWER = 10.0  # for one that is not needed
SILENCE = 120.0  # seconds to wait for the next byte of a download
PATIENCE = 600.0  # the longest Retry-After, in seconds, that is obeyed
PAUSES = (1.0, 2.0, 4.0)  # seconds before each retry
CHUNK = 2**16  # bytes the client writes at once; it drops a chunk that was cut off
PAGE = 100  # entries a page
LONGEST_REASON = 300  # characters shown of what Kaggle says
UNKNOWN_ANSWER = (LookupError, TypeError, ValueError, AttributeError)  # what the client raises on one
SERVICE = "competitions.CompetitionApiService"
REF = r"[1-9][0-9]*"  # Kaggle's number of a submission
NUMBER = r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?"  # a score as text

Result = TypeVar("Result")


@dataclass(frozen=True)
class Submitted:
    """A submission in Kaggle's list."""

    ref: str
    time: datetime  # UTC
    description: str
    status: str  # PENDING, COMPLETE, ERROR, or a word that is new at Kaggle
    public_score: str  # Kaggle's text, usually a number; empty without a score
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
    """An authenticated kaggle.KaggleApi. Raises BadInput if there are no credentials, or if Kaggle refuses them.

    Importing the package authenticates. Without credentials it prints its help and closes stdin, so this function
    hides both from it.
    """
    account = find_account()
    stdin = sys.stdin
    sys.stdin = io.StringIO()
    try:
        with within(ANSWER), redirect_stdout(io.StringIO()):  # a token is checked over the network
            from kaggle.api.kaggle_api_extended import KaggleApi

            api = KaggleApi()
            api.args = [option for option in api.args if option != "--verbose"]  # VERBOSE sets it; it prints the key
            # The client skips a damaged kaggle.json without a word, and takes every KAGGLE_ variable for a setting.
            api.read_config_file = lambda *_, **__: {}
            api.read_config_environment = lambda *_: dict(account.values)
            api.authenticate()
    except SystemExit:
        raise BadInput(f"Kaggle refuses {account.source}; {account.remedy}") from None
    except OSError as error:  # the base class of every requests error
        if error.filename:
            what = f"the kaggle client cannot make its folder {error.filename} ({error.strerror})"
            raise BadInput(f"{what}; set KAGGLE_CONFIG_DIR to a folder that you can write to") from None
        raise BadInput("; ".join(explain("", error, account))) from None
    except UNKNOWN_ANSWER as error:
        raise BadInput(
            f"the kaggle client cannot use {account.source} ({brief(repr(error))}): {account.remedy}"
        ) from None
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
            page = f"{COMPETITION_PAGE}{competition}/data"
            raise BadInput(f"kaggle.com sent no zip for {competition}; download the data by hand at {page}")
        check_end(path)

    ask(competition, fetch, math.inf)
    try:
        with reading_zip(), zipfile.ZipFile(path) as archive:
            if broken := archive.testzip():
                raise Damaged(broken)
    except Damaged as error:
        path.unlink()  # the client checks only the size
        raise BadInput("; ".join(explain(competition, error))) from None
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
    stored: list[Any] = []

    def is_stored(response: Any) -> bool:  # in place of the client's own, which drops the store's reason
        stored.append(response)
        return response.status_code in (200, 201)

    def send() -> Any:
        with within(until - time.monotonic()):
            return api.competition_submit(os.fspath(path), description, competition, quiet=not sys.stderr.isatty())

    api._is_upload_successful = is_stored
    with redirect_stdout(io.StringIO()) as printed:
        sent = ask(competition, send, until, refused_only=True)
    if re.fullmatch(REF, str(sent.ref)):
        return str(sent.ref)
    if not stored:  # no connection; the client's last line has the reason
        reason = cause((printed.getvalue().splitlines() or [sent.message])[-1])
        raise BadInput(f"the upload to {competition} failed ({reason}); check the network, then run again")
    if stored[-1].status_code not in (200, 201):
        raise BadInput(not_stored(competition, path, stored[-1]))
    raise BadInput(f"Kaggle has the file but gave it no number ({brief(sent.message)}); run again to find it there")


def not_stored(competition: str, path: Path, response: Any) -> str:
    """The message for a file that Kaggle's file store refuses."""
    status, reason = response.status_code, words(response)
    again = status >= 500 or "expired" in reason.lower()  # each upload gets a new link
    what = f"the file store of Kaggle refuses {path} ({status}){colon(reason)}"
    return f"{what}; {'run again later' if again else f'look at {COMPETITION_PAGE}{competition}'}"


def submissions_left(competition: str, until: float) -> str:
    """How many submissions Kaggle still allows, as a phrase; "" if it does not tell. It raises nothing of Kaggle's."""
    try:
        with within(min(SHORT_ANSWER, until - time.monotonic())):
            limits = client().competition_get_submission_limits(competition)
        left, sent = int(limits.num_allowed_now), int(limits.num_today)
        if not left and not int(limits.num_total):  # all zeros: the account is in no team yet
            return ""
    except (OSError, BadInput, *UNKNOWN_ANSWER):
        return ""
    if limits.limited_by_total:
        return f"submissions left in all: {left}"
    return f"submissions left today: {left}, sent: {sent}"


def submissions(competition: str, until: float) -> Iterator[Submitted]:
    """The account's submissions, newest first, requested page by page."""
    from kagglesdk.competitions.types.competition_api_service import ApiListSubmissionsRequest

    return pages(competition, "ListSubmissions", ApiListSubmissionsRequest(), submitted, until)


def leaderboard(competition: str, until: float) -> list[Entry]:
    """The public leaderboard, best first: every team that has a score."""
    from kagglesdk.competitions.types.competition_api_service import ApiGetLeaderboardRequest

    teams = pages(competition, "GetLeaderboard", ApiGetLeaderboardRequest(), entry, until)
    return sorted(teams, key=lambda team: team.score)


class Listing:
    """An answer as JSON. The client's own types refuse a page for one entry that they do not understand."""

    @staticmethod
    def prepare_from(response: Any) -> Any:
        return json.loads(response.text)


def pages(
    competition: str, method: str, request: Any, convert: Callable[[dict[str, Any]], Result | None], until: float
) -> Iterator[Result]:
    """The entries that a method of the API lists, page by page, converted; those that become None are left out."""
    api = client()
    request.competition_name, request.page_size = competition, PAGE

    def page() -> tuple[list[Result | None], str]:
        with within(min(ANSWER, until - time.monotonic())), api.build_kaggle_client() as kaggle:
            answer = kaggle.http_client().call(SERVICE, method, request, Listing)
            listed = [item for item in answer.get("submissions") or [] if isinstance(item, dict)]
            return [convert(item) for item in listed], str(answer.get("nextPageToken") or "")

    while True:
        entries, token = ask(competition, page, until)
        yield from (found for found in entries if found is not None)
        if not token:
            return
        request.page_token = token


def submitted(listed: dict[str, Any]) -> Submitted | None:
    """Convert an entry of the list of submissions; None if it has no number."""
    if not re.fullmatch(REF, ref := str(listed.get("ref"))):
        return None
    return Submitted(
        ref=ref,
        time=time_of(listed.get("date")),
        description=plain(listed.get("description")),
        status=plain(listed.get("status") or "PENDING").upper(),
        public_score=score_of(listed.get("publicScore")),
        private_score=score_of(listed.get("privateScore")),
        error=brief(listed.get("errorDescription")),
    )


def entry(listed: dict[str, Any]) -> Entry | None:
    """Convert an entry of the leaderboard; None if its score is missing or not a number."""
    score = score_of(listed.get("score"))
    if not re.fullmatch(NUMBER, score):
        return None
    return Entry(plain(listed.get("teamName")) or "(no name)", float(score))


def time_of(date: Any) -> datetime:
    """The time of a date in Kaggle's answer, UTC; now if it is missing or damaged."""
    try:
        found = datetime.fromisoformat(date)
    except (TypeError, ValueError):
        return datetime.now(UTC)
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def score_of(score: Any) -> str:
    """A score in Kaggle's answer (a number, text or None) as text."""
    return "" if score is None else plain(score)


def plain(text: Any) -> str:
    """Text from outside made safe to print: one line, no control characters, no query strings of signed links."""
    line = " ".join(("" if text is None else str(text)).split())
    return re.sub(r"\?\S*=\S*", "?...", "".join(letter for letter in line if letter.isprintable()))


def brief(text: Any) -> str:
    """Plain text of at most LONGEST_REASON characters, without a full stop at its end."""
    line = plain(text).rstrip(". ")
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]}..."


def cause(error: Any) -> str:
    """The cause in the text of a failed connection, without the address of an object."""
    text = re.sub(r"<[^<>]* at 0x[0-9a-f]+>:? ?", "", plain(error))
    return brief(re.sub(r".*\(Caused by (.*)\)$", r"\1", text))


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
        what = (
            f"Kaggle sent nothing for {seconds:.0f} s" if seconds >= 1 else "Kaggle did not answer before the deadline"
        )
        raise BadInput(f"{what}; run again, nothing is lost") from None
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
                raise BadInput("; ".join(explain(competition, error))) from None
            say(f"{explain(competition, error)[0]}; trying again in {wait:.0f} s")
            time.sleep(wait)
        except UNKNOWN_ANSWER as error:
            raise BadInput(
                f"the kaggle client does not understand Kaggle's answer ({brief(repr(error))}); look at "
                f"{COMPETITION_PAGE}{competition}, or set a newer client in requirements.txt"
            ) from None
    raise AssertionError("the last attempt returns or raises")


def status_of(error: Exception) -> int | None:
    """The HTTP status of a failed request; None if there was no answer."""
    response = getattr(error, "response", None)
    if response is None:
        return None
    if response.status_code < 400:  # an error in an answer that reports success
        with suppress(*UNKNOWN_ANSWER):
            return int(response.json()["code"])
    return response.status_code


def words(response: Any) -> str:
    """What an answer says, brief; "" if it says no more than its status or is a page for browsers."""
    try:
        with within(ANSWER):  # the body may not have arrived yet
            text = response.text
    except (OSError, RuntimeError, BadInput):
        return ""
    with suppress(ValueError):
        value = json.loads(text)
        for key in ("message", "error", "message"):  # {"message": ...} or {"error": {"message": ...}}
            value = value.get(key, value) if isinstance(value, dict) else value
        text = value if isinstance(value, str) else ""
    if text.lstrip().startswith("<"):
        found = re.search(r"<Message>(.*?)</Message>", text, re.DOTALL)  # of the file store
        text = found[1] if found else ""
    said = brief(text)
    known = {status.phrase.lower() for status in HTTPStatus}
    return "" if said.lower() in known else said


def colon(reason: str) -> str:
    return f": {reason}" if reason else ""


def retry_after(error: Exception) -> float | None:
    """The seconds in Retry-After, which is a number or a date; None if it is missing or neither."""
    value = error.response.headers.get("Retry-After", "")  # type: ignore[attr-defined]
    if value.isdecimal():
        return float(value)
    try:
        return max((parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds(), 0)
    except (TypeError, ValueError):  # not a date, or a date without a time zone
        return None


def explain(competition: str, error: Exception, account: Account | None = None) -> tuple[str, str]:
    """What a failed request means, with Kaggle's reason, and the remedy. `account` is the one that was used."""
    if isinstance(error, Damaged):
        what = f"the download of {competition} arrived broken ({error}) and was removed"
        return what, f"run again, or download it by hand at {COMPETITION_PAGE}{competition}/data"
    status = status_of(error)
    if status is None:
        what = f"the connection to Kaggle failed ({cause(error)})"
        if "CERTIFICATE_VERIFY_FAILED" in what:
            return what, "set REQUESTS_CA_BUNDLE to a file with the certificates of your network"
        return what, "check the network, then run again: a download resumes where it stopped"
    reason = words(error.response)  # type: ignore[attr-defined]
    if error.response.history and status < 500:  # type: ignore[attr-defined]
        return f"the file store of Kaggle refuses the download ({status}){colon(reason)}", "run again for a new link"
    if status == 429:
        wait = retry_after(error)
        what = f"Kaggle asks to wait (429): {reason or 'too many requests'}"
        return what, "run again later" if wait is None else f"run again in {wait:.0f} s"
    if status >= 500:
        return f"Kaggle answers with an error ({status}){colon(reason)}", "run again later"
    if status == 401 or not competition:
        account = account or find_account()
        return f"Kaggle refuses {account.source} ({status}){colon(reason)}", account.remedy
    return refused(competition, status, reason)


def refused(competition: str, status: int, reason: str) -> tuple[str, str]:
    """What a refusal (400 to 499) means and the remedy; with a reason that names no remedy, the competition's page."""
    page = COMPETITION_PAGE + competition
    if status == 404:
        return (
            f"Kaggle finds no competition {competition} (404){colon(reason)}",
            f"check fetch.competition against {page}",
        )
    if status != 403:
        return f"Kaggle refuses ({status}){colon(reason)}", f"look at {page}"
    what = f"Kaggle refuses access to {competition} (403){colon(reason)}"
    if not reason or re.search(r"\brules?\b|permission", reason, re.IGNORECASE):
        return what, f"join it and accept its rules at {page}/rules"
    if re.search(r"phone|verif", reason, re.IGNORECASE):
        return what, f"do that at {SETTINGS}"
    return what, f"look at {page}"
