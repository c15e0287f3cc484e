"""Any fill, some images at a time: every image once, in order."""

import numpy as np
import pytest

from pipeline.competition.boxes import LAST
from pipeline.competition.images import SIZE
from pipeline.fills import mean_colour
from pipeline.fills.batched import in_batches


def pictures(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    return rng.integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8), rng.integers(0, LAST + 1, (n, 2, 2))


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_in_batches_every_image_comes_once_and_in_order(size):
    images, boxes = pictures(5)
    sizes = []

    def fill(part: np.ndarray, corners: np.ndarray) -> np.ndarray:
        sizes.append(len(part))
        assert len(part) == len(corners)
        return part + corners[:, 0, 0, None, None, None].astype(np.uint8)

    found = in_batches(fill, images, boxes, size, "fill")
    assert (found == images + boxes[:, 0, 0, None, None, None].astype(np.uint8)).all()
    assert max(sizes) <= size and sum(sizes) == 5


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_in_batches_a_fill_is_that_of_one_call(size):
    images, boxes = pictures(5)
    np.testing.assert_array_equal(
        in_batches(mean_colour.fill, images, boxes, size, "fill"), mean_colour.fill(images, boxes)
    )


def test_no_image_gives_none():
    images, boxes = pictures(5)
    assert in_batches(lambda part, _: part, images[:0], boxes[:0], 4, "fill").shape == (0, SIZE, SIZE, 3)
