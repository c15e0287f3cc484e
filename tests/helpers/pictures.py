"""Random images to fill."""

import numpy as np

from pipeline.competition.boxes import BOX, LAST, count_boxes
from pipeline.competition.images import SIZE


def photographs(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8)


def some_boxes(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, LAST + 1, (n, 2, 2), dtype=np.int32)


def masked_photographs(n: int, seed: int = 0) -> np.ndarray:
    """Photographs of which some_boxes(n) are the holes, with noise in them, but black in their last row and column.

    An image that shows those is taken to show the photograph there.
    """
    images, boxes = photographs(n, seed), some_boxes(n)
    images[(count_boxes(boxes) > 0) & ~(count_boxes(boxes, BOX - 1) > 0)] = 0
    return images


def unknown(n: int) -> np.ndarray:
    """The classes of n images, none of them known."""
    return np.full(n, "")
