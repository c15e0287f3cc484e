"""The unmodified kaggle client against a server on this machine: in this process, and in the stage fetch."""

import base64
import time
import zipfile
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from pipeline import paths
from pipeline.base.errors import BadInput
from pipeline.kaggle import client as kaggle
from pipeline.kaggle.credentials import SETTINGS
from tools.kaggle_server.contest import BOARD, CREATE, FILES, LIMITS, LIST, START
from tools.kaggle_server.server import (
    COMPETITION,
    KEY,
    USER,
    Answer,
    download,
    redirect,
    refusal,
    reply,
    rpc,
    wait_first,
)

STORE = f"http://storage.test/bucket/{COMPETITION}.zip"
FILE = "GET", urlsplit(STORE).path
PAGE = f"https://www.kaggle.com/competitions/{COMPETITION}"
FETCHED = "fetch: 24 training pairs and 9 test images (the competition has 7000 and 200)\n"
ZIP = paths.WORK / "download" / f"{COMPETITION}.zip"


@pytest.fixture(scope="module")
def archive(tmp_path_factory, demo_competition) -> Path:
    """The drawn competition as a zip of a few megabytes, with the layout of the real one."""
    path = tmp_path_factory.mktemp("archive") / "the.zip"
    with zipfile.ZipFile(path, "w") as file:
        for part in sorted(demo_competition.raw.rglob("*")):
            file.write(part, "Dataset" / part.relative_to(demo_competition.raw))
        file.writestr("Dataset/.padding", np.random.default_rng(0).bytes(3 * 2**20))  # several chunks of the client
    return path


@pytest.fixture
def server(server, archive):
    """A server that has the archive. Tests change its answers."""
    server.answers[FILES] = redirect(STORE)
    server.answers[FILE] = download(archive)
    return server


@pytest.fixture
def get(account, tmp_path):
    """`get()` downloads the archive in this process, to tmp_path/d, and returns its bytes."""
    account()
    return lambda: kaggle.download(COMPETITION, tmp_path / "d").read_bytes()


@pytest.fixture
def failure(get):
    """`failure()` is the one line with which the download fails."""

    def call() -> str:
        with pytest.raises(BadInput) as error:
            get()
        assert "\n" not in str(error.value) and KEY not in str(error.value)
        return str(error.value)

    return call


@pytest.fixture
def fetch(server, tmp_path, params_file, run_stage):
    """`fetch()` runs the stage in tmp_path/work with fetch.source: kaggle, by default with an account."""
    for folder in (home := tmp_path / "home", work := tmp_path / "work"):
        folder.mkdir()
    params_file(work, **{"fetch.source": "kaggle"})

    def call(credentials: bool = True, **environment: str):
        return run_stage("fetch", work, server.environment(home, credentials) | environment)

    return call


