"""A training at a Kaggle on this machine, which really runs what is pushed: from the push to the stage found done."""

import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copy, copytree

import pytest

from pipeline import paths
from pipeline.base.files import sha256
from tests.helpers.repository import Repository
from tools.kaggle_kernels import Kernels
from tools.kaggle_server import KEY, KaggleServer

FEW = {"steps": 6, "batch_size": 2, "validate_every": 3, "checkpoint_every": 2, "filters": 2}
SETTINGS = {
    "systems": ["residual"],
    "fetch.source": "archive",
    "split.validation_pairs": 3,
    "augment.turns": ["original"],
    "augment.shards": 1,
    **{f"residual.{name}": value for name, value in FEW.items()},
}


@dataclass
class Laptop(Repository):
    """A repository whose account is at `kernels`."""

    kernels: Kernels = field(kw_only=True)

    def remote(self, *arguments: str, status: int = 0) -> str:
        output = self.run(sys.executable, "-m", "pipeline.remote", "residual", *arguments, status=status)
        assert KEY not in output and "Traceback" not in output, output
        return output

    def start_remote(self, *arguments: str) -> subprocess.Popen:
        return self.start(sys.executable, "-m", "pipeline.remote", "residual", *arguments)

    def repro(self, *stages: str) -> str:
        return self.run("dvc", "repro", *stages)


@pytest.fixture(scope="module")
def archive(tmp_path_factory, demo_competition) -> Path:
    return copytree(demo_competition.raw, tmp_path_factory.mktemp("archive") / "photo-reconstruction")


@pytest.fixture(scope="module")
def new_laptop(tmp_path_factory, new_project, archive, repo, environment_of):
    """`new_laptop(kernels, {"residual.steps": 3})`: a repository that has made everything that a training needs."""

    def make(kernels: Kernels, changes: dict) -> Laptop:
        folder = tmp_path_factory.mktemp("laptop")
        new_project(folder, SETTINGS | {"fetch.archive": str(archive)} | changes)
        for name in ("requirements.txt", "requirements-diffusion.txt", "constraints.txt"):
            copy(repo / name, folder / name)
        home = tmp_path_factory.mktemp("home")
        laptop = Laptop(folder, environment_of(home) | kernels.server.environment(home), kernels=kernels)
        laptop.repro("split", "augment")
        laptop.commit()
        return laptop

    return make


@pytest.fixture(scope="module")
def kernels(tmp_path_factory, archive):
    with KaggleServer() as server, Kernels(server, tmp_path_factory.mktemp("kaggle"), archive) as kernels:
        yield kernels
        assert not [request for request in server.requests if request.method == "CONNECT"], "it tried the real site"


def test_a_system_is_trained_there_and_dvc_finds_its_stage_done(new_laptop, kernels):
    laptop = new_laptop(kernels, {})
    output = laptop.remote()
    print(output)
    (slug,) = kernels.pushed
    assert "kernel: images, split and shards are those at home" in output
    assert "data/model/residual is in place, trained on 1 x CPU in" in output
    assert laptop.run("dvc", "status", "train@residual").count("up to date")
    print(laptop.run("dvc", "repro", "--dry"))
