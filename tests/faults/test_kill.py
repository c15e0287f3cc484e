"""`kill -9` of `dvc repro` at many moments of every stage: run again, it ends with the same bytes."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline import paths

pytestmark = pytest.mark.slow

Moment = Callable[[Path], bool]


def there(path: Path) -> Moment:
    """A file or a folder exists."""
    return lambda folder: (folder / path).exists()


def begun(path: Path, files: int = 0) -> Moment:
    """An output is being written and has this many files."""
    partial = path.with_name(path.name + ".partial")

    def reached(folder: Path) -> bool:
        with suppress(FileNotFoundError):  # removed while it is counted: what the last kill left
            return (folder / partial).exists() and sum(1 for _ in (folder / partial).rglob("*")) >= files
        return False

    return reached


def saved(step: int) -> Moment:
    """A checkpoint of this step or of a later one exists."""

    def reached(folder: Path) -> bool:
        found = (folder / paths.WORK).rglob("step-*.npz")
        return any(int(path.stem.removeprefix("step-")) >= step for path in found)

    return reached


def saving(folder: Path) -> bool:
    """A checkpoint is being written."""
    return any((folder / paths.WORK).rglob("step-*.npz.partial"))


def seconds(count: float) -> Moment:
    """This many seconds after the first call."""
    start: list[float] = []
    return lambda _: start.append(time.monotonic()) or time.monotonic() - start[0] >= count


MOMENTS: list[tuple[str, Moment]] = [
    ("fetch", seconds(0)),
    ("fetch", begun(paths.RAW)),
    ("fetch", begun(paths.RAW, 12)),
    ("fetch", there(paths.RAW)),
    ("fetch", there(paths.INDEX)),
    ("split", seconds(0)),
    ("split", there(paths.SPLIT)),
    ("augment", seconds(0.5)),
    ("augment", begun(paths.AUGMENTED)),
    ("augment", begun(paths.AUGMENTED, 3)),
    ("augment", there(paths.AUGMENTED)),
    ("train pix2pix", seconds(1)),
    ("train pix2pix", saved(2)),
    ("train pix2pix", saved(10)),
    ("train pix2pix", saving),
    ("train pix2pix", saved(20)),
    ("train pix2pix", saving),
    ("train pix2pix", saved(36)),
    ("train pix2pix", begun(paths.MODELS / "pix2pix")),
    ("train pix2pix", there(paths.MODELS / "pix2pix")),
    ("train residual", seconds(1)),
    ("train residual", saved(4)),
    ("train residual", saving),
    ("train residual", there(paths.MODELS / "residual")),
    ("match", begun(paths.TWIN_PIXELS)),
    ("match", there(paths.TWIN_PIXELS)),
    ("predict", seconds(1)),
    ("predict", begun(paths.FILLED)),
    ("predict", begun(paths.FILLED, 2)),
    ("predict", there(paths.FILLED)),
    ("predict", there(paths.VALIDATION)),
    ("write", seconds(0)),
    ("write", begun(paths.SUBMISSION)),
    ("write", there(paths.SUBMISSION)),
    ("evaluate", seconds(1)),
    ("evaluate", begun(paths.METRICS)),
    ("evaluate", there(paths.PAGE)),
]


def start(folder: Path, environment: dict[str, str], output: Path) -> subprocess.Popen:
    """`dvc repro` in its own process group."""
    with output.open("wb") as file:
        return subprocess.Popen(
            ["dvc", "repro"],
            cwd=folder,
            env={**environment, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def kill_at(stage: str, moment: Moment, process: subprocess.Popen, folder: Path, output: Path) -> bool:
    """Kill the process group at a moment of a stage; False if it ended before."""
    line = f"> python -m pipeline.{stage}".encode()
    end = time.monotonic() + 120
    while process.poll() is None:
        assert time.monotonic() < end, output.read_text(encoding="utf-8")
        if line in output.read_bytes() and moment(folder):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(60)
            return True
        time.sleep(0.001)
    return False


def test_killed_at_many_moments_of_every_stage_it_ends_in_the_same_bytes(
    tmp_path, new_project, tiny_settings, uninterrupted, environment, run, tree
):
    folder = new_project(tmp_path / "project", tiny_settings)
    output = tmp_path / "output"
    killed = []
    for stage, moment in MOMENTS:
        if kill_at(stage, moment, start(folder, environment, output), folder, output):
            killed.append(stage)
    assert len(killed) >= 20, killed
    assert set(killed) == {stage for stage, _ in MOMENTS}

    run(folder, "dvc", "repro")
    for path in (paths.SUBMISSION, paths.METRICS, paths.SHEET, paths.PAGE):
        assert (folder / path).read_bytes() == (uninterrupted / path).read_bytes(), path
    assert tree(folder / paths.CURVES) == tree(uninterrupted / paths.CURVES)
    assert tree(folder / "data") == tree(uninterrupted / "data")
    assert (folder / "dvc.lock").read_bytes() == (uninterrupted / "dvc.lock").read_bytes()
    left = [path for path in (folder / paths.WORK).rglob("*") if path.is_file()]
    noted = {folder / paths.TIMES, *(folder / paths.TENSORBOARD).iterdir()}
    assert {path.parent for path in left} <= noted
    assert not list(folder.rglob("*.partial"))
