"""What a fill is, and how one is run over many images."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from pipeline.base.progress import progress


class Fill(Protocol):
    def __call__(self, masked: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Fill the boxes, int [n, 2, 2], of masked images: uint8 [n, 256, 256, 3] to the same, n at least 1.

        Known pixels stay byte for byte. Up to rounding, an image's result does not depend on the images beside it.
        The arguments are not changed.
        """


def in_batches(fill: Callable[..., np.ndarray], arrays: tuple[np.ndarray, ...], size: int, what: str) -> np.ndarray:
    """Call `fill` on `size` rows of each array at a time, showing progress under the label `what`.

    Returns the results in the arrays' order. Raises ValueError if the arrays have no row.
    """
    parts = [slice(start, start + size) for start in range(0, len(arrays[0]), size)]
    filled = (fill(*(array[part] for array in arrays)) for part in parts)
    return np.concatenate(list(progress(filled, what, len(parts), "batch")))
