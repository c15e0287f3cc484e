"""What the residual networks learn from: photographs or parts of them, mirrored or not, with holes drawn anew."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from pipeline import paths
from pipeline.base.progress import progress
from pipeline.competition.boxes import LAST, hole_mask
from pipeline.competition.images import SIZE, read_image
from pipeline.competition.index import boxes_of, masked_path, target_path
from pipeline.params import Residual
from pipeline.systems.residual import network
from pipeline.training.data import TrainingData

KNOWN = 255
RIMS = slice(None, None, 8)  # of a device's photographs, those also seen at full resolution: a rim needs fewer examples


class Draws(NamedTuple):
    """What is drawn for n samples."""

    chosen: np.ndarray  # int [n]: photographs
    mirrored: np.ndarray  # bool [n, 1, 1, 1]
    boxes: np.ndarray  # int [n, 2, 2]
    start: np.ndarray  # int [n, 2]: the upper left corner of the part that is seen, in pixels
    length: np.ndarray  # int [n, 2]: its height and width


def draw(photographs: int, settings: Residual, rng: np.random.Generator) -> Draws:
    """The draws of one batch, from so many photographs."""
    size = settings.batch_size
    chosen = rng.integers(photographs, size=size)
    mirrored = rng.random((size, 1, 1, 1)) < 0.5
    boxes = rng.integers(0, LAST + 1, (size, 2, 2))
    return Draws(chosen, mirrored, boxes, *draw_parts(rng, size, settings.zoom))


def draw_batch(
    photographs: np.ndarray, settings: Residual, rng: np.random.Generator, local: slice, share: int
) -> tuple[np.ndarray, ...]:
    """The local part of one batch, for devices that get `share` photographs each: as training.batches describes it.

    photographs are those of read_photographs. Unknown pixels are holes of weight 0.
    """
    drawn, side = draw(len(photographs), settings, rng), settings.resolution

    def cut(rows: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
        parts = cut_parts(photographs[drawn.chosen[rows]], drawn.start[rows], drawn.length[rows], side)
        parts = np.where(drawn.mirrored[rows], parts[:, :, ::-1], parts)
        return parts[..., :3], parts[..., 3] == KNOWN

    here = np.arange(settings.batch_size)[local]
    images, known = cut(here, side)
    weights = network.weigh(drawn.boxes[here], side)
    near = here.reshape(-1, share)[:, RIMS].ravel()
    rims = network.rim_examples(*cut(near, SIZE), drawn.boxes[near], side)
    return *network.examples(images, (weights > 0) | ~known), weights * known, *rims


def draw_parts(rng: np.random.Generator, n: int, zoom: float) -> tuple[np.ndarray, np.ndarray]:
    """Half of the times the whole photograph, else a part: upper left corner and lengths, int [n, 2] each, in pixels.

    A part is 1 to `zoom` times smaller in width and height, and up to a tenth higher or lower than it is wide.
    """
    ratio = rng.uniform(1, zoom, (n, 1)) * np.hstack([rng.uniform(0.9, 1.1, (n, 1)), np.ones((n, 1))])
    ratio[(rng.random(n) < 0.5) | (zoom == 1)] = 1
    length = np.minimum(SIZE / ratio, SIZE).astype(int)
    return (rng.random((n, 2)) * (SIZE - length + 1)).astype(int), length


def cut_parts(photographs: np.ndarray, start: np.ndarray, length: np.ndarray, side: int) -> np.ndarray:
    """These parts of photographs, uint8 [n, 256, 256, 4], each resized to [side, side, 4]."""
    parts = (
        photograph[top : top + height, left : left + width]
        for photograph, (top, left), (height, width) in zip(photographs, start, length, strict=True)
    )
    return np.stack([cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA) for part in parts])


def input_files(settings: Residual, data: TrainingData) -> list[Path]:
    """The photographs themselves, then the masked images that are learned from."""
    targets = [target_path(paths.RAW, row) for row in data.pairs.to_dict("records")]
    return targets + [masked_path(paths.RAW, row) for row in partly_known(settings, data).to_dict("records")]


def partly_known(settings: Residual, data: TrainingData) -> pd.DataFrame:
    """The rows to learn from whose masked image alone may be seen.

    Two images of one photograph have different holes, and one would show what is held out of the other: both are left
    out.
    """
    return data.masked_only[settings.masked_images & ~data.masked_only["group"].duplicated(keep=False)]


def read_photographs(settings: Residual, data: TrainingData) -> np.ndarray:
    """All photographs to learn from: uint8 [n, 256, 256, 4], the last channel KNOWN outside the masked images' holes.

    They take 1.8 GB for the competition.
    """
    files = input_files(settings, data)
    photographs = np.full((len(files), SIZE, SIZE, 4), KNOWN, np.uint8)
    with ThreadPoolExecutor() as pool:
        images = progress(pool.map(read_image, files), "read photographs", len(files))
        for photograph, image in zip(photographs, images, strict=True):
            photograph[..., :3] = image
    photographs[len(data.pairs) :, ..., 3][hole_mask(boxes_of(partly_known(settings, data)))] = 0
    return photographs
