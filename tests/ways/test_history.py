"""The whole history of a score: two runs, each uploaded and tagged, and the first brought back in every way there is.

The pipeline, git, DVC and the kaggle client are the real ones; the contest that scores is on this machine.
"""

import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree

import pytest
import yaml

from pipeline import paths
from pipeline.base.files import remove, sha256
from pipeline.history.worktree import CHECKPOINTS, FOLDER
from pipeline.kaggle.ledger import read_ledger
from tests.helpers.children import start
from tools.kaggle_server import Contest, KaggleServer, scorer

STAGES = ["fetch", "augment", "train@pix2pix", "train@residual", "predict", "write", "evaluate"]
STEPS = 40
SETTINGS = {
    "fetch.demo.pairs_per_class": 3,
    "fetch.demo.test_images": 4,
    "augment.shards": 5,
    "train.precision": "float32",
    "train.validation_pairs": 2,
    "pix2pix.steps": STEPS,
    "pix2pix.shuffle_buffer": 10,
    "pix2pix.filters": 2,
    "pix2pix.validate_every": 20,
    "pix2pix.checkpoint_every": 2,
    "residual.steps": 10,
    "residual.filters": 2,
    "evaluate.samples": 2,
}

pytestmark = pytest.mark.slow


@dataclass
class Project:
    """A repository with two tags, one for each upload."""

    folder: Path
    environment: dict[str, str]
    tags: tuple[str, ...] = ()

    def start(self, *command: str) -> subprocess.Popen:
        return start(command, self.folder, self.environment)

    def run(self, *command: str, status: int = 0) -> str:
        process = self.start(*command)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == status, output
        return output

    def commit(self) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", "a run")

    def set(self, section: str, **changes) -> None:
        path = self.folder / paths.PARAMS
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        content[section] |= changes
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")

    def upload(self, message: str) -> str:
        """Send what the settings give; the tag of it."""
        self.run("dvc", "repro")
        self.commit()
        self.run(sys.executable, "-m", "pipeline.upload", "-m", message, "--tag")
        self.commit()  # the ledger
        return read_ledger(self.folder / paths.LEDGER)["tag"].iloc[-1]

    def reproduce(self, *arguments: str, status: int = 0) -> str:
        """What it prints; the working tree is as it was, and no worktree is left."""
        before = self.state()
        output = self.run(sys.executable, "-m", "pipeline.reproduce", *arguments, status=status)
        assert self.state() == before
        assert "Traceback" not in output
        return output

    def state(self) -> dict[str, str]:
        """What a reproduction must leave as it is."""
        parts = ("pipeline", "recipes", "data", "submissions", "reports")
        files = [path for part in parts for path in (self.folder / part).rglob("*") if path.is_file()]
        files += [path for path in self.folder.iterdir() if path.is_file()]
        commands = (("rev-parse", "HEAD"), ("branch",), ("for-each-ref",), ("ls-files", "--stage"))
        commands += (("status", "--porcelain"), ("worktree", "list"))
        return {str(path): sha256(path) for path in files} | {name[0]: self.run("git", *name) for name in commands}


@pytest.fixture(scope="module")
def uploaded(tmp_path_factory, new_project, environment) -> Project:
    """Look, do not touch. The working tree has the files of the second upload, and a setting changed since."""
    folder = new_project(tmp_path_factory.mktemp("history") / "project", SETTINGS)
    environment = environment | {"PYTHONDONTWRITEBYTECODE": "1"}
    with KaggleServer() as server:
        project = Project(folder, environment | server.environment(Path(environment["HOME"])))
        project.run("dvc", "repro", "fetch")
        contest = Contest(server, scorer(folder / paths.INDEX, folder / paths.TRUTH))
        first = project.upload("the first")
        project.set("submission", scale="unit")
        second = project.upload("another scale")
        assert len(contest.submissions) == 2
    project.set("pix2pix", steps=STEPS + 1)
    return Project(folder, environment, (first, second))


