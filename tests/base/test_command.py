"""How a command ends."""

import errno
import os
import pty
import signal
import subprocess
import sys
import termios

import pytest

from pipeline.base.command import STOP_SIGNALS, lock, run, stop_signals
from pipeline.base.errors import BadInput


def script(body, how="run"):
    return f"""
import errno, os, time
from pathlib import Path
from pipeline.base.command import run, run_stage, stop_signals
from pipeline.base.errors import BadInput
from pipeline.base.progress import progress

def sleep(seconds):
    "In short naps: a signal that comes just before a nap begins is handled only after it."
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)

def main():
    {body}

{how}("stage", main)
"""


def start(body, repo, tmp_path, how="run"):
    return subprocess.Popen(
        [sys.executable, "-c", script(body, how)],
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
def test_bad_input_and_faults_of_the_machine_are_one_line_and_status_1(repo, tmp_path, body, line):
    process = start(body, repo, tmp_path)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out == "" and err.startswith("stage: ") and line in err
    assert err.count("\n") == 1 and err.endswith("\n")


@pytest.mark.parametrize("body", ["raise ValueError('bug')", "raise OSError(errno.EBADF, 'bug')"])
def test_a_bug_shows_a_traceback(repo, tmp_path, body):
    process = start(body, repo, tmp_path)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" in err and "bug" in err


def test_success_is_silent(repo, tmp_path):
    process = start("pass", repo, tmp_path)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0


SLEEPING = """
    try:
        print('ready', flush=True)
        sleep(60)
    finally:
        print('cleaning', flush=True)
        time.sleep(0.5)
        print('clean')
"""


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_stop_signal_is_130_and_names_the_command_to_continue_with(repo, tmp_path, number):
    process = start(SLEEPING, repo, tmp_path)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.stdout.readline() == "cleaning\n"
    send_again(process, number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "clean\n")
    assert err == "\nstage: interrupted; `dvc repro` goes on from here\n"


def send_again(process, number):
    """A terminal that closes sends SIGHUP twice, a shutdown SIGTERM and SIGHUP; a Ctrl-C comes twice on purpose."""
    if number != signal.SIGINT:
        process.send_signal(signal.SIGHUP)


RECORDING = """
    with stop_signals() as stopped:
        print('ready', flush=True)
        while not stopped():
            time.sleep(0.01)
        print('recorded', flush=True)
        sleep({seconds})
    raise KeyboardInterrupt('at tea')
"""


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_recorded_signal_lets_the_work_in_progress_finish(repo, tmp_path, number):
    process = start(RECORDING.format(seconds=0.5), repo, tmp_path)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.stdout.readline() == "recorded\n"
    send_again(process, number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert err == "\nstage: interrupted at tea; `dvc repro` goes on from here\n"


def test_a_second_ctrl_c_interrupts_at_once(repo, tmp_path):
    process = start(RECORDING.format(seconds=60), repo, tmp_path)
    for line in ("ready\n", "recorded\n"):
        assert process.stdout.readline() == line
        process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "stage: interrupted;" in err


IN_A_TERMINAL = """
    with stop_signals() as stopped:
        for _ in progress(range(10**6), 'train'):
            time.sleep(0.01)
            if stopped():
                break
    Path('saved').touch()
    raise KeyboardInterrupt
"""


@pytest.mark.parametrize("stage", ["train", "predict", "upload"])
def test_ctrl_c_while_it_imports_shows_no_traceback(repo, tmp_path, stage):
    (tmp_path / "numpy.py").write_text("import time; print('importing', flush=True); time.sleep(60)")
    process = subprocess.Popen(
        [sys.executable, "-m", f"pipeline.{stage}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(repo)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == -signal.SIGINT


def test_when_its_terminal_closes_it_ends_as_with_ctrl_c(repo, tmp_path):
    """The terminal, which can no longer be written to, has the progress bar and would get the last line."""
    process, terminal = pty.fork()
    if process == 0:
        termios.tcsetwinsize(0, (24, 100))
        os.chdir(tmp_path)
        os.environ["PYTHONPATH"] = str(repo)
        os.execv(sys.executable, [sys.executable, "-c", script(IN_A_TERMINAL)])
    shown = b""
    while b"train" not in shown:
        shown += os.read(terminal, 4096)
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 130 and (tmp_path / "saved").exists()


IGNORING = """
    with stop_signals() as stopped:
        print(os.getpid(), flush=True)
        while not stopped() and not Path('go').exists():
            time.sleep(0.01)
        print(stopped(), flush=True)
"""


def test_what_was_started_to_ignore_a_signal_ignores_it(repo, tmp_path):
    """nohup has SIGHUP ignored; a shell without job control has Ctrl-C ignored by what it starts in the background."""
    command = ["nohup", "sh", "-c", '"$@" & wait', "sh", sys.executable, "-c", script(IGNORING)]
    environment = os.environ | {"PYTHONPATH": str(repo)}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    number = int(process.stdout.readline())
    os.kill(number, signal.SIGHUP)
    os.kill(number, signal.SIGINT)
    (tmp_path / "go").touch()
    assert process.communicate(timeout=30)[0] == "False\n"


def test_the_handlers_are_restored():
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with pytest.raises(ValueError), stop_signals():
        assert all(signal.getsignal(number) != handler for number, handler in zip(STOP_SIGNALS, before, strict=True))
        raise ValueError
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_that_comes_while_python_ends_is_no_failure(repo, tmp_path, number):
    late = f"import signal; signal.raise_signal({number})"
    done = subprocess.run(
        [sys.executable, "-c", script("pass") + late],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(repo)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


SLEEP = "print('ready', flush=True); time.sleep(60)"


def test_a_second_stage_in_one_folder_is_refused_until_the_first_has_ended(repo, tmp_path):
    first = start(SLEEP, repo, tmp_path, "run_stage")
    assert first.stdout.readline() == "ready\n"
    second = start(SLEEP, repo, tmp_path, "run_stage")
    _, err = second.communicate(timeout=60)
    assert second.returncode == 1
    assert err == "stage: another stage is at work in this folder; run again when it is done\n"
    first.kill()  # however it ends
    first.communicate(timeout=60)
    assert start("pass", repo, tmp_path, "run_stage").communicate(timeout=60) == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_other_commands_and_other_folders_are_not_blocked(repo, tmp_path):
    (tmp_path / "other").mkdir()
    first = start(SLEEP, repo, tmp_path, "run_stage")
    assert first.stdout.readline() == "ready\n"
    assert start("pass", repo, tmp_path, "run").communicate(timeout=60) == ("", "")
    assert start("pass", repo, tmp_path / "other", "run_stage").communicate(timeout=60) == ("", "")
    first.kill()
    first.communicate(timeout=60)


def test_a_lock_ends_with_its_block_or_its_exception(tmp_path):
    with pytest.raises(ValueError), lock(str(tmp_path)):
        with pytest.raises(BadInput, match="another stage"), lock(str(tmp_path)):
            pass
        raise ValueError
    with lock(str(tmp_path)):
        pass


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadInput("no"), "here: no"),
        (KeyboardInterrupt(), 130),
        (OSError(errno.EDQUOT, "Quota exceeded", "f"), "here: Disk quota exceeded: f; nothing was half-written"),
    ],
)
def test_the_exit_code(error, code):
    with pytest.raises(SystemExit) as exit:
        run("here", lambda: fail(error))
    assert exit.value.code == code
