"""The index: its file, its paths, and a validation split that no photograph is on both sides of."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    split_validation,
    target_path,
)


def rows(groups, kinds=None, tests=0):
    """An index: training rows of these groups and classes, the last `tests` of them test images."""
    n = len(groups)
    table = pd.DataFrame(
        {
            "split": ["train"] * (n - tests) + ["test"] * tests,
            "class": kinds or ["Cat"] * n,
            "filename": [f"{i}.jpeg" for i in range(n)],
            **{column: [n % 181 for n in range(i, n + i)] for i, column in enumerate(BOX_COLUMNS)},
            "group": groups,
        }
    )
    assert list(table.columns) == COLUMNS
    return table


def test_boxes_are_image_box_row_and_column():
    boxes = boxes_of(rows([0, 1]))
    assert boxes.dtype == np.int32
    assert boxes.tolist() == [[[0, 1], [2, 3]], [[1, 2], [3, 4]]]


def test_where_an_image_lies():
    train = {"split": "train", "class": "Cat", "filename": "Cat-Train (24).jpeg"}
    test = {"split": "test", "class": "Cat", "filename": "Cat-Train (24).jpeg"}
    raw = Path("raw")
    assert masked_path(raw, train) == raw / "Training_Data" / "Cat" / "Masked_Train" / "Cat-Train (24).jpeg"
    assert target_path(raw, train) == raw / "Training_Data" / "Cat" / "Unmasked_Train" / "Cat-Train (24).jpeg"
    assert masked_path(raw, test) == raw / "Testing_Data" / "Cat-Train (24).jpeg"


def test_two_names_of_one_stem_are_filled_apart():
    paths = {filled_path(Path("out"), {"filename": f"Cat-Train (24).{end}"}) for end in ("jpeg", "jpg", "png")}
    assert paths == {Path(f"out/Cat-Train (24).{end}.png") for end in ("jpeg", "jpg", "png")}


def test_the_file_comes_back_as_it_was(tmp_path):
    table = rows([0, 0, 2], ["Cat", "NA", ""], tests=1)
    table.loc[0, "filename"] = "NA (1).jpeg"
    table.to_csv(tmp_path / "index.csv", index=False)
    pd.testing.assert_frame_equal(read_index(tmp_path / "index.csv"), table)


def test_a_class_stays_text(tmp_path):
    rows([0, 1], ["007", "007"]).to_csv(tmp_path / "index.csv", index=False)
    assert list(read_index(tmp_path / "index.csv")["class"]) == ["007", "007"]


def test_a_missing_index_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"index.csv is missing; `dvc repro fetch` makes it"):
        read_index(tmp_path / "index.csv")


def test_pairs_are_the_files_of_their_rows(demo_competition):
    raw = demo_competition.raw
    table = pd.read_csv(raw / "Training_Data/Dog/Masked_Train/masked_info.csv", index_col=0)[:3]
    table = table.assign(split="train", **{"class": "Dog"})
    masked, whole, boxes = read_pairs(raw, table)
    assert masked.shape == whole.shape == (3, 256, 256, 3) and boxes.shape == (3, 2, 2)
    for n, name in enumerate(table["filename"]):
        np.testing.assert_array_equal(masked[n], read_image(raw / "Training_Data/Dog/Masked_Train" / name))
        np.testing.assert_array_equal(whole[n], read_image(raw / "Training_Data/Dog/Unmasked_Train" / name))
    assert boxes[1].ravel().tolist() == table.iloc[1][BOX_COLUMNS].tolist()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 30), min_size=20, max_size=80), st.integers(1, 12), st.integers(0, 99))
def test_a_split_cuts_between_groups(groups, pairs, seed):
    table = rows(sorted(groups), tests=5)
    try:
        held = split_validation(table, pairs, seed)
    except BadInput:  # a group as large as that
        assert max(groups.count(group) for group in groups) > 2
        return
    train = (table["split"] == "train").to_numpy()
    assert held.dtype == bool and held.shape == (len(table),)
    assert held.sum() >= pairs and not held[~train].any()
    assert not set(table["group"][held]) & set(table["group"][train & ~held])
    assert held.sum() - pairs < max(table["group"][held].value_counts())  # no group more than it takes


def test_a_split_is_that_of_its_seed():
    table = rows(list(range(200)))
    first = split_validation(table, 20, 7)
    np.testing.assert_array_equal(first, split_validation(table, 20, 7))
    assert first.sum() == 20
    assert (first != split_validation(table, 20, 8)).any()


def test_a_split_is_drawn_over_all_the_rows():
    held = np.zeros(100, int)
    for seed in range(200):
        held += split_validation(rows(list(range(100))), 10, seed)
    assert held.min() > 3 and held.max() < 45  # 20 expected of each


def test_a_twin_of_a_test_image_may_be_held_but_never_the_test_image():
    table = rows([0, 1, 2, 0, 1], tests=2)
    seen = [tuple(split_validation(table, 1, seed)) for seed in range(30)]
    assert set(seen) == {tuple(i == n for i in range(5)) for n in range(3)}


@pytest.mark.parametrize(
    ("table", "pairs"),
    [
        (rows(list(range(4))), 4),
        (rows(list(range(4))), 99),
        (rows([0, 0, 0, 0]), 1),
        (rows(list(range(11)), ["Cat"] * 10 + ["Dog"]), 10),
    ],
)
def test_a_split_that_leaves_a_class_nothing_is_refused(table, pairs):
    refused = 0
    for seed in range(20):
        try:
            held = split_validation(table, pairs, seed)
        except BadInput as refusal:
            refused += 1
            assert "train.validation_pairs" in str(refusal) and str(pairs) in str(refusal)
            assert "Cat" in str(refusal) or "Dog" in str(refusal)
        else:
            assert set(table["class"][~held]) == set(table["class"])
    assert refused > 5 and (refused == 20 or len(table) == 11)


def test_a_split_names_the_class_it_would_empty():
    with pytest.raises(BadInput, match="2 of 12 pairs leave the class Dog nothing"):
        for seed in range(50):  # whichever of them takes both
            split_validation(rows([*range(10), 10, 10], ["Cat"] * 10 + ["Dog"] * 2), 2, seed)
