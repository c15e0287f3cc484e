"""Outputs that are complete or absent: written under a temporary name beside the real one, then renamed."""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path`, where the block writes a file or a folder.

    When the block ends, it replaces `path`. When the block raises, it is removed and `path` stays unchanged. Temporary
    files of an earlier, killed run are removed first.
    """
    partial, old = (path.with_name(path.name + end) for end in (".partial", ".old.partial"))
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(partial)
    remove(old)
    try:
        yield partial
    except BaseException:
        remove(partial)
        raise
    # Nothing can be renamed over a folder, and a folder over nothing; while being removed it would be seen in part.
    if path.is_dir() or (partial.is_dir() and path.exists()):
        path.replace(old)
    partial.replace(path)
    remove(old)


def remove(path: Path) -> None:
    """Delete a file or a folder and everything in it, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def keep_only(folder: Path, names: list[str]) -> None:
    """Delete everything in a folder, if it exists, but these names."""
    for path in folder.glob("*"):
        if path.name not in names:
            remove(path)
