"""The two boxes of an image: their masks, their pixels, and how flips and rotations move them.

Boxes are int32 [n, 2, 2]: n images, box 1 and box 2, (row, column) of the upper left corner. A box covers the pixels
[row:row + 75, column:column + 75]. The two may overlap; together they are the image's hole.
"""

import numpy as np

from pipeline.competition.images import SIZE

BOX = 75  # pixels, both sides of a box
LAST = SIZE - BOX  # the last row and column where a box can start

# How augmentation turns an image: a number of quarter turns counter-clockwise, as in numpy.rot90; None mirrors it.
TURNS: dict[str, int | None] = {"original": 0, "flip": None, "rot90": 1, "rot180": 2, "rot270": 3}


def hole_mask(boxes: np.ndarray) -> np.ndarray:
    """The pixels inside the boxes: bool [n, 256, 256] from boxes int [n, 2, 2]."""
    position = np.arange(SIZE)
    inside = (position >= boxes[..., None]) & (position < boxes[..., None] + BOX)  # [n, box, axis, 256]
    return (inside[:, :, 0, :, None] & inside[:, :, 1, None, :]).any(axis=1)


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
    """`filled` inside the boxes, `masked` outside them: uint8 [n, 256, 256, 3], known pixels byte for byte."""
    return np.where(hole_mask(boxes)[..., None], filled, masked)


def turn_image(image: np.ndarray, turn: str) -> np.ndarray:
    """Flip or rotate one image [256, 256, 3] by a key of TURNS."""
    quarters = TURNS[turn]
    return np.ascontiguousarray(image[:, ::-1] if quarters is None else np.rot90(image, quarters))


def turn_boxes(boxes: np.ndarray, turn: str) -> np.ndarray:
    """Move boxes [..., 2] to where the same turn moves their pixels."""
    row, column = boxes[..., 0], boxes[..., 1]
    quarters = TURNS[turn]
    if quarters is None:
        return np.stack([row, LAST - column], axis=-1)
    for _ in range(quarters):
        row, column = LAST - column, row
    return np.stack([row, column], axis=-1)
