"""Twins: found over the pixels known in both, however they were encoded, and joined into groups."""

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.archive.check import check_images
from pipeline.archive.tables import list_images
from pipeline.competition.boxes import BOX, LAST
from pipeline.competition.images import SIZE
from pipeline.competition.index import BOX_COLUMNS, masked_path, target_path
from pipeline.demo.competition import draw_competition
from pipeline.twins.groups import DISTANCE, SHARED, distance, group, group_twins, known_cells, thumbnail, twin_pairs


def photograph(seed):
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)


def encoded(image, quality):
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def masked(image, boxes):
    image = image.copy()
    for row, column in boxes:
        image[row : row + BOX, column : column + BOX] = 0
    return image


def everything(n):
    return np.ones((n, 32, 32), bool)


def pairs_of(images, known=None, **options):
    thumbnails = np.stack([thumbnail(image) for image in images])
    return twin_pairs(thumbnails, everything(len(images)) if known is None else known, **options).tolist()


def test_a_thumbnail_is_the_mean_of_each_8_x_8():
    image = photograph(0)
    small = thumbnail(image)
    assert small.shape == (32, 32, 3) and small.dtype == np.float32
    means = image.reshape(32, 8, 32, 8, 3).astype(float).mean(axis=(1, 3)) / 255
    np.testing.assert_allclose(small, means, atol=1e-6)


def test_known_cells_are_those_no_box_touches():
    boxes = np.random.default_rng(0).integers(0, LAST + 1, (20, 2, 2))
    boxes[0] = [[0, 0], [181, 181]]
    boxes[1] = [[8, 16], [88, 96]]
    cells = known_cells(boxes)
    assert cells.shape == (20, 32, 32) and cells.dtype == bool
    for ours, (one, two) in zip(cells, boxes.tolist(), strict=True):
        for i in range(32):
            for j in range(32):
                touched = any(
                    row < 8 * i + 8 and 8 * i < row + 75 and column < 8 * j + 8 and 8 * j < column + 75
                    for row, column in (one, two)
                )
                assert ours[i, j] == (not touched)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.copy(),
        lambda image: encoded(image, 95),
        lambda image: encoded(image, 40),
        lambda image: np.clip(image.astype(int) + 6, 0, 255).astype(np.uint8),
        lambda image: cv2.resize(image[1:-1, 2:], (SIZE, SIZE)),
    ],
    ids=["the same", "quality 95", "quality 40", "lighter", "cropped"],
)
def test_a_photograph_is_found_again(change):
    images = [photograph(1), photograph(2), change(photograph(1)), photograph(3)]
    assert pairs_of(images) == [[0, 2]]


def test_strangers_are_no_twins():
    assert pairs_of([photograph(seed) for seed in range(40)]) == []


@pytest.mark.parametrize(
    "change", [lambda image: image[:, ::-1], lambda image: image[..., ::-1], lambda image: 255 - image]
)
def test_a_changed_photograph_is_another(change):
    assert pairs_of([photograph(1), change(photograph(1))]) == []


def test_one_image_has_no_pair():
    assert pairs_of([photograph(0)]) == []


def test_the_pixels_in_a_hole_do_not_matter():
    boxes = np.array([[[10, 20], [100, 150]], [[160, 3], [40, 60]]])
    images = [photograph(1), masked(photograph(1), boxes[0]), masked(encoded(photograph(1), 80), boxes[1])]
    known = everything(3)
    assert pairs_of(images, known) == []  # black holes make them differ
    known[1:] = known_cells(boxes)
    assert pairs_of(images, known) == [[0, 1], [0, 2], [1, 2]]


def test_the_pixels_outside_a_hole_matter():
    boxes = np.array([[[10, 20], [100, 150]]])
    other = photograph(1)
    other[200:] = 255 - other[200:]
    known = everything(3)
    known[1:] = known_cells(boxes)
    assert pairs_of([photograph(1), masked(photograph(1), boxes[0]), masked(other, boxes[0])], known) == [[0, 1]]


@pytest.mark.parametrize(("shared", "found"), [(SHARED - 1, False), (SHARED, True)])
def test_too_few_shared_pixels_are_not_compared(shared, found):
    known = np.zeros((2, 32 * 32), bool)
    known[0, :600] = True
    known[1, 600 - shared : 600 - shared + 600] = True
    assert (known[0] & known[1]).sum() == shared
    assert pairs_of([photograph(1), photograph(1)], known.reshape(2, 32, 32)) == ([[0, 1]] if found else [])