def basic(user: str, key: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{key}".encode()).decode()


def test_the_archive_is_downloaded_once_and_the_store_gets_no_credentials(server, fetch, archive, tmp_path):
    done = fetch()
    assert done.returncode == 0 and done.stderr.endswith(FETCHED), done.stderr
    path = tmp_path / "work" / ZIP
    assert path.read_bytes() == archive.read_bytes()
    (request,) = server.asked(FILES)
    assert request.json["competitionName"] == COMPETITION
    assert request.headers["authorization"] == basic(USER, KEY)
    assert server.asked(FILE) and all("authorization" not in request.headers for request in server.asked(FILE))

    before = path.stat()
    assert fetch().returncode == 0
    assert path.stat().st_ctime_ns == before.st_ctime_ns


def test_the_competitions_name_is_a_setting(server, fetch, tmp_path, params_file):
    params_file(tmp_path / "work", **{"fetch.source": "kaggle", "fetch.competition": "another-one"})
    server.answers[FILES] = refusal(404, "Not Found")
    done = fetch()
    page = "https://www.kaggle.com/competitions/another-one"
    message = f"fetch: Kaggle finds no competition another-one (404); check fetch.competition against {page}\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)
    assert server.asked(FILES)[0].json["competitionName"] == "another-one"
    assert [path.name for path in (tmp_path / "work").rglob("*") if path.is_file()] == ["params.yaml"]


@pytest.mark.parametrize("failures", [[], [Answer(500, b"<Error>later</Error>")]])
def test_an_interrupted_download_resumes(server, get, archive, failures):
    complete = download(archive)
    server.answers[FILE] = [Answer(body=archive, headers=complete.headers, cut=2**20 + 5), *failures, complete]
    assert get() == archive.read_bytes()
    assert server.asked(FILE)[-1].headers["range"] == f"bytes={2**20}-"  # all complete chunks of 64 KiB are used


def test_a_download_that_is_always_interrupted_is_kept_and_reported(server, failure, archive, tmp_path, capsys):
    server.answers[FILE] = Answer(body=archive, headers=download(archive).headers, cut=100_000)
    assert failure().startswith("the connection to Kaggle failed (")
    assert capsys.readouterr().err.count("; trying again in 0 s") == 3
    assert (tmp_path / "d" / ZIP.name).stat().st_size >= 2**16


@pytest.mark.parametrize("etag", [True, False])
def test_a_cut_zip_of_unknown_length_is_downloaded_again(server, get, archive, etag, capsys):
    complete = download(archive)
    headers = complete.headers if etag else {}
    server.answers[FILE] = [Answer(body=archive, headers=headers, cut=2**20 + 5, length=False), complete]
    assert get() == archive.read_bytes()
    assert "and was removed; trying again in 0 s" in capsys.readouterr().err


def test_a_zip_of_unknown_length_that_is_always_cut_is_removed(server, failure, archive, tmp_path):
    server.answers[FILE] = Answer(body=archive, headers={}, cut=2**20, length=False)
    assert failure().startswith(f"the download of {COMPETITION} arrived broken")
    assert not list((tmp_path / "d").glob("*.zip"))


@pytest.mark.parametrize("where", ["before its answer", "before", "after the headers", "in the file"])
def test_a_server_that_stalls_is_given_up(server, get, archive, tmp_path, where):
    complete = download(archive)
    server.answers[FILES if where == "before its answer" else FILE] = Answer(
        body=archive, headers=complete.headers, stall={"after the headers": 0, "in the file": 2**20}.get(where, -1)
    )
    start = time.monotonic()
    with pytest.raises(BadInput, match="^Kaggle sent nothing for 1 s; run again, nothing is lost$"):
        kaggle.download(COMPETITION, tmp_path / "d", silence=1)
    assert 1 < time.monotonic() - start < 10
    server.answers[FILES], server.answers[FILE] = redirect(STORE), complete
    assert get() == archive.read_bytes()
    if where == "in the file":
        assert server.asked(FILE)[-1].headers["range"] == f"bytes={2**20}-"


@pytest.mark.slow
def test_a_slow_download_continues_while_bytes_arrive(server, account, archive, tmp_path):
    account()
    server.answers[FILE] = Answer(body=archive, headers=download(archive).headers, pause=0.01)
    start = time.monotonic()
    assert kaggle.download(COMPETITION, tmp_path, silence=1).read_bytes() == archive.read_bytes()
    assert time.monotonic() - start > 2


def test_a_token_check_that_stalls_is_given_up(server, account, monkeypatch):
    account(KAGGLE_API_TOKEN="t0ken")
    monkeypatch.setattr(kaggle, "ANSWER", 1)
    server.answers[rpc("IntrospectToken", "security.OAuthService")] = Answer(stall=-1)
    with pytest.raises(BadInput, match="^Kaggle sent nothing for 1 s; run again, nothing is lost$"):
        kaggle.client()


@pytest.mark.parametrize(("wait", "seconds"), [(1, 1), ("soon", 0)])
def test_it_waits_as_retry_after_says(server, get, archive, wait, seconds, capsys):
    server.answers[FILES] = [wait_first(wait), redirect(STORE)]
    start = time.monotonic()
    assert get() == archive.read_bytes() and time.monotonic() - start >= seconds
    assert f"(429): slow down; trying again in {seconds} s\n" in capsys.readouterr().err


@pytest.mark.slow
def test_it_waits_for_a_retry_after_date(server, get):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    server.answers[FILES] = [wait_first(date), redirect(STORE)]
    get()
    assert datetime.now(UTC) >= parsedate_to_datetime(date)


@pytest.mark.parametrize("wait", ["3600", "Fri, 01 Jan 2100 00:00:00 GMT"])
def test_it_does_not_wait_for_hours(server, failure, wait):
    server.answers[FILES] = wait_first(wait)
    assert failure().startswith("Kaggle asks to wait (429): slow down; run again in ")
    assert len(server.asked(FILES)) == 1


def test_temporary_errors_are_retried(server, get, archive, capsys):
    server.answers[FILES] = [refusal(503), Answer(502, b"<html>"), redirect(STORE)]
    assert get() == archive.read_bytes()
    assert "Kaggle answers with an error (503): refused with 503; trying again in 0 s\n" in capsys.readouterr().err


@pytest.mark.slow
def test_the_key_is_not_printed_although_verbose_is_set(fetch):
    done = fetch(VERBOSE="true")
    assert done.returncode == 0 and FETCHED in done.stderr, done.stderr
    assert KEY not in done.stdout + done.stderr and "authorization" not in (done.stdout + done.stderr).lower()


LIMIT = "Your team has used its daily Submission allowance (5) today"
RULES = "You must accept this competition's rules before you'll be able to download files."
DENIED = "Permission 'competitions.participate' was denied"
ACCESS = f"Kaggle refuses access to {COMPETITION} (403)"
JOIN = f"join it and accept its rules at {PAGE}/rules"
CREDENTIALS = "Kaggle refuses KAGGLE_USERNAME and KAGGLE_KEY (401)"
NEW_KEY = "create a new key or token at https://www.kaggle.com/settings (API)"
PASSED = f"{ACCESS}: The deadline has passed; look at {PAGE}"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (refusal(400, LIMIT), f"Kaggle refuses (400): {LIMIT}; look at {PAGE}"),
        (Answer(413, b"<html>too large</html>"), f"Kaggle refuses (413); look at {PAGE}"),
        (refusal(401, "Unauthorized"), f"{CREDENTIALS}; {NEW_KEY}"),
        (refusal(401, "The key has expired"), f"{CREDENTIALS}: The key has expired; {NEW_KEY}"),
        (refusal(403, "The deadline has passed."), PASSED),
        (reply({"code": 403, "message": "The deadline has passed"}), PASSED),
        (reply({"error": {"code": 403, "message": "The deadline has passed"}}, 403), PASSED),
        (Answer(403, b"The\x1b deadline\n has passed"), PASSED),
        (refusal(403, "Verify your phone number"), f"{ACCESS}: Verify your phone number; do that at {SETTINGS}"),
        (refusal(403, RULES), f"{ACCESS}: {RULES.rstrip('.')}; {JOIN}"),
        (refusal(403, DENIED), f"{ACCESS}: {DENIED}; {JOIN}"),
        (refusal(403, "Forbidden"), f"{ACCESS}; {JOIN}"),
        (Answer(403), f"{ACCESS}; {JOIN}"),
        (refusal(403, "so " * 1000), f"{ACCESS}: {'so ' * 100}...; look at {PAGE}"),
        (
            refusal(404, "Not Found"),
            f"Kaggle finds no competition {COMPETITION} (404); check fetch.competition against {PAGE}",
        ),
        (refusal(429, "Too many"), "Kaggle asks to wait (429): Too many; run again later"),
        (refusal(500, "We are down"), "Kaggle answers with an error (500): We are down; run again later"),
    ],
)
def test_kaggles_reason_is_passed_on_with_a_remedy(server, failure, answer, message):
    server.answers[FILES] = answer
    assert failure() == message
    assert len(server.asked(FILES)) == (4 if answer.status in (429, 500) else 1) and not server.asked(FILE)


