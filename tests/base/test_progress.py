"""Progress: the items pass through, and who waits is told."""

import os
import pty
import re
import subprocess
import sys
import termios

import pytest

from pipeline.base import progress as module
from pipeline.base.progress import meter, progress, say


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


def test_what_is_soon_done_says_nothing(capsys):
    list(progress(range(100), "read"))
    assert capsys.readouterr() == ("", "")


def test_lines_tell_label_share_and_count(capsys, every_item):
    list(progress(range(4), "read", unit="file"))
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) == 4
    assert all(line.startswith("read") for line in lines)
    assert [re.search(r"\d+/\d+", line)[0] for line in lines] == ["1/4", "2/4", "3/4", "4/4"]
    assert "50%" in lines[1] and "100%" in lines[3] and "file" in lines[0]


def test_a_run_that_goes_on_counts_what_was_done(capsys, every_item):
    list(progress(range(2), "train", total=10, done=8))
    lines = capsys.readouterr().err.splitlines()
    assert [re.search(r"\d+/\d+", line)[0] for line in lines] == ["9/10", "10/10"]


def test_the_label_is_that_of_the_moment(capsys, every_item):
    seen = []
    for item in progress(range(3), lambda: f"loss {len(seen)}"):
        seen.append(item)
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["loss 1", "loss 2", "loss 3"]


def test_lines_keep_their_distance(capsys, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(clock)))
    list(progress(range(35), "slow"))
    counts = [re.search(r"(\d+)/35", line)[1] for line in capsys.readouterr().err.splitlines()]
    assert counts == ["10", "20", "30", "35"]


def test_the_meter_has_rate_and_rest():
    line = meter("train", 50, 100, 25.0, "step", 0)
    assert "50/100" in line and "00:25<00:25" in line and "2.00step/s" in line
    assert "5.00step/s" in meter("train", 75, 100, 5.0, "step", 50)


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
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(ours)
    assert process.wait(60) == 0
    assert b"read: 100%" in shown and b"3/3" in shown and b"\r" in shown
