"""How a command ends."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from pipeline.base.command import run
from pipeline.base.errors import BadInput


def script(body):
    return f"""
import errno, time
from pipeline.base.command import run
from pipeline.base.errors import BadInput

def main():
    {body}

run("stage", main)
"""


def start(body, repo, tmp_path):
    return subprocess.Popen(
        [sys.executable, "-c", script(body)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(repo)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("raise BadInput('a.csv names x twice')", "stage: a.csv names x twice"),
        ("raise OSError(errno.ENOSPC, 'No space left on device', 'data/raw')", "No space left on device: data/raw"),
        ("raise OSError(errno.EROFS, 'Read-only file system')", "Read-only file system"),
        ("raise PermissionError(errno.EACCES, 'Permission denied', 'data/raw')", "Permission denied: data/raw"),
    ],
)
def test_a_fault_that_is_not_the_programs_is_one_line_and_status_1(repo, tmp_path, body, line):
    process = start(body, repo, tmp_path)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out == "" and err.startswith("stage: ") and line in err
    assert err.count("\n") == 1 and err.endswith("\n")


@pytest.mark.parametrize("body", ["raise ValueError('bug')", "raise OSError(errno.EBADF, 'bug')"])
def test_a_fault_of_the_program_shows_where_it_is(repo, tmp_path, body):
    process = start(body, repo, tmp_path)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" in err and "bug" in err


def test_what_succeeds_is_silent(repo, tmp_path):
    process = start("pass", repo, tmp_path)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0


def test_ctrl_c_is_130_and_says_how_to_go_on(repo, tmp_path):
    process = start("print('ready', flush=True); time.sleep(60)", repo, tmp_path)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err and "stage: interrupted" in err and "dvc repro" in err


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadInput("no"), "here: no"),
        (KeyboardInterrupt(), 130),
        (OSError(errno.EDQUOT, "Quota exceeded", "f"), "here: Quota exceeded: f; nothing was half-written"),
    ],
)
def test_the_exit_code(error, code):
    with pytest.raises(SystemExit) as exit:
        run("here", lambda: fail(error))
    assert exit.value.code == code
