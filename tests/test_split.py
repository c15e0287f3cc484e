"""The pairs that are held out: whole twin groups, so that no photograph is on both sides."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import paths
from pipeline.base.errors import BadInput
from pipeline.competition.index import BOX_COLUMNS, read_index
from pipeline.split import choose_pairs, main


def table(groups, classes=None, tests=0):
    """An index of these groups and classes; its last `tests` rows are test images."""
    train = len(groups) - tests
    columns = {"split": ["train"] * train + ["test"] * tests, "class": classes or ["Cat"] * len(groups)}
    return pd.DataFrame(columns | {"group": groups})


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 30), min_size=20, max_size=80), st.integers(0, 12), st.integers(0, 99))
def test_a_split_cuts_between_groups(groups, pairs, seed):
    index = table(sorted(groups), tests=5)
    try:
        held_out = choose_pairs(index, pairs, seed)
    except BadInput:  # a group as large as that
        assert max(groups.count(group) for group in groups) > 2
        return
    train_mask = (index["split"] == "train").to_numpy()
    assert held_out.dtype == bool and held_out.shape == (len(index),)
    assert held_out.sum() >= pairs and not held_out[~train_mask].any()
    assert not set(index["group"][held_out]) & set(index["group"][train_mask & ~held_out])
    largest = max(index["group"][held_out].value_counts(), default=1)
    assert held_out.sum() - pairs < largest  # no group more than needed


def test_a_seed_decides_the_split_and_every_pair_may_be_drawn():
    index = table(list(range(100)))
    draws = np.array([choose_pairs(index, 10, seed) for seed in range(200)])
    assert (draws.sum(axis=1) == 10).all() and (draws[0] != draws[1]).any()
    assert draws.sum(axis=0).min() > 3 and draws.sum(axis=0).max() < 45  # 20 expected of each
    np.testing.assert_array_equal(draws[7], choose_pairs(index, 10, 7))
    assert np.flatnonzero(draws[7]).tolist() == [
        4,
        24,
        26,
        32,
        42,
        50,
        53,
        54,
        70,
        88,
    ]  # drawn so since the first version


def test_a_twin_of_a_test_image_may_be_drawn_but_never_the_test_image():
    index = table([0, 1, 2, 0, 1], tests=2)
    seen = {tuple(choose_pairs(index, 1, seed)) for seed in range(30)}
    assert seen == {tuple(i == n for i in range(5)) for n in range(3)}


@pytest.mark.parametrize(
    ("index", "pairs"),
    [
        (table(list(range(4))), 4),
        (table(list(range(4))), 99),
        (table([0, 0, 0, 0]), 1),
        (table(list(range(11)), ["Cat"] * 10 + ["Dog"]), 10),
    ],
)
def test_a_split_that_leaves_a_class_nothing_is_refused(index, pairs):
    refused = 0
    for seed in range(20):
        try:
            held_out = choose_pairs(index, pairs, seed)
        except BadInput as refusal:
            refused += 1
            assert str(refusal).startswith(f"holding out {pairs} of {len(index)} pairs leaves class ")
            assert "lower split.validation_pairs or split.holdout_pairs" in str(refusal)
            assert "Cat" in str(refusal) or "Dog" in str(refusal)
        else:
            assert set(index["class"][~held_out]) == set(index["class"])
    assert refused > 5 and (refused == 20 or len(index) == 11)


def test_a_split_names_the_class_it_would_empty():
    with pytest.raises(BadInput, match="2 of 12 pairs leaves class Dog nothing"):
        for seed in range(50):  # some seed takes both dogs
            choose_pairs(table([*range(10), 10, 10], ["Cat"] * 10 + ["Dog"] * 2), 2, seed)


def test_more_pairs_held_out_leave_the_validation_pairs_as_they_are(tmp_path, monkeypatch, params_file):
    monkeypatch.chdir(tmp_path)
    index = table(sorted(range(60)) * 2, tests=8).assign(filename=[f"{i}.png" for i in range(120)])
    index[BOX_COLUMNS] = 0
    paths.INDEX.parent.mkdir()
    index.to_csv(paths.INDEX, index=False)
    found = []
    for holdout in (0, 15):
        params_file(tmp_path, **{"split.validation_pairs": 10, "split.holdout_pairs": holdout})
        main()
        found.append(read_index(paths.SPLIT))
        counts = found[-1]["split"].value_counts()
        assert counts.get("holdout", 0) in (holdout, holdout + 1) and counts["validation"] in (10, 11)
        assert counts["test"] == 8 and counts.sum() == 120
        groups = found[-1][found[-1]["split"] != "test"].groupby("group")["split"].nunique()
        assert (groups == 1).all()
    first, second = (split["split"] == "validation" for split in found)
    assert (first == second).all()
