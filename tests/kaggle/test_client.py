"""The stage fetch with the unmodified kaggle client, against a server on this machine.

A drawn competition has fewer images than the real one. If fetch refuses their number, it has downloaded, unpacked and
checked the archive.
"""

import base64
import os
import re
import subprocess
import sys
import time
import zipfile
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from pipeline import paths
from tools.kaggle_server import (
    COMPETITION,
    FILES,
    KEY,
    USER,
    Answer,
    KaggleServer,
    download,
    redirect,
    refusal,
    rpc,
    wait_first,
)

STORE = f"http://storage.test/bucket/{COMPETITION}.zip"
FILE = "GET", urlsplit(STORE).path
PAGE = f"https://www.kaggle.com/competitions/{COMPETITION}"
WRONG_COUNTS = "kaggle.com sent 24 training pairs and 9 test images"
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
def server(archive):
    """A server that has the archive. Tests change its answers."""
    with KaggleServer() as server:
        server.answers[FILES] = redirect(STORE)
        server.answers[FILE] = download(archive)
        yield server
        assert not [request for request in server.requests if request.method == "CONNECT"], "it tried the real site"


@pytest.fixture
def fetch(server, tmp_path, params_file, run_stage):
    """`fetch()` runs the stage in tmp_path/work with fetch.source: kaggle, by default with an account."""
    for folder in (home := tmp_path / "home", work := tmp_path / "work"):
        folder.mkdir()
    params_file(work, **{"fetch.source": "kaggle"})

    def call(credentials: bool = True, **environment: str):
        return run_stage("fetch", work, server.environment(home, credentials) | environment)

    return call


def refused(done, message: str) -> None:
    """The stage printed one line of its own, its last, with the message, and did not print the key."""
    assert done.returncode == 1
    assert KEY not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    ours = [line for line in re.split(r"[\r\n]", done.stderr) if line.startswith("fetch:")]
    assert len(ours) == 1 and message in ours[0]
    assert done.stderr.rstrip().endswith(ours[0].rstrip())


def files_in(tmp_path: Path) -> set[str]:
    work = tmp_path / "work"
    return {path.relative_to(work).as_posix() for path in work.rglob("*") if path.is_file()} - {"params.yaml"}