def test_a_link_that_the_store_refuses_is_no_refusal_of_access(server, failure):
    server.answers[FILE] = Answer(403, b"<Error><Code>x</Code><Message>Request has expired</Message></Error>")
    assert (
        failure()
        == "the file store of Kaggle refuses the download (403): Request has expired; run again for a new link"
    )


UPLOADS = [
    (Answer(400, b"<Error><Message>Bad checksum</Message></Error>"), f"(400): Bad checksum; look at {PAGE}"),
    (Answer(413, b"<html>"), f"(413); look at {PAGE}"),
    (
        Answer(403, b"<Error><Message>Request has expired</Message></Error>"),
        "(403): Request has expired; run again later",
    ),
    (Answer(500), "(500); run again later"),
]


@pytest.mark.parametrize(("answer", "message"), UPLOADS)
def test_a_file_that_the_store_refuses_is_reported_with_its_reason(server, account, tmp_path, answer, message):
    account()
    path = tmp_path / "a.zip"
    path.write_bytes(b"zip")
    server.answers[START] = reply({"token": "t", "createUrl": "http://storage.test/upload?signature=s3cret"})
    server.answers["PUT", "/upload"] = answer
    with pytest.raises(BadInput) as error:
        kaggle.submit(COMPETITION, path, "a try", time.monotonic() + 30)
    assert str(error.value) == f"the file store of Kaggle refuses {path} {message}"
    assert not server.asked(CREATE)


