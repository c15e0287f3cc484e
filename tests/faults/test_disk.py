"""A disk that is full and one that cannot be written: one line, the old outputs as they were, and a way on."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copytree, disk_usage

import pytest

from pipeline import paths

OUTPUTS = {
    "fetch": paths.RAW,
    "augment": paths.AUGMENTED,
    "train pix2pix": paths.MODELS / "pix2pix",
    "train residual": paths.MODELS / "residual",
    "predict": paths.FILLED,
    "write": paths.SUBMISSION,
    "evaluate": paths.SHEET,
}
QUICK = ("fetch", "augment")  # the stages whose tests need no trained model


def stages() -> list:
    return [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in OUTPUTS]


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Something mounted on a folder; the test is skipped where that is not allowed."""
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"mounting needs the rights of root: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def source(request) -> Callable[[str], Path]:
    """A folder in which a stage has been run, to be copied."""
    return lambda stage: request.getfixturevalue("augmented_once" if stage in QUICK else "finished_once")


@pytest.fixture
def small_disk(tmp_path, source) -> Iterator[Callable[[str], Path]]:
    """`small_disk("augment")`: a folder in which that stage has been run, on a disk of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, "-t", "tmpfs", "-o", "size=64m", "tmpfs"):
        yield lambda stage: copytree(source(stage), disk / "folder")


def fill(folder: Path, kept: int) -> Path:
    """Fill the disk but for some bytes."""
    filler = folder / "filler"
    filler.write_bytes(bytes(disk_usage(folder).free - kept))
    return filler


def lines_of(stage: str, done: subprocess.CompletedProcess) -> list[str]:
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr, done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith(f"{stage.split()[0]}: ")]


@pytest.mark.parametrize("kept", [0, pytest.param(20_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stage", stages())
def test_a_full_disk_ends_a_stage_in_one_line_with_its_old_output_untouched(small_disk, run_stage, tree, stage, kept):
    """Full at the first byte, and in the middle of the output."""
    folder = small_disk(stage)
    output = OUTPUTS[stage]
    filler = fill(folder, kept if output.suffix != ".png" else 0)
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
def test_a_disk_that_is_full_at_a_checkpoint_keeps_the_last_one(small_disk, augmented_once, run_stage, finished_once):
    folder = small_disk("augment")
    filler = fill(folder, 1_400_000)  # one checkpoint of this network, or two
    *_, last = lines_of("train", run_stage("train pix2pix", folder))
    assert "No space left on device" in last
    kept = sorted(path.name for path in (folder / paths.WORK).rglob("*") if path.is_file())
    assert kept and all(name.endswith(".npz") for name in kept)
    filler.unlink()
    done = run_stage("train pix2pix", folder)
    assert done.returncode == 0 and f"going on from step {int(kept[-1][5:13])}" in done.stderr
    model = paths.MODELS / "pix2pix"
    for path in (paths.CURVES / "pix2pix" / "losses.csv", model / "last.weights.h5", model / "best.weights.h5"):
        assert (folder / path).read_bytes() == (finished_once / path).read_bytes()


@pytest.mark.parametrize("stage", stages())
def test_a_limit_on_the_size_of_files_is_as_a_full_disk(tmp_path, source, code_here, tree, stage):
    """As a quota is; this one needs no rights."""
    folder = copytree(source(stage), tmp_path / "folder")
    before = tree(folder)
    done = subprocess.run(
        [sys.executable, "-m", *f"pipeline.{stage}".split()],
        cwd=folder,
        env=os.environ | code_here,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
        timeout=300,
    )
    *_, last = lines_of(stage, done)
    assert "File too large" in last
    assert tree(folder) == before and not list(folder.rglob("*.partial"))


@pytest.mark.parametrize("stage", stages())
def test_a_read_only_folder_ends_a_stage_in_one_line(tmp_path, source, run_stage, tree, stage):
    folder = copytree(source(stage), tmp_path / "folder")
    before = tree(folder)
    with mounted(folder, "--bind", str(folder)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        done = run_stage(stage, folder)
        (last,) = lines_of(stage, done)[-1:]
    assert "Read-only file system" in last
    assert tree(folder) == before
