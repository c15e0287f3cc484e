"""The harmonic fill against a direct solve of the same equations, and what it promises of its input."""

import numpy as np
import pytest

from pipeline.competition.boxes import LAST, hole_mask
from pipeline.fills import harmonic


def direct(known: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """One image [h, w, c], each pixel of its hole the mean of its neighbours, by Gaussian elimination in float64."""
    solved = known.astype(np.float64)
    free = np.argwhere(missing)
    number = {tuple(pixel): row for row, pixel in enumerate(free.tolist())}
    matrix, right = np.zeros((len(free), len(free))), np.zeros((len(free), known.shape[2]))
    for row, (i, j) in enumerate(free.tolist()):
        for pixel in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
            if not (0 <= pixel[0] < missing.shape[0] and 0 <= pixel[1] < missing.shape[1]):
                continue  # nothing flows across the border
            matrix[row, row] += 1
            if pixel in number:
                matrix[row, number[pixel]] -= 1
            else:
                right[row] += known[pixel]
    solved[missing] = np.linalg.solve(matrix, right)
    return solved


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)


def holes(size: int, corners: list[list[tuple[int, int]]], side: int) -> np.ndarray:
    missing = np.zeros((len(corners), size, size), bool)
    for image, pair in zip(missing, corners, strict=True):
        for row, column in pair:
            image[row : row + side, column : column + side] = True
    return missing


# Inside; overlapping; along an edge; in corners; the two side by side across nearly the whole width.
CORNERS = [[(20, 9), (41, 37)], [(20, 9), (27, 17)], [(0, 20), (23, 45)], [(0, 0), (45, 45)], [(10, 0), (10, 19)]]


def test_it_is_the_direct_solution():
    known, missing = noise(len(CORNERS), 64, 64, 3), holes(64, CORNERS, 19)
    expected = np.stack([direct(image, hole_) for image, hole_ in zip(known, missing, strict=True)])
    assert np.abs(harmonic.solve(known, missing) - expected).max() < 2.5  # of 255
    assert np.sqrt(np.mean((harmonic.solve(known, missing) - expected)[missing] ** 2)) < 0.5
    assert np.abs(harmonic.solve(known, missing, cycles=8) - expected).max() < 0.02


@pytest.mark.slow
def test_it_is_the_direct_solution_at_full_size():
    boxes = np.array([[[0, 0], [4, 9]], [[100, 90], [110, 80]]])
    known, missing = noise(2, 256, 256, 1), hole_mask(boxes)
    expected = np.stack([direct(image, hole_) for image, hole_ in zip(known, missing, strict=True)])
    assert np.abs(harmonic.solve(known, missing) - expected)[missing].max() < 4
    assert np.abs(harmonic.solve(known, missing, cycles=8) - expected).max() < 0.02


@pytest.mark.parametrize("shape", [(8, 8), (16, 64), (128, 32)])
def test_it_solves_any_sides_that_are_powers_of_two_and_holes_of_any_form(shape):
    rng = np.random.default_rng(1)
    missing = rng.random((2, *shape)) < 0.6
    missing[1] = True
    missing[1, 3, 5] = False  # one known pixel alone is the whole picture
    known = noise(2, *shape, 2)
    solved = harmonic.solve(known, missing, cycles=30)
    np.testing.assert_allclose(solved[0], direct(known[0], missing[0]), atol=0.05)
    np.testing.assert_allclose(solved[1], np.broadcast_to(known[1, 3, 5], (*shape, 2)), atol=0.05)


def test_a_plane_continues_through_a_hole():
    row, column = np.mgrid[:64, :64].astype(np.float32)
    plane = np.stack([2 * row + column, 100 - row, np.full_like(row, 7)], axis=-1)[None]
    missing = holes(64, [[(20, 9), (27, 17)]], 19)
    np.testing.assert_allclose(harmonic.solve(plane, missing), plane, atol=0.5)


def test_nothing_missing_is_nothing_changed():
    known = noise(2, 32, 32, 3)
    np.testing.assert_array_equal(harmonic.solve(known, np.zeros((2, 32, 32), bool)), known)


def test_known_values_stay_and_those_in_the_hole_are_not_looked_at():
    known, missing = noise(len(CORNERS), 64, 64, 3), holes(64, CORNERS, 19)
    before = known.copy()
    solved = harmonic.solve(known, missing)
    assert solved.dtype == np.float32 and solved.shape == known.shape
    np.testing.assert_array_equal(solved[~missing], known[~missing])
    np.testing.assert_array_equal(known, before)
    np.testing.assert_array_equal(harmonic.solve(np.where(missing[..., None], 9e9, known), missing), solved)


def test_no_value_leaves_the_range_of_the_known_by_more_than_the_solver_errs():
    known, missing = noise(len(CORNERS), 64, 64, 3), holes(64, CORNERS, 19)
    solved = harmonic.solve(known, missing)
    assert solved.min() > -2.5 and solved.max() < 257.5


def test_the_photographs_come_back_whole_in_uint8():
    boxes = np.random.default_rng(0).integers(0, LAST + 1, (harmonic.IMAGES_AT_ONCE + 1, 2, 2))
    masked = noise(len(boxes), 256, 256, 3).astype(np.uint8)
    filled, missing = harmonic.fill(masked, boxes), hole_mask(boxes)
    assert filled.dtype == np.uint8
    np.testing.assert_array_equal(filled[~missing], masked[~missing])
    smooth = harmonic.solve(masked[-1:].astype(np.float32), missing[-1:])
    assert np.abs(filled[-1].astype(np.float32) - smooth[0]).max() <= 0.51
