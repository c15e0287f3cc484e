"""README's routes as a user types them, in a clone of this repository with its history and its dvc.lock.

Only the recipes are cut to a few steps. Kaggle is a server on this machine, the home is empty.
"""

import re
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from shutil import make_archive

import pytest
import yaml

from pipeline import paths
from pipeline.base.files import sha256
from pipeline.kaggle.ledger import read_ledger
from tests.helpers.repository import Repository
from tools.kaggle_server.contest import FILES, Contest, scorer
from tools.kaggle_server.server import COMPETITION, KEY, STORE, USER, KaggleServer, download, redirect

FEW = {"steps": 4, "batch_size": 2, "validate_every": 2, "checkpoint_every": 2, "filters": 2}
DEMO = {"fetch": {"demo": {"pairs_per_class": 4, "test_images": 4}}, "split": {"validation_pairs": 3}}
CUT = {
    "demo": {**DEMO, "pix2pix": {**FEW, "shuffle_buffer": 10}, "residual": FEW},
    "laptop": {"split": {"validation_pairs": 4}, "train": {"precision": "float32"}, "residual": {**FEW, "zoom": 1.0}},
}
MAKE_DEMO, MAKE_KAGGLE, MAKE_ARCHIVE = (
    "make submission",
    "make recipe RECIPE=laptop SOURCE=kaggle",
    "make recipe RECIPE=laptop ARCHIVE=photo-reconstruction.zip",
)
COMMIT, DRY_RUN, UPLOAD, BOARD, REPRODUCE = (
    'git add -A && git commit -m "laptop"',
    'python -m pipeline.upload -m "laptop" --dry-run',
    'python -m pipeline.upload -m "laptop" --tag',
    "python -m pipeline.leaderboard --top 20",
    "python -m pipeline.reproduce score-0.16714",
)


@dataclass
class Clone(Repository):
    typed: list[str] = field(default_factory=list)

    def type(self, command: str, status: int = 0) -> str:
        """What a line typed in the clone prints; make finds its environment installed."""
        self.typed.append(command)
        return self.run("sh", "-c", command.replace("make ", "make INSTALL=: "), status=status)

    def upload(self) -> str:
        """Commit, upload and tag; the tag."""
        for command in (COMMIT, DRY_RUN, UPLOAD, COMMIT):
            self.type(command)
        return read_ledger(self.folder / paths.LEDGER)["tag"].iloc[-1]

    def cut_recipe(self, name: str) -> None:
        """Give a recipe few steps."""
        path = self.folder / paths.RECIPES / f"{name}.yaml"
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
        for section, values in CUT[name].items():
            recipe[section] = recipe.get(section, {}) | values
        path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")


