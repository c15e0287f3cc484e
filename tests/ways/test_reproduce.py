"""Bringing a tag back with real git and real DVC, in a repository whose stages only copy files.

With the real pipeline, uploads, and a training that is stopped: test_history.py.
"""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree

import pytest
import yaml

from pipeline import paths
from pipeline.base.files import remove, sha256
from pipeline.history.worktree import FOLDER
from pipeline.kaggle.ledger import COLUMNS
from pipeline.systems.card import write_card
from tests.helpers.children import start

CSV, RAW, MODEL = (path.as_posix() for path in (paths.SUBMISSION, paths.RAW, paths.MODELS / "one"))
STAGES = {
    "fetch": {
        "cmd": f"mkdir {RAW} && cp ${{fetch.archive}}/images {RAW} && ls {RAW} > {paths.INDEX}",
        "deps": ["${fetch.archive}"],
        "outs": [RAW, str(paths.INDEX)],
    },
    "train": {
        "foreach": ["one"],
        "do": {"cmd": f"mkdir -p {MODEL} && cp made/* {RAW}/images {MODEL}", "deps": ["made", RAW], "outs": [MODEL]},
    },
    "predict": {"cmd": f"cp {MODEL}/weights {CSV}", "deps": [MODEL], "outs": [CSV]},
}
ARCHIVE = "data/archive"  # a folder that git has, of which it ignores the content


@dataclass
class Project:
    """A repository with the tag score-0.1 and with changes that are not committed."""

    folder: Path
    environment: dict[str, str]

    def run(self, *command: str) -> str:
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def write(self, path: str | Path, text: str) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(text, encoding="utf-8")

    def write_stages(self, training: str = "") -> None:
        """dvc.yaml, with a part of a command before that of the training."""
        train = STAGES["train"]["do"] | {"cmd": training + STAGES["train"]["do"]["cmd"]}
        stages = STAGES | {"train": {"foreach": ["one"], "do": train}}
        self.write("dvc.yaml", yaml.safe_dump({"stages": stages}, sort_keys=False))

    def write_params(self, archive: str) -> None:
        content = {"fetch": {"source": "archive", "archive": archive}, "train": {"precision": "float32"}}
        self.write(paths.PARAMS, yaml.safe_dump(content))

    def commit(self, tag: str) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", "a run")
        self.run("git", "tag", tag)

    def start(self, *arguments: str) -> subprocess.Popen:
        return start([sys.executable, "-m", "pipeline.reproduce", *arguments], self.folder, self.environment)

    def reproduce(self, *arguments: str) -> tuple[int, str]:
        """Its status and all that it prints; whatever it does, all is as it was."""
        before = self.state()
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=120)
        assert self.state() == before and self.worktrees() == 1
        assert "Traceback" not in output
        return process.returncode, output

    def worktrees(self) -> int:
        return self.run("git", "worktree", "list").count("\n")

    def state(self) -> dict[str, str]:
        """What a reproduction must leave: HEAD, tags, git's index, and every file but those in .work."""
        outside = {".git", ".dvc", ".work"}
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        files = [path for path in files if path.relative_to(self.folder).parts[0] not in outside]
        files.append(self.folder / ".git/HEAD")
        commands = (("for-each-ref",), ("ls-files", "--stage"), ("status", "--porcelain"))
        return {str(path): sha256(path) for path in files} | {name[0]: self.run("git", *name) for name in commands}


def cached(project: Project) -> dict[Path, str]:
    return {path: sha256(path) for path in (project.folder / ".dvc/cache").rglob("*") if path.is_file()}


@pytest.fixture
def project(tmp_path, made_once) -> Project:
    return Project(copytree(made_once.folder, tmp_path / "project", symlinks=True), made_once.environment)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory, environment, repo) -> Project:
    """Look, do not touch."""
    made = Project(tmp_path_factory.mktemp("made"), environment | {"PYTHONPATH": str(repo)})
    made.write(".gitignore", "/.work/\n/data/*\n!/data/archive/\n")
    made.write(".dvcignore", "/.work\n")
    made.write("submissions/.gitignore", "/submission.csv\n")
    made.write(f"{ARCHIVE}/.gitignore", "*\n!.gitignore\n")
    made.write(f"{ARCHIVE}/images", "photographs\n")
    made.write("made/weights", "0.5\n")
    made.write(paths.METRICS, '{"validation": {"submission": {"all": 0.25}}}')
    made.write_stages()
    made.write_params(ARCHIVE)
    settings = {"precision": "float32", "threads": 2}
    unused = {"parameters": 0, "devices": "", "validation": []}
    write_card(made.folder / "made", model="copy", settings=settings, normalisation="none", **unused)
    made.run("git", "init", "--quiet")
    made.run("dvc", "init", "--quiet")
    made.write(".dvcignore", "/.work\n")
    made.run("dvc", "repro", "--quiet")
    made.commit("score-0.1")
    made.write_params("elsewhere")
    made.write("made/weights", "0.75\n")
    made.write("notes.txt", "not in git")
    return made


