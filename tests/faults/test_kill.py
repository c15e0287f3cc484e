"""`kill -9` of a whole `dvc repro`, at many moments of every stage: run again, it ends with the same bytes."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import paths

pytestmark = pytest.mark.slow

Moment = Callable[[Path], bool]


def there(path: Path) -> Moment:
    """A file or a folder is there."""
    return lambda folder: (folder / path).exists()


def begun(path: Path, files: int = 0) -> Moment:
    """An output is being written, and so many files of it are there."""
    partial = path.with_name(path.name + ".partial")
    return lambda folder: (folder / partial).exists() and sum(1 for _ in (folder / partial).rglob("*")) >= files


def kept(step: int) -> Moment:
    """The checkpoint of this step or of a later one is there."""

    def reached(folder: Path) -> bool:
        found = (folder / paths.WORK).rglob("step-*.npz")
        return any(int(path.stem.removeprefix("step-")) >= step for path in found)

    return reached


def keeping(folder: Path) -> bool:
    """A checkpoint is being written."""
    return any((folder / paths.WORK).rglob("step-*.npz.partial"))


def seconds(count: float) -> Moment:
    """So long after this was first asked."""
    start: list[float] = []
    return lambda _: start.append(time.monotonic()) or time.monotonic() - start[0] >= count


MOMENTS: list[tuple[str, Moment]] = [
    ("fetch", seconds(0)),
    ("fetch", begun(paths.RAW)),
    ("fetch", begun(paths.RAW, 12)),
    ("fetch", there(paths.RAW)),
    ("fetch", there(paths.INDEX)),
    ("augment", seconds(0.5)),
    ("augment", begun(paths.AUGMENTED)),
    ("augment", begun(paths.AUGMENTED, 3)),
    ("augment", there(paths.AUGMENTED)),
    ("train pix2pix", seconds(1)),
    ("train pix2pix", kept(2)),
    ("train pix2pix", kept(10)),
    ("train pix2pix", keeping),
    ("train pix2pix", kept(20)),
    ("train pix2pix", keeping),
    ("train pix2pix", kept(36)),
    ("train pix2pix", begun(paths.MODELS / "pix2pix")),
    ("train pix2pix", there(paths.MODELS / "pix2pix")),
    ("train residual", seconds(1)),
    ("train residual", kept(4)),
    ("train residual", keeping),
    ("train residual", there(paths.MODELS / "residual")),
    ("predict", seconds(1)),
    ("predict", begun(paths.FILLED)),
    ("predict", begun(paths.FILLED, 2)),
    ("predict", there(paths.FILLED)),
    ("predict", there(paths.HELD_OUT)),
    ("write", seconds(0)),
    ("write", begun(paths.SUBMISSION)),
    ("write", there(paths.SUBMISSION)),
    ("evaluate", seconds(1)),
    ("evaluate", begun(paths.METRICS)),
    ("evaluate", there(paths.PAGE)),
]


def start(folder: Path, environment: dict[str, str], output: Path) -> subprocess.Popen:
    """`dvc repro` in a process group of its own."""
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
    """Kill the process group at a moment of a stage; False where it had ended before."""
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
    assert {path.parent for path in left} <= {folder / paths.TIMES}  # how long training took
    assert not list(folder.rglob("*.partial"))