def command_file(path: Path, *command: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n', encoding="utf-8")
    path.chmod(0o755)


def clone_of(repo: Path, folder: Path, environment: dict[str, str], *options: str) -> Clone:
    clone = Clone(folder, environment)
    folder.mkdir()
    clone.run("git", "clone", "--quiet", *options, f"file://{repo}", ".")
    return clone


@pytest.fixture(scope="module")
def clone(tmp_path_factory, repo, environment_of) -> Clone:
    """A clone with cut recipes, whose .venv is the environment that runs the tests."""
    top = tmp_path_factory.mktemp("walk")
    clone = clone_of(repo, top / "entry", environment_of(top / "home"))
    (top / "home").mkdir()
    command_file(clone.folder / ".venv/bin/python", sys.executable)
    command_file(clone.folder / ".venv/bin/dvc", sys.executable, "-m", "dvc")
    for name in CUT:
        clone.cut_recipe(name)
    clone.run(sys.executable, "-m", "pipeline.recipe", "demo")
    clone.run("git", "commit", "--quiet", "--all", "--message", "few steps")
    return clone


@pytest.mark.slow
def test_the_demo_then_the_real_competition_are_uploaded_and_their_tags_come_back(
    clone, demo_competition, tmp_path, repo
):
    archive = Path(make_archive(tmp_path / "photos", "zip", demo_competition.raw))
    truth = [clone.folder / paths.TRUTH, demo_competition.truth]
    with KaggleServer() as server:
        environment = server.environment(Path(clone.environment["HOME"]), credentials=False)
        clone.environment |= environment | {"HOME": clone.environment["HOME"]}
        contest = Contest(server, lambda csv: scorer(clone.folder / paths.INDEX, truth[0])(csv))
        contest.teams = [{"teamId": 1, "teamName": "us", "score": "0.1"}]
        server.answers[FILES] = redirect(f"{STORE}/{COMPETITION}.zip")
        server.answers["GET", f"/{COMPETITION}.zip"] = download(archive)
        token = Path(clone.environment["HOME"], ".kaggle/kaggle.json")
        token.parent.mkdir()
        token.write_text(f'{{"username": "{USER}", "key": "{KEY}"}}', encoding="utf-8")
        token.chmod(0o600)

        clone.type(MAKE_DEMO)
        first = clone.upload()
        truth.pop(0)
        clone.type(MAKE_KAGGLE)
        second = clone.upload()
        assert len(contest.submissions) == 2 and first != second
        assert "rank" in clone.type(BOARD)
    assert "train@pix2pix" in (clone.folder / "dvc.lock").read_text(encoding="utf-8")  # dvc.yaml has it no more
    for tag in (first, second):
        output = clone.type(REPRODUCE.replace("score-0.16714", tag))
        assert f"reproduce: {tag}: identical, by the sha256 in the ledger" in output
    readme = (repo / "README.md").read_text(encoding="utf-8")
    for command in (*clone.typed[:-2], REPRODUCE):
        assert command in readme, command


@pytest.mark.slow
def test_what_was_fetched_stays_usable_without_its_archive(clone, demo_competition):
    archive = Path(make_archive(str(clone.folder / "photo-reconstruction"), "zip", demo_competition.raw))
    clone.type(MAKE_ARCHIVE)
    clone.type(COMMIT)
    assert "photo-reconstruction.zip" not in clone.run("git", "ls-files")
    archive.unlink()
    index = sha256(clone.folder / paths.INDEX)
    assert "up to date" in clone.type("dvc repro")
    assert "Ran experiment" in clone.type("dvc exp run --temp -S evaluate.samples=2 -S residual.weight_decay=1e-5")
    with (clone.folder / "pipeline/fetch.py").open("a", encoding="utf-8") as file:
        file.write("# newer code\n")
    output = clone.type("dvc repro", status=255)
    remedy = re.search(r"to keep what was fetched before: `(.*)`, then `(.*)`\)", output)
    assert "photo-reconstruction.zip: no such archive" in output and not (clone.folder / paths.INDEX).exists()
    for command in remedy.groups():
        clone.type(command)
    assert "up to date" in clone.type("dvc repro") and sha256(clone.folder / paths.INDEX) == index


@pytest.mark.parametrize("setting", ["core.autocrlf=true", "core.eol=crlf"])
def test_files_keep_their_line_ends_whatever_git_is_set_to(tmp_path, repo, environment, setting):
    """DVC compares bytes: with other line ends every stage would run again."""
    clone = clone_of(repo, tmp_path / "clone", environment, "--config", setting)
    lines = clone.run("git", "ls-files", "--eol").splitlines()
    assert len(lines) > 100 and not [line for line in lines if "w/crlf" in line or "w/mixed" in line]
    assert clone.run("git", "status", "--porcelain") == ""


def test_the_committed_lock_has_only_stages_of_dvc_yaml(repo):
    lock, stages = (
        yaml.safe_load((repo / name).read_text(encoding="utf-8"))["stages"] for name in ("dvc.lock", "dvc.yaml")
    )
    systems = yaml.safe_load((repo / paths.PARAMS).read_text(encoding="utf-8"))["systems"]
    names = [name for name in stages if name != "train"] + [f"train@{system}" for system in systems]
    assert sorted(lock) == sorted(names)
