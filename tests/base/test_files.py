"""Outputs are complete or absent."""

import os
import subprocess
import sys
import time

import pytest

from pipeline.base.files import keep_only, remove, replacing


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def make(path, kind, text):
    """A file, or a folder with a file in it."""
    if kind == "folder":
        path.mkdir()
        path = path / f"{text}.txt"
    path.write_text(text)


def holds(path, kind, text):
    return tree(path) == {f"{text}.txt": text.encode()} if kind == "folder" else path.read_text() == text


@pytest.mark.parametrize("new", ["file", "folder"])
@pytest.mark.parametrize("old", [None, "file", "folder"])
def test_the_new_output_replaces_the_old(tmp_path, old, new):
    path = tmp_path / "out"
    if old:
        make(path, old, "old")
    with replacing(path) as partial:
        assert partial.parent == path.parent and partial != path
        make(partial, new, "new")
        assert holds(path, old, "old") if old else not path.exists()
    assert holds(path, new, "new")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_exception_keeps_the_old_and_leaves_nothing_else(tmp_path, kind, error):
    path = tmp_path / "out"
    make(path, kind, "old")
    with pytest.raises(error), replacing(path) as partial:
        make(partial, kind, "half")
        raise error
    assert holds(path, kind, "old")
    assert list(tmp_path.iterdir()) == [path]


def test_an_exception_before_anything_is_written_passes_through(tmp_path):
    with pytest.raises(ValueError, match="mine"), replacing(tmp_path / "out"):
        raise ValueError("mine")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_leftovers_of_a_killed_run_are_removed_first(tmp_path, kind):
    path = tmp_path / "out"
    with replacing(path) as partial:
        stale = partial
        make(partial, kind, "first")
    make(stale, kind, "stale")
    with replacing(path) as partial:
        assert partial == stale and not partial.exists()
        make(partial, kind, "second")
    assert holds(path, kind, "second")
    assert list(tmp_path.iterdir()) == [path]


def test_parent_folders_are_made(tmp_path):
    with replacing(tmp_path / "a" / "b" / "out") as partial:
        partial.write_text("x")
    assert tree(tmp_path) == {"a/b/out": b"x"}


def test_two_files_of_one_stem_do_not_collide(tmp_path):
    with replacing(tmp_path / "a.csv") as one, replacing(tmp_path / "a.txt") as other:
        one.write_text("csv")
        other.write_text("txt")
    assert tree(tmp_path) == {"a.csv": b"csv", "a.txt": b"txt"}


def test_a_link_is_replaced_and_its_target_stays(tmp_path):
    make(tmp_path / "target", "folder", "kept")
    (tmp_path / "out").symlink_to(tmp_path / "target")
    with replacing(tmp_path / "out") as partial:
        make(partial, "folder", "new")
    assert not (tmp_path / "out").is_symlink()
    assert holds(tmp_path / "out", "folder", "new") and holds(tmp_path / "target", "folder", "kept")


@pytest.mark.parametrize("kind", ["file", "folder", None])
def test_remove_deletes_files_and_folders(tmp_path, kind):
    path = tmp_path / "out"
    if kind:
        make(path, kind, "old")
    remove(path)
    assert list(tmp_path.iterdir()) == []


def test_remove_deletes_a_link_and_not_its_target(tmp_path):
    make(tmp_path / "target", "folder", "kept")
    (tmp_path / "out").symlink_to(tmp_path / "target")
    remove(tmp_path / "out")
    assert list(tmp_path.iterdir()) == [tmp_path / "target"]
    assert holds(tmp_path / "target", "folder", "kept")


WRITER = """
from pathlib import Path
from pipeline.base.files import replacing

for text in "ab":
    with replacing(Path("out")) as folder:
        folder.mkdir()
        for number in range(3000):
            (folder / f"{text}{number}").touch()
        print(text, flush=True)
"""


@pytest.mark.slow
def test_a_folder_is_complete_if_its_writer_is_killed_during_the_replacement(tmp_path, repo):
    """Removing the old one takes some tens of milliseconds here."""
    for milliseconds in range(0, 30, 10):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(repo)},
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            while process.stdout.readline() != "b\n":
                pass
            time.sleep(milliseconds / 1000)
            process.kill()
        if (tmp_path / "out").exists():  # it is absent for a moment between two renames
            found = {path.name for path in (tmp_path / "out").iterdir()}
            assert found in [{f"{text}{number}" for number in range(3000)} for text in "ab"]


def test_the_old_folder_of_a_killed_run_is_removed(tmp_path):
    make(tmp_path / "out.old.partial", "folder", "older")
    make(tmp_path / "out", "folder", "old")
    with replacing(tmp_path / "out") as partial:
        make(partial, "folder", "new")
    assert list(tmp_path.iterdir()) == [tmp_path / "out"] and holds(tmp_path / "out", "folder", "new")


def test_keep_only_deletes_other_files_and_folders(tmp_path):
    for name in ("kept", "old"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "weights").write_text(name)
    (tmp_path / "models" / "file").write_text("")
    keep_only(tmp_path / "models", ["kept", "absent"])
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == [
        "models",
        "models/kept",
        "models/kept/weights",
    ]
    keep_only(tmp_path / "none", [])
    assert not (tmp_path / "none").exists()
