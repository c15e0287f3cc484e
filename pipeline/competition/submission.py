"""The submission: its rows and their order, how pixels become values, writing and checking the CSV.

    filename_box_pixel,value
    Tiger (1024).jpeg_box1_58_27_0,0.40392

One row for each image in the order of the test masked_info.csv, box 1 then box 2, for each row i and column j of the
image inside the box, for each channel. 200 images give 6,750,000 rows.
"""

import codecs
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from pipeline.base.errors import BadInput
from pipeline.competition.boxes import BOX, cut
from pipeline.competition.images import SIZE

HEADER = b"filename_box_pixel,value\n"
ROWS_PER_IMAGE = 2 * BOX * BOX * 3
DECIMALS = 5
NEWLINE = b"\n"
BLOCK = 2**24  # bytes read at once

Channels = Literal["bgr", "rgb"]
Scale = Literal["minmax", "unit"]


def encode(images: np.ndarray, boxes: np.ndarray, channels: Channels, scale: Scale) -> np.ndarray:
    """The values a submission holds for whole images: float64 [n, 2, 75, 75, 3] in [0, 1], from uint8 RGB.

    scale minmax maps each channel of each whole image from its least and greatest value to 0 and 1 (a channel of one
    value to 0, as OpenCV's NORM_MINMAX does), unit divides by 255; channels bgr puts blue first. Values are rounded
    to the decimals that are written.
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
    # One value for each image, channel and grey level, looked up: a tenth of the time that computing each pixel takes.
    image = np.arange(len(images))[:, None, None, None, None]
    values = np.round(table, DECIMALS)[image, np.arange(3), cut(images, boxes)]
    return values[..., ::-1] if channels == "bgr" else values


def ids(names: list[str], boxes: np.ndarray, start: int, stop: int) -> pl.Series:
    """The first column of the submission for these images, rows start to stop of it (header not counted)."""
    box, pixel = np.divmod(np.arange(start, stop, dtype=np.uint32), np.uint32(BOX * BOX * 3))
    row, rest = np.divmod(pixel, np.uint32(BOX * 3))
    corner = boxes.reshape(-1, 2).astype(np.uint32)[box]
    at = ((corner[:, 0] + row) * np.uint32(SIZE) + corner[:, 1]) * np.uint32(3) + rest
    stems = pl.Series([f"{name}_box{number}_" for name in names for number in (1, 2)])
    return stems[box] + pixel_names()[at]


@cache
def pixel_names() -> pl.Series:
    """The last part of every id there can be: row_column_channel, 196,608 of them, in order."""
    return pl.Series([f"{i}_{j}_{c}" for i in range(SIZE) for j in range(SIZE) for c in range(3)])


def write(path: Path, names: list[str], boxes: np.ndarray, values: Iterable[np.ndarray]) -> None:
    """Write a submission; `values` gives consecutive images, [n, 2, 75, 75, 3] as encode makes them.

    Raises ValueError where the values are not of all the images.
    """
    rows = 0
    with path.open("wb") as file:
        file.write(HEADER)
        for block in values:
            frame = pl.DataFrame({"id": ids(names, boxes, rows, rows + block.size), "value": block.ravel()})
            frame.write_csv(file, include_header=False, float_precision=DECIMALS, quote_style="never")
            rows += block.size
    if rows != len(names) * ROWS_PER_IMAGE:
        raise ValueError(f"{rows} values for {len(names)} images")


def read(path: Path, names: list[str], boxes: np.ndarray) -> np.ndarray:
    """The values of a submission, float64 [n, 2, 75, 75, 3], every row checked.

    Raises BadInput naming the first row whose id is not the one expected there, whose value is no number from 0 to 1,
    that is missing or too many.
    """
    total = len(names) * ROWS_PER_IMAGE
    values: list[np.ndarray] = []
    rows = 0
    with path.open("rb") as file:
        if file.readline() != HEADER:
            raise BadInput(f"{path} does not begin with the line {HEADER.decode().strip()!r}")
        while block := file.read(BLOCK) + file.readline():
            if not block.endswith(NEWLINE):
                raise BadInput(f"{path} line {rows + 2 + block.count(NEWLINE)} has no end: the file is cut short")
            frame = parse(block)
            expected = ids(names, boxes, rows, min(rows + len(frame), total))
            values.append(check(frame, expected, path, rows + 2))
            rows += len(frame)
    if rows < total:
        raise BadInput(
            f"{path} has {rows:,} rows; {ids(names, boxes, rows, rows + 1)[0]!r} and what follows is missing"
        )
    return np.concatenate(values).reshape(-1, 2, BOX, BOX, 3) if values else np.empty((0, 2, BOX, BOX, 3))


def parse(block: bytes) -> pl.DataFrame:
    """Whole lines of a submission as columns id and text, one row a line."""
    try:
        frame = pl.read_csv(block, has_header=False, schema={"id": pl.String, "text": pl.String}, quote_char=None)
        if len(frame) == block.count(NEWLINE) and not block.startswith(codecs.BOM_UTF8):
            return frame
    except pl.exceptions.PolarsError:
        pass
    # Some line is not two fields of UTF-8; line by line, so that check names it.
    lines = [line.rpartition(",") for line in block.decode("utf-8", "replace").removesuffix("\n").split("\n")]
    return pl.DataFrame({"id": [id_ for id_, _, _ in lines], "text": [text for _, _, text in lines]})


def check(frame: pl.DataFrame, expected: pl.Series, path: Path, line: int) -> np.ndarray:
    """The values of these rows, the first of which is on that line of the file. Raises BadInput as read does."""
    common = min(len(frame), len(expected))
    wrong = (frame["id"][:common] != expected[:common]).fill_null(True)
    if wrong.any():
        at = wrong.arg_max()
        raise BadInput(f"{path} line {line + at}: the id is {frame['id'][at]!r}, expected {expected[at]!r}")
    if len(frame) > len(expected):
        raise BadInput(f"{path} goes on at line {line + len(expected)}, after the last row expected")
    values = frame["text"].cast(pl.Float64, strict=False)
    outside = ~values.is_between(0, 1).fill_null(False)  # a NaN lies in no range
    if outside.any():
        at = outside.arg_max()
        raise BadInput(f"{path} line {line + at}: the value is {frame['text'][at]!r}, expected a number from 0 to 1")
    return values.to_numpy()
