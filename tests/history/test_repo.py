"""The git wrappers, in temporary repositories. The uploads test the DVC wrappers."""

import subprocess

import pytest

from pipeline import paths
from pipeline.base.errors import BadInput
from pipeline.history import repo


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A repository with one commit, as the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for who in ("AUTHOR", "COMMITTER"):
        for what in ("NAME", "EMAIL"):
            monkeypatch.setenv(f"GIT_{who}_{what}", "test@localhost")
    git("init", "--quiet")
    (tmp_path / "code.py").write_text("", encoding="utf-8")
    commit()
    return tmp_path


def git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], check=True, stdin=subprocess.DEVNULL, capture_output=True)


def commit() -> str:
    git("add", "--all")
    git("commit", "--quiet", "--allow-empty", "--message", "a change")
    return repo.head_commit()


def test_a_tag_names_its_commit(folder):
    first = repo.head_commit()
    repo.make_tag("score-0.1", first)
    repo.make_tag("score-0.1", first)  # does nothing
    second = commit()
    assert len(first) == 40 and repo.commit_of("score-0.1") == first != second
    assert repo.commit_of("score-0.2") is None


def test_an_annotated_tag_names_its_commit(folder):
    git("tag", "--annotate", "release", "--message", "a release")
    assert repo.commit_of("release") == repo.head_commit()


def test_a_branch_is_not_a_tag(folder):
    git("branch", "score-0.1")
    assert repo.commit_of("score-0.1") is None
    repo.make_tag("score-0.1", repo.head_commit())  # a branch does not hide a tag of the same name
    assert repo.commit_of("score-0.1") == repo.head_commit() and repo.tags() == ["score-0.1"]


def test_tags_are_not_signed_although_git_is_set_to(folder):
    git("config", "tag.gpgSign", "true")
    repo.make_tag("score-0.1", repo.head_commit())
    assert repo.commit_of("score-0.1")


def test_a_tag_is_never_moved_to_another_commit(folder):
    first = repo.head_commit()
    repo.make_tag("best", first)
    with pytest.raises(BadInput, match=f"the tag best already names commit {first}"):
        repo.make_tag("best", commit())
    assert repo.commit_of("best") == first


@pytest.mark.parametrize("name", ["two words", "", "a..b", "a~1", "end.lock", "a:b", "-d", "@{-1}"])
def test_an_invalid_tag_name_is_refused(folder, name):
    with pytest.raises(BadInput, match="is not a valid tag name"):
        repo.make_tag(name, repo.head_commit())


def test_uncommitted_files_are_listed_under_any_name(folder):
    assert repo.uncommitted() == []
    (folder / "code.py").unlink()
    for name in ("pipeline/ü new.py", "notes.txt", paths.LEDGER.as_posix()):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("", encoding="utf-8")
    assert repo.uncommitted() == ["code.py", "pipeline/ü new.py"]
    git("add", "notes.txt")
    assert repo.uncommitted() == ["code.py", "notes.txt", "pipeline/ü new.py"]
    commit()
    (folder / paths.LEDGER).write_text("changed", encoding="utf-8")
    assert repo.uncommitted() == []


def test_without_a_repository_or_a_commit_the_message_is_gits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(BadInput, match=r"`git rev-parse --verify HEAD` failed: .*not a git repository"):
        repo.head_commit()
    git("init", "--quiet")
    with pytest.raises(BadInput, match="`git rev-parse --verify HEAD` failed"):
        repo.head_commit()


def test_a_missing_program_is_named():
    with pytest.raises(BadInput, match="no-such-program is not installed"):
        repo.output_of("no-such-program", "--version")


def test_outside_of_a_dvc_repository_the_message_is_dvcs(folder):
    with pytest.raises(BadInput, match="`dvc status --json --with-deps evaluate` failed: ERROR: .*not inside of a DVC"):
        repo.stale("evaluate")
