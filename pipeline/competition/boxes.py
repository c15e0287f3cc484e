"""The two boxes of an image: their masks, their pixels, and how flips and rotations move them.

Boxes are int32 [n, 2, 2]: n images, box 1 and box 2, (row, column) of the upper left corner. A box covers the pixels
[row:row + 75, column:column + 75]. The two may overlap. Their pixels are the image's hole, except those that a masked
image shows: the real test images are black in the first 74 rows and columns of a box only.
"""

import cv2
import numpy as np

from pipeline.competition.images import SIZE

BOX = 75  # pixels, both sides of a box
LAST = SIZE - BOX  # the last row and column where a box can start

# How augmentation turns an image: a number of quarter turns counter-clockwise, as in numpy.rot90; None mirrors it.
TURNS: dict[str, int | None] = {"original": 0, "flip": None, "rot90": 1, "rot180": 2, "rot270": 3}
ROTATIONS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}


def hole_mask(boxes: np.ndarray) -> np.ndarray:
    """The pixels inside the boxes: bool [n, 256, 256] from boxes int [n, 2, 2]."""
    return count_boxes(boxes) > 0


def count_boxes(boxes: np.ndarray, side: int = BOX) -> np.ndarray:
    """How many boxes each pixel is in, 0 to 2: int64 [n, 256, 256] from boxes int [n, 2, 2]."""
    return count_between(boxes, boxes + side, SIZE)


def count_between(start: np.ndarray, stop: np.ndarray, size: int) -> np.ndarray:
    """How many boxes each of size x size pixels is in: int64 [n, size, size] from their corners, int [n, 2, 2] each."""
    position = np.arange(size)
    inside = (position >= start[..., None]) & (position < stop[..., None])  # [n, box, axis, size]
    return (inside[:, :, 0, :, None] & inside[:, :, 1, None, :]).sum(axis=1)


def unknown_mask(masked: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The pixels inside the boxes that masked images, uint8 [n, 256, 256, 3], do not show: bool [n, 256, 256].

    The boxes' last row and column are known if they are at least half as bright as the row and column after them: in
    the real test images they are 0.86 to 1.15 times as bright, in images that are black there at most 0.11 times.
    """
    smaller, hole, larger = (count_boxes(boxes, side) > 0 for side in (BOX - 1, BOX, BOX + 1))
    edge, around = (mean_level(masked, pixels) for pixels in (hole & ~smaller, larger & ~hole))
    shown = (around > 0) & (edge >= around / 2)
    return np.where(shown[:, None, None], smaller, hole)


def mean_level(images: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The mean grey level of images [n, h, w, 3] over the pixels where, bool [n, h, w]: float64 [n], 0 for no pixel."""
    return np.array([image[here].mean() if here.any() else 0.0 for image, here in zip(images, where, strict=True)])


def cut(images: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Copy the boxes' pixels out of images [n, 256, 256, 3]: [n, 2, 75, 75, 3] of the same dtype."""
    return images[pixels(boxes)]


def put(values: np.ndarray, masked: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Copy values [n, 2, 75, 75, 3] into the boxes of a copy of `masked` [n, 256, 256, 3]: the reverse of `cut`."""
    filled = masked.copy()
    filled[pixels(boxes)] = values
    return filled


def pixels(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Index the boxes' pixels in [n, 256, 256, ...]: image, row, column, each broadcasting to [n, 2, 75, 75]."""
    rows = boxes[:, :, 0, None, None] + np.arange(BOX)[:, None]
    columns = boxes[:, :, 1, None, None] + np.arange(BOX)
    return np.arange(len(boxes))[:, None, None, None], rows, columns


def paste(filled: np.ndarray, masked: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """`filled` in the hole, `masked` outside it: uint8 [n, 256, 256, 3], known pixels byte for byte."""
    return np.where(unknown_mask(masked, boxes)[..., None], filled, masked)


def turn_image(image: np.ndarray, turn: str) -> np.ndarray:
    """Flip or rotate one image, uint8 [256, 256, 3], by a key of TURNS."""
    quarters = TURNS[turn]
    if quarters is None:
        return cv2.flip(image, 1)
    return cv2.rotate(image, ROTATIONS[quarters]) if quarters else image  # ten times as fast as NumPy's strided copy


def turn_boxes(boxes: np.ndarray, turn: str) -> np.ndarray:
    """Move boxes [..., 2] to where the same turn moves their pixels."""
    row, column = boxes[..., 0], boxes[..., 1]
    quarters = TURNS[turn]
    if quarters is None:
        return np.stack([row, LAST - column], axis=-1)
    for _ in range(quarters):
        row, column = LAST - column, row
    return np.stack([row, column], axis=-1)
