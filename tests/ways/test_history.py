"""Two runs, each uploaded and tagged, and the ways to reproduce the first.

The pipeline, git, DVC and the kaggle client are real; the contest is on this machine.
"""

import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree

import pytest
import yaml

from pipeline import paths
from pipeline.base.files import remove, sha256
from pipeline.history.clone import CHECKPOINTS, FOLDER
from pipeline.kaggle.ledger import read_ledger
from tests.helpers.children import wait_for_checkpoint
from tests.helpers.repository import Repository
from tools.kaggle_server.contest import Contest, scorer
from tools.kaggle_server.server import KaggleServer

STAGES = ["fetch", "split", "augment", "train@pix2pix", "train@residual", "match", "predict", "write", "evaluate"]
STEPS = 40
SETTINGS = {
    "fetch.demo.pairs_per_class": 3,
    "fetch.demo.test_images": 4,
    "augment.shards": 5,
    "train.precision": "float32",
    "split.validation_pairs": 2,
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
class Project(Repository):
    """A repository with a tag for each of two uploads."""

    tags: tuple[str, ...] = ()

    def set(self, section: str, **changes) -> None:
        path = self.folder / paths.PARAMS
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        content[section] |= changes
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")

    def upload(self, message: str) -> str:
        """Run the pipeline, commit, upload and tag; the tag."""
        self.run("dvc", "repro")
        self.commit()
        self.run(sys.executable, "-m", "pipeline.upload", "-m", message, "--tag")
        self.commit()  # the ledger
        return read_ledger(self.folder / paths.LEDGER)["tag"].iloc[-1]


@pytest.fixture(scope="module")
def uploaded(tmp_path_factory, new_project, environment) -> Project:
    """The project that tests copy: the files of the second upload, with a setting changed since."""
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
    """A copy."""
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


def test_the_first_is_reproduced_from_the_cache(uploaded):
    output = uploaded.reproduce(uploaded.tags[0])
    assert identical(uploaded.tags[0], output)
    assert stages_run(output) == STAGES[-3:]


def test_the_first_is_reproduced_from_a_remote(project):
    project.run("dvc", "remote", "add", "--default", "store", "../store")
    project.run("dvc", "push", "--all-tags")
    remove(project.folder / ".dvc/cache")
    output = project.reproduce(project.tags[0])
    assert identical(project.tags[0], output)
    assert stages_run(output) == STAGES[-3:]


def test_the_first_is_reproduced_from_scratch_even_if_its_training_is_stopped(project):
    command = (sys.executable, "-m", "pipeline.reproduce", project.tags[0], "--from-scratch")
    before = project.state()
    process = project.start(*command)
    wait_for_checkpoint(project.folder / CHECKPOINTS, process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and project.state() == before
    assert output.endswith("reproduce: interrupted; the same command goes on from here\n")
    assert not (project.folder / FOLDER / "tree").exists()

    output = project.reproduce(project.tags[0], "--from-scratch")
    assert identical(project.tags[0], output)
    assert stages_run(output) == STAGES
    assert "resuming after step" in output
    assert not [path for path in (project.folder / CHECKPOINTS).rglob("*") if path.is_file()]


def test_a_checkout_of_the_tag_and_dvc_repro_restore_its_files(project):
    """`make submission` does the same at a tag."""
    first, second = read_ledger(project.folder / paths.LEDGER)["sha256"]
    assert sha256(project.folder / paths.SUBMISSION) == second
    project.run("git", "checkout", "--quiet", "--force", project.tags[0])
    assert stages_run(project.run("dvc", "repro")) == []
    assert sha256(project.folder / paths.SUBMISSION) == first


def test_another_training_is_different_from_train_on(project):
    """The tag's dvc.lock belongs to another seed than its params.yaml, as if another machine had trained it."""
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
    assert "train@pix2pix" not in stages_run(output)  # it is cached now
