"""A full and a read-only disk: a stage ends in one line, keeps its old outputs, and can be run again."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copytree, disk_usage, ignore_patterns

import pytest

from pipeline import paths

OUTPUTS = {
    "fetch": paths.RAW,
    "split": paths.SPLIT,
    "augment": paths.AUGMENTED,
    "train pix2pix": paths.MODELS / "pix2pix",
    "train residual": paths.MODELS / "residual",
    "match": paths.TWIN_PIXELS,
    "predict": paths.FILLED,
    "write": paths.SUBMISSION,
    "evaluate": paths.SHEET,
}
WITHOUT_MODEL = ("fetch", "split", "augment")  # stages that need no trained model


def stages(*quick: str) -> list:
    """All of them: these in the quick tests, the others in the slow ones."""
    return [pytest.param(name, marks=[] if name in quick else pytest.mark.slow) for name in OUTPUTS]


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Mount something on a folder, or skip the test if that is not allowed."""
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"mounting needs root: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def source(request) -> Callable[[str], Path]:
    """`source("augment")`: a folder in which that stage has been run. Tests copy it."""
    return lambda stage: request.getfixturevalue("augmented_once" if stage in WITHOUT_MODEL else "finished_once")


@pytest.fixture
def small_disk(tmp_path, source) -> Iterator[Callable[[str], Path]]:
    """`small_disk("augment")`: a folder in which that stage has been run, on its own disk.

    Without TensorBoard's events: a training that begins removes them, which would make room.
    """
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, "-t", "tmpfs", "-o", "size=64m", "tmpfs"):
        yield lambda stage: copytree(source(stage), disk / "folder", ignore=ignore_patterns(paths.TENSORBOARD.name))


def fill(folder: Path, free: int) -> Path:
    """Fill the disk until this many bytes are free."""
    filler = folder / "filler"
    filler.write_bytes(bytes(disk_usage(folder).free - free))
    return filler


def lines_of(stage: str, done: subprocess.CompletedProcess) -> list[str]:
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr, done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith(f"{stage.split()[0]}: ")]


@pytest.mark.parametrize("free", [0, pytest.param(20_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stage", stages("fetch"))
def test_on_a_full_disk_a_stage_ends_in_one_line_and_keeps_its_old_output(small_disk, run_stage, tree, stage, free):
    """Full at the first byte, and in the middle of a large output."""
    folder = small_disk(stage)
    filler = fill(folder, free if stage not in ("split", "evaluate") else 0)
    before = tree(folder)
    done = run_stage(stage, folder)
    *_, last = lines_of(stage, done)
    assert "No space left on device" in last and "nothing was half-written" in last
    assert tree(folder) == before and not list(folder.rglob("*.partial"))
    filler.unlink()
    assert run_stage(stage, folder).returncode == 0
    del before["filler"]
    assert tree(folder) == before


@pytest.mark.slow
def test_a_disk_that_is_full_at_a_checkpoint_keeps_the_one_before(small_disk, augmented_once, run_stage, finished_once):
    folder = small_disk("augment")
    filler = fill(folder, 1_400_000)  # space for one or two checkpoints
    *_, last = lines_of("train", run_stage("train pix2pix", folder))
    assert "No space left on device" in last
    kept = sorted(path.name for path in (folder / paths.WORK / "checkpoints").rglob("*") if path.is_file())
    assert kept and all(name.endswith(".npz") for name in kept)
    filler.unlink()
    done = run_stage("train pix2pix", folder)
    assert done.returncode == 0 and f"resuming after step {int(kept[-1][5:13])}" in done.stderr
    model = paths.MODELS / "pix2pix"
    for path in (paths.CURVES / "pix2pix" / "losses.csv", model / "last.weights.h5", model / "best.weights.h5"):
        assert (folder / path).read_bytes() == (finished_once / path).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("stage", stages("split", "augment"))
def test_a_limit_on_file_sizes_has_the_effect_of_a_full_disk(tmp_path, source, code_here, tree, stage):
    """A quota has the same effect, and this limit needs no root."""
    folder = copytree(source(stage), tmp_path / "folder")
    before = tree(folder)
    done = subprocess.run(
        [sys.executable, "-m", *f"pipeline.{stage}".split()],
        cwd=folder,
        env=os.environ | code_here,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500)),
        timeout=300,
    )
    *_, last = lines_of(stage, done)
    assert "File too large" in last
    assert tree(folder) == before and not list(folder.rglob("*.partial"))


@pytest.mark.parametrize("stage", stages("fetch", "split"))
def test_a_read_only_folder_ends_a_stage_in_one_line(tmp_path, source, run_stage, tree, stage):
    folder = copytree(source(stage), tmp_path / "folder")
    before = tree(folder)
    with mounted(folder, "--bind", str(folder)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        *_, last = lines_of(stage, run_stage(stage, folder))
    assert "Read-only file system" in last
    assert tree(folder) == before
