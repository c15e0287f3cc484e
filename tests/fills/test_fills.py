"""The fills that learn nothing."""

import cv2
import numpy as np
import pytest

from pipeline.competition.boxes import hole_mask
from pipeline.fills import harmonic, mean_colour, telea

BOXES = np.array([[[0, 0], [181, 181]], [[40, 50], [90, 100]], [[7, 9], [7, 9]]], np.int32)
FILLS = [mean_colour.fill, telea.fill, harmonic.fill]
NAMES = ["mean colour", "telea", "harmonic"]


def masked_images(seed=0):
    """Smooth images whose holes are not exactly black, as after JPEG compression."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (len(BOXES), 8, 8, 3), dtype=np.uint8)
    images = np.stack([cv2.resize(image, (256, 256), interpolation=cv2.INTER_LINEAR) for image in coarse])
    holes = hole_mask(BOXES)
    images[holes] = rng.integers(0, 12, (holes.sum(), 3), dtype=np.uint8)
    return images


@pytest.mark.parametrize("fill", FILLS, ids=NAMES)
def test_known_pixels_stay_byte_for_byte(fill):
    images = masked_images()
    before = images.copy()
    filled = fill(images, BOXES)
    holes = hole_mask(BOXES)
    assert filled.shape == images.shape and filled.dtype == np.uint8
    np.testing.assert_array_equal(filled[~holes], before[~holes])
    np.testing.assert_array_equal(images, before)
    assert (filled[holes] != before[holes]).mean() > 0.9


@pytest.mark.parametrize("fill", FILLS, ids=NAMES)
def test_the_pixels_in_the_holes_are_not_used(fill):
    boxes = BOXES[1:]  # away from the image's corners, where OpenCV's Telea looks into the hole
    images, black = masked_images()[1:], masked_images()[1:]
    black[hole_mask(boxes)] = 0
    assert (images != black).any()
    np.testing.assert_array_equal(fill(images, boxes), fill(black, boxes))


@pytest.mark.parametrize("fill", FILLS, ids=NAMES)
def test_an_image_is_filled_independently_of_the_others(fill):
    images = masked_images()
    together = fill(images, BOXES)
    for n in range(len(BOXES)):
        np.testing.assert_array_equal(fill(images[n : n + 1], BOXES[n : n + 1])[0], together[n])


def test_the_mean_colour_restores_a_flat_image():
    target = np.full((1, 256, 256, 3), (200, 100, 30), np.uint8)
    masked = np.where(hole_mask(BOXES[:1])[..., None], 3, target).astype(np.uint8)
    np.testing.assert_array_equal(mean_colour.fill(masked, BOXES[:1]), target)


def test_the_mean_colour_by_hand():
    """256 x 256 - 2 x 75 x 75 = 54,286 known pixels: the upper half black, the lower (100, 200, 7)."""
    boxes = np.array([[[10, 20], [100, 150]]], np.int32)
    image = np.zeros((1, 256, 256, 3), np.uint8)
    image[:, 128:] = (100, 200, 7)
    image[hole_mask(boxes)] = 0
    known_below = 128 * 256 - 75 * (175 - 128)  # rows 128 to 174 of the second box lie below
    share = known_below / (256 * 256 - 2 * 75 * 75)
    expected = [round(100 * share), round(200 * share), round(7 * share)]
    assert expected == [54, 108, 4]
    filled = mean_colour.fill(image, boxes)
    assert (filled[0, 10:85, 20:95] == expected).all() and (filled[0, 100:175, 150:225] == expected).all()


def test_the_mean_colour_is_the_mean_of_the_known_pixels():
    images = masked_images()
    filled, holes = mean_colour.fill(images, BOXES), hole_mask(BOXES)
    for image, before, hole in zip(filled, images, holes, strict=True):
        expected = np.round(before[~hole].astype(float).mean(axis=0))
        assert (image[hole] == expected).all()


def test_telea_is_opencvs():
    images = masked_images()
    for image, before, hole in zip(telea.fill(images, BOXES), images, hole_mask(BOXES), strict=True):
        theirs = cv2.inpaint(before, hole.astype(np.uint8), 3, cv2.INPAINT_TELEA)
        np.testing.assert_array_equal(image[hole], theirs[hole])
        assert len(np.unique(image[hole], axis=0)) > 100
