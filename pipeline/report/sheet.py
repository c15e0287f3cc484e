"""The sample sheet: masked, filled and whole side by side, each row with its RMSE."""

import cv2
import numpy as np

COLUMNS = ("masked", "filled", "truth")
GROUPS = 2  # rows of samples side by side, so that the sheet is no ribbon
SIDE = 144  # pixels of an image on the sheet: the sheet is kept in git
MARGIN, HEAD, FOOT = 8, 28, 24  # pixels
INK, PAPER = (40, 40, 40), 255


def draw_sheet(
    samples: list[tuple[np.ndarray, ...]],
    captions: list[str],
    columns: tuple[str, ...] = COLUMNS,
    groups: int = GROUPS,
) -> np.ndarray:
    """Samples of an image a column, uint8 [256, 256, 3] RGB, with a caption each, as one image uint8 [h, w, 3]."""
    lines = -(-len(samples) // groups)
    width = groups * (len(columns) * SIDE + (len(columns) + 1) * MARGIN)
    sheet = np.full((HEAD + lines * (SIDE + FOOT) + MARGIN, width, 3), PAPER, np.uint8)
    for number, (images, caption) in enumerate(zip(samples, captions, strict=True)):
        line, group = divmod(number, groups)
        top, left = HEAD + line * (SIDE + FOOT), group * width // groups + MARGIN
        for column, image in enumerate(images):
            x = left + column * (SIDE + MARGIN)
            sheet[top : top + SIDE, x : x + SIDE] = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            if line == 0:
                write_text(sheet, columns[column], x, HEAD - 9)
        write_text(sheet, caption, left, top + SIDE + FOOT - 8)
    return sheet


def spread(count: int, samples: int) -> np.ndarray:
    """Which of so many rows are shown: `samples` of them, or all, evenly spread; int [samples]."""
    return np.unique(np.linspace(0, count - 1, samples).round().astype(int))


def write_text(sheet: np.ndarray, text: str, x: int, y: int) -> None:
    """Text in place, its base line at (x, y). OpenCV's font has ASCII only."""
    cv2.putText(
        sheet, text.encode("ascii", "replace").decode(), (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.42, INK, 1, cv2.LINE_AA
    )