@pytest.mark.parametrize(("step", "found"), [(0.99, True), (1.01, False)])
def test_the_distance_is_exact(step, found):
    one = np.full((32, 32, 3), 0.5, np.float32)
    both = np.stack([one, one + np.float32(DISTANCE * step)])
    assert distance(both, everything(2), 0, 1) == pytest.approx(DISTANCE * step, abs=1e-6)
    assert twin_pairs(both, everything(2)).tolist() == ([[0, 1]] if found else [])


def test_the_distance_by_hand():
    thumbnails = np.zeros((2, 32, 32, 3), np.float32)
    thumbnails[1, 0, 0] = 0.3
    thumbnails[1, 0, 1] = 0.9
    known = np.zeros((2, 32, 32), bool)
    known[0, 0, :3] = known[1, 0, [0, 2]] = True
    assert distance(thumbnails, known, 0, 1) == pytest.approx(np.sqrt(0.3**2 / 2), abs=1e-6)


def test_pairs_equal_those_of_the_plain_loop_for_any_block():
    rng = np.random.default_rng(4)
    base = rng.random((12, 32, 32, 3))
    noise = rng.random(60)[:, None, None, None] * 0.15 * rng.standard_normal((60, 32, 32, 3))
    thumbnails = np.clip(base[rng.integers(0, 12, 60)] + noise, 0, 1).astype(np.float32)
    known = known_cells(rng.integers(0, LAST + 1, (60, 2, 2)))
    expected = [
        [a, b]
        for a in range(60)
        for b in range(a + 1, 60)
        if np.sqrt(((thumbnails[a] - thumbnails[b])[known[a] & known[b]].astype(float) ** 2).mean()) <= DISTANCE
    ]
    assert 10 < len(expected) < 400
    for block in (1, 7, 60, 512):
        assert twin_pairs(thumbnails, known, block).tolist() == expected


def test_a_group_connects_through_others():
    assert group(np.array([[3, 4], [0, 1], [1, 4]]), 7).tolist() == [0, 0, 2, 0, 0, 5, 6]


def test_without_pairs_every_image_is_alone():
    assert group(np.empty((0, 2), int), 3).tolist() == [0, 1, 2]
    assert group(np.empty((0, 2), int), 0).tolist() == []


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(1, 25).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_groups_are_the_connected_components(case):
    n, pairs = case
    expected = list(range(n))
    for _ in range(n):  # the least number spreads along every pair until all have it
        for a, b in pairs:
            expected[a] = expected[b] = min(expected[a], expected[b])
    assert group(np.array(pairs, int).reshape(-1, 2), n).tolist() == expected


def test_a_chain_of_near_images_is_one_group():
    """The first and the last differ by more than DISTANCE, each from the next by less."""
    row = [np.full((SIZE, SIZE, 3), 60 + 12 * n, np.uint8) for n in range(5)]
    assert pairs_of(row) == [[0, 1], [1, 2], [2, 3], [3, 4]]
    assert group(np.array(pairs_of(row)), 5).tolist() == [0] * 5


def test_the_hole_of_a_test_image_is_left_out_and_that_of_a_pair_is_not():
    boxes = np.array([[10, 20], [100, 150]])
    thumbnails = np.stack([thumbnail(photograph(2)), thumbnail(photograph(1)), thumbnail(masked(photograph(1), boxes))])
    rows = pd.DataFrame([boxes.ravel()] * 3, columns=BOX_COLUMNS)
    groups = group_twins(rows.assign(split=["train", "train", "test"]), thumbnails)
    assert groups.dtype == np.int64 and groups.tolist() == [0, 1, 1]
    assert group_twins(rows.assign(split="train"), thumbnails).tolist() == [0, 1, 2]


def test_groups_are_the_twins_drawn(tmp_path):
    """In each class the last pair repeats the first; test images repeat pairs from the last but one backwards."""
    raw, truth = tmp_path / "raw", tmp_path / "truth"
    raw.mkdir()
    truth.mkdir()
    drawn = draw_competition(raw, truth, 20, 22, seed=3)
    rows = list_images(raw)
    groups = group_twins(rows, np.stack(check_images(raw, rows, thumbnail)))
    records = rows.to_dict("records")
    paths = [(masked_path if row["split"] == "test" else target_path)(raw, row) for row in records]
    order = [paths.index(path) for path in drawn]
    pairs = [(20 * k + 19, 20 * k) for k in range(4)] + [(80 + n, 20 * (n % 4) + 18 - n // 4) for n in range(5)]
    expected = group(np.array([[order[a], order[b]] for a, b in pairs]), len(rows))
    assert groups.tolist() == expected.tolist()
