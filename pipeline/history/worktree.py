"""A git worktree that shares the repository's DVC cache, so that a commit runs without touching the working tree."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dvc.config import Config

from pipeline import paths
from pipeline.base.command import lock
from pipeline.base.errors import BadInput
from pipeline.base.files import remove
from pipeline.history import repo

FOLDER = paths.WORK / "reproduce"
CHECKPOINTS = FOLDER / "checkpoints"  # of interrupted trainings; the next run resumes from them


@contextmanager
def worktree(commit: str, archive: str) -> Iterator[Path]:
    """A commit in a git worktree below FOLDER, which is removed when the block ends.

    Leftovers of a killed run are removed first. The worktree uses this repository's cache, remotes and downloads. It is
    nested deep enough that the relative path `archive`, resolved from it, stays inside FOLDER. Raises BadInput if
    another process has a worktree there.
    """
    outside = Path(os.path.normpath(archive)).parts.count("..")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with lock(str(FOLDER)):
        clear()
        tree = Path(FOLDER.resolve(), "tree", *["up"] * outside, commit[:12])
        try:
            # Without the user's hooks, because those of `dvc install` would check out data here.
            repo.git("-c", "core.hooksPath=/dev/null", "worktree", "add", "--quiet", "--detach", str(tree), commit)
            share_cache(tree)
            CHECKPOINTS.mkdir(exist_ok=True)
            link(CHECKPOINTS, tree / paths.WORK / "checkpoints")
            link(paths.WORK / "download", tree / paths.WORK / "download")
            yield tree
        finally:
            clear()


def clear() -> None:
    """Remove the worktree in FOLDER, and its entry in git's list of worktrees."""
    folder = FOLDER.resolve() / "tree"
    remove(folder)
    for tree in repo.worktrees():
        if tree.is_relative_to(folder):
            repo.git("worktree", "remove", "--force", "--force", str(tree))


def share_cache(tree: Path) -> None:
    """Make DVC in a worktree use this repository's cache and remotes, whatever the commit's own settings are."""
    here = Config(".dvc").read()  # paths in it are absolute
    # `dvc repro --pull` fails without a remote, but not with an empty one.
    none = {"none": {"url": str(tree.parent / "none")}}
    with Config(str(tree / ".dvc")).edit("local") as local:
        local["core"] = {"remote": here["core"].get("remote", "none"), "site_cache_dir": str(tree / ".dvc/tmp/site")}
        local["cache"] = {"dir": str(Path(".dvc/cache").resolve())} | here["cache"]
        local["remote"] = none | here["remote"]


def link(source: Path, place: Path) -> None:
    """Replace `place` in a worktree by a link to `source`, if `source` exists."""
    if source.exists():
        remove(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(source.resolve())


def run_dvc(tree: Path, *arguments: str) -> None:
    """Run DVC in a worktree with the current Python; its output is shown. Raises BadInput if it fails.

    If this process is stopped, it stops DVC and its stage first and waits, so that a training writes a checkpoint.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    with subprocess.Popen(
        [*repo.DVC, *arguments],
        cwd=tree,
        env=os.environ | {"PATH": path},
        stdin=subprocess.DEVNULL,
        process_group=0,  # only this process receives a Ctrl-C, and passes it on
        close_fds=False,  # it keeps the lock if this process is killed
    ) as process:
        try:
            status = process.wait()
        except BaseException:
            stop(process)
            raise
    if status != 0:
        raise BadInput(f"`dvc {' '.join(arguments)}` failed at this commit; its output is above")


def stop(process: subprocess.Popen) -> None:
    """Interrupt a process and its children and wait; at a second interrupt, kill them."""
    with suppress(KeyboardInterrupt, ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
        process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
