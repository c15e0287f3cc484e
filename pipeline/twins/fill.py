"""Fill from a twin: the same photograph among the training images, whole, or one a crop of the other, or mirrored.

A masked image is laid on every training thumbnail in each of PLACEMENTS and correlated with it over its known pixels.
The best few are aligned at full resolution (Evangelidis & Psarakis, "Parametric Image Alignment Using Enhanced
Correlation Coefficient Maximization", 2008), their colours matched, and the nearest over the known pixels fills the
holes, if it is near enough to be the same photograph for certain.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from pipeline.base.progress import progress
from pipeline.competition.boxes import hole_mask
from pipeline.competition.images import SIZE, read_image, to_uint8
from pipeline.competition.index import target_path
from pipeline.twins.groups import thumbnail

GRID = 16  # cells a side of what is correlated; one stands for 16 x 16 pixels
CELLS = 64  # cells known in both that a correlation needs, a quarter of all
CORRELATION = 0.9  # below it nothing is looked at closer
CLOSER = 2  # candidates for each image, at most, that are
ITERATIONS = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 50, 1e-5)
# RMSE over the known pixels near the holes, in their standard deviations. Of 900 training images 245 had a twin below
# 0.38, 213 of them below 0.2, and each was nearer to the truth than the harmonic fill; the first stranger was at 0.43.
DISTANCE = 0.38
NEAR = 16  # pixels around the holes that count as near
PIXELS = 1000  # near the holes and known in both, that a distance needs


class Placement(NamedTuple):
    """Where an image lies on another: in the other's heights and widths. Beyond 0 to 1 the other is the smaller one."""

    top: float
    left: float
    height: float
    width: float
    mirrored: bool


def placements() -> list[Placement]:
    """The whole; parts in full height or width (a wide photograph cropped, not squeezed) and smaller; the reverse."""
    sides = [(1.0, side) for side in (0.9, 0.8, 0.7, 0.6)]
    parts = [(0.0, at * (1 - side), 1.0, side) for _, side in sides for at in (0.0, 0.5, 1.0)]
    parts += [(left, top, width, height) for top, left, height, width in parts]
    parts += [(i * 0.15 / 2, j * 0.15 / 2, 0.85, 0.85) for i in range(3) for j in range(3)]
    parts += [(-top / height, -left / width, 1 / height, 1 / width) for top, left, height, width in parts]
    return [Placement(*part, mirrored) for part in [(0.0, 0.0, 1.0, 1.0), *parts] for mirrored in (False, True)]


PLACEMENTS = placements()


