"""A tiny competition, as far as each stage needs it, in folders of the tests' own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import pytest

from pipeline import paths
from pipeline.base.files import sha256
from tests.helpers import children
from tests.helpers.stages import run_here

SETTINGS = {
    "fetch.demo.pairs_per_class": 3,
    "fetch.demo.test_images": 3,
    "fetch.demo.seed": 8,
    "augment.shards": 3,
    "pix2pix.steps": 40,
    "pix2pix.batch_size": 2,
    "train.precision": "float32",
    "pix2pix.shuffle_buffer": 10,
    "pix2pix.filters": 2,
    "split.validation_pairs": 2,
    "pix2pix.validate_every": 10,
    "pix2pix.checkpoint_every": 2,
    "residual.steps": 40,
    "residual.batch_size": 2,
    "residual.filters": 2,
    "residual.validate_every": 10,
    "residual.checkpoint_every": 2,
    "evaluate.samples": 2,
}
STAGES = ("fetch", "split", "augment", "train pix2pix", "train residual", "match", "predict", "write", "evaluate")


@pytest.fixture(scope="session")
def tiny_settings() -> dict:
    """The settings of these folders."""
    return SETTINGS


@pytest.fixture(scope="session")
def augmented_once(tmp_path_factory, params_file, repo) -> Path:
    """A folder after the first three stages. Look, do not touch."""
    folder = tmp_path_factory.mktemp("augmented")
    params_file(folder, **SETTINGS)
    copytree(repo / paths.RECIPES, folder / paths.RECIPES)
    run_here(folder, *STAGES[:3])
    return folder


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory, augmented_once, run_stage) -> Path:
    """A folder after all stages. Look, do not touch."""
    folder = copytree(augmented_once, tmp_path_factory.mktemp("finished") / "folder")
    for stage in STAGES[3:]:
        done = run_stage(stage, folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def augmented(augmented_once, tmp_path) -> Path:
    """A copy of the folder after the first three stages."""
    return copytree(augmented_once, tmp_path / "augmented")


@pytest.fixture
def finished(finished_once, tmp_path) -> Path:
    """A copy of the folder after all stages."""
    return copytree(finished_once, tmp_path / "finished")


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory, new_project, run) -> Path:
    """A repository after one `dvc repro`. Look, do not touch."""
    folder = new_project(tmp_path_factory.mktemp("uninterrupted"), SETTINGS)
    run(folder, "dvc", "repro")
    return folder


@pytest.fixture(scope="session")
def start_stage(code_here) -> Callable[..., subprocess.Popen]:
    """`start_stage("train residual", folder)`: the stage at work, stdout and stderr in one stream."""

    def start(name: str, cwd: Path) -> subprocess.Popen:
        return children.start([sys.executable, "-m", *f"pipeline.{name}".split()], cwd, os.environ | code_here)

    return start


@pytest.fixture(scope="session")
def tree() -> Callable[[Path], dict[str, str]]:
    """`tree(folder)`: the checksum of every file below the folder, by its path.

    Left out are TensorBoard's events and the trainings' times, which no two trainings share.
    """

    def read(folder: Path) -> dict[str, str]:
        own = (folder / paths.TENSORBOARD, folder / paths.TIMES)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        files = [path for path in files if not any(path.is_relative_to(place) for place in own)]
        return {str(path.relative_to(folder)): sha256(path) for path in files}

    return read
