"""Checkpoints: everything a training needs to resume, in one file.

A checkpoint is an uncompressed .npz, a zip. Its checksum of each array is verified when it is read.
"""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.errors import Damaged, reading_zip
from pipeline.base.files import remove, replacing, sha256
from pipeline.base.progress import say

KEPT = 2  # so that there is an earlier one if the latest is damaged


def fingerprint(files: list[Path], facts: dict[str, Any]) -> str:
    """sha256 over facts and the content of files: a key for checkpoints that depend on nothing else."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for path in files:
        digest.update(sha256(path).encode())
    return digest.hexdigest()


def save_checkpoint(folder: Path, step: int, arrays: dict[str, np.ndarray], state: dict[str, Any]) -> None:
    """Write the checkpoint of a step, then remove all but the last two. `state` is anything JSON can hold."""
    with replacing(folder / f"step-{step:08d}.npz") as path, path.open("wb") as file:
        # The zip's checksums cover the arrays, but not their names.
        np.savez(file, allow_pickle=False, **arrays, state=np.array(json.dumps([list(arrays), state])))
    for old in list_checkpoints(folder)[:-KEPT]:
        remove(old)


def load_checkpoint(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """The arrays and the state of the latest undamaged checkpoint; None if there is none.

    A damaged one is moved aside with a warning that names it, never deleted.
    """
    for path in reversed(list_checkpoints(folder)):
        try:
            return read_checkpoint(path)
        except Damaged as error:
            aside = path.with_name(f"{path.name}.damaged")
            path.replace(aside)
            say(f"train: the checkpoint {path} is damaged ({error}); it is now {aside}")
    return None


def read_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the state in a file. Raises Damaged if its bytes are not what was written."""
    with reading_zip(), zipfile.ZipFile(path) as file:
        broken, found = file.testzip(), [name.removesuffix(".npy") for name in file.namelist()]
    if broken:
        raise Damaged(f"the checksum of {broken} does not match")
    if "state" not in found:
        raise Damaged("it has no entry `state`")
    with np.load(path, allow_pickle=False) as file:
        names, state = json.loads(str(file["state"]))
        if found != [*names, "state"]:
            raise Damaged("its arrays are not those it was written with")
        return {name: file[name] for name in names}, state


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(folder.glob("step-*.npz"))