def damaged(data: bytes, how: str) -> bytes:
    if how == "cut":
        return data[: len(data) // 2]
    if how == "no zip":
        return b"<!doctype html><title>Sign in</title>"
    at = len(data) // 2  # inside the padding, so that only the checksum shows it
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("how", ["cut", "no zip", "a flipped bit"])
def test_a_broken_zip_is_removed(server, get, failure, archive, tmp_path, how):
    server.answers[FILE] = download(damaged(archive.read_bytes(), how))
    message = failure()
    assert message.startswith(f"the download of {COMPETITION} arrived broken")
    assert message.endswith(f"was removed; run again, or download it by hand at {PAGE}/data")
    assert not list((tmp_path / "d").glob("*.zip"))
    if how == "a flipped bit":
        server.answers[FILE] = download(archive)
        assert get() == archive.read_bytes()


def test_an_answer_without_a_zip_is_reported(server, failure):
    server.answers[FILES] = Answer(body=b"hello")
    assert failure() == f"kaggle.com sent no zip for {COMPETITION}; download the data by hand at {PAGE}/data"


def test_a_failed_connection_is_reported_by_its_cause(account, failure, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    message = failure()
    assert message.startswith("the connection to Kaggle failed (") and "Connection refused" in message
    assert message.endswith("check the network, then run again: a download resumes where it stopped")
    assert "0x" not in message and "Max retries" not in message


ODD_ROWS = [
    {"teamName": None, "score": "0.3"},
    {"teamName": "no score"},
    {"teamName": "text", "score": "n/a"},
    {"teamName": "null", "score": None},
    {"teamName": ["a", "list"], "score": {"a": 1}},
    {"teamName": "not finite", "score": "NaN"},
    {"teamName": "a number", "score": 0.25, "teamId": "not a number", "submissionDate": "yesterday"},
    {},
    None,
    "a row",
]


def test_odd_rows_of_the_leaderboard_do_not_hide_the_others(server, account):
    account()
    rows = [*ODD_ROWS, {"teamId": 1, "teamName": "good\x1b[31m", "score": "0.20000"}]
    server.answers[BOARD] = [reply({"submissions": rows, "nextPageToken": "2"}), reply({"submissions": None})]
    found = kaggle.leaderboard(COMPETITION, time.monotonic() + 30)
    assert [(team.team, team.score) for team in found] == [("good[31m", 0.2), ("a number", 0.25), ("(no name)", 0.3)]


def test_odd_submissions_do_not_hide_the_others(server, account):
    account()
    server.answers[LIST] = reply(
        {
            "submissions": [
                {"ref": 3, "status": "PONDERED", "date": "yesterday", "publicScore": "n/a"},
                {"status": "COMPLETE"},
                None,
                {"ref": 2, "status": "complete", "date": "2026-11-23T06:00:00.1234567Z", "publicScore": 0.2},
                {"ref": 1, "status": "ERROR", "errorDescription": "Row 5\nis bad."},
            ]
        }
    )
    third, second, first = kaggle.submissions(COMPETITION, time.monotonic() + 30)
    assert (third.ref, third.status, third.public_score) == ("3", "PONDERED", "n/a")
    assert (second.status, second.public_score, second.private_score) == ("COMPLETE", "0.2", "")
    assert second.time.isoformat(timespec="seconds") == "2026-11-23T06:00:00+00:00"
    assert (first.status, first.error) == ("ERROR", "Row 5 is bad")


@pytest.mark.parametrize(
    ("answer", "phrase"),
    [
        (reply({"numToday": 2, "numTotal": 9, "numAllowedNow": 3}), "submissions left today: 3, sent: 2"),
        (reply({"numToday": 5, "numTotal": 5}), "submissions left today: 0, sent: 5"),
        (
            reply({"numTotal": 99, "numAllowedNow": 1, "limitedByTotal": True}),
            "submissions left in all: 1",
        ),
        (reply({}), ""),
        (reply({"numAllowedNow": "many"}), ""),
        (reply([]), ""),
        (refusal(500), ""),
        (Answer(200, b"hello"), ""),
    ],
)
def test_the_submissions_left_are_told_where_kaggle_tells_them(server, account, answer, phrase):
    account()
    server.answers[LIMITS] = answer
    assert kaggle.submissions_left(COMPETITION, time.monotonic() + 30) == phrase
    assert len(server.asked(LIMITS)) == 1


def test_the_real_archive_is_fetched(server, fetch, real_archive, tmp_path):
    if real_archive.is_dir() or "\n".join(zipfile.ZipFile(real_archive).namelist()).count("/Unmasked_Train/") < 7000:
        pytest.skip("needs the complete archive as a zip")
    server.answers[FILE] = download(real_archive)
    done = fetch()
    assert done.returncode == 0, done.stderr
    assert "7000 training pairs and 200 test images" in done.stderr
    assert (tmp_path / "work" / paths.INDEX).read_text(encoding="utf-8").count("\n") == 7201
