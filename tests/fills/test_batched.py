"""Any fill, some images at a time: every image once, in order."""

import numpy as np
import pytest

from pipeline.competition.boxes import LAST
from pipeline.competition.images import SIZE
from pipeline.fills import mean_colour
from pipeline.fills.batched import in_batches

RNG = np.random.default_rng(5)
IMAGES = RNG.integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)
BOXES, CLASSES = RNG.integers(0, LAST + 1, (5, 2, 2)), np.array(list("abcde"))


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_in_batches_every_image_comes_once_and_in_order(size):
    batches = []

    def fill(masked: np.ndarray, boxes: np.ndarray, classes: np.ndarray) -> np.ndarray:
        batches.append("".join(classes))
        return mean_colour.fill(masked, boxes)

    filled = in_batches(fill, (IMAGES, BOXES, CLASSES), size, "fill")
    np.testing.assert_array_equal(filled, mean_colour.fill(IMAGES, BOXES))
    assert "".join(batches) == "abcde" and max(map(len, batches)) == min(size, 5)


def test_no_image_is_refused():
    with pytest.raises(ValueError):
        in_batches(mean_colour.fill, (IMAGES[:0], BOXES[:0]), 4, "fill")
