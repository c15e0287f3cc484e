"""The index, a table of the images in data/raw: their split, class, file name, boxes and twin group.

It has one row for each pair and each test image: first the pairs, class by class, then the test images, each in the
order of its masked_info.csv. The columns are COLUMNS. In data/index.csv `split` is "train" or "test"; in
data/split.csv some of the pairs are "validation".
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
    """The path of a row's masked image."""
    if row["split"] == "test":
        return raw / "Testing_Data" / row["filename"]
    return raw / "Training_Data" / row["class"] / "Masked_Train" / row["filename"]


def target_path(raw: Path, row: dict) -> Path:
    """The path of the unmasked image of a pair (a training or a validation row)."""
    return raw / "Training_Data" / row["class"] / "Unmasked_Train" / row["filename"]


def filled_path(folder: Path, row: dict) -> Path:
    """The path of a test row's filled image. Its suffix is kept before .png: two names may share a stem."""
    return folder / f"{row['filename']}.png"


def read_index(path: Path) -> pd.DataFrame:
    """Read data/index.csv or data/split.csv. Raises BadInput if it is missing."""
    if not path.exists():
        raise BadInput(f"{path} is missing; `dvc repro` makes it")
    return pd.read_csv(path, keep_default_na=False, dtype={"class": str, "filename": str})


def rows_to_fill(split: pd.DataFrame) -> pd.DataFrame:
    """The rows of data/split.csv whose images are filled: the validation pairs, then the test images."""
    return pd.concat([split[split["split"] == name] for name in ("validation", "test")])


def boxes_of(rows: pd.DataFrame) -> np.ndarray:
    """The boxes of index rows, int32 [n, 2, 2]: image, box, (row, column)."""
    return rows[BOX_COLUMNS].to_numpy(np.int32).reshape(-1, 2, 2)


def read_pairs(raw: Path, pairs: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read pairs: masked images, targets, both uint8 [n, 256, 256, 3], and boxes int32 [n, 2, 2]."""
    rows = pairs.to_dict("records")
    masked = read_images(masked_path(raw, row) for row in rows)
    return masked, read_images(target_path(raw, row) for row in rows), boxes_of(pairs)
