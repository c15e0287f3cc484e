"""The index: its file, its paths, its pairs."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.base.errors import BadInput
from pipeline.competition.images import read_image
from pipeline.competition.index import (
    BOX_COLUMNS,
    COLUMNS,
    boxes_of,
    filled_path,
    masked_path,
    read_index,
    read_pairs,
    target_path,
)


def rows(classes):
    """An index of training rows of these classes and a test image of the last."""
    n = len(classes)
    table = pd.DataFrame(
        {
            "split": ["train"] * (n - 1) + ["test"],
            "class": classes,
            "filename": [f"{i}.jpeg" for i in range(n)],
            **{column: [i + k for i in range(n)] for k, column in enumerate(BOX_COLUMNS)},
            "group": 0,
        }
    )
    assert list(table.columns) == COLUMNS
    return table


def test_boxes_are_image_box_row_and_column():
    boxes = boxes_of(rows(["Cat", "Dog"]))
    assert boxes.dtype == np.int32
    assert boxes.tolist() == [[[0, 1], [2, 3]], [[1, 2], [3, 4]]]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_the_paths_of_a_pair(split):
    row = {"split": split, "class": "Cat", "filename": "Cat-Train (24).jpeg"}
    assert masked_path(Path("raw"), row) == Path("raw/Training_Data/Cat/Masked_Train/Cat-Train (24).jpeg")
    assert target_path(Path("raw"), row) == Path("raw/Training_Data/Cat/Unmasked_Train/Cat-Train (24).jpeg")


def test_the_path_of_a_test_image():
    row = {"split": "test", "class": "Cat", "filename": "Cat-Train (24).jpeg"}
    assert masked_path(Path("raw"), row) == Path("raw/Testing_Data/Cat-Train (24).jpeg")


def test_two_names_of_one_stem_are_filled_apart():
    paths = {filled_path(Path("out"), {"filename": f"Cat-Train (24).{end}"}) for end in ("jpeg", "jpg", "png")}
    assert paths == {Path(f"out/Cat-Train (24).{end}.png") for end in ("jpeg", "jpg", "png")}


def test_a_written_index_is_read_unchanged(tmp_path):
    table = rows(["Cat", "NA", "007", ""])
    table.loc[0, ["split", "filename"]] = "validation", "NA (1).jpeg"
    table.to_csv(tmp_path / "index.csv", index=False)
    pd.testing.assert_frame_equal(read_index(tmp_path / "index.csv"), table)


def test_a_missing_index_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"split.csv is missing; `dvc repro` makes it"):
        read_index(tmp_path / "split.csv")


def test_pairs_are_the_files_of_their_rows(demo_competition):
    raw = demo_competition.raw
    table = pd.read_csv(raw / "Training_Data/Dog/Masked_Train/masked_info.csv", index_col=0)[:3]
    table = table.assign(split="train", **{"class": "Dog"})
    masked, target, boxes = read_pairs(raw, table)
    assert masked.shape == target.shape == (3, 256, 256, 3) and boxes.shape == (3, 2, 2)
    for n, name in enumerate(table["filename"]):
        np.testing.assert_array_equal(masked[n], read_image(raw / "Training_Data/Dog/Masked_Train" / name))
        np.testing.assert_array_equal(target[n], read_image(raw / "Training_Data/Dog/Unmasked_Train" / name))
    assert boxes[1].ravel().tolist() == table.iloc[1][BOX_COLUMNS].tolist()
