"""Two runs at once in one folder: the second says so, and the first ends as if it had been alone."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pipeline import paths

BUSY = "train: another stage is at work in this folder; run again when it is done"


def wait_for_checkpoint(folder: Path, process: subprocess.Popen) -> None:
    end = time.monotonic() + 240
    while not list((folder / paths.WORK).rglob("step-*.npz")):
        assert process.poll() is None and time.monotonic() < end, "no checkpoint came"
        time.sleep(0.01)


@pytest.mark.slow
def test_a_second_training_is_refused_and_the_first_ends_as_ever(
    augmented, start_stage, run_stage, finished_once, tree
):
    first = start_stage("train pix2pix", augmented)
    assert next(line for line in first.stdout if line.startswith("train: "))
    first.send_signal(signal.SIGSTOP)  # or it might be done before the second has begun
    second = run_stage("train pix2pix", augmented)
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 1 and BUSY in second.stderr.splitlines()
    first.communicate(timeout=240)
    assert first.returncode == 0
    assert tree(augmented / paths.MODELS / "pix2pix") == tree(finished_once / paths.MODELS / "pix2pix")


@pytest.fixture
def repro(tmp_path, new_project, tiny_settings, environment):
    """A repository, and a `dvc repro` at work in it that has come to training."""
    folder = new_project(tmp_path / "project", tiny_settings | {"pix2pix.steps": 400, "pix2pix.validate_every": 200})
    with (tmp_path / "output").open("wb") as file:
        process = subprocess.Popen(
            ["dvc", "repro", "train@pix2pix"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    wait_for_checkpoint(folder, process)
    yield folder, process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)


@pytest.mark.slow
def test_a_second_dvc_repro_says_who_is_at_work_and_the_first_is_not_disturbed(repro, tmp_path, run):
    folder, first = repro
    second = run(folder, "dvc", "repro", "train@pix2pix", check=False)
    assert second.returncode != 0
    assert "busy" in second.stdout or "lock" in second.stdout, second.stdout
    assert first.wait(240) == 0, (tmp_path / "output").read_text(encoding="utf-8")
    assert "400" in (folder / paths.MODELS / "pix2pix" / "card.json").read_text(encoding="utf-8")
    assert "didn't change" in run(folder, "dvc", "repro", "train@pix2pix").stdout


@pytest.mark.slow
def test_a_training_whose_dvc_was_killed_is_not_joined_by_a_second(repro, run):
    """Only `dvc` is killed: the training goes on alone, and DVC does not know of it."""
    folder, first = repro
    os.kill(first.pid, signal.SIGKILL)
    first.wait(60)
    second = run(folder, "dvc", "repro", "train@pix2pix", check=False)
    assert second.returncode != 0 and BUSY in second.stdout.splitlines(), second.stdout
    os.killpg(first.pid, signal.SIGKILL)
    done = run(folder, "dvc", "repro", "train@pix2pix")
    assert "going on from step" in done.stdout
