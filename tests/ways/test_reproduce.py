"""`python -m pipeline.reproduce` with git and DVC, in a repository whose stages only copy files.

test_history.py does it with the real pipeline, uploads, and an interrupted training.
"""

import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copytree

import pytest
import yaml

from pipeline import paths
from pipeline.base.files import remove, sha256
from pipeline.history.clone import FOLDER
from pipeline.kaggle.ledger import COLUMNS
from pipeline.systems.card import write_card
from tests.helpers.children import wait_for
from tests.helpers.repository import Repository

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
ARCHIVE = "data/archive"  # a folder in git whose content is ignored


# Of a user whose settings change what git commands print and how they check files out.
GIT_SETTINGS = """
[core]
autocrlf = true
quotePath = true
[color]
ui = always
[status]
showUntrackedFiles = no
branch = true
[tag]
gpgSign = true
sort = -refname
[submodule]
recurse = true
[log]
showSignature = true
"""


class Project(Repository):
    """A repository with the tag score-0.1 and uncommitted changes."""

    def write(self, path: str | Path, text: str) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(text, encoding="utf-8")

    def write_stages(self, training: str = "") -> None:
        """Write dvc.yaml, with `training` before the command of the stage train."""
        train = STAGES["train"]["do"] | {"cmd": training + STAGES["train"]["do"]["cmd"]}
        stages = STAGES | {"train": {"foreach": ["one"], "do": train}}
        self.write("dvc.yaml", yaml.safe_dump({"stages": stages}, sort_keys=False))

    def write_params(self, archive: str) -> None:
        content = {"fetch": {"source": "archive", "archive": archive}, "train": {"precision": "float32"}}
        self.write(paths.PARAMS, yaml.safe_dump(content))


def files_below(folder: Path) -> dict[Path, str]:
    return {path: sha256(path) for path in folder.rglob("*") if path.is_file()}


def cached(project: Project) -> dict[Path, str]:
    return files_below(project.folder / ".dvc/cache")


@pytest.fixture
def project(tmp_path, made_once) -> Project:
    return Project(copytree(made_once.folder, tmp_path / "проект", symlinks=True), made_once.environment)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory, environment, repo) -> Project:
    """The project that tests copy."""
    settings = tmp_path_factory.mktemp("settings") / "gitconfig"
    settings.write_text(GIT_SETTINGS, encoding="utf-8")
    made = Project(
        tmp_path_factory.mktemp("made"), environment | {"PYTHONPATH": str(repo), "GIT_CONFIG_GLOBAL": str(settings)}
    )
    made.write(".gitignore", "/.work/\n/data/*\n!/data/archive/\n")
    made.write(".dvcignore", "/.work\n")
    made.write("submissions/.gitignore", "/submission.csv\n")
    made.write(f"{ARCHIVE}/.gitignore", "*\n!.gitignore\n")
    made.write(f"{ARCHIVE}/images", "photographs\n")
    made.write("made/weights", "0.5\n")
    made.write(paths.METRICS, '{"validation": {"submission": 0.25}}')
    made.write_stages()
    made.write_params(ARCHIVE)
    settings = {"precision": "float32", "threads": 2}
    write_card(made.folder / "made", model="copy", settings=settings, parameters=0, devices="")
    made.run("git", "init", "--quiet")
    made.run("dvc", "init", "--quiet")
    made.write(".dvcignore", "/.work\n")
    made.run("dvc", "repro", "--quiet")
    lock = yaml.safe_load((made.folder / "dvc.lock").read_text(encoding="utf-8"))
    for name in ("train", "train@other"):  # stages that dvc.yaml once had, which DVC never removes
        stale = {"cmd": "true", "outs": [{"path": f"data/model/{name}", "md5": "0" * 32 + ".dir"}]}
        lock["stages"] = {name: stale} | lock["stages"]
    made.write("dvc.lock", yaml.safe_dump(lock, sort_keys=False))
    made.commit("score-0.1")
    made.write_params("elsewhere")
    made.write("made/weights", "0.75\n")
    made.write("notes.txt", "not in git")
    return made


def add_upload(project: Project, digest: str, tag: str = "score-0.1") -> None:
    """Write a ledger with an upload of the tag's commit."""
    commit = project.run("git", "rev-parse", "score-0.1").strip()
    values = {"time": "2023-03-01T08:00:00+00:00", "commit": commit, "tag": tag, "sha256": digest, "ref": "1000"}
    project.write(paths.LEDGER, f"{','.join(COLUMNS)}\n{','.join(values.get(name, '') for name in COLUMNS)}\n")


def stages_run(output: str) -> list[str]:
    return re.findall("Running stage '(.*)'", output)


IDENTICAL = "reproduce: score-0.1: identical, by the {}; validation RMSE 0.25000 then, 0.25000 now\n"


