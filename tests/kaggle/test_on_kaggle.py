"""The script that runs at Kaggle, here: the end of its time comes at the worst moments."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.kaggle import on_kaggle
from tests.helpers.children import wait_for

DVC = [sys.executable, "-m", "dvc"]
STAGES = """
stages:
  train:
    foreach: [residual]
    do:
      cmd: python -m pipeline.train ${item}
      outs: ["data/model/${item}"]
"""
WAITING = """
import pathlib, signal, sys, time
stopped = []
signal.signal(signal.SIGINT, lambda *_: stopped.append(True))
pathlib.Path("reached").touch()
while not stopped:
    time.sleep(0.01)
"""
WRITING = """
import pathlib
pathlib.Path("data/model/residual").mkdir(parents=True)
pathlib.Path("data/model/residual/card.json").write_text("{}")
"""
SLOW = """
import pathlib, sys, time
from dvc.cli import main
from dvc.stage import Stage
save = Stage.save

def slowly(*arguments, **options):
    pathlib.Path("reached").touch()
    time.sleep(2)
    save(*arguments, **options)

Stage.save = slowly
sys.exit(main())
"""


@pytest.fixture
def scratch(tmp_path, monkeypatch) -> Path:
    """The folder in which the script trains."""
    (tmp_path / "dvc.yaml").write_text(STAGES)
    (tmp_path / "pipeline").mkdir()
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    subprocess.run([*DVC, "init", "--no-scm", "--quiet"], cwd=tmp_path, check=True)
    monkeypatch.setattr(on_kaggle, "SCRATCH", tmp_path)
    monkeypatch.setattr(on_kaggle, "FACTS", {"system": "residual"})
    return tmp_path


def stopped_there(scratch: Path, dvc: list[str]) -> int:
    """The status of a training that is stopped when it writes the file `reached`."""
    process = subprocess.Popen([*dvc, "repro"], cwd=scratch, process_group=0)
    wait_for((scratch / "reached").exists, process, seconds=60)
    return on_kaggle.stop(process)


def stages_to_run(scratch: Path) -> str:
    return subprocess.run([*DVC, "status"], cwd=scratch, capture_output=True, text=True, check=True).stdout


def test_a_training_that_ends_as_its_time_ends_is_finished(scratch):
    (scratch / "pipeline" / "train.py").write_text(WAITING + WRITING)
    assert stopped_there(scratch, DVC) == 0
    assert "up to date" in stages_to_run(scratch)


def test_a_model_that_dvc_stores_as_the_time_ends_is_finished(scratch):
    """A signal to DVC itself may leave an empty .dvc/tmp/rwlock, with which DVC refuses to start."""
    (scratch / "pipeline" / "train.py").write_text(WRITING)
    (scratch / "slow_dvc.py").write_text(SLOW)
    assert stopped_there(scratch, [sys.executable, "slow_dvc.py"]) == 0
    assert "up to date" in stages_to_run(scratch)


def test_a_training_that_ends_by_itself_after_its_time_is_finished(scratch, monkeypatch):
    """It is too late for the signal, so the training ignores it."""
    (scratch / "dvc.yaml").write_text(STAGES.replace("python -m", "trap '' INT; python -m"))
    (scratch / "pipeline" / "train.py").write_text(WRITING)
    monkeypatch.setattr(on_kaggle, "LIMIT", 0.0)
    assert on_kaggle.train(DVC) is True
    assert "up to date" in stages_to_run(scratch)


def test_without_a_checkpoint_it_says_that_the_time_was_too_short(scratch, monkeypatch):
    monkeypatch.setattr(on_kaggle, "START", time.monotonic())
    monkeypatch.setattr(on_kaggle, "LIMIT", 0.5)
    (scratch / "pipeline" / "train.py").write_text(f"{WAITING}sys.exit(130)")
    with pytest.raises(SystemExit, match="there is no checkpoint: the time was over before the training began"):
        on_kaggle.train(DVC)
