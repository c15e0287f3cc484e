"""Checkpoints: everything that training needs to go on, in one file, whole or not used.

A checkpoint is an uncompressed .npz: a zip, which holds a checksum of each array, verified when it is read.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.errors import DAMAGED
from pipeline.base.files import remove, replacing
from pipeline.base.progress import say

KEPT = 2  # so that there is an earlier one where the latest is damaged


def save_checkpoint(folder: Path, step: int, arrays: dict[str, np.ndarray], state: dict[str, Any]) -> None:
    """Write the checkpoint of a step, then remove all but the last two. `state` is anything JSON holds."""
    with replacing(folder / f"step-{step:08d}.npz") as path, path.open("wb") as file:
        # The zip's checksums cover what it holds but not under which names.
        np.savez(file, allow_pickle=False, **arrays, state=np.array(json.dumps([list(arrays), state])))
    for old in list_checkpoints(folder)[:-KEPT]:
        remove(old)


def load_checkpoint(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """The arrays and the state of the latest checkpoint that is whole; None where there is none.

    A damaged one is named, removed and passed over.
    """
    for path in reversed(list_checkpoints(folder)):
        try:
            check(path)
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            names, state = json.loads(str(arrays.pop("state")))
            if names != list(arrays):
                raise ValueError("its arrays are not those it was written with")
            return arrays, state
        except DAMAGED as error:
            say(f"train: the checkpoint {path} is damaged ({error}) and was removed")
            remove(path)
    return None


def check(path: Path) -> None:
    """Compare all that a zip holds with its checksums. Raises one of DAMAGED."""
    with zipfile.ZipFile(path) as file:
        if broken := file.testzip():
            raise ValueError(f"the checksum of {broken} is another")


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(folder.glob("step-*.npz"))
