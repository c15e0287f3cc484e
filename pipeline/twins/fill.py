"""Fill from a twin: a training image that is the same photograph, or a crop or mirror image of it, or contains it.

A masked image is laid on every training thumbnail in each of PLACEMENTS and correlated with it over its known pixels.
keypoints.py finds other candidates. The best few of both are aligned at full resolution (Evangelidis & Psarakis,
"Parametric Image Alignment Using Enhanced Correlation Coefficient Maximization", 2008) and their colours matched. The
nearest over the known pixels fills the hole if it is near enough to be certainly the same photograph.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from pipeline.base.progress import progress
from pipeline.competition.boxes import unknown_mask
from pipeline.competition.images import SIZE, read_image, to_uint8
from pipeline.competition.index import target_path
from pipeline.twins import keypoints
from pipeline.twins.groups import thumbnail
from pipeline.twins.keypoints import Keypoints

GRID = 16  # cells a side of what is correlated; one covers 16 x 16 pixels
CELLS = 64  # known cells that a correlation needs, a quarter of all
CORRELATION = 0.9  # the least of a candidate
CANDIDATES = 2  # at most, for each image
ITERATIONS = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 50, 1e-5)
# RMSE over the known pixels near the hole, in their standard deviations. Of 5800 training images some 1600 have a twin
# by these thresholds, each nearer to the target than the harmonic fill. One is a stranger on the same white ground.
DISTANCE = 0.38
CONFIRMED = 0.45  # for a candidate on which AGREEING keypoints or more agree
AGREEING = 20  # another picture of a series had 18
NEAR = 16  # pixels around the hole that count as near
PIXELS = 1000  # near the hole, known and inside the training image, that a distance needs


class Candidate(NamedTuple):
    """What a training image is found by."""

    thumbnail: np.ndarray  # float32 [32, 32, 3], as groups.thumbnail makes it
    keypoints: Keypoints


class Placement(NamedTuple):
    """Where an image lies on another, in the other's heights and widths; beyond 0 to 1 the other is the smaller."""

    top: float
    left: float
    height: float
    width: float
    mirrored: bool


def placements() -> list[Placement]:
    """All of it; parts of full height or width (a wide photograph cropped, not squeezed) and smaller; the reverse."""
    sides = [(1.0, side) for side in (0.9, 0.8, 0.7, 0.6)]
    parts = [(0.0, at * (1 - side), 1.0, side) for _, side in sides for at in (0.0, 0.5, 1.0)]
    parts += [(left, top, width, height) for top, left, height, width in parts]
    parts += [(i * 0.15 / 2, j * 0.15 / 2, 0.85, 0.85) for i in range(3) for j in range(3)]
    parts += [(-top / height, -left / width, 1 / height, 1 / width) for top, left, height, width in parts]
    return [Placement(*part, mirrored) for part in [(0.0, 0.0, 1.0, 1.0), *parts] for mirrored in (False, True)]


PLACEMENTS = placements()