def test_a_tag_is_reproduced_from_the_cache_and_nothing_else_changes(project):
    hook = project.folder / ".git/hooks/post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {project.folder.parent}/hooked\n", encoding="utf-8")
    hook.chmod(0o755)
    project.write(f"{ARCHIVE}/images", "other photographs, which must not be read\n")
    before = cached(project)
    output = project.reproduce("score-0.1")
    assert output.endswith(IDENTICAL.format("md5 in its dvc.lock"))
    assert stages_run(output) == ["predict"]
    assert "made with the versions of Python and the libraries in use here" in output
    assert not (project.folder.parent / "hooked").exists()
    assert {path: digest for path, digest in cached(project).items() if path in before} == before


@pytest.mark.slow
def test_a_tag_is_reproduced_from_a_remote_that_was_added_later_at_a_relative_path(project):
    add_upload(project, sha256(project.folder / CSV))
    project.run("dvc", "remote", "add", "--local", "--default", "store", "../store")
    project.run("dvc", "push", "--quiet")
    remove(project.folder / ".dvc/cache")
    output = project.reproduce("score-0.1")
    assert output.endswith(IDENTICAL.format("sha256 in the ledger"))
    assert stages_run(output) == ["predict"]


@contextmanager
def refusing() -> Iterator[str]:
    """The address of a server that refuses every request with 403."""

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            self.send_error(403)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        yield f"http://127.0.0.1:{server.server_port}/store"
        server.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("remote", "reason"),
    [
        ("http", "403, message='Forbidden', url='http://127.0.0.1:"),
        pytest.param("../unplugged", "unplugged is missing", marks=pytest.mark.slow),
        pytest.param("s3://bucket/store", "s3 is supported, but requires 'dvc-s3'", marks=pytest.mark.slow),
    ],
)
def test_a_remote_that_does_not_answer_is_named_before_anything_is_trained(project, remote, reason):
    remove(project.folder / ".dvc/cache")
    with refusing() as address:
        project.run("dvc", "remote", "add", "--local", "--default", "store", address if remote == "http" else remote)
        output = project.reproduce("score-0.1", status=1)
    assert reason in output and stages_run(output) == []
    if "s3" not in remote:
        assert output.splitlines()[-1].startswith("reproduce: DVC's cache lacks ") and "--from-scratch" in output


def test_a_clone_without_the_tags_says_how_to_get_them(project):
    add_upload(project, "1" * 64)
    project.run("git", "tag", "--delete", "score-0.1")
    output = project.reproduce("score-0.1", status=1)
    assert output == (
        "reproduce: submissions/ledger.csv names the tag score-0.1, but this clone lacks it: `git fetch --tags` brings "
        "it\n"
    )


@pytest.mark.slow
def test_in_a_submodule_a_tag_is_reproduced(project, tmp_path):
    outer = Repository(tmp_path / "outer", project.environment | {"GIT_ALLOW_PROTOCOL": "file"})
    outer.folder.mkdir()
    outer.run("git", "init", "--quiet")
    project.run("git", "stash", "--include-untracked", "--quiet")
    outer.run("git", "submodule", "--quiet", "add", str(project.folder), "entry")
    inner = Project(outer.folder / "entry", project.environment)
    copytree(project.folder / ".dvc/cache", inner.folder / ".dvc/cache")
    assert inner.reproduce("score-0.1").endswith(IDENTICAL.format("md5 in its dvc.lock"))


@pytest.mark.slow
def test_without_cache_and_remote_all_stages_run(project):
    remove(project.folder / ".dvc/cache")
    output = project.reproduce("score-0.1")
    assert output.endswith(IDENTICAL.format("md5 in its dvc.lock"))
    assert stages_run(output) == ["fetch", "train@one", "predict"]
    assert "its model is in no cache or remote, so the versions it was made with are unknown" in output


@pytest.mark.slow
@pytest.mark.parametrize("archive", ["../../there/archive", pytest.param(ARCHIVE, marks=pytest.mark.slow)])
def test_from_scratch_all_stages_run_on_this_repositorys_archive_without_the_cache(project, archive):
    project.write(f"{archive}/images", "photographs\n")
    project.write_params(archive)
    project.run("dvc", "repro", "--quiet")
    project.commit("score-0.2")
    there = project.folder.parent.parent / "there"  # for an archive outside of the repository
    before = cached(project), files_below(there)
    output = project.reproduce("score-0.2", "--from-scratch")
    assert "score-0.2: identical" in output
    assert stages_run(output) == ["fetch", "train@one", "predict"]
    assert (cached(project), files_below(there)) == before


@pytest.mark.slow
def test_without_the_data_a_missing_archive_is_reported(project):
    remove(project.folder / ".dvc/cache")
    project.write_params("gone.zip")
    project.commit("gone")
    output = project.reproduce("gone", status=1)
    assert output.endswith("data must be fetched again, but there is no gone.zip; name its archive with --archive\n")


