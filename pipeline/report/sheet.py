"""The sample sheet: masked, filled and target images side by side, with captions."""

import cv2
import numpy as np
import pandas as pd

COLUMNS = ("masked", "filled", "target")
GROUPS = 2  # samples side by side
SIDE = 144  # pixels of an image on the sheet; small, because the sheet is in git
JPEG_QUALITY = 85
MARGIN, HEAD, FOOT, LINE = 8, 28, 24, 16  # pixels; a caption of one line, and each line more
INK, PAPER = (40, 40, 40), 255


def draw_sheet(
    samples: list[tuple[np.ndarray, ...]],
    captions: list[str],
    columns: tuple[str, ...] = COLUMNS,
    groups: int = GROUPS,
) -> np.ndarray:
    """Draw samples, an image uint8 [256, 256, 3] RGB per column, and their captions: uint8 [height, width, 3] RGB.

    A caption may have several lines.
    """
    foot = FOOT + LINE * max(caption.count("\n") for caption in captions)
    lines = -(-len(samples) // groups)
    width = groups * (len(columns) * SIDE + (len(columns) + 1) * MARGIN)
    sheet = np.full((HEAD + lines * (SIDE + foot) + MARGIN, width, 3), PAPER, np.uint8)
    for number, (images, caption) in enumerate(zip(samples, captions, strict=True)):
        line, group = divmod(number, groups)
        top, left = HEAD + line * (SIDE + foot), group * width // groups + MARGIN
        for column, image in enumerate(images):
            x = left + column * (SIDE + MARGIN)
            sheet[top : top + SIDE, x : x + SIDE] = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            if line == 0:
                write_text(sheet, columns[column], x, HEAD - 9)
        for below, text in enumerate(caption.split("\n")):
            write_text(sheet, text, left, top + SIDE + FOOT - 8 + LINE * below)
    return sheet


def encode_sheet(sheet: np.ndarray) -> bytes:
    """A sheet, uint8 [height, width, 3] RGB, as the bytes of a JPEG file."""
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return cv2.imencode(".jpg", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), options)[1].tobytes()


def spread(count: int, samples: int) -> np.ndarray:
    """`samples` evenly spread row numbers below `count`, or all of them if there are fewer: int [<= samples]."""
    return np.unique(np.linspace(0, count - 1, samples).round().astype(int))


def spread_over(classes: np.ndarray, samples: int) -> np.ndarray:
    """`samples` row numbers, spread evenly over the classes and within each, or all: int [<= samples].

    `classes` is str [n], a row's class or "" if it is not known.
    """
    rank = pd.Series(classes).groupby(classes).cumcount()  # in turn one of each class, until there are enough
    taken = classes[np.argsort(rank, kind="stable")[:samples]]
    rows = {name: np.flatnonzero(classes == name) for name in np.unique(taken)}
    return np.concatenate([part[spread(len(part), (taken == name).sum())] for name, part in rows.items()])


def write_text(sheet: np.ndarray, text: str, x: int, y: int) -> None:
    """Draw text with its baseline at (x, y). OpenCV's font has only ASCII."""
    cv2.putText(
        sheet, text.encode("ascii", "replace").decode(), (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.42, INK, 1, cv2.LINE_AA
    )