def fill_from_pairs(
    masked: np.ndarray, boxes: np.ndarray, raw: Path, index: pd.DataFrame, own: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `fill` returns with the targets of all pairs as candidates.

    The pairs (rows of the index whose split is not "test") are its first rows.
    """
    paths = [target_path(raw, row) for row in index[index["split"] != "test"].to_dict("records")]
    with ThreadPoolExecutor() as pool:
        read = pool.map(lambda path: describe(read_image(path)), paths)
        candidates = list(progress(read, "describe photographs", len(paths)))
    return fill(masked, boxes, candidates, lambda i: read_image(paths[i]), own)


def describe(photograph: np.ndarray) -> Candidate:
    """What a training image, uint8 [256, 256, 3], is found by."""
    return Candidate(thumbnail(photograph), keypoints.detect(photograph))


def fill(
    masked: np.ndarray,
    boxes: np.ndarray,
    candidates: list[Candidate],
    read: Callable[[int], np.ndarray],
    own: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fill from twins, as far as a twin shows what is in the hole; known pixels stay byte for byte.

    masked is uint8 [n, 256, 256, 3], boxes int [n, 2, 2]; read(i) returns the i-th candidate in full resolution. own,
    int [n], is the candidate that is the masked image itself and is skipped. Returns the filled images, filled_mask,
    bool [n, 256, 256], and found, int [n]: the candidate that filled each. own and found are -1 for none.
    """
    known = ~unknown_mask(masked, boxes)
    thumbnails, points = zip(*candidates, strict=True)
    laid = search(masked, known, np.stack(thumbnails), own)
    matched = keypoints.search(masked, known, points, own)

    def best(k: int) -> tuple[float, np.ndarray, np.ndarray, int]:
        starts = [(i, start_of(PLACEMENTS[place]), 0) for i, place in laid[k]] + matched[k]
        nearest = np.inf, masked[k], np.zeros_like(known[k]), -1
        for i, start, agreeing in starts:
            distance, twin, inside = align(masked[k], known[k], read(i), start)
            if distance <= (CONFIRMED if agreeing >= AGREEING else DISTANCE) and distance < nearest[0]:
                nearest = distance, twin, inside, i
        return nearest

    with ThreadPoolExecutor() as pool:
        nearest = progress(pool.map(best, range(len(masked))), "align candidates", len(masked))
        _, twins, inside, found = zip(*nearest, strict=True)
    filled_mask = np.stack(inside) & ~known
    return np.where(filled_mask[..., None], np.stack(twins), masked), filled_mask, np.array(found)


def search(masked: np.ndarray, known: np.ndarray, thumbnails: np.ndarray, own: np.ndarray) -> list[list]:
    """Each image's candidates, the most correlated first: (training image, index into PLACEMENTS)."""
    n, cells = len(masked), GRID * GRID
    weights = cell_weights(0, 1, thumbnails.shape[1])
    small = cells_of(thumbnails, weights, weights).reshape(len(thumbnails), cells, 3) - np.float32(0.5)
    flat, total, square = small.reshape(len(small), -1), small.sum(2), np.square(small).sum(2)
    quarter = masked.reshape(n, 64, 4, 64, 4, 3).mean(axis=(2, 4), dtype=np.float32) / np.float32(255)
    # As shares, so that a cell counts only if all of it is known.
    share = known.reshape(n, 64, 4, 64, 4).all(axis=(2, 4)).astype(np.float32)[..., None]
    tried: list[list[tuple[float, int, int]]] = [[] for _ in range(n)]
    for number, place in enumerate(PLACEMENTS):
        rows = cell_weights(place.top, place.height, 64)
        columns = cell_weights(place.left, place.width, 64)
        image, full = (cells_of(a[:, :, ::-1] if place.mirrored else a, rows, columns) for a in (quarter, share))
        known_cells = (full > 0.999).reshape(n, cells).astype(np.float32)
        image = (image.reshape(n, cells, 3) - np.float32(0.5)) * known_cells[..., None]
        correlation = correlate(image, known_cells, flat, total, square)
        has_own = own >= 0
        correlation[np.flatnonzero(has_own), own[has_own]] = -1
        for k, i in enumerate(correlation.argmax(axis=1)):
            tried[k].append((correlation[k, i], int(i), number))
    return [[(i, number) for _, i, number in top(one)] for one in tried]


def top(tried: list[tuple[float, int, int]]) -> Iterator[tuple[float, int, int]]:
    """The CANDIDATES most correlated, of different training images and above CORRELATION."""
    seen: set[int] = set()
    for value, i, number in sorted(tried, reverse=True):
        if value < CORRELATION or len(seen) == CANDIDATES:
            return
        if i not in seen:
            seen.add(i)
            yield value, i, number


def correlate(
    image: np.ndarray, known: np.ndarray, flat: np.ndarray, total: np.ndarray, square: np.ndarray
) -> np.ndarray:
    """Pearson's correlation over the known cells of all three channels, float32 [n, k]; -1 if too few are known.

    image is [n, cells, 3], 0 where known [n, cells] is 0. Of the thumbnails: flat [k, cells * 3], and the sums over the
    channels of the values and of their squares, total and square [k, cells].
    """
    cells = known.sum(1)
    count = 3 * np.maximum(cells, 1)[:, None]
    mean = image.sum((1, 2)) / count[:, 0]
    image = (image - mean[:, None, None]) * known[..., None]
    variance = np.square(image).sum((1, 2))[:, None] / count
    other_variance = known @ square.T / count - np.square(known @ total.T / count)
    covariance = image.reshape(len(image), -1) @ flat.T / count
    value = covariance / np.sqrt(np.maximum(variance * other_variance, 1e-8))
    return np.where(cells[:, None] >= CELLS, value, -1)


def cell_weights(start: float, length: float, pixels: int) -> np.ndarray:
    """How much of each pixel lies in each cell when `pixels` pixels cover an image from `start` for `length`.

    float32 [GRID, pixels]; a row sums to the share of the cell that is covered.
    """
    edges = start + length * np.arange(pixels + 1) / pixels
    cells = np.arange(GRID + 1) / GRID
    overlap = np.minimum(edges[None, 1:], cells[1:, None]) - np.maximum(edges[None, :-1], cells[:-1, None])
    return (np.maximum(overlap, 0) * GRID).astype(np.float32)


def cells_of(images: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The weighted mean of the pixels [n, h, w, c] in each cell: [n, GRID, GRID, c]."""
    n, height, width, channels = images.shape
    bands = np.tensordot(rows, images, (1, 1))  # [grid, n, w, c]
    return np.tensordot(columns, bands, (1, 2)).transpose(2, 1, 0, 3)


def start_of(place: Placement) -> np.ndarray:
    """A placement as a matrix, float64 [2, 3], from (x, y, 1) in the masked image to (x, y) in the photograph."""
    sign = -1 if place.mirrored else 1
    shift = place.left + (place.width if place.mirrored else 0)
    matrix = np.array([[sign * place.width, 0, shift * SIZE], [0, place.height, place.top * SIZE]])
    matrix[:, 2] += matrix[:, :2].sum(1) / 2 - 0.5  # a pixel's centre is in its middle
    return matrix


def align(
    masked: np.ndarray, known: np.ndarray, photograph: np.ndarray, start: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Warp a training image onto the masked one: the distance, the result uint8, and which pixels lie inside it.

    The distance is in standard deviations of the masked image's known pixels; it is infinite if the two cannot be
    aligned.
    """
    nothing = np.inf, masked, np.zeros_like(known)
    grey, other = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (masked, photograph))
    clean = cv2.erode(known.astype(np.uint8), np.ones((7, 7)))  # away from the JPEG noise at the hole's rim
    try:
        _, matrix = cv2.findTransformECC(grey, other, start.astype(np.float32), cv2.MOTION_AFFINE, ITERATIONS, clean, 5)
    except cv2.error:
        return nothing
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(photograph, matrix, (SIZE, SIZE), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpAffine(np.full((SIZE, SIZE), 255, np.uint8), matrix, (SIZE, SIZE), flags=flags) == 255
    around = cv2.dilate((~known).astype(np.uint8), np.ones((2 * NEAR + 1, 2 * NEAR + 1))) > 0
    common = around & inside & (clean > 0)
    if common.sum() < PIXELS:
        return nothing
    matched, error = match_colours(warped, masked, common)
    # Per channel: a blue sky is no nearer to another one because blue is far from grey.
    contrast = float(np.sqrt(masked[common].var(axis=0).mean()))
    return error / max(contrast, 1.0), matched, inside


def match_colours(image: np.ndarray, target: np.ndarray, common: np.ndarray) -> tuple[np.ndarray, float]:
    """Give each channel of `image` the gain and offset that bring it nearest to `target` where `common`, bool [h, w].

    Returns the result, uint8, and the RMSE that is left there, in grey levels.
    """
    matched = np.empty(image.shape, np.float64)
    for channel in range(3):
        x, y = image[common, channel].astype(np.float64), target[common, channel].astype(np.float64)
        gain = np.cov(x, y, bias=True)[0, 1] / max(x.var(), 1.0)
        matched[..., channel] = gain * (image[..., channel] - x.mean()) + y.mean()
    error = float(np.sqrt(np.mean(np.square(matched[common] - target[common]))))
    return to_uint8(matched), error