@pytest.fixture
def project(uploaded, tmp_path) -> Project:
    """A copy, to change."""
    return Project(copytree(uploaded.folder, tmp_path / "project", symlinks=True), uploaded.environment, uploaded.tags)


def stages_run(output: str) -> list[str]:
    return re.findall("Running stage '(.*)'", output)


def identical(tag: str, output: str) -> bool:
    return output.splitlines()[-1].startswith(f"reproduce: {tag}: identical, by the sha256 in the ledger; validation")


def test_each_upload_is_a_row_a_tag_and_a_score(uploaded):
    rows = read_ledger(uploaded.folder / paths.LEDGER)
    assert rows["tag"].tolist() == list(uploaded.tags) == [f"score-{score}" for score in rows["public_score"]]
    assert rows["sha256"].is_unique and rows["commit"].is_unique
    for row in rows.itertuples():
        assert uploaded.run("git", "rev-parse", f"refs/tags/{row.tag}").strip() == row.commit


def test_the_first_comes_back_from_the_cache(uploaded):
    output = uploaded.reproduce(uploaded.tags[0])
    assert identical(uploaded.tags[0], output)
    assert stages_run(output) == STAGES[4:]


def test_the_first_comes_back_from_a_remote(project):
    project.run("dvc", "remote", "add", "--default", "store", "../store")
    project.run("dvc", "push", "--all-tags")
    remove(project.folder / ".dvc/cache")
    output = project.reproduce(project.tags[0])
    assert identical(project.tags[0], output)
    assert stages_run(output) == STAGES[4:]


def test_the_first_comes_back_from_scratch_also_when_stopped_in_the_training(project):
    command = (sys.executable, "-m", "pipeline.reproduce", project.tags[0], "--from-scratch")
    before = project.state()
    process = project.start(*command)
    until = time.monotonic() + 240
    while not list((project.folder / CHECKPOINTS).rglob("step-*.npz")):
        assert process.poll() is None and time.monotonic() < until, "no checkpoint came"
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and project.state() == before
    assert output.endswith("reproduce: interrupted; the same command goes on from here\n")
    assert not (project.folder / FOLDER / "tree").exists()

    output = project.reproduce(project.tags[0], "--from-scratch")
    assert identical(project.tags[0], output)
    assert stages_run(output) == STAGES
    assert "going on from step" in output
    assert not [path for path in (project.folder / CHECKPOINTS).rglob("*") if path.is_file()]


def test_a_checkout_of_the_tag_and_dvc_repro_bring_its_files_back(project):
    """As `make submission` does at a tag."""
    first, second = read_ledger(project.folder / paths.LEDGER)["sha256"]
    assert sha256(project.folder / paths.SUBMISSION) == second
    project.run("git", "checkout", "--quiet", "--force", project.tags[0])
    assert stages_run(project.run("dvc", "repro")) == []
    assert sha256(project.folder / paths.SUBMISSION) == first


def test_what_another_training_gives_is_different_from_train_on(project):
    """A tag whose dvc.lock is of another seed than its params.yaml, as if trained where numbers come out otherwise."""
    project.run("git", "checkout", "--quiet", "--force", project.tags[0])
    project.set("train", seed=8)
    project.commit()
    project.run("git", "tag", "other-seed")
    output = project.reproduce("other-seed", "--tolerance", "0", status=1)
    verdict = output.splitlines()[-1]
    assert verdict.startswith("reproduce: other-seed: different from stage train@pix2pix on (data/model/pix2pix, ")
    error, largest = (float(value) for value in re.findall(r"(?:two|difference) (\d\.\d+)", verdict))
    assert 0 < error < largest < 1
    output = project.reproduce("other-seed", "--tolerance", str(error + 1e-6))
    assert output.splitlines()[-1].startswith(
        "reproduce: other-seed: same from stage train@pix2pix on (data/model/pix2pix, "
    )
    assert "train@pix2pix" not in stages_run(output)  # the cache has it now
