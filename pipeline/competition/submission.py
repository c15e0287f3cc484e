"""The submission: pixels to values, values to rows, writing and checking the CSV.

    filename_box_pixel,value
    Tiger (1024).jpeg_box1_58_27_0,0.40392

One row for each image in the order of the test masked_info.csv, box 1 then box 2, each row i and column j of the image
inside the box, each channel. 200 images give 6,750,000 rows.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cache, partial
from itertools import starmap, zip_longest
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from pipeline.base.errors import BadInput
from pipeline.competition.boxes import BOX, cut
from pipeline.competition.images import SIZE

HEADER = b"filename_box_pixel,value\n"
ROWS_PER_IMAGE = 2 * BOX * BOX * 3
DECIMALS = 5
WIDTH = DECIMALS + 3  # bytes of a value and its line end
DIGITS = np.array([0, *range(2, 2 + DECIMALS)]) - DECIMALS - 2  # a value's digits, counted from its line end
PLACES = 10 ** np.arange(DECIMALS, -1, -1)  # what each digit is worth, in units of the last
NUMBER = re.compile(r"[0-9]*\.?[0-9]+(e[+-]?[0-9]+)?", re.IGNORECASE | re.ASCII)

Channels = Literal["bgr", "rgb"]
Scale = Literal["minmax", "unit"]


def encode(images: np.ndarray, boxes: np.ndarray, channels: Channels, scale: Scale) -> np.ndarray:
    """A submission's values for images, uint8 RGB [n, 256, 256, 3]: float64 [n, 2, 75, 75, 3] in [0, 1].

    Scale minmax maps the least and the greatest value of each channel of each image, boxes and all, to 0 and 1 (a
    constant channel to 0, like OpenCV's NORM_MINMAX); unit divides by 255. Channels bgr puts blue first. Values are
    rounded to the decimals that are written. Raises ValueError if the images are not uint8.
    """
    if images.dtype != np.uint8:
        raise ValueError(f"images are {images.dtype}, not uint8")
    level = np.arange(256, dtype=np.float64)
    if scale == "minmax":
        planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), 3, SIZE * SIZE)
        low = planes.min(axis=2, keepdims=True).astype(np.float64)
        high = planes.max(axis=2, keepdims=True).astype(np.float64)
        table = np.clip((level - low) / np.maximum(high - low, 1), 0, 1)
    else:
        table = np.broadcast_to(level / 255, (len(images), 3, 256))
    # A table of image, channel and grey level takes a tenth of the time of computing each pixel.
    image = np.arange(len(images))[:, None, None, None, None]
    values = np.round(table, DECIMALS)[image, np.arange(3), cut(images, boxes)]
    return values[..., ::-1] if channels == "bgr" else values


def write(path: Path, names: list[str], boxes: np.ndarray, values: Iterable[np.ndarray]) -> None:
    """Write a submission; `values` has an array [2, 75, 75, 3], as encode returns it, for each image.

    Raises ValueError if there are more or fewer images than names.
    """
    with path.open("wb") as file:
        file.write(HEADER)
        file.writelines(starmap(rows, zip(names, boxes, values, strict=True)))


def rows(name: str, corners: np.ndarray, values: np.ndarray) -> bytes:
    """The rows of one image: corners int [2, 2], values [2, 75, 75, 3] in [0, 1]."""
    # Fixed-width fields, whose padding is then removed, take a tenth of the time of joining text.
    pixels, numbers = fields()
    text = bytearray()
    for stem, (row, column), part in zip(stems(name), corners, np.rint(values * 10**DECIMALS), strict=True):
        row_type = np.dtype([("stem", f"S{len(stem)}"), ("pixel", pixels.dtype), ("number", numbers.dtype)])
        padded = bytearray(BOX * BOX * 3 * row_type.itemsize)
        table = np.frombuffer(padded, row_type).reshape(BOX, BOX, 3)
        table["stem"] = stem
        table["pixel"] = pixels[row : row + BOX, column : column + BOX]
        table["number"] = numbers[part.astype(np.int32)]
        text += padded.replace(b"\0", b"")
    return bytes(text)


def stems(name: str) -> list[bytes]:
    """The first part of the ids of box 1 and of box 2."""
    return [f"{name}_box{number}_".encode() for number in (1, 2)]


@cache
def fields() -> tuple[np.ndarray, np.ndarray]:
    """The last part of every possible id with its comma, [256, 256, 3], and every possible value with its line end."""
    pixels = [[[f"{i}_{j}_{c}," for c in range(3)] for j in range(SIZE)] for i in range(SIZE)]
    numbers = [f"{value / 10**DECIMALS:.{DECIMALS}f}\n" for value in range(10**DECIMALS + 1)]
    return np.array(pixels, np.bytes_), np.array(numbers, np.bytes_)


def read(path: Path, names: list[str], boxes: np.ndarray) -> np.ndarray:
    """Read a submission's values, float64 [n, 2, 75, 75, 3], and check every row.

    Raises BadInput naming the first row that is missing or extra, has another id than expected there, or has a value
    that is not a number from 0 to 1.
    """
    with path.open("rb") as file:
        if file.readline() != HEADER:
            raise BadInput(f"{path} does not begin with the line {HEADER.decode().strip()!r}")
        values = list(map(partial(parse, file), names, boxes))
        if not file.read(1) and all(part is not None for part in values):
            return np.array(values).reshape(-1, 2, BOX, BOX, 3)
        # `write` would write other bytes. Read row by row: it may be another notation of the same numbers.
        file.seek(len(HEADER))
        numbers = np.fromiter(check_rows(file, path, names, boxes), np.float64)
    return numbers.reshape(-1, 2, BOX, BOX, 3)


def parse(file: BinaryIO, name: str, corners: np.ndarray) -> np.ndarray | None:
    """The next image's values, float64 [2, 75, 75, 3]; None if `rows` would write them in other bytes."""
    text = file.read(size(name, corners))
    characters = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(characters == ord("\n"))
    if len(ends) != ROWS_PER_IMAGE or ends[0] < WIDTH:
        return None
    digits = characters[ends[:, None] + DIGITS] - np.uint8(ord("0"))
    values = np.minimum(digits @ PLACES, 10**DECIMALS).reshape(2, BOX, BOX, 3) / 10**DECIMALS
    return values if rows(name, corners, values) == text else None


def size(name: str, corners: np.ndarray) -> int:
    """The number of bytes in one image's rows."""
    pixels, _ = fields()
    windows = [pixels[row : row + BOX, column : column + BOX] for row, column in corners]
    return sum(
        window.size * (len(stem) + WIDTH) + int(np.strings.str_len(window).sum())
        for stem, window in zip(stems(name), windows, strict=True)
    )


def check_rows(file: BinaryIO, path: Path, names: list[str], boxes: np.ndarray) -> Iterator[float]:
    """The values of the rows in `file`. Raises BadInput like read."""
    for line, (text, expected) in enumerate(zip_longest(file, ids(names, boxes)), 2):
        if text is None:
            raise BadInput(f"{path} has {line - 2:,} rows; {expected!r} and all after it are missing")
        if not text.endswith(b"\n"):
            raise BadInput(f"{path} line {line} does not end: the file is cut short")
        if expected is None:
            raise BadInput(f"{path} goes on at line {line}, after the last row expected")
        found, _, number = (field.decode("utf-8", "replace") for field in text[:-1].rpartition(b","))
        if found != expected:
            raise BadInput(f"{path} line {line}: the id is {found!r}, expected {expected!r}")
        if not NUMBER.fullmatch(number) or float(number) > 1:
            raise BadInput(f"{path} line {line}: the value is {number!r}, expected a number from 0 to 1")
        yield float(number)


def ids(names: list[str], boxes: np.ndarray) -> Iterator[str]:
    """The first column of the submission without its header."""
    for name, corners in zip(names, boxes.tolist(), strict=True):
        for number, (row, column) in enumerate(corners, 1):
            for i in range(row, row + BOX):
                for j in range(column, column + BOX):
                    for channel in range(3):
                        yield f"{name}_box{number}_{i}_{j}_{channel}"
