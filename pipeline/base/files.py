"""Outputs that are whole or absent: written under a temporary name beside the real one, then renamed."""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a name beside `path` for a file or folder to be written to.

    It takes the place of `path` when the block ends; when the block raises, it is removed and `path` is as it was.
    What an earlier, killed run left under a temporary name is removed first.
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
    # A folder cannot be renamed over anything, nor anything over a folder; removed in place it would be seen in part.
    if path.is_dir() or (partial.is_dir() and path.exists()):
        path.replace(old)
    partial.replace(path)
    remove(old)


def remove(path: Path) -> None:
    """Delete a file or a folder with all it holds; nothing happens where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def keep_only(folder: Path, names: list[str]) -> None:
    """Delete what is in a folder under other names; nothing happens where there is no folder."""
    for path in folder.glob("*"):
        if path.name not in names:
            remove(path)
