"""Random images to fill."""

import numpy as np

from pipeline.competition.boxes import LAST
from pipeline.competition.images import SIZE


def photographs(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8)


def some_boxes(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, LAST + 1, (n, 2, 2), dtype=np.int32)


def unknown(n: int) -> np.ndarray:
    """The classes of n images, none of them known."""
    return np.full(n, "")
