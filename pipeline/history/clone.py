"""A git clone that shares the repository's DVC cache, so that a commit runs without touching the working tree."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dvc.config import Config
from dvc.config_schema import RelPath

from pipeline import paths
from pipeline.base.command import lock
from pipeline.base.errors import BadInput
from pipeline.base.files import remove
from pipeline.history import repo

FOLDER = paths.WORK / "reproduce"
NO_REMOTE = "none"  # `dvc repro --pull` fails without a remote, but not with an empty one
CHECKPOINTS = FOLDER / "checkpoints"  # of interrupted trainings; the next run resumes from them


@contextmanager
def clone(commit: str, archive: str) -> Iterator[Path]:
    """A commit in a git clone below FOLDER, which is removed when the block ends.

    Leftovers of a killed run are removed first. The clone uses this repository's cache, remotes and downloads. It is
    nested deep enough that the relative path `archive`, resolved from it, stays inside FOLDER. Raises BadInput if
    another process has a clone there.
    """
    outside = Path(os.path.normpath(archive)).parts.count("..")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with lock(str(FOLDER)):
        top = FOLDER.resolve() / "tree"
        tree = Path(top, *["up"] * outside, commit[:12])
        remove(top)
        try:
            check_out(commit, tree)
            share_cache(tree)
            CHECKPOINTS.mkdir(exist_ok=True)
            link(CHECKPOINTS, tree / paths.WORK / "checkpoints")
            link(paths.WORK / "download", tree / paths.WORK / "download")
            yield tree
        finally:
            remove(top)


def check_out(commit: str, tree: Path) -> None:
    """Clone this repository and check a commit out, whatever the user's git settings are.

    Not a git worktree: DVC cannot use one of a submodule.
    """
    # Without the hooks of `dvc install`, which check out data, and with the line ends of the commit.
    settings = ("core.hooksPath=/dev/null", "core.autocrlf=false", "core.eol=lf", "advice.detachedHead=false")
    options = [word for setting in settings for word in ("--config", setting)]
    repo.git("clone", "--quiet", "--shared", "--no-checkout", "--template=", *options, ".", str(tree))
    repo.git("-C", str(tree), "checkout", "--quiet", "--detach", commit)


def share_cache(tree: Path) -> None:
    """Make DVC in a clone use this repository's cache and remotes, whatever the commit's own settings are."""
    here = Config(".dvc").read()  # paths in it are absolute
    # RelPath is written as a relative path: DVC writes no letters outside ASCII, which an absolute path may have.
    none = {NO_REMOTE: {"url": RelPath(tree.parent / NO_REMOTE)}}
    with Config(str(tree / ".dvc")).edit("local") as local:
        local["core"] = {"remote": here["core"].get("remote", NO_REMOTE)}
        local["cache"] = {"dir": RelPath(Path(".dvc/cache").resolve())} | here["cache"]
        local["remote"] = none | here["remote"]


def link(source: Path, place: Path) -> None:
    """Replace `place` in a clone by a link to `source`, if `source` exists."""
    if source.exists():
        remove(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(source.resolve())


def run_dvc(tree: Path, *arguments: str) -> None:
    """Run DVC in a clone with the current Python; its output is shown. Raises BadInput if it fails.

    If this process is stopped, it stops DVC and its stage first and waits, so that a training writes a checkpoint.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # DVC would ignore it too, and stop() wait for its end
        signal.signal(signal.SIGINT, lambda *_: None)
    with subprocess.Popen(
        [*repo.DVC, *arguments],
        cwd=tree,
        env=repo.environment() | {"PATH": path, "DVC_SITE_CACHE_DIR": str(tree / ".dvc/tmp/site")},
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