def enter(project: Project, digest: str, tag: str = "score-0.1") -> None:
    """A row in the ledger."""
    commit = project.run("git", "rev-parse", "score-0.1").strip()
    values = {"time": "2023-03-01T08:00:00+00:00", "commit": commit, "tag": tag, "sha256": digest, "ref": "1000"}
    project.write(paths.LEDGER, f"{','.join(COLUMNS)}\n{','.join(values.get(name, '') for name in COLUMNS)}\n")


def stages_run(output: str) -> list[str]:
    return re.findall("Running stage '(.*)'", output)


IDENTICAL = "reproduce: score-0.1: identical, by the {}; validation RMSE 0.25000 then, 0.25000 now\n"


def test_a_tag_comes_back_from_the_cache_and_nothing_else_changes(project):
    hook = project.folder / ".git/hooks/post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {project.folder.parent}/hooked\n", encoding="utf-8")
    hook.chmod(0o755)
    project.write(f"{ARCHIVE}/images", "other photographs, which are not looked at\n")
    before = cached(project)
    status, output = project.reproduce("score-0.1")
    assert status == 0 and output.endswith(IDENTICAL.format("md5 in its dvc.lock"))
    assert stages_run(output) == ["predict"]
    assert "made with the versions of Python and the libraries in use here" in output
    assert not (project.folder.parent / "hooked").exists()
    assert {path: digest for path, digest in cached(project).items() if path in before} == before


def test_a_tag_comes_back_from_a_remote_that_was_added_later_at_a_relative_path(project):
    enter(project, sha256(project.folder / CSV))
    project.run("dvc", "remote", "add", "--local", "--default", "store", "../store")
    project.run("dvc", "push", "--quiet")
    remove(project.folder / ".dvc/cache")
    status, output = project.reproduce("score-0.1")
    assert status == 0 and output.endswith(IDENTICAL.format("sha256 in the ledger"))
    assert stages_run(output) == ["predict"]


def test_without_cache_and_remote_it_is_made_again(project):
    remove(project.folder / ".dvc/cache")
    status, output = project.reproduce("score-0.1")
    assert status == 0 and output.endswith(IDENTICAL.format("md5 in its dvc.lock"))
    assert stages_run(output) == ["fetch", "train@one", "predict"]
    assert "neither cache nor remote has its model, nor the versions it was made with" in output


@pytest.mark.parametrize("archive", ["../../there/archive", ARCHIVE])
def test_from_scratch_every_stage_runs_on_this_repositorys_archive_and_the_cache_is_let_alone(project, archive):
    project.write(f"{archive}/images", "photographs\n")
    project.write_params(archive)
    project.run("dvc", "repro", "--quiet")
    project.commit("score-0.2")
    before = cached(project), sorted(project.folder.parent.parent.rglob("there/**/*"))
    status, output = project.reproduce("score-0.2", "--from-scratch")
    assert status == 0 and "score-0.2: identical" in output
    assert stages_run(output) == ["fetch", "train@one", "predict"]
    assert (cached(project), sorted(project.folder.parent.parent.rglob("there/**/*"))) == before


def test_an_archive_that_is_gone_is_missed_where_the_data_is_gone_too(project):
    remove(project.folder / ".dvc/cache")
    project.write_params("gone.zip")
    project.commit("gone")
    status, output = project.reproduce("gone")
    assert status == 1
    assert output.endswith("data must be fetched again, and gone.zip is not there; put the archive back\n")


@pytest.mark.parametrize("tag", ["score-0.1", ""])
def test_what_was_uploaded_decides_and_is_found_by_tag_or_by_commit(project, tag):
    enter(project, "1" * 64, tag)
    status, output = project.reproduce("score-0.1")
    assert status == 1 and "different: another CSV was uploaded than the one in the tag's dvc.lock" in output


def test_another_outcome_is_different_and_its_stage_is_named(project):
    """As where a tag was made on another machine: its dvc.lock has other bytes than the stages make here."""
    project.run("git", "checkout", "--quiet", "made", str(paths.PARAMS))
    lock = yaml.safe_load((project.folder / "dvc.lock").read_text(encoding="utf-8"))
    for stage, digest in {"train@one": "0" * 32 + ".dir", "predict": "0" * 32}.items():
        lock["stages"][stage]["outs"][0]["md5"] = digest
    project.write("dvc.lock", yaml.safe_dump(lock))
    project.commit("elsewhere")
    status, output = project.reproduce("elsewhere")
    assert status == 1
    assert "elsewhere: different from stage train@one on (data/model/one); by how much is not known" in output


