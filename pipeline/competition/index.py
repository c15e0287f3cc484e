"""What is in data/raw: training pairs and test images with class, boxes and twin group.

The index is a table with one row an image, the training pairs first, class by class, then the test images, each in
the order of its masked_info.csv. Its columns are COLUMNS; data/index.csv holds it.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.base.errors import BadInput
from pipeline.competition.images import read_images

BOX_COLUMNS = ["box1_row", "box1_col", "box2_row", "box2_col"]
TABLE = "masked_info.csv"
COLUMNS = ["split", "class", "filename", *BOX_COLUMNS, "group"]


def masked_path(raw: Path, row: dict) -> Path:
    """Where the masked image of an index row lies."""
    if row["split"] == "test":
        return raw / "Testing_Data" / row["filename"]
    return raw / "Training_Data" / row["class"] / "Masked_Train" / row["filename"]


def target_path(raw: Path, row: dict) -> Path:
    """Where the whole image of a training row lies."""
    return raw / "Training_Data" / row["class"] / "Unmasked_Train" / row["filename"]


def filled_path(folder: Path, row: dict) -> Path:
    """Where the filled image of a test row lies: the whole name and .png, since two names may share a stem."""
    return folder / f"{row['filename']}.png"


def read_index(path: Path) -> pd.DataFrame:
    """data/index.csv as the fetch stage wrote it."""
    if not path.exists():
        raise BadInput(f"{path} is missing; `dvc repro fetch` makes it")
    return pd.read_csv(path, keep_default_na=False, dtype={"class": str, "filename": str})


def boxes_of(rows: pd.DataFrame) -> np.ndarray:
    """The boxes of index rows, int32 [n, 2, 2]: (image, box, (row, column))."""
    return rows[BOX_COLUMNS].to_numpy(np.int32).reshape(-1, 2, 2)


def read_pairs(raw: Path, pairs: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The masked and the whole images of training rows, uint8 [n, 256, 256, 3], and their boxes [n, 2, 2]."""
    rows = pairs.to_dict("records")
    masked = read_images(masked_path(raw, row) for row in rows)
    return masked, read_images(target_path(raw, row) for row in rows), boxes_of(pairs)


def split_validation(rows: pd.DataFrame, pairs: int, seed: int) -> np.ndarray:
    """Which training rows are held out: bool [len(rows)], at least `pairs` of them.

    Whole twin groups are drawn in random order, those of a test image among them as any other, so no photograph is
    on both sides. Raises BadInput where a class would keep no image to train on.
    """
    train = (rows["split"] == "train").to_numpy()
    groups = rows["group"].to_numpy()
    held = np.zeros(len(rows), bool)
    for group in np.random.default_rng(seed).permutation(np.unique(groups[train])):
        if held.sum() >= pairs:
            break
        held |= train & (groups == group)
    for kind in rows["class"][train].unique():
        if not (train & ~held & (rows["class"] == kind)).any():
            raise BadInput(
                f"train.validation_pairs: {pairs} of {train.sum()} pairs leave the class {kind} nothing to train on"
            )
    return held
