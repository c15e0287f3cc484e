"""What git and DVC know of the working tree: thin calls of both. Each raises BadInput in their own words."""

import json
import subprocess
import sys
from pathlib import Path

from pipeline import paths
from pipeline.base.errors import BadInput

DVC = (sys.executable, "-m", "dvc")


def output_of(*command: str) -> str:
    """What a command prints. Raises BadInput with its complaint where it fails or is not there."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except FileNotFoundError:
        raise BadInput(f"{command[0]} is not installed, or not on the PATH") from None
    if done.returncode != 0:
        complaint = " ".join((done.stderr or done.stdout).split())
        raise BadInput(f"`{' '.join(command).replace(' '.join(DVC), 'dvc')}` failed: {complaint}")
    return done.stdout


def git(*arguments: str) -> str:
    """What git prints, without the last line's end."""
    return output_of("git", *arguments).rstrip("\n")


def head_commit() -> str:
    """The commit that is checked out, 40 hexadecimal digits."""
    return git("rev-parse", "--verify", "HEAD")


def commit_of(tag: str) -> str | None:
    """The commit that a tag names, None where there is no such tag."""
    return git("rev-parse", "--verify", f"refs/tags/{tag}^{{commit}}") if tag in tags() else None


def check_tag(name: str, commit: str) -> None:
    """Raises BadInput where a commit cannot have a tag of this name: it is no name, or another commit's."""
    try:
        git("check-ref-format", "--branch", name)  # stricter than for a tag: nothing that looks like an option
    except BadInput:
        raise BadInput(f"git takes no tag named {name!r}; leave out spaces and signs") from None
    if (other := commit_of(name)) not in (None, commit):
        raise BadInput(f"the tag {name} is commit {other} already; choose another name, or `git tag -d {name}`")


def make_tag(name: str, commit: str) -> None:
    """Tag a commit; nothing happens where it has this tag. Raises BadInput as check_tag does."""
    check_tag(name, commit)
    if commit_of(name) is None:
        git("tag", "--no-sign", name, commit)


def uncommitted() -> list[str]:
    """The files that a checkout of HEAD would not bring back: those that differ, and new ones in pipeline/.

    The ledger is none of them, since every upload changes it.
    """
    entries = git("status", "--porcelain", "-z", "--untracked-files=all", "--no-renames").split("\0")
    known = [(entry[:2], entry[3:]) for entry in entries if entry]
    changed = [name for state, name in known if state != "??" or name.startswith("pipeline/")]
    return [name for name in changed if name != paths.LEDGER.as_posix()]


def stale(stage: str) -> list[str]:
    """The stages whose code, settings, inputs or outputs changed, of `stage` and those that lead to it."""
    return list(json.loads(output_of(*DVC, "status", "--json", "--with-deps", stage)))


def tags() -> list[str]:
    """All tags, in order of their names."""
    return git("tag", "--list", "--format=%(refname:lstrip=2)").splitlines()


def file_at(commit: str, path: str) -> str | None:
    """The text of a file in a commit, None where it has none."""
    return git("show", f"{commit}:{path}") if git("ls-tree", "--name-only", commit, "--", path) else None


def worktrees() -> list[Path]:
    """The folders of the repository's worktrees, the main one among them, there or not."""
    lines = git("worktree", "list", "--porcelain").splitlines()
    return [Path(line.removeprefix("worktree ")) for line in lines if line.startswith("worktree ")]