def test_a_stage_that_fails_ends_in_one_line(project):
    project.write_stages("false && ")
    project.write_params(ARCHIVE)
    project.commit("broken")
    status, output = project.reproduce("broken")
    assert status == 1 and "failed to reproduce 'train@one'" in output
    assert output.endswith("\nreproduce: `dvc repro --pull train` failed at this commit; what it says stands above\n")


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ("score-0.2", "there is no tag 'score-0.2'; the nearest: score-0.1"),
        ("HEAD", "there is no tag 'HEAD'; the nearest: "),
        ("", "there is no tag ''; the nearest: "),
        ("empty", "empty has nothing to compare with: its submission is neither in the ledger nor in its dvc.lock"),
        ("merged", "dvc.lock of merged is damaged: it does not say what each stage made"),
        ("bare", "params.yaml of bare does not say where its data is from; is it of this pipeline?"),
    ],
)
def test_a_tag_that_cannot_be_brought_back_is_refused_in_one_line(project, tag, message):
    locks = {
        "merged": "<<<<<<< ours\n",
        "empty": "schema: '2.0'\nstages: {}\n",
        "bare": f"stages: {{write: {{outs: [{{path: {CSV}, md5: '1'}}]}}}}\n",
    }
    if tag in locks:
        project.write("dvc.lock", locks[tag])
        project.write(paths.PARAMS, "train: {}\n")
        project.commit(tag)
    status, output = project.reproduce(tag)
    assert status == 1 and output.startswith(f"reproduce: {message}") and output.count("\n") == 1


def test_it_runs_at_the_root_of_a_repository_alone(project, tmp_path, run_stage):
    done = run_stage("reproduce", project.folder / "made", project.environment, ("score-0.1",))
    assert done.returncode == 1 and done.stderr == "reproduce: this is a folder of the repository; run from its root\n"
    done = run_stage("reproduce", tmp_path, project.environment, ("score-0.1",))
    assert done.returncode == 1 and "not a git repository" in done.stderr and done.stderr.count("\n") == 1


@pytest.fixture
def waiting(project, tmp_path) -> Callable[[], subprocess.Popen]:
    """`waiting()`: a reproduction of the tag `slow`, whose training has begun and waits for a file `go`."""
    begun, go = tmp_path / "begun", tmp_path / "go"
    go.touch()
    project.write_stages(f"touch {begun} && until [ -e {go} ]; do sleep 0.1; done && ")
    project.write_params(ARCHIVE)
    project.run("dvc", "repro", "--quiet")
    project.commit("slow")
    remove(project.folder / ".dvc/cache")
    begun.unlink()
    go.unlink()

    def start() -> subprocess.Popen:
        process = project.start("slow")
        until = time.monotonic() + 60
        while not begun.exists():
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        return process

    yield start
    go.touch()  # what still waits may end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_it_takes_its_stage_and_its_worktree_with_it(project, waiting, number):
    before = project.state()
    process = waiting()
    assert project.worktrees() == 2
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)  # ends when nothing is left that could write to it
    assert process.returncode == 130
    assert output.endswith("\nreproduce: interrupted; the same command goes on from here\n")
    assert "Traceback" not in output
    assert project.worktrees() == 1 and project.state() == before
    assert not (project.folder / FOLDER / "tree").exists()


def test_killed_it_is_not_joined_by_a_second_and_what_it_left_is_cleared_later(project, waiting, tmp_path):
    before = project.state()
    process = waiting()
    process.kill()
    process.wait()
    second = project.start("score-0.1")
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 1 and re.fullmatch("reproduce: .* at work in this folder; .*\n", output)
    assert project.worktrees() == 2

    (tmp_path / "go").touch()
    process.communicate(timeout=60)
    assert project.reproduce("slow")[0] == 0
    assert project.state() == before


def test_a_worktree_that_was_half_made_is_cleared_and_no_other_is(project):
    tree = project.folder / FOLDER / "tree/0123456789ab"
    project.run("git", "worktree", "add", "--quiet", "--detach", str(tree), "score-0.1")
    project.run("git", "worktree", "lock", str(tree))
    (tree / ".git").unlink()
    own = project.folder.parent / "own"  # the user's, on a disk that is not there now
    project.run("git", "worktree", "add", "--quiet", "--detach", str(own), "score-0.1")
    own.rename(own.with_name("away"))
    process = project.start("score-0.1")
    process.communicate(timeout=60)
    assert process.returncode == 0
    listed = project.run("git", "worktree", "list", "--porcelain")
    assert listed.count("worktree ") == 2 and f"worktree {own}\n" in listed
