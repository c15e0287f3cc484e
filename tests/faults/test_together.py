"""Two runs at once in one folder: the second is refused, and the first is not disturbed."""

import os
import signal
import subprocess

import pytest

from pipeline import paths
from tests.helpers.children import wait_for_checkpoint

BUSY = "train: another stage is "


@pytest.mark.slow
def test_a_second_training_is_refused_and_does_not_disturb_the_first(
    augmented, start_stage, run_stage, finished_once, tree
):
    first = start_stage("train pix2pix", augmented)
    assert next(line for line in first.stdout if line.startswith("train: "))
    first.send_signal(signal.SIGSTOP)  # or it might end before the second starts
    second = run_stage("train pix2pix", augmented)
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 1 and BUSY in second.stderr
    first.communicate(timeout=240)
    assert first.returncode == 0
    assert tree(augmented / paths.MODELS / "pix2pix") == tree(finished_once / paths.MODELS / "pix2pix")


@pytest.fixture
def repro(tmp_path, new_project, tiny_settings, environment):
    """A repository, and a running `dvc repro` in it that has saved a checkpoint."""
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
    wait_for_checkpoint(folder / paths.WORK, process)
    yield folder, process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)


@pytest.mark.slow
def test_a_second_dvc_repro_is_refused_and_does_not_disturb_the_first(repro, tmp_path, run):
    folder, first = repro
    second = run(folder, "dvc", "repro", "train@pix2pix", check=False)
    assert second.returncode != 0
    assert "busy" in second.stdout or "lock" in second.stdout, second.stdout
    assert first.wait(240) == 0, (tmp_path / "output").read_text(encoding="utf-8")
    assert "400" in (folder / paths.MODELS / "pix2pix" / "card.json").read_text(encoding="utf-8")
    assert "didn't change" in run(folder, "dvc", "repro", "train@pix2pix").stdout


@pytest.mark.slow
def test_a_training_whose_dvc_was_killed_still_refuses_a_second(repro, run):
    """Only `dvc` is killed: the training continues, and DVC does not know of it."""
    folder, first = repro
    os.kill(first.pid, signal.SIGKILL)
    first.wait(60)
    second = run(folder, "dvc", "repro", "train@pix2pix", check=False)
    assert second.returncode != 0 and BUSY in second.stdout, second.stdout
    os.killpg(first.pid, signal.SIGKILL)
    done = run(folder, "dvc", "repro", "train@pix2pix")
    assert "resuming after step" in done.stdout