def basic(user: str, key: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{key}".encode()).decode()


def test_the_archive_is_downloaded_once_and_the_store_gets_no_credentials(server, fetch, archive, tmp_path):
    refused(fetch(), WRONG_COUNTS)
    assert files_in(tmp_path) == {ZIP.as_posix()}
    path = tmp_path / "work" / ZIP
    assert path.read_bytes() == archive.read_bytes()
    (request,) = server.asked(FILES)
    assert request.json["competitionName"] == COMPETITION
    assert request.headers["authorization"] == basic(USER, KEY)
    assert server.asked(FILE) and all("authorization" not in request.headers for request in server.asked(FILE))

    before = path.stat()
    refused(fetch(), WRONG_COUNTS)
    assert path.stat().st_ctime_ns == before.st_ctime_ns


def test_the_competitions_name_is_a_setting(server, fetch, tmp_path, params_file):
    params_file(tmp_path / "work", **{"fetch.source": "kaggle", "fetch.competition": "another-one"})
    server.answers[FILES] = refusal(404)
    refused(fetch(), "there is no competition another-one (404)")
    assert server.asked(FILES)[0].json["competitionName"] == "another-one"


@pytest.mark.parametrize("failures", [[], [Answer(500, b"<Error>later</Error>")]])
def test_an_interrupted_download_resumes(server, fetch, archive, failures):
    complete = download(archive)
    server.answers[FILE] = [Answer(body=archive, headers=complete.headers, cut=2**20 + 5), *failures, complete]
    refused(fetch(), WRONG_COUNTS)
    assert server.asked(FILE)[-1].headers["range"] == f"bytes={2**20}-"  # all complete chunks of 64 KiB are used


@pytest.mark.slow
def test_a_download_that_is_always_interrupted_is_kept_and_reported(server, fetch, archive, tmp_path):
    server.answers[FILE] = Answer(body=archive, headers=download(archive).headers, cut=100_000)
    done = fetch()
    refused(done, "the connection to Kaggle failed")
    assert done.stderr.count("trying again") == 3
    assert (tmp_path / "work" / ZIP).stat().st_size >= 2**16


@pytest.mark.parametrize("etag", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_cut_zip_of_unknown_length_is_downloaded_again(server, fetch, archive, etag):
    complete = download(archive)
    headers = complete.headers if etag else {}
    server.answers[FILE] = [Answer(body=archive, headers=headers, cut=2**20 + 5, length=False), complete]
    done = fetch()
    refused(done, WRONG_COUNTS)
    assert "arrived broken" in done.stderr and "trying again in 1 s" in done.stderr


@pytest.mark.slow
def test_a_zip_of_unknown_length_that_is_always_cut_is_removed(server, fetch, archive, tmp_path):
    server.answers[FILE] = Answer(body=archive, headers={}, cut=2**20, length=False)
    refused(fetch(), f"the download of {COMPETITION} arrived broken")
    assert files_in(tmp_path) == set()


def load(server, folder: Path, code: str, **environment: str) -> tuple[subprocess.CompletedProcess, float]:
    """Run code that uses pipeline.kaggle.client as `kaggle` and prints BadInput; the process and its seconds."""
    lines = ["from pathlib import Path", "from pipeline.base.command import run"]
    code = "\n".join([*lines, "from pipeline.kaggle import client as kaggle", f"run('load', lambda: {code})"])
    home = folder / "home"
    home.mkdir(exist_ok=True)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("KAGGLE_")}
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=inherited | {"PYTHONPATH": str(Path(__file__).parents[2])} | server.environment(home) | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done, time.monotonic() - start


SLOW = [pytest.param(where, marks=pytest.mark.slow) for where in ("before its answer", "before", "after the headers")]


@pytest.mark.parametrize("where", [*SLOW, "in the file"])
def test_a_server_that_stalls_is_given_up(server, archive, tmp_path, where):
    complete = download(archive)
    server.answers[FILES if where == "before its answer" else FILE] = Answer(
        body=archive, headers=complete.headers, stall={"after the headers": 0, "in the file": 2**20}.get(where, -1)
    )
    done, seconds = load(server, tmp_path, f"kaggle.download('{COMPETITION}', Path('d'), silence=2)")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.rstrip().endswith("load: Kaggle sent nothing for 2 s; run again, nothing is lost")
    assert 2 < seconds < 15
    server.answers[FILES], server.answers[FILE] = redirect(STORE), complete
    again, _ = load(server, tmp_path / "d", f"kaggle.download('{COMPETITION}', Path('.'), silence=2)")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "d" / f"{COMPETITION}.zip").read_bytes() == archive.read_bytes()
    if where == "in the file":
        assert server.asked(FILE)[-1].headers["range"] == f"bytes={2**20}-"


def test_a_slow_download_continues_while_bytes_arrive(server, archive, tmp_path):
    server.answers[FILE] = Answer(body=archive, headers=download(archive).headers, pause=0.03)
    done, seconds = load(server, tmp_path, f"kaggle.download('{COMPETITION}', Path('d'), silence=1.5)")
    assert done.returncode == 0, done.stderr
    assert seconds > 4 and (tmp_path / "d" / f"{COMPETITION}.zip").read_bytes() == archive.read_bytes()


@pytest.mark.slow
def test_a_token_check_that_stalls_is_given_up(server, tmp_path):
    server.answers[rpc("IntrospectToken", "security.OAuthService")] = Answer(stall=-1)
    code = f"[setattr(kaggle, 'ANSWER', 2), kaggle.download('{COMPETITION}', Path('d'))]"
    done, seconds = load(server, tmp_path, code, KAGGLE_API_TOKEN="t0ken")
    assert done.returncode == 1 and done.stderr == "load: Kaggle sent nothing for 2 s; run again, nothing is lost\n"
    assert seconds < 15


@pytest.mark.parametrize(("wait", "seconds"), [(2, 2), pytest.param("soon", 1, marks=pytest.mark.slow)])
def test_it_waits_for_retry_after_or_one_second(server, fetch, wait, seconds):
    server.answers[FILES] = [wait_first(wait), redirect(STORE)]
    done = fetch()
    refused(done, WRONG_COUNTS)
    assert f"; trying again in {seconds} s" in done.stderr


@pytest.mark.slow
def test_it_waits_for_a_retry_after_date(server, fetch):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=5), usegmt=True)
    server.answers[FILES] = [wait_first(date), redirect(STORE)]
    refused(fetch(), WRONG_COUNTS)
    assert datetime.now(UTC) >= parsedate_to_datetime(date)


