"""The fetch stage with the unmodified kaggle client, against a server on this machine.

A drawn competition has not the real one's counts, so the refusal of its counts is what tells that it was downloaded,
unpacked and checked.
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
WRONG_COUNTS = "kaggle.com sent 24 training pairs and 9 test images, the competition has 7000 and 200"


@pytest.fixture(scope="module")
def archive(tmp_path_factory, demo_competition) -> Path:
    """The drawn competition as a zip of a few megabytes, laid out as the real one."""
    path = tmp_path_factory.mktemp("archive") / "the.zip"
    with zipfile.ZipFile(path, "w") as file:
        for part in sorted(demo_competition.raw.rglob("*")):
            file.write(part, "Dataset" / part.relative_to(demo_competition.raw))
        file.writestr(
            "Dataset/.padding", np.random.default_rng(0).bytes(3 * 2**20)
        )  # the client writes by the megabyte
    return path


@pytest.fixture
def server(archive):
    """A server that has the archive, and leaves it to a test to change its answers."""
    with KaggleServer() as server:
        server.answers[FILES] = redirect(STORE)
        server.answers[FILE] = download(archive)
        yield server
        assert not [request for request in server.requests if request.method == "CONNECT"], "it asked for the real site"


@pytest.fixture
def fetch(server, tmp_path, params_file, run_stage):
    """`fetch()` runs the stage in tmp_path/work with fetch.source: kaggle, with an account unless told otherwise."""
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    params_file(work, **{"fetch.source": "kaggle"})

    def call(credentials: bool = True, **environment: str):
        return run_stage("fetch", work, server.environment(home, credentials) | environment)

    return call


def refused(done, message: str) -> None:
    """The stage ended with one line of its own, its last, which holds the message; and it kept the key to itself."""
    assert done.returncode == 1
    assert KEY not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    ours = [line for line in re.split(r"[\r\n]", done.stderr) if line.startswith("fetch:")]
    assert len(ours) == 1 and message in ours[0]
    assert done.stderr.rstrip().endswith(ours[0].rstrip())


def left(tmp_path: Path) -> set[str]:
    work = tmp_path / "work"
    return {path.relative_to(work).as_posix() for path in work.rglob("*") if path.is_file()} - {"params.yaml"}


def test_the_archive_is_downloaded_unpacked_and_checked(server, fetch, archive, tmp_path):
    refused(fetch(), WRONG_COUNTS)
    path = paths.WORK / "download" / f"{COMPETITION}.zip"
    assert left(tmp_path) == {path.as_posix()}
    assert (tmp_path / "work" / path).read_bytes() == archive.read_bytes()


def test_the_client_asks_for_the_competition_as_the_user_and_tells_the_store_nothing(server, fetch):
    fetch()
    (asked,) = server.asked(FILES)
    assert asked.json["competitionName"] == COMPETITION
    assert asked.headers["authorization"] == "Basic " + base64.b64encode(f"{USER}:{KEY}".encode()).decode()
    assert server.asked(FILE) and all("authorization" not in request.headers for request in server.asked(FILE))


def test_the_competitions_name_is_a_setting(server, fetch, tmp_path, params_file):
    params_file(tmp_path / "work", **{"fetch.source": "kaggle", "fetch.competition": "another-one"})
    server.answers[FILES] = refusal(404)
    refused(fetch(), "there is no competition another-one (404)")
    assert server.asked(FILES)[0].json["competitionName"] == "another-one"


def test_a_zip_that_is_there_is_not_loaded_again(fetch, tmp_path):
    fetch()
    path = tmp_path / "work" / paths.WORK / "download" / f"{COMPETITION}.zip"
    before = path.stat()
    refused(fetch(), WRONG_COUNTS)
    assert path.stat().st_ctime_ns == before.st_ctime_ns


def test_a_download_that_is_cut_goes_on(server, fetch, archive):
    whole = download(archive)
    server.answers[FILE] = [Answer(body=archive, headers=whole.headers, cut=2 * 2**20 + 5), whole]
    refused(fetch(), WRONG_COUNTS)
    assert server.asked(FILE)[-1].headers["range"] == f"bytes={2 * 2**20}-"  # what a piece of 64 KiB held is kept


def test_a_download_goes_on_past_a_store_that_fails(server, fetch, archive):
    whole = download(archive)
    cut = Answer(body=archive, headers=whole.headers, cut=2**20 + 5)
    server.answers[FILE] = [cut, Answer(500, b"<Error>later</Error>"), whole]
    refused(fetch(), WRONG_COUNTS)
    assert server.asked(FILE)[-1].headers["range"] == f"bytes={2**20}-"


@pytest.mark.slow
def test_a_download_that_is_cut_each_time_is_kept_and_told(server, fetch, archive, tmp_path):
    server.answers[FILE] = Answer(body=archive, headers=download(archive).headers, cut=100_000)
    done = fetch()
    refused(done, "the connection to Kaggle failed")
    assert done.stderr.count("trying again") == 3
    assert (tmp_path / "work" / paths.WORK / "download" / f"{COMPETITION}.zip").stat().st_size >= 2**16


@pytest.mark.parametrize("etag", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_cut_that_nothing_but_the_zip_tells_is_loaded_again(server, fetch, archive, etag):
    whole = download(archive)
    headers = whole.headers if etag else {}
    server.answers[FILE] = [Answer(body=archive, headers=headers, cut=2**20 + 5, length=False), whole]
    done = fetch()
    refused(done, WRONG_COUNTS)
    assert "arrived broken" in done.stderr and "trying again in 1 s" in done.stderr


@pytest.mark.slow
def test_a_zip_of_unknown_length_that_is_always_cut_is_removed(server, fetch, archive, tmp_path):
    server.answers[FILE] = Answer(body=archive, headers={}, cut=2**20, length=False)
    refused(fetch(), f"the download of {COMPETITION} arrived broken")
    assert left(tmp_path) == set()


def load(server, folder: Path, code: str, **environment: str) -> tuple[subprocess.CompletedProcess, float]:
    """A program that uses pipeline.kaggle.client as `kaggle`, and the seconds it took; BadInput is printed."""
    lines = [
        "from pathlib import Path",
        "from pipeline.base.command import run",
        "from pipeline.competition import kaggle",
    ]
    code = "\n".join([*lines, f"run('load', lambda: {code})"])
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


@pytest.mark.parametrize(
    "where",
    [
        pytest.param("before its answer", marks=pytest.mark.slow),
        pytest.param("before the file", marks=pytest.mark.slow),
        pytest.param("after the headers", marks=pytest.mark.slow),
        "in the file",
    ],
)
def test_a_server_that_stalls_is_left(server, archive, tmp_path, where):
    whole = download(archive)
    server.answers[FILES if where == "before its answer" else FILE] = Answer(
        body=archive, headers=whole.headers, stall={"after the headers": 0, "in the file": 2**20}.get(where, -1)
    )
    done, seconds = load(server, tmp_path, f"kaggle.download('{COMPETITION}', Path('d'), silence=2)")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.rstrip().endswith("load: Kaggle sent nothing for 2 s; run again, nothing is lost")
    assert 2 < seconds < 15
    server.answers[FILES], server.answers[FILE] = redirect(STORE), whole
    again, _ = load(server, tmp_path / "d", f"kaggle.download('{COMPETITION}', Path('.'), silence=2)")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "d" / f"{COMPETITION}.zip").read_bytes() == archive.read_bytes()
    if where == "in the file":
        assert server.asked(FILE)[-1].headers["range"] == f"bytes={2**20}-"


def test_a_slow_download_goes_on_as_long_as_bytes_come(server, archive, tmp_path):
    server.answers[FILE] = Answer(body=archive, headers=download(archive).headers, pause=0.03)
    done, seconds = load(server, tmp_path, f"kaggle.download('{COMPETITION}', Path('d'), silence=1.5)")
    assert done.returncode == 0, done.stderr
    assert seconds > 4 and (tmp_path / "d" / f"{COMPETITION}.zip").read_bytes() == archive.read_bytes()


@pytest.mark.slow
def test_a_token_that_nobody_confirms_is_left(server, tmp_path):
    server.answers[rpc("IntrospectToken", "security.OAuthService")] = Answer(stall=-1)
    code = f"[setattr(kaggle, 'ANSWER', 2), kaggle.download('{COMPETITION}', Path('d'))]"
    done, seconds = load(server, tmp_path, code, KAGGLE_API_TOKEN="t0ken")
    assert done.returncode == 1 and done.stderr == "load: Kaggle sent nothing for 2 s; run again, nothing is lost\n"
    assert seconds < 15


def test_it_waits_as_long_as_it_is_asked_to(server, fetch):
    server.answers[FILES] = [wait_first(2), redirect(STORE)]
    done = fetch()
    refused(done, WRONG_COUNTS)
    assert "Kaggle asks to wait (429, too many requests): run again in 2 s; trying again in 2 s" in done.stderr


@pytest.mark.slow
def test_it_waits_until_the_date_it_is_given(server, fetch):
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=5), usegmt=True)
    server.answers[FILES] = [wait_first(date), redirect(STORE)]
    refused(fetch(), WRONG_COUNTS)
    assert datetime.now(UTC) >= parsedate_to_datetime(date)


@pytest.mark.parametrize("wait", ["3600", "Fri, 01 Jan 2100 00:00:00 GMT"])
def test_it_does_not_wait_for_hours(server, fetch, wait):
    server.answers[FILES] = wait_first(wait)
    refused(fetch(), "Kaggle asks to wait (429, too many requests): run again in ")
    assert len(server.asked(FILES)) == 1


@pytest.mark.slow
def test_a_wait_that_is_no_time_counts_for_none(server, fetch):
    server.answers[FILES] = [wait_first("soon"), redirect(STORE)]
    done = fetch()
    refused(done, WRONG_COUNTS)
    assert "trying again in 1 s" in done.stderr


def test_a_server_that_fails_for_a_moment_is_asked_again(server, fetch):
    server.answers[FILES] = [refusal(503), Answer(502, b"<html>"), redirect(STORE)]
    done = fetch()
    refused(done, WRONG_COUNTS)
    assert "Kaggle answers with an error (503); trying again in 1 s" in done.stderr


def test_the_key_is_not_printed_however_talkative_the_client_is_set(fetch):
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
def test_what_kaggle_refuses_is_told_with_the_remedy(server, fetch, tmp_path, status, message):
    server.answers[FILES] = refusal(
        status, "You must accept this competition's rules before you'll be able to download"
    )
    refused(fetch(), message)
    assert left(tmp_path) == set() and not server.asked(FILE)
    assert len(server.asked(FILES)) == (4 if status in (429, 500) else 1)


def test_a_link_that_no_longer_holds_is_told(server, fetch, tmp_path):
    server.answers[FILE] = Answer(403, b"<Error>expired</Error>")
    refused(fetch(), "(403)")
    assert left(tmp_path) == set()


def damaged(data: bytes, how: str) -> bytes:
    if how == "cut":
        return data[: len(data) // 2]
    if how == "no zip":
        return b"<!doctype html><title>Sign in</title>"
    at = len(data) // 2  # inside the padding, which only its checksum tells
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("how", [pytest.param("cut", marks=pytest.mark.slow), "no zip", "a flipped bit"])
def test_a_broken_zip_is_removed(server, fetch, archive, tmp_path, how):
    server.answers[FILE] = download(damaged(archive.read_bytes(), how))
    done = fetch()
    refused(done, f"the download of {COMPETITION} arrived broken")
    assert "was removed; run again" in done.stderr
    assert left(tmp_path) == set()


def test_after_a_broken_zip_the_next_run_loads_a_whole_one(server, fetch, archive):
    server.answers[FILE] = [download(damaged(archive.read_bytes(), "a flipped bit")), download(archive)]
    refused(fetch(), "arrived broken")
    refused(fetch(), WRONG_COUNTS)


def test_an_answer_without_a_zip_is_told(server, fetch):
    server.answers[FILES] = Answer(body=b"hello")
    refused(fetch(), f"kaggle.com sent no zip for {COMPETITION}")


def test_without_an_account_it_says_how_to_get_one_and_asks_nothing(server, fetch, tmp_path):
    done = fetch(credentials=False)
    refused(done, "no Kaggle account is set up: create a token at https://www.kaggle.com/settings")
    assert "kaggle.json" in done.stderr and "KAGGLE_USERNAME" in done.stderr
    assert done.stdout == "" and not server.requests
    assert left(tmp_path) == set()


def test_a_saved_token_is_used(server, fetch, tmp_path):
    folder = tmp_path / "home" / ".kaggle"
    folder.mkdir()
    (folder / "kaggle.json").write_text('{"username": "saved", "key": "secret"}', encoding="utf-8")
    (folder / "kaggle.json").chmod(0o600)
    refused(fetch(credentials=False), WRONG_COUNTS)
    assert server.asked(FILES)[0].headers["authorization"] == "Basic " + base64.b64encode(b"saved:secret").decode()


def test_a_connection_that_fails_is_told(server, fetch):
    closed = "http://127.0.0.1:1"
    done = fetch(http_proxy=closed, HTTP_PROXY=closed)
    refused(done, "the connection to Kaggle failed")


def test_the_whole_archive_is_fetched(server, fetch, real_archive, tmp_path):
    if (
        real_archive.is_dir()
        or sum("/Unmasked_Train/" in name for name in zipfile.ZipFile(real_archive).namelist()) < 7000
    ):
        pytest.skip("needs the whole archive as a zip")
    server.answers[FILE] = download(real_archive)
    done = fetch()
    assert done.returncode == 0, done.stderr
    assert "7000 training pairs and 200 test images" in done.stderr
    assert (tmp_path / "work" / paths.INDEX).read_text(encoding="utf-8").count("\n") == 7201