def fill_over(
    filled: np.ndarray,
    masked: np.ndarray,
    boxes: np.ndarray,
    raw: Path,
    index: pd.DataFrame,
    own: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`filled`, uint8 [n, 256, 256, 3], with what twins show put over it; where that is, and whose, as `fill` gives it.

    The twins are whole images of the index's training pairs, which are its first rows.
    """
    whole = [target_path(raw, row) for row in index[index["split"] == "train"].to_dict("records")]
    with ThreadPoolExecutor() as pool:
        read = pool.map(lambda path: thumbnail(read_image(path)), whole)
        thumbnails = np.stack(list(progress(read, "look for twins", len(whole))))
    twins, covered, found = fill(masked, boxes, thumbnails, lambda i: read_image(whole[i]), own)
    return np.where(covered[..., None], twins, filled), covered, found


def fill(
    masked: np.ndarray,
    boxes: np.ndarray,
    thumbnails: np.ndarray,
    read: Callable[[int], np.ndarray],
    own: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fill what a twin shows: uint8 [n, 256, 256, 3], where it did, bool [n, 256, 256], and whose, int [n], -1 without.

    masked is uint8 [n, 256, 256, 3], boxes int [n, 2, 2], thumbnails float32 [k, 32, 32, 3] of the training images as
    twins.thumbnail makes them; read(i) gives the i-th image whole. own, int [n], is the training image not to be
    looked at: that of the masked one itself. Known pixels stay as they are; so do holes where there is no twin.
    """
    known = ~hole_mask(boxes)
    candidates = search(masked, known, thumbnails, np.full(len(masked), -1) if own is None else own)

    def best(k: int) -> tuple[float, int, np.ndarray, np.ndarray]:
        tried = [(*align(masked[k], known[k], read(i), PLACEMENTS[place]), i) for i, place in candidates[k]]
        return min(tried, key=lambda one: one[0], default=(np.inf, masked[k], known[k], -1))

    with ThreadPoolExecutor() as pool:
        distances, twins, shown, found = zip(*pool.map(best, range(len(masked))), strict=True)
    certain = np.array(distances) <= DISTANCE
    covered = np.stack(shown) & ~known & certain[:, None, None]
    filled = np.where(covered[..., None], np.stack(twins), masked)
    return filled, covered, np.where(certain, found, -1)


def search(masked: np.ndarray, known: np.ndarray, thumbnails: np.ndarray, own: np.ndarray) -> list[list]:
    """For each image its best candidates, the nearest first: (training image, number of the placement)."""
    n, cells = len(masked), GRID * GRID
    small = cells_of(thumbnails, cell_weights(0, 1, thumbnails.shape[1]), cell_weights(0, 1, thumbnails.shape[1]))
    small = small.reshape(len(small), cells, 3) - np.float32(0.5)
    flat, total, square = small.reshape(len(small), -1), small.sum(2), np.square(small).sum(2)
    quarter = masked.reshape(n, 64, 4, 64, 4, 3).mean(axis=(2, 4), dtype=np.float32) / np.float32(255)
    # known as a share, so that a cell counts only where all of it is known
    share = known.reshape(n, 64, 4, 64, 4).all(axis=(2, 4)).astype(np.float32)[..., None]
    best: list[list[tuple[float, int, int]]] = [[] for _ in range(n)]
    for number, place in enumerate(PLACEMENTS):
        rows = cell_weights(place.top, place.height, 64)
        columns = cell_weights(place.left, place.width, 64)
        image, full = (cells_of(a[:, :, ::-1] if place.mirrored else a, rows, columns) for a in (quarter, share))
        mask = (full > 0.999).reshape(n, cells).astype(np.float32)
        image = (image.reshape(n, cells, 3) - np.float32(0.5)) * mask[..., None]
        correlation = correlate(image, mask, flat, total, square)
        inside = own >= 0
        correlation[np.flatnonzero(inside), own[inside]] = -1
        nearest = correlation.argmax(axis=1)
        for k, i in enumerate(nearest):
            best[k].append((correlation[k, i], int(i), number))
    return [[(i, number) for value, i, number in top(one)] for one in best]


def top(tried: list[tuple[float, int, int]]) -> Iterator[tuple[float, int, int]]:
    """The CLOSER most correlated of different training images above CORRELATION."""
    seen: set[int] = set()
    for value, i, number in sorted(tried, reverse=True):
        if value < CORRELATION or len(seen) == CLOSER:
            return
        if i not in seen:
            seen.add(i)
            yield value, i, number


def correlate(
    image: np.ndarray, mask: np.ndarray, flat: np.ndarray, total: np.ndarray, square: np.ndarray
) -> np.ndarray:
    """Pearson's correlation over the known cells of all three channels, float32 [n, k]; -1 where too few are known.

    image [n, cells, 3], 0 where mask [n, cells] is; of the thumbnails flat [k, cells * 3], their sums over the channels
    and those of their squares [k, cells].
    """
    cells = mask.sum(1)
    count = 3 * np.maximum(cells, 1)[:, None]
    mean = image.sum((1, 2)) / count[:, 0]
    image = (image - mean[:, None, None]) * mask[..., None]
    variance = np.square(image).sum((1, 2))[:, None] / count
    other_variance = mask @ square.T / count - np.square(mask @ total.T / count)
    covariance = image.reshape(len(image), -1) @ flat.T / count
    value = covariance / np.sqrt(np.maximum(variance * other_variance, 1e-8))
    return np.where(cells[:, None] >= CELLS, value, -1)


def cell_weights(start: float, length: float, pixels: int) -> np.ndarray:
    """How much of each of `pixels` is in each of GRID cells of an image that this one covers from start for length.

    float32 [GRID, pixels]; a row sums to the share of the cell that is covered.
    """
    edges = start + length * np.arange(pixels + 1) / pixels
    cells = np.arange(GRID + 1) / GRID
    overlap = np.minimum(edges[None, 1:], cells[1:, None]) - np.maximum(edges[None, :-1], cells[:-1, None])
    return (np.maximum(overlap, 0) * GRID).astype(np.float32)


def cells_of(images: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The weighted mean of the pixels [n, h, w, c] in each cell: [n, GRID, GRID, c]."""
    n, height, width, channels = images.shape
    some = np.tensordot(rows, images, (1, 1))  # [grid, n, w, c]
    return np.tensordot(columns, some, (1, 2)).transpose(2, 1, 0, 3)


def align(
    masked: np.ndarray, known: np.ndarray, photograph: np.ndarray, place: Placement
) -> tuple[float, np.ndarray, np.ndarray]:
    """A training image as the masked one would show it: the distance, the image uint8, where it shows it bool.

    The distance is in standard deviations of the masked image's known pixels; it is infinite where the two cannot be
    aligned.
    """
    nothing = np.inf, masked, np.zeros_like(known)
    grey, other = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (masked, photograph))
    # [x, y] of the masked image to those of the photograph
    sign = -1 if place.mirrored else 1
    shift = place.left + (place.width if place.mirrored else 0)
    matrix = np.array([[sign * place.width, 0, shift * SIZE], [0, place.height, place.top * SIZE]], np.float32)
    matrix[:, 2] += matrix[:, :2].sum(1) / 2 - 0.5  # pixels have their centres in the middle
    far = cv2.erode(known.astype(np.uint8), np.ones((7, 7)))  # away from what JPEG made of the holes' rims
    try:
        _, matrix = cv2.findTransformECC(grey, other, matrix, cv2.MOTION_AFFINE, ITERATIONS, far, 5)
    except cv2.error:
        return nothing
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(photograph, matrix, (SIZE, SIZE), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    shown = cv2.warpAffine(np.full((SIZE, SIZE), 255, np.uint8), matrix, (SIZE, SIZE), flags=flags) == 255
    around = cv2.dilate((~known).astype(np.uint8), np.ones((2 * NEAR + 1, 2 * NEAR + 1))) > 0
    common = around & shown & (far > 0)
    if common.sum() < PIXELS:
        return nothing
    matched, error = match_colours(warped, masked, common)
    # Of each channel by itself: a blue sky is no nearer to another for being far from grey.
    contrast = float(np.sqrt(masked[common].var(axis=0).mean()))
    return error / max(contrast, 1.0), matched, shown


def match_colours(image: np.ndarray, wanted: np.ndarray, common: np.ndarray) -> tuple[np.ndarray, float]:
    """`image` with gain and offset of each channel such that it is nearest to `wanted` where bool [h, w] `common` is.

    Also the RMSE that is left there, in grey levels.
    """
    matched = np.empty(image.shape, np.float64)
    for channel in range(3):
        x, y = image[common, channel].astype(np.float64), wanted[common, channel].astype(np.float64)
        gain = np.cov(x, y, bias=True)[0, 1] / max(x.var(), 1.0)
        matched[..., channel] = gain * (image[..., channel] - x.mean()) + y.mean()
    error = float(np.sqrt(np.mean(np.square(matched[common] - wanted[common]))))
    return to_uint8(matched), error
