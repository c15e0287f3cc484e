"""The harmonic fill against a direct solution of the same equations."""

import numpy as np
import pytest

from pipeline.competition.boxes import LAST, hole_mask
from pipeline.fills import harmonic


def direct(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Fill the hole of one image [h, w, c] with the mean of the neighbours, by Gaussian elimination in float64."""
    solved = image.astype(np.float64)
    pixels = np.argwhere(hole).tolist()
    number = {tuple(pixel): row for row, pixel in enumerate(pixels)}
    matrix, right = np.zeros((len(pixels), len(pixels))), np.zeros((len(pixels), image.shape[2]))
    for row, (i, j) in enumerate(pixels):
        for pixel in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
            if not (0 <= pixel[0] < hole.shape[0] and 0 <= pixel[1] < hole.shape[1]):
                continue  # nothing flows across the border
            matrix[row, row] += 1
            if pixel in number:
                matrix[row, number[pixel]] -= 1
            else:
                right[row] += image[pixel]
    solved[hole] = np.linalg.solve(matrix, right)
    return solved


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)


def make_holes(corners: list[list[tuple[int, int]]]) -> np.ndarray:
    """Two boxes of 19 x 19 in each image of 64 x 64."""
    holes = np.zeros((len(corners), 64, 64), bool)
    for image, pair in zip(holes, corners, strict=True):
        for row, column in pair:
            image[row : row + 19, column : column + 19] = True
    return holes


# Inside; overlapping; along an edge; in corners; the two side by side across nearly the whole width.
CORNERS = [[(20, 9), (41, 37)], [(20, 9), (27, 17)], [(0, 20), (23, 45)], [(0, 0), (45, 45)], [(10, 0), (10, 19)]]
IMAGES, HOLES = noise(len(CORNERS), 64, 64, 3), make_holes(CORNERS)


def test_it_is_the_direct_solution():
    expected = np.stack(list(map(direct, IMAGES, HOLES)))
    solved = harmonic.solve(IMAGES, HOLES)
    assert np.abs(solved - expected).max() < 2.5  # of 255
    assert np.sqrt(np.mean((solved - expected)[HOLES] ** 2)) < 0.5
    assert solved.min() > -2.5 and solved.max() < 257.5
    assert np.abs(harmonic.solve(IMAGES, HOLES, cycles=8) - expected).max() < 0.02


@pytest.mark.slow
def test_it_is_the_direct_solution_at_full_size():
    images, holes = noise(2, 256, 256, 1), hole_mask(np.array([[[0, 0], [4, 9]], [[100, 90], [110, 80]]]))
    expected = np.stack(list(map(direct, images, holes)))
    assert np.abs(harmonic.solve(images, holes) - expected)[holes].max() < 4
    assert np.abs(harmonic.solve(images, holes, cycles=8) - expected).max() < 0.02


@pytest.mark.parametrize("shape", [(8, 8), (16, 64), (128, 32)])
def test_it_solves_any_sides_that_are_powers_of_two_and_holes_of_any_form(shape):
    rng = np.random.default_rng(1)
    holes = rng.random((2, *shape)) < 0.6
    holes[1] = True
    holes[1, 3, 5] = False  # a single known pixel fills the image
    images = noise(2, *shape, 2)
    solved = harmonic.solve(images, holes, cycles=30)
    np.testing.assert_allclose(solved[0], direct(images[0], holes[0]), atol=0.05)
    np.testing.assert_allclose(solved[1], np.broadcast_to(images[1, 3, 5], (*shape, 2)), atol=0.05)


def test_a_plane_continues_through_a_hole():
    row, column = np.mgrid[:64, :64].astype(np.float32)
    plane = np.stack([2 * row + column, 100 - row, np.full_like(row, 7)], axis=-1)[None]
    np.testing.assert_allclose(harmonic.solve(plane, make_holes([[(20, 9), (27, 17)]])), plane, atol=0.5)


def test_without_a_hole_nothing_changes():
    np.testing.assert_array_equal(harmonic.solve(IMAGES, np.zeros_like(HOLES)), IMAGES)


def test_known_values_stay_and_those_in_the_hole_are_not_used():
    before = IMAGES.copy()
    solved = harmonic.solve(IMAGES, HOLES)
    assert solved.dtype == np.float32 and solved.shape == IMAGES.shape
    np.testing.assert_array_equal(solved[~HOLES], IMAGES[~HOLES])
    np.testing.assert_array_equal(IMAGES, before)
    np.testing.assert_array_equal(harmonic.solve(np.where(HOLES[..., None], 9e9, IMAGES), HOLES), solved)


def test_photographs_are_solved_part_by_part_and_rounded():
    boxes = np.random.default_rng(0).integers(0, LAST + 1, (harmonic.IMAGES_AT_ONCE + 1, 2, 2))
    masked = np.where(hole_mask(boxes)[..., None], 0, noise(len(boxes), 256, 256, 3)).astype(np.uint8)
    smooth = harmonic.solve(masked[-1:].astype(np.float32), hole_mask(boxes[-1:]))
    assert np.abs(harmonic.fill(masked, boxes)[-1].astype(np.float32) - smooth[0]).max() <= 0.51
