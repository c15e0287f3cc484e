"""The two boxes of an image, the masks they make, and where flips and rotations carry them.

Boxes are int32 [n, 2, 2]: n images, box 1 and box 2, (row, column) of the upper left corner. Box b of image k
covers the pixels [row:row + 75, column:column + 75]. The two may overlap.
"""

import numpy as np

from pipeline.competition.images import SIZE

BOX = 75  # pixels, both sides of a box
LAST = SIZE - BOX  # the greatest row and column a box can start at

# The ways augmentation turns an image: None as it is, "flip" left to right, a number of quarter turns
# counter-clockwise as numpy.rot90 counts them.
TURNS: dict[str, int | None] = {"whole": 0, "flip": None, "rot90": 1, "rot180": 2, "rot270": 3}


def hole_mask(boxes: np.ndarray) -> np.ndarray:
    """Which pixels are missing: bool [n, 256, 256] from boxes int [n, 2, 2]."""
    position = np.arange(SIZE)
    inside = (position >= boxes[..., None]) & (position < boxes[..., None] + BOX)  # [n, box, axis, 256]
    return (inside[:, :, 0, :, None] & inside[:, :, 1, None, :]).any(axis=1)


def cut(images: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The boxes' pixels, [n, 2, 75, 75, 3] of the images' dtype, from [n, 256, 256, 3]: what a submission holds."""
    return images[pixels(boxes)]


def put(values: np.ndarray, masked: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """`masked`, [n, 256, 256, 3], with these values, [n, 2, 75, 75, 3], in its boxes: what `cut` takes apart."""
    filled = masked.copy()
    filled[pixels(boxes)] = values
    return filled


def pixels(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The boxes' pixels as an index of [n, 256, 256, ...]: image, row and column, which broadcast to [n, 2, 75, 75]."""
    rows = boxes[:, :, 0, None, None] + np.arange(BOX)[:, None]
    columns = boxes[:, :, 1, None, None] + np.arange(BOX)
    return np.arange(len(boxes))[:, None, None, None], rows, columns


def paste(filled: np.ndarray, masked: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """`filled` inside the boxes and, byte for byte, `masked` outside them: uint8 [n, 256, 256, 3]."""
    return np.where(hole_mask(boxes)[..., None], filled, masked)


def turn_image(image: np.ndarray, turn: str) -> np.ndarray:
    """One image [256, 256, 3], flipped or rotated as TURNS says."""
    quarters = TURNS[turn]
    return np.ascontiguousarray(image[:, ::-1] if quarters is None else np.rot90(image, quarters))


def turn_boxes(boxes: np.ndarray, turn: str) -> np.ndarray:
    """The boxes [..., 2] of that image, where the same turn carries them."""
    row, column = boxes[..., 0], boxes[..., 1]
    quarters = TURNS[turn]
    if quarters is None:
        return np.stack([row, LAST - column], axis=-1)
    for _ in range(quarters):
        row, column = LAST - column, row
    return np.stack([row, column], axis=-1)
