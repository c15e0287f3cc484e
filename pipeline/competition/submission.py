"""The submission: its rows and their order, how pixels become values, writing and checking the CSV.

    filename_box_pixel,value
    Tiger (1024).jpeg_box1_58_27_0,0.40392

One row for each image in the order of the test masked_info.csv, box 1 then box 2, for each row i and column j of the
image inside the box, for each channel. 200 images give 6,750,000 rows.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import polars as pl

from pipeline.base.errors import BadInput
from pipeline.competition.boxes import BOX, cut

HEADER = b"filename_box_pixel,value\n"
ROWS_PER_IMAGE = 2 * BOX * BOX * 3
DECIMALS = 5
IMAGES_AT_ONCE = 10  # so that memory stays small however many there are

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
    pixels = cut(images, boxes).astype(np.float64)
    if scale == "minmax":
        low = images.min(axis=(1, 2))[:, None, None, None].astype(np.float64)
        high = images.max(axis=(1, 2))[:, None, None, None].astype(np.float64)
        values = (pixels - low) / np.maximum(high - low, 1)
    else:
        values = pixels / 255
    return np.round(values[..., ::-1] if channels == "bgr" else values, DECIMALS)


def ids(names: list[str], boxes: np.ndarray) -> pl.Series:
    """The first column for these images, their names in the order of the csv: 33,750 strings an image."""
    offset = np.arange(BOX)
    shape = (len(names), 2, BOX, BOX, 3)
    row = np.broadcast_to((boxes[:, :, 0, None] + offset)[:, :, :, None, None], shape)
    column = np.broadcast_to((boxes[:, :, 1, None] + offset)[:, :, None, :, None], shape)
    stems = [f"{name}_box{box}_" for name in names for box in (1, 2)]
    return pl.select(
        pl.concat_str(
            pl.Series(stems).repeat_by(BOX * BOX * 3).explode(),
            pl.Series(row.ravel()),
            pl.lit("_"),
            pl.Series(column.ravel()),
            pl.lit("_"),
            pl.Series(np.tile(np.arange(3), len(names) * 2 * BOX * BOX)),
        )
    ).to_series()


def write(path: Path, names: list[str], boxes: np.ndarray, values: Iterator[np.ndarray]) -> Iterator[int]:
    """Write a submission; `values` gives [n, 2, 75, 75, 3] of IMAGES_AT_ONCE images at a time, as encode makes them.

    Yields the number of images written so far.
    """
    with path.open("wb") as file:
        file.write(HEADER)
        for part, block in zip(parts(len(names)), values, strict=True):
            frame = pl.DataFrame({"id": ids(names[part], boxes[part]), "value": block.ravel()})
            frame.write_csv(file, include_header=False, float_precision=DECIMALS, quote_style="never")
            yield min(part.stop, len(names))


def read(path: Path, names: list[str], boxes: np.ndarray) -> Iterator[np.ndarray]:
    """Check a submission row by row as it is read, yielding the values of IMAGES_AT_ONCE images: [n, 2, 75, 75, 3].

    Raises BadInput naming the first row whose id is not the one expected there, whose value is no number from 0 to 1,
    that is missing or too many.
    """
    with path.open("rb") as file:
        if file.readline() != HEADER:
            raise BadInput(f"{path} does not begin with the line {HEADER.decode().strip()!r}")
        line = 2
        for part in parts(len(names)):
            expected = ids(names[part], boxes[part])
            values = parse(list(islice(file, len(expected))), expected, path, line)
            line += len(values)
            yield values.reshape(-1, 2, BOX, BOX, 3)
        if file.read(1):
            raise BadInput(f"{path} goes on at line {line}, after the last row expected")


def parts(n: int) -> list[slice]:
    """n images in runs of IMAGES_AT_ONCE."""
    return [slice(start, start + IMAGES_AT_ONCE) for start in range(0, n, IMAGES_AT_ONCE)]


def parse(lines: list[bytes], expected: pl.Series, path: Path, first: int) -> np.ndarray:
    """The values of these lines, which must bear the expected ids; `first` is the number of the first line."""
    try:
        rows = pl.read_csv(
            b"".join(lines), has_header=False, schema={"id": pl.String, "text": pl.String}, quote_char=None
        )
    except pl.exceptions.PolarsError:
        rows = pl.DataFrame({"id": [line.decode("utf-8", "replace").strip() for line in lines], "text": ""})
    rows = rows.with_columns(value=pl.col("text").cast(pl.Float64, strict=False))
    common = min(len(rows), len(expected))
    wrong = (rows["id"][:common] != expected[:common]).fill_null(True)
    if wrong.any():
        at = wrong.arg_max()
        raise BadInput(f"{path} line {first + at}: the id is {rows['id'][at]!r}, expected {expected[at]!r}")
    if len(rows) < len(expected):
        raise BadInput(f"{path} ends after line {first + len(rows) - 1}; the row {expected[len(rows)]!r} is missing")
    outside = ~rows["value"].is_between(0, 1).fill_null(False)  # a NaN lies in no range
    if outside.any():
        at = outside.arg_max()
        raise BadInput(f"{path} line {first + at}: the value is {rows['text'][at]!r}, expected a number from 0 to 1")
    return rows["value"].to_numpy()
