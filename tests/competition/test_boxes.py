"""Holes, cut, paste and turns, each compared with a plain loop."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.competition.boxes import (
    BOX,
    LAST,
    TURNS,
    cut,
    hole_mask,
    paste,
    put,
    turn_boxes,
    turn_image,
    unknown_mask,
)
from pipeline.competition.images import SIZE

BOXES = np.array(
    [
        [[0, 0], [181, 181]],  # two corners, apart
        [[181, 0], [0, 181]],  # the other two
        [[40, 50], [90, 100]],  # overlapping
        [[7, 9], [7, 9]],  # the same twice
        [[20, 30], [95, 30]],  # touching, one below the other
        [[0, 106], [0, 181]],  # touching, side by side
    ],
    np.int32,
)


def pictures(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8)


def plain_hole(boxes, side=75):
    hole = [[False] * SIZE for _ in range(SIZE)]
    for row, column in boxes.tolist():
        for i in range(row, row + side):
            for j in range(column, column + side):
                hole[i][j] = True
    return np.array(hole)


def test_the_numbers_are_the_competitions():
    assert (SIZE, BOX, LAST) == (256, 75, 181)


def test_a_hole_is_the_union_of_both_boxes():
    holes = hole_mask(BOXES)
    assert holes.shape == (len(BOXES), SIZE, SIZE) and holes.dtype == bool
    for boxes, ours in zip(BOXES, holes, strict=True):
        np.testing.assert_array_equal(ours, plain_hole(boxes))


@pytest.mark.parametrize(("number", "pixels"), [(0, 11250), (2, 11250 - 25 * 25), (3, 5625), (4, 11250), (5, 11250)])
def test_the_size_of_a_hole(number, pixels):
    assert hole_mask(BOXES[number : number + 1]).sum() == pixels


def test_cut_takes_the_boxes_pixels():
    images = pictures(len(BOXES))
    parts = cut(images, BOXES)
    assert parts.shape == (len(BOXES), 2, BOX, BOX, 3) and parts.dtype == np.uint8
    for n, boxes in enumerate(BOXES.tolist()):
        for b, (row, column) in enumerate(boxes):
            for i in range(75):
                for j in range(75):
                    assert (parts[n, b, i, j] == images[n, row + i, column + j]).all()


def test_cut_counts_an_overlap_twice():
    images = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    images[0, 100, 110] = 1  # in both boxes of BOXES[2]
    images[0, 45, 55] = 1  # in the first alone
    parts = cut(images, BOXES[2:3])
    assert parts.sum() == (2 + 1) * 3
    assert (parts[0, 0, 60, 60] == 1).all() and (parts[0, 1, 10, 10] == 1).all()


def test_cut_keeps_the_type():
    assert cut(pictures(1) / 255, BOXES[:1]).dtype == np.float64


def test_paste_keeps_known_pixels():
    filled, masked = pictures(len(BOXES), 1), pictures(len(BOXES), 2)
    masked[hole_mask(BOXES)] = 0
    pasted = paste(filled, masked, BOXES)
    assert pasted.dtype == np.uint8
    for n, boxes in enumerate(BOXES):
        hole = plain_hole(boxes)
        np.testing.assert_array_equal(pasted[n][hole], filled[n][hole])
        np.testing.assert_array_equal(pasted[n][~hole], masked[n][~hole])


def plain_turn(image, turn):
    """Where each pixel goes, from the definition: quarter turns counter-clockwise, or left to right."""
    result = np.empty_like(image)
    for i in range(SIZE):
        for j in range(SIZE):
            at = {
                "original": (i, j),
                "flip": (i, SIZE - 1 - j),
                "rot90": (SIZE - 1 - j, i),
                "rot180": (SIZE - 1 - i, SIZE - 1 - j),
                "rot270": (j, SIZE - 1 - i),
            }[turn]
            result[at] = image[i, j]
    return result


def test_the_five_turns():
    assert list(TURNS) == ["original", "flip", "rot90", "rot180", "rot270"]


@pytest.mark.parametrize("turn", TURNS)
def test_an_image_turns(turn):
    image = pictures(1)[0]
    turned = turn_image(image, turn)
    np.testing.assert_array_equal(turned, plain_turn(image, turn))
    assert turned.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("turn", TURNS)
def test_turned_boxes_make_the_turned_hole(turn):
    boxes = np.random.default_rng(1).integers(0, LAST + 1, (40, 2, 2)).astype(np.int32)
    boxes = np.concatenate([BOXES, boxes])
    turned = turn_boxes(boxes, turn)
    assert turned.shape == boxes.shape and turned.min() >= 0 and turned.max() <= LAST
    for before, after in zip(hole_mask(boxes), hole_mask(turned), strict=True):
        np.testing.assert_array_equal(turn_image(before.astype(np.uint8), turn), after)


@pytest.mark.parametrize("turn", TURNS)
def test_a_box_stays_the_first_or_the_second(turn):
    image = pictures(1)[0]
    one, two = cut(turn_image(image, turn)[None], turn_boxes(BOXES[:1], turn))[0]
    before = cut(image[None], BOXES[:1])[0]
    assert sorted(one.ravel()) == sorted(before[0].ravel()) and sorted(two.ravel()) == sorted(before[1].ravel())


@pytest.mark.parametrize("turn", TURNS)
def test_one_images_boxes_turn_as_a_batch_does(turn):
    np.testing.assert_array_equal(turn_boxes(BOXES[2], turn), turn_boxes(BOXES, turn)[2])


def test_put_reverses_cut():
    """Also if the two boxes overlap or are the same."""
    rng = np.random.default_rng(4)
    images, masked = rng.integers(0, 256, (2, 5, SIZE, SIZE, 3), dtype=np.uint8)
    boxes = rng.integers(0, LAST + 1, (5, 2, 2))
    boxes[0, 1], boxes[1, 1] = boxes[0, 0], np.clip(boxes[1, 0] + 20, 0, LAST)
    before = masked.copy()
    found = put(cut(images, boxes), masked, boxes)
    assert (found == np.where(hole_mask(boxes)[..., None], images, masked)).all() and (masked == before).all()


CORNERS = st.tuples(*[st.integers(0, LAST)] * 4)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(CORNERS, min_size=1, max_size=3))
def test_cut_reverses_put_and_known_pixels_stay(corners):
    """All of the second box; the part of the first that the second, written later, does not overwrite."""
    boxes = np.array(corners).reshape(-1, 2, 2)
    masked = pictures(len(boxes), 1)
    values = np.random.default_rng(2).integers(0, 256, (len(boxes), 2, BOX, BOX, 3), dtype=np.uint8)
    found = put(values, masked, boxes)
    assert found.dtype == np.uint8
    again = cut(found, boxes)
    np.testing.assert_array_equal(again[:, 1], values[:, 1])
    for n, (first, second) in enumerate(boxes):
        alone = plain_hole(first[None]) & ~plain_hole(second[None])
        seen = alone[first[0] : first[0] + BOX, first[1] : first[1] + BOX]
        np.testing.assert_array_equal(again[n, 0][seen], values[n, 0][seen])
        known = ~plain_hole(boxes[n])
        np.testing.assert_array_equal(found[n][known], masked[n][known])
    np.testing.assert_array_equal(put(again, masked, boxes), found)


def encoded(image: np.ndarray) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpeg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1], cv2.IMREAD_COLOR)


@pytest.mark.parametrize("side", [74, 75])
@pytest.mark.parametrize("level", [0, 6, 30, 128, 255])
def test_the_last_row_and_column_of_a_box_are_known_if_the_image_shows_them(side, level):
    """As in the real test images, which are black in 74 of a box's 75 rows and columns."""
    noise = np.random.default_rng(0).normal(0, 10, (len(BOXES), SIZE, SIZE, 3))
    images = np.clip(level + noise, 0, 255).astype(np.uint8)
    black = np.stack([plain_hole(boxes, side) for boxes in BOXES])
    masked = np.stack([encoded(np.where(hole[..., None], 0, image)) for hole, image in zip(black, images, strict=True)])
    found = unknown_mask(masked, BOXES)
    assert found.dtype == bool and not (found & ~hole_mask(BOXES)).any()
    if level > 6:  # on a black photograph both are right
        np.testing.assert_array_equal(found, black)
    np.testing.assert_array_equal(paste(np.full_like(masked, 7), masked, BOXES)[~found], masked[~found])


def test_an_image_of_one_grey_level_keeps_its_holes_if_nothing_is_around_them():
    """Both boxes in the lower right corner, where no row and column come after them."""
    boxes = np.array([[[LAST, LAST], [LAST, LAST]]])
    for level in (0, 200):
        masked = np.full((1, SIZE, SIZE, 3), level, np.uint8)
        np.testing.assert_array_equal(unknown_mask(masked, boxes), hole_mask(boxes))
