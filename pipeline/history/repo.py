"""Thin wrappers of git and DVC commands. Each raises BadInput with the message of git or DVC."""

import json
import os
import subprocess
import sys

from pipeline import paths
from pipeline.base.errors import BadInput

OTHER_REPOSITORY = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX")  # set in git's hooks
DVC = (sys.executable, "-m", "dvc")


def output_of(*command: str) -> str:
    """A command's stdout. Raises BadInput with its error message if it fails or is not installed."""
    try:
        done = subprocess.run(
            command,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
        )
    except FileNotFoundError:
        raise BadInput(f"{command[0]} is not installed, or not on the PATH") from None
    if done.returncode != 0:
        complaint = " ".join((done.stderr or done.stdout).split())
        raise BadInput(f"`{' '.join(command).replace(' '.join(DVC), 'dvc')}` failed: {complaint}")
    return done.stdout


def environment() -> dict[str, str]:
    """The environment without the variables that have git use another repository than this folder's."""
    return {name: value for name, value in os.environ.items() if name not in OTHER_REPOSITORY}


def git(*arguments: str) -> str:
    """The output of a git command, without the last newline."""
    return output_of("git", *arguments).rstrip("\n")


def head_commit() -> str:
    """The commit that is checked out, as 40 hexadecimal digits."""
    return git("rev-parse", "--verify", "HEAD")


def commit_of(tag: str) -> str | None:
    """The commit of a tag; None if there is no such tag."""
    return git("rev-parse", "--verify", f"refs/tags/{tag}^{{commit}}") if tag in tags() else None


def check_tag(name: str, commit: str) -> None:
    """Raise BadInput if the name is not valid, or if another commit has this tag."""
    try:
        git("check-ref-format", "--branch", name)  # stricter than for tags: no leading dash
    except BadInput:
        raise BadInput(f"{name!r} is not a valid tag name; leave out spaces and special characters") from None
    if (other := commit_of(name)) not in (None, commit):
        raise BadInput(f"the tag {name} already names commit {other}; choose another name, or `git tag -d {name}`")


def make_tag(name: str, commit: str) -> None:
    """Tag a commit, unless it has this tag already. Raises BadInput as check_tag does."""
    check_tag(name, commit)
    if commit_of(name) is None:
        git("tag", "--no-sign", name, commit)


def uncommitted() -> list[str]:
    """The files that a checkout of HEAD would not restore: changed ones, and new ones in pipeline/.

    The ledger does not count, because every upload changes it.
    """
    entries = git("status", "--porcelain", "-z", "--untracked-files=all", "--no-renames").split("\0")
    known = [(entry[:2], entry[3:]) for entry in entries if entry]
    changed = [name for state, name in known if state != "??" or name.startswith("pipeline/")]
    return [name for name in changed if name != paths.LEDGER.as_posix()]


def stale(stage: str) -> list[str]:
    """The stages up to and including `stage` whose code, settings, inputs or outputs changed."""
    return list(json.loads(output_of(*DVC, "status", "--json", "--with-deps", stage)))


def tags() -> list[str]:
    """All tags, sorted by name."""
    return git("tag", "--list", "--format=%(refname:lstrip=2)").splitlines()


def file_at(commit: str, path: str) -> str | None:
    """The text of a file in a commit; None if the commit does not have it."""
    return git("show", f"{commit}:{path}") if git("ls-tree", "--name-only", commit, "--", path) else None
