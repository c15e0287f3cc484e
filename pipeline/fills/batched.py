"""Any fill, some images at a time."""

from collections.abc import Callable

import numpy as np

from pipeline.base.progress import progress

Fill = Callable[..., np.ndarray]  # (masked uint8 [n, 256, 256, 3], boxes [n, 2, 2]) -> filled


def in_batches(
    fill: Fill, masked: np.ndarray, boxes: np.ndarray, size: int, what: str, *given: np.ndarray
) -> np.ndarray:
    """The images filled, uint8 [n, 256, 256, 3], `size` at a time, showing progress.

    `given` is what the fill is told of each image beside, such as its class.
    """
    parts = [slice(start, start + size) for start in range(0, len(masked), size)]
    filled = (fill(masked[part], boxes[part], *(array[part] for array in given)) for part in parts)
    return np.concatenate([masked[:0], *progress(filled, what, len(parts), "batch")])
