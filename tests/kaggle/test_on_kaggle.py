"""The script that runs at Kaggle, here: the end of its time comes at the worst moments."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.kaggle import on_kaggle

DVC = [sys.executable, "-m", "dvc"]
STAGES = """
stages:
  train:
    foreach: [residual]
    do:
      cmd: python stage.py
      outs: ["data/model/${item}"]
"""
WAITING = """
import os, pathlib, signal, subprocess, sys, time
stopped = []
signal.signal(signal.SIGINT, lambda *_: stopped.append(True))
while not stopped:
    time.sleep(0.01)
"""
WRITING = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
pathlib.Path("data/model/residual").mkdir(parents=True)
pathlib.Path("data/model/residual/card.json").write_text("{}")
after = f"while kill -0 {os.getpid()}; do sleep 0.001; done 2>/dev/null; sleep 0.01; kill -INT {os.getpgid(0)}"
subprocess.Popen(["sh", "-c", after], start_new_session=True)
"""


@pytest.fixture
def scratch(tmp_path, monkeypatch) -> Path:
    """The folder in which the script trains."""
    (tmp_path / "dvc.yaml").write_text(STAGES)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    subprocess.run([*DVC, "init", "--no-scm", "--quiet"], cwd=tmp_path, check=True)
    monkeypatch.setattr(on_kaggle, "SCRATCH", tmp_path)
    monkeypatch.setattr(on_kaggle, "FACTS", {"system": "residual"})
    monkeypatch.setattr(on_kaggle, "START", on_kaggle.time.monotonic())
    monkeypatch.setattr(on_kaggle, "LIMIT", 4.0)
    return tmp_path


def test_a_training_that_ends_as_its_time_ends_is_finished(scratch):
    """The signal reaches DVC after the stage, before dvc.lock is written."""
    (scratch / "stage.py").write_text(WAITING + WRITING)
    assert on_kaggle.train(DVC) is True
    status = subprocess.run([*DVC, "status"], cwd=scratch, capture_output=True, text=True, check=True).stdout
    assert "up to date" in status


def test_without_a_checkpoint_it_says_that_the_time_was_too_short(scratch):
    (scratch / "stage.py").write_text(f"{WAITING}sys.exit(130)")
    with pytest.raises(SystemExit, match="there is no checkpoint: the time was over before the training began"):
        on_kaggle.train(DVC)
