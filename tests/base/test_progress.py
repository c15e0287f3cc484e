"""Progress: the items pass through, and the user sees how far they are."""

import os
import pty
import re
import subprocess
import sys
import termios

import pytest

from pipeline.base import progress as module
from pipeline.base.progress import progress, say


@pytest.fixture
def every_item(monkeypatch):
    """A line after each item."""
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(module, "WORTH_A_LINE", 0.0)


def test_items_pass_through_in_order():
    assert list(progress("abc", "read")) == ["a", "b", "c"]
    assert list(progress([], "read")) == []
    assert list(progress(iter(range(5)), "read", 5)) == [0, 1, 2, 3, 4]


def test_items_are_taken_one_by_one():
    taken = []
    source = (taken.append(n) or n for n in range(3))
    items = progress(source, "read", 3)
    assert next(items) == 0 and taken == [0]


def test_short_work_prints_nothing(capsys):
    list(progress(range(100), "read"))
    assert capsys.readouterr() == ("", "")


def test_lines_have_label_share_and_count(capsys, every_item):
    list(progress(range(4), "read", unit="file"))
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) == 4
    assert all(line.startswith("read") for line in lines)
    assert [re.search(r"\d+/\d+", line)[0] for line in lines] == ["1/4", "2/4", "3/4", "4/4"]
    assert "50%" in lines[1] and "100%" in lines[3] and "file" in lines[0]


def test_a_resumed_run_counts_earlier_items(capsys, every_item):
    list(progress(range(2), "train", total=10, done=8))
    lines = capsys.readouterr().err.splitlines()
    assert [re.search(r"\d+/\d+", line)[0] for line in lines] == ["9/10", "10/10"]


def test_the_label_is_the_current_one(capsys, every_item):
    seen = []
    for item in progress(range(3), lambda: f"loss {len(seen)}"):
        seen.append(item)
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["loss 1", "loss 2", "loss 3"]


def test_a_line_comes_every_ten_seconds_with_rate_and_remaining_time(capsys, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(clock)))
    list(progress(range(35), "slow"))
    lines = capsys.readouterr().err.splitlines()
    assert [re.search(r"(\d+)/35", line)[1] for line in lines] == ["10", "20", "30", "35"]
    assert "00:20<00:15" in lines[1] and "1.00image/s" in lines[1]
    list(progress(range(15), "slow", total=100, done=50))
    assert "60/100" in (line := capsys.readouterr().err.splitlines()[0])
    assert "00:10<00:40" in line and "1.00image/s" in line  # of this run


def test_a_line_goes_to_stderr(capsys):
    say("done")
    assert capsys.readouterr() == ("", "done\n")


def test_a_terminal_shows_a_bar(repo):
    code = "from pipeline.base.progress import progress\nfor _ in progress(range(3), 'read'): pass"
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=theirs, stdout=theirs, env={**os.environ, "PYTHONPATH": str(repo)}
    )
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 4096):
            shown += data
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait(60) == 0
    assert b"read: 100%" in shown and b"3/3" in shown and b"\r" in shown
