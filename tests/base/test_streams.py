"""stdout and stderr whose reader leaves, that are closed, full or not UTF-8, and an import that is kept quiet."""

import os
import signal
import subprocess
import sys

import pytest

from pipeline.base.streams import QuietImport

SCRIPT = """
import argparse, sys
from pathlib import Path
from pipeline.base.command import run
from pipeline.base.errors import BadInput
from pipeline.base.progress import say

early = open('early', 'w')

def main():
    print('ready', flush=True)
    sys.stdin.readline()
    for _ in range(1000):
        say('at work')
        print('line ' * 20)
    Path('done').touch()
    {last}

run('command', main)
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(("last", "status"), [("pass", 0), ("raise BadInput('no')", 1)])
def test_when_its_reader_leaves_a_command_finishes_its_work_without_an_error(
    code_here, tmp_path, last, status, unbuffered
):
    """As in `python -m pipeline.leaderboard | head -1` and `dvc repro 2>&1 | head`."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(last=last)],
        cwd=tmp_path,
        env=os.environ | code_here | {"PYTHONUNBUFFERED": unbuffered},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout.readline() == b"ready\n"
    process.stdout.close()
    process.stdin.close()
    assert process.wait(60) == status and (tmp_path / "done").exists()


def run_in_shell(redirected: str, code: str, folder, environment) -> subprocess.CompletedProcess:
    command = ["sh", "-c", f'"$@" {redirected}', "sh", sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=60
    )


def test_with_closed_stdout_and_stderr_a_command_works(code_here, tmp_path):
    last = "assert early.fileno() > 2"  # as descriptor 2 it would be written to by C code
    assert run_in_shell(">&- 2>&-", SCRIPT.format(last=last), tmp_path, os.environ | code_here).returncode == 0
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize("length", [1, 100_000])
def test_output_to_a_full_disk_is_one_line(code_here, tmp_path, length):
    code = f"from pipeline.base.command import run; run('command', lambda: print('x' * {length}))"
    done = run_in_shell(">/dev/full", code, tmp_path, os.environ | code_here | {"PYTHONUNBUFFERED": ""})
    assert done.returncode == 1
    assert done.stderr == b"command: No space left on device: writing its output; nothing was half-written\n"


def test_text_that_the_terminal_cannot_show_is_escaped(code_here, tmp_path):
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    name = r"'\xe4 \u732b \udcff'"
    last = f"say({name}); print({name}); argparse.ArgumentParser(description={name}).parse_args(['-h'])"
    done = run_in_shell("", SCRIPT.format(last=last), tmp_path, os.environ | code_here | ascii_only)
    assert done.returncode == 0
    assert done.stderr.splitlines()[-1] == rb"\xe4 \u732b \udcff"
    assert done.stdout.count(rb"\xe4 \u732b \udcff") == 2


NOISY = "import os\nos.write(2, b'a note\\n')\n"


@pytest.fixture
def quiet(tmp_path, monkeypatch):
    """`quiet(name, code)` writes a module of this name, which is imported quietly."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, code: str) -> None:
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
        monkeypatch.setattr(sys, "meta_path", [QuietImport(name), *sys.meta_path])

    return write


def test_what_a_quiet_import_prints_is_hidden_and_the_rest_is_not(quiet, capfd):
    quiet("noisy_one", f"{NOISY}value = 3\n")
    import noisy_one

    os.write(2, b"after\n")
    assert noisy_one.value == 3 and noisy_one.__spec__.name == "noisy_one"
    assert capfd.readouterr().err == "after\n"


def test_what_a_failing_import_printed_is_shown(quiet, capfd):
    quiet("noisy_two", f"{NOISY}raise ImportError('no such library')\n")
    with pytest.raises(ImportError, match="no such library"):
        import noisy_two  # noqa: F401
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "a note\nafter\n"


def test_a_module_that_is_absent_is_still_absent(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [QuietImport("not_there"), *sys.meta_path])
    with pytest.raises(ModuleNotFoundError, match="not_there"):
        import not_there  # noqa: F401


def test_what_an_import_printed_that_aborts_the_process_is_shown(code_here, tmp_path):
    """As TensorFlow's on a processor without AVX."""
    (tmp_path / "tensorflow.py").write_text(f"{NOISY}os.abort()\n", encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"} | code_here
    command = [sys.executable, "-c", "import pipeline, tensorflow"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGABRT and done.stderr == "a note\n"
    (tmp_path / "tensorflow.py").write_text(NOISY, encoding="utf-8")
    for level, shown in (("3", ""), ("1", "a note\n")):
        environment["TF_CPP_MIN_LOG_LEVEL"] = level
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, shown)