@pytest.mark.parametrize("wait", ["3600", "Fri, 01 Jan 2100 00:00:00 GMT"])
def test_it_does_not_wait_for_hours(server, fetch, wait):
    server.answers[FILES] = wait_first(wait)
    refused(fetch(), "Kaggle asks to wait (429, too many requests): run again in ")
    assert len(server.asked(FILES)) == 1


def test_temporary_errors_are_retried(server, fetch):
    server.answers[FILES] = [refusal(503), Answer(502, b"<html>"), redirect(STORE)]
    done = fetch()
    refused(done, WRONG_COUNTS)
    assert "Kaggle answers with an error (503); trying again in 1 s" in done.stderr


def test_the_key_is_not_printed_although_verbose_is_set(fetch):
    done = fetch(VERBOSE="true")
    refused(done, WRONG_COUNTS)
    assert "authorization" not in (done.stdout + done.stderr).lower()


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "Kaggle refuses the credentials (401): create a new token at https://www.kaggle.com/settings"),
        (403, f"(403): join it and accept its rules at {PAGE}/rules"),
        (404, f"there is no competition {COMPETITION} (404): check fetch.competition against {PAGE}"),
        (429, "Kaggle asks to wait (429"),
        (500, "Kaggle answers with an error (500); run again later"),
    ],
)
def test_an_error_is_reported_with_its_remedy(server, fetch, tmp_path, status, message):
    server.answers[FILES] = refusal(status, "You must accept this competition's rules")
    refused(fetch(), message)
    assert files_in(tmp_path) == set() and not server.asked(FILE)
    assert len(server.asked(FILES)) == (4 if status in (429, 500) else 1)


def test_an_expired_link_is_reported(server, fetch, tmp_path):
    server.answers[FILE] = Answer(403, b"<Error>expired</Error>")
    refused(fetch(), "(403)")
    assert files_in(tmp_path) == set()


def damaged(data: bytes, how: str) -> bytes:
    if how == "cut":
        return data[: len(data) // 2]
    if how == "no zip":
        return b"<!doctype html><title>Sign in</title>"
    at = len(data) // 2  # inside the padding, so that only the checksum shows it
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("how", [pytest.param("cut", marks=pytest.mark.slow), "no zip", "a flipped bit"])
def test_a_broken_zip_is_removed(server, fetch, archive, tmp_path, how):
    server.answers[FILE] = download(damaged(archive.read_bytes(), how))
    done = fetch()
    refused(done, f"the download of {COMPETITION} arrived broken")
    assert "was removed; run again" in done.stderr
    assert files_in(tmp_path) == set()
    if how == "a flipped bit":
        server.answers[FILE] = download(archive)
        refused(fetch(), WRONG_COUNTS)


def test_an_answer_without_a_zip_is_reported(server, fetch):
    server.answers[FILES] = Answer(body=b"hello")
    refused(fetch(), f"kaggle.com sent no zip for {COMPETITION}")


def test_without_an_account_it_sends_nothing_and_says_how_to_get_one(server, fetch, tmp_path):
    done = fetch(credentials=False)
    refused(done, "no Kaggle account is set up: create a token at https://www.kaggle.com/settings")
    assert "kaggle.json" in done.stderr and "KAGGLE_USERNAME" in done.stderr
    assert done.stdout == "" and not server.requests
    assert files_in(tmp_path) == set()


def test_a_saved_token_is_used(server, fetch, tmp_path):
    folder = tmp_path / "home" / ".kaggle"
    folder.mkdir()
    (folder / "kaggle.json").write_text('{"username": "saved", "key": "secret"}', encoding="utf-8")
    (folder / "kaggle.json").chmod(0o600)
    refused(fetch(credentials=False), WRONG_COUNTS)
    assert server.asked(FILES)[0].headers["authorization"] == basic("saved", "secret")


def test_a_failed_connection_is_reported(fetch):
    closed = "http://127.0.0.1:1"
    refused(fetch(http_proxy=closed, HTTP_PROXY=closed), "the connection to Kaggle failed")


def test_the_real_archive_is_fetched(server, fetch, real_archive, tmp_path):
    if real_archive.is_dir() or "\n".join(zipfile.ZipFile(real_archive).namelist()).count("/Unmasked_Train/") < 7000:
        pytest.skip("needs the complete archive as a zip")
    server.answers[FILE] = download(real_archive)
    done = fetch()
    assert done.returncode == 0, done.stderr
    assert "7000 training pairs and 200 test images" in done.stderr
    assert (tmp_path / "work" / paths.INDEX).read_text(encoding="utf-8").count("\n") == 7201