@pytest.mark.slow
def test_an_archive_that_moved_is_named_on_the_command_line(project):
    remove(project.folder / ".dvc/cache")
    project.write_params("gone.zip")
    project.commit("gone")
    project.write("here/images", "photographs\n")
    output = project.reproduce("gone", "--archive", "here", status=1)  # the model is another: its weights are
    assert stages_run(output) == ["fetch", "train@one", "predict"]
    assert "gone: neither cache nor remote has data/index.csv, data/raw, data/model/one: their stages run" in output
    assert "gone: different from stage train@one on" in output


@pytest.mark.slow
@pytest.mark.parametrize("tag", ["score-0.1", pytest.param("", marks=pytest.mark.slow)])
def test_the_upload_is_compared_and_found_by_tag_or_commit(project, tag):
    add_upload(project, "1" * 64, tag)
    output = project.reproduce("score-0.1", status=1)
    assert "different: the CSV is the one in the tag's dvc.lock, but another one was uploaded" in output


@pytest.mark.slow
def test_other_outputs_are_different_and_their_stage_is_named(project):
    """As if the tag was made on another machine: its dvc.lock has other bytes than the stages make here."""
    project.run("git", "checkout", "--quiet", "made", str(paths.PARAMS))
    lock = yaml.safe_load((project.folder / "dvc.lock").read_text(encoding="utf-8"))
    for stage, digest in {"train@one": "0" * 32 + ".dir", "predict": "0" * 32}.items():
        lock["stages"][stage]["outs"][0]["md5"] = digest
    project.write("dvc.lock", yaml.safe_dump(lock))
    project.commit("elsewhere")
    output = project.reproduce("elsewhere", status=1)
    assert "elsewhere: different from stage train@one on (data/model/one); by how much is unknown" in output


@pytest.mark.slow
def test_a_failing_stage_is_reported_in_one_line(project):
    project.write_stages("false && ")
    project.write_params(ARCHIVE)
    project.commit("broken")
    output = project.reproduce("broken", status=1)
    assert "failed to reproduce 'train@one'" in output
    assert output.endswith(
        "\nreproduce: `dvc repro --allow-missing train` failed at this commit; its output is above\n"
    )


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ("score-0.2", "there is no tag 'score-0.2'; the most similar: score-0.1"),
        ("HEAD", "there is no tag 'HEAD'; the most similar: "),
        ("", "there is no tag ''; the most similar: "),
        ("empty", "empty has nothing to compare with: neither the ledger nor its dvc.lock has its submission"),
        ("merged", "dvc.lock of merged is damaged: it does not list the outputs of each stage"),
        ("bare", "params.yaml of bare does not name the source of its data"),
    ],
)
def test_a_tag_that_cannot_be_reproduced_is_refused_in_one_line(project, tag, message):
    locks = {
        "merged": "<<<<<<< ours\n",
        "empty": "schema: '2.0'\nstages: {}\n",
        "bare": f"stages: {{predict: {{outs: [{{path: {CSV}, md5: '1'}}]}}}}\n",
    }
    if tag in locks:
        project.write("dvc.lock", locks[tag])
        project.write(paths.PARAMS, "train: {}\n")
        project.commit(tag)
    output = project.reproduce(tag, status=1)
    assert output.startswith(f"reproduce: {message}") and output.count("\n") == 1


@pytest.mark.slow
def test_it_runs_only_at_the_root_of_a_repository(project, tmp_path, run_stage):
    done = run_stage("reproduce", project.folder / "made", project.environment, ("score-0.1",))
    assert done.returncode == 1 and done.stderr == "reproduce: this is not the repository's root; run from there\n"
    done = run_stage("reproduce", tmp_path, project.environment, ("score-0.1",))
    assert done.returncode == 1 and "not a git repository" in done.stderr and done.stderr.count("\n") == 1


@pytest.fixture
def waiting(project, tmp_path) -> Callable[[], subprocess.Popen]:
    """`waiting()` starts to reproduce the tag `slow`, whose training now waits for a file `go`."""
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
        process = project.start_reproduce("slow")
        wait_for(begun.exists, process, seconds=60)
        return process

    yield start
    go.touch()  # end what still waits


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_when_stopped_it_ends_its_stage_and_removes_its_clone(project, waiting, number):
    before = project.state()
    process = waiting()
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)  # returns when no process can write to it
    assert process.returncode == 130
    assert output.endswith("\nreproduce: interrupted; the same command goes on from here\n")
    assert "Traceback" not in output
    assert project.state() == before
    assert not (project.folder / FOLDER / "tree").exists()


@pytest.mark.slow
def test_after_a_kill_its_stage_keeps_the_lock_and_the_next_run_cleans_up(project, waiting, tmp_path):
    before = project.state()
    process = waiting()
    process.kill()
    process.wait()
    second = project.start_reproduce("score-0.1")
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 1 and re.fullmatch("reproduce: another stage is .* in this folder; .*\n", output)

    (tmp_path / "go").touch()
    process.communicate(timeout=60)
    assert project.reproduce("slow")
    assert project.state() == before
