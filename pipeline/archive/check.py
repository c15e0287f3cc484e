"""Check data/raw's images: every file that the tables name decodes, and images and boxes belong together."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import pandas as pd

from pipeline.base.errors import BadInput
from pipeline.base.progress import progress
from pipeline.competition.boxes import BOX
from pipeline.competition.images import SIZE, read_image
from pipeline.competition.index import TABLE, boxes_of, masked_path, target_path

Measure = TypeVar("Measure")

# Grey levels of a pixel's brightest channel, measured on 6600 pairs and 200 test images of the competition.
BLACK = 32  # the most in a hole, MARGIN inside a box; the brightest pixel there had 9
DIFFERENT = 48  # the most between masked image and target, MARGIN outside a box; the largest difference there was 27
MARGIN = 8  # pixels: JPEG's blocks blur a hole's border, and the test images' holes end a pixel before their boxes
# The share of pixels beyond these that refuses a row. Correct rows had none. With another target 6599 of 6600 rows were
# refused, with another masked image all, with other boxes 6794 of 6800: the others were black there, or alike.
SHARE = 0.02
BOXES = f"the boxes in {TABLE} are not where the image is black"
PHOTOGRAPHS = "masked and unmasked image show different photographs"
FAULTS = (PHOTOGRAPHS, BOXES)
NAMED = 3  # rows that a refusal names; it counts the others


def check_images(raw: Path, rows: pd.DataFrame, measure: Callable[[np.ndarray], Measure]) -> list[Measure]:
    """Decode every file that the rows name, on all cores, showing progress, and compare images and boxes.

    Returns `measure` of each row's target, uint8 [256, 256, 3], or of a test row's masked image. Raises BadInput for
    the first file that does not decode, or naming the rows whose images or boxes do not belong together. Files are
    named by their path in `raw`.
    """

    def read(path: Path) -> np.ndarray:
        return read_image(path, path.relative_to(raw).as_posix())

    def check(row: dict, boxes: np.ndarray) -> tuple[Measure, str]:
        masked = read(masked_path(raw, row))
        target = None if row["split"] == "test" else read(target_path(raw, row))
        return measure(masked if target is None else target), mismatch(masked, target, boxes)

    records = rows.to_dict("records")
    with ThreadPoolExecutor() as pool:
        checked = list(progress(pool.map(check, records, boxes_of(rows)), "check", len(rows)))
    faults = {kind: [row for row, (_, found) in zip(records, checked, strict=True) if found == kind] for kind in FAULTS}
    if refused := [f"{kind} in {listed(faulty)}" for kind, faulty in faults.items() if faulty]:
        raise BadInput("; ".join(refused) + "; correct these rows or get the archive again")
    return [measured for measured, _ in checked]


def listed(rows: list[dict]) -> str:
    """The number of rows and the masked images of the first NAMED."""
    names = ", ".join(masked_path(Path(), row).as_posix() for row in rows[:NAMED])
    more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    return f"{len(rows)} row{'s' * (len(rows) > 1)}: {names}{more}"


def mismatch(masked: np.ndarray, target: np.ndarray | None, boxes: np.ndarray) -> str:
    """One of FAULTS if these do not belong together, else "".

    masked and target are uint8 [256, 256, 3], boxes int [2, 2]; a test image has no target. Where the photograph
    itself is black, a wrong box cannot be told.
    """
    bright, inside = brightest(masked) > BLACK, near(boxes, -MARGIN)
    if target is not None:
        outside = ~near(boxes, MARGIN)
        differ = outside & (brightest(cv2.absdiff(masked, target)) > DIFFERENT)
        most = SHARE * np.count_nonzero(outside)
        if np.count_nonzero(differ & bright) > most:
            return PHOTOGRAPHS
        if np.count_nonzero(differ & ~bright) > most:  # a hole that no box covers
            return BOXES
    return BOXES if np.count_nonzero(inside & bright) > SHARE * np.count_nonzero(inside) else ""


def brightest(image: np.ndarray) -> np.ndarray:
    """The brightest channel of each pixel: [256, 256] of an image [256, 256, 3]."""
    return reduce(np.maximum, cv2.split(image))


def near(boxes: np.ndarray, margin: int) -> np.ndarray:
    """The pixels in the boxes [2, 2] enlarged by `margin` on each side, or shrunk: bool [256, 256]."""
    mask = np.zeros((SIZE, SIZE), bool)
    for row, column in boxes:
        mask[max(row - margin, 0) : row + BOX + margin, max(column - margin, 0) : column + BOX + margin] = True
    return mask
