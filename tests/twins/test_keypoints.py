"""Candidates by keypoints: where the photograph lies, whatever its crop, and no more than agree."""

import cv2
import numpy as np
import pytest

from pipeline.competition.boxes import hole_mask
from pipeline.competition.images import SIZE
from pipeline.twins import keypoints
from tests.twins.test_fill import BIG, BOXES, STRANGERS, TARGET, masked, resized

KNOWN = ~hole_mask(BOXES)


def search(image: np.ndarray, others: list[np.ndarray], own: int = -1) -> list[keypoints.Match]:
    return keypoints.search(masked(image), KNOWN, list(map(keypoints.detect, others)), np.array([own]))[0]


def cropped(left: float, top: float, length: float) -> np.ndarray:
    """A square part of the target, resized as a photograph of its own."""
    return resized(TARGET[int(top) : int(top + length), int(left) : int(left + length)])


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("left", "top", "length"), [(0, 0, BIG), (20, 60, 310), (150, 30, 240), (0, 90, 200)])
def test_a_crop_is_found_where_it_lies(left, top, length, mirrored):
    other = cropped(left, top, length)
    if mirrored:
        other = np.ascontiguousarray(other[:, ::-1])
    match = max(search(resized(TARGET), [*STRANGERS, other]), key=lambda one: one.agreeing)
    assert match.image == len(STRANGERS) and match.agreeing >= keypoints.LEAST
    scale = BIG / length
    for x, y in ((100.0, 100.0), (200.0, 150.0)):
        there = match.matrix @ [x, y, 1]
        expected = [(at + 0.5) * scale - first * scale * SIZE / BIG - 0.5 for at, first in ((x, left), (y, top))]
        if mirrored:
            expected[0] = SIZE - 1 - expected[0]
        np.testing.assert_allclose(there, expected, atol=3)


def test_no_keypoint_is_in_the_hole_or_at_its_rim():
    found = keypoints.detect(masked(resized(TARGET))[0], KNOWN[0])
    assert len(found.points) > 20 and found.descriptors.shape == (len(found.points), 128)
    clean = cv2.erode(KNOWN[0].astype(np.uint8), np.ones((5, 5))) > 0
    column, row = np.round(found.points).astype(int).T
    assert clean[row, column].all()


def test_an_image_is_not_its_own_candidate():
    image = resized(TARGET)
    assert [one.image for one in search(image, [image, *STRANGERS])] == [0]
    assert search(image, [image, *STRANGERS], own=0) == []


@pytest.mark.parametrize("level", [0, 128])
def test_flat_images_match_nothing(level):
    flat = np.full((SIZE, SIZE, 3), level, np.uint8)
    assert len(keypoints.detect(flat).points) == 0
    assert search(flat, STRANGERS) == []
    assert search(resized(TARGET), [flat, flat]) == []


def test_a_turned_photograph_or_one_of_another_size_is_no_crop():
    """RANSAC would fit both: a photograph upside down, and a tenth of it."""
    image = resized(TARGET)
    assert search(image, [np.ascontiguousarray(image[::-1, ::-1]), *STRANGERS]) == []
    here = keypoints.detect(image)
    assert keypoints.fit(here, here)[1] == len(here.points)
    assert keypoints.fit(here, here._replace(points=here.points * 0.1)) is None
    assert keypoints.fit(here, here._replace(points=here.points * 3)) is None


def test_more_images_than_are_matched_are_ordered_by_their_rare_words(monkeypatch):
    monkeypatch.setattr(keypoints, "MATCHED", 1)
    image = resized(TARGET)
    others = [*STRANGERS, cropped(20, 60, 310), *STRANGERS]
    assert [one.image for one in search(image, others)] == [3]
