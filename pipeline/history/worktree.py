"""A commit checked out beside the working tree, with the repository's DVC cache: to run it and leave all as it was."""

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
CHECKPOINTS = FOLDER / "checkpoints"  # of trainings that were interrupted: the next run goes on from them


@contextmanager
def worktree(commit: str, archive: str) -> Iterator[Path]:
    """A commit in a git worktree below FOLDER, removed when the block ends; so is what a killed run left.

    It has this repository's cache, remotes and downloads. It stands so deep that the relative path `archive`, seen from
    there, is still in FOLDER. Raises BadInput where another process has a worktree there.
    """
    outside = Path(os.path.normpath(archive)).parts.count("..")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with lock(str(FOLDER)):
        clear()
        tree = Path(FOLDER.resolve(), "tree", *["up"] * outside, commit[:12])
        try:
            # Without the user's hooks: those of `dvc install` would check data out here.
            repo.git("-c", "core.hooksPath=/dev/null", "worktree", "add", "--quiet", "--detach", str(tree), commit)
            share_cache(tree)
            CHECKPOINTS.mkdir(exist_ok=True)
            link(CHECKPOINTS, tree / paths.WORK / "checkpoints")
            link(paths.WORK / "download", tree / paths.WORK / "download")
            yield tree
        finally:
            clear()


def clear() -> None:
    """Remove the worktree in FOLDER, and of git's list of worktrees that one alone."""
    folder = FOLDER.resolve() / "tree"
    remove(folder)
    for tree in repo.worktrees():
        if tree.is_relative_to(folder):
            repo.git("worktree", "remove", "--force", "--force", str(tree))


def share_cache(tree: Path) -> None:
    """Let DVC in a worktree use the cache and the remotes that it uses here, whatever the commit's own settings."""
    here = Config(".dvc").read()  # paths in it are absolute
    # `dvc repro --pull` fails where there is no remote, not where one is empty.
    none = {"none": {"url": str(tree.parent / "none")}}
    with Config(str(tree / ".dvc")).edit("local") as local:
        local["core"] = {"remote": here["core"].get("remote", "none"), "site_cache_dir": str(tree / ".dvc/tmp/site")}
        local["cache"] = {"dir": str(Path(".dvc/cache").resolve())} | here["cache"]
        local["remote"] = none | here["remote"]


def link(source: Path, place: Path) -> None:
    """Put a link to what is here at its place in a worktree; nothing happens where there is none."""
    if source.exists():
        remove(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(source.resolve())


def run_dvc(tree: Path, *arguments: str) -> None:
    """Run DVC in a worktree with the Python that runs now; what it prints is seen. Raises BadInput where it fails.

    When this process is stopped, DVC and the stage it runs end first: a training writes a checkpoint.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    with subprocess.Popen(
        [*repo.DVC, *arguments],
        cwd=tree,
        env=os.environ | {"PATH": path},
        stdin=subprocess.DEVNULL,
        process_group=0,  # a Ctrl-C comes to us alone, and is passed on
        close_fds=False,  # it holds the lock as well, should we be killed
    ) as process:
        try:
            status = process.wait()
        except BaseException:
            stop(process)
            raise
    if status != 0:
        raise BadInput(f"`dvc {' '.join(arguments)}` failed at this commit; what it says stands above")


def stop(process: subprocess.Popen) -> None:
    """Interrupt a process and those it started, and wait; interrupted once more, end them at once."""
    with suppress(KeyboardInterrupt, ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
        process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
