"""Find near-identical images (twins) over the pixels known in both, and group them."""

import cv2
import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.competition.boxes import hole_mask
from pipeline.competition.images import SIZE
from pipeline.competition.index import boxes_of

THUMBNAIL = 32  # pixels a side; one covers 8 x 8 of the photograph
CELL = SIZE // THUMBNAIL
# RMSE over the known pixels of two thumbnails in [0, 1]. In the real data nearly all twins are below 0.02, cropped or
# recoloured ones reach 0.06, and the nearest other images are at 0.11. Grouping two strangers does a split no harm.
DISTANCE = 0.06
# Two thumbnails that share fewer known pixels are not compared (two boxes leave at least 700).
SHARED = 256


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Reduce a photograph, uint8 [256, 256, 3], to the means of 8 x 8 pixels: float32 [32, 32, 3] in [0, 1]."""
    small = cv2.resize(image.astype(np.float32), (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return small / np.float32(255)


def group_twins(rows: pd.DataFrame, thumbnails: np.ndarray) -> np.ndarray:
    """The twin group of each index row, int64 [n]: the number of the group's first row.

    thumbnails is float32 [n, 32, 32, 3]: of a pair's target, of a test row's masked image, whose hole is left out.
    """
    known = np.ones(thumbnails.shape[:3], bool)
    test = (rows["split"] == "test").to_numpy()
    known[test] = known_cells(boxes_of(rows[test]))
    return group(twin_pairs(thumbnails, known), len(rows))


def known_cells(boxes: np.ndarray) -> np.ndarray:
    """The thumbnail pixels that no box touches: bool [n, 32, 32] from boxes [n, 2, 2]."""
    return ~hole_mask(boxes).reshape(-1, THUMBNAIL, CELL, THUMBNAIL, CELL).any(axis=(2, 4))


def twin_pairs(thumbnails: np.ndarray, known: np.ndarray, block: int = 512) -> np.ndarray:
    """All pairs of images within DISTANCE: int [k, 2], the lower index first, sorted.

    thumbnails float32 [n, 32, 32, 3] in [0, 1], known bool [n, 32, 32]. The mean square over the pixels known in
    both is expanded into products of matrices, sum(ma mb (a - b)^2) = (ma a^2)' mb - 2 (ma a)' (mb b) + ma' (mb b^2),
    block by block. Candidates within twice DISTANCE are then measured directly, without these rounding errors.
    """
    n = len(thumbnails)
    mask = known.reshape(n, THUMBNAIL * THUMBNAIL).astype(np.float32)
    image = (thumbnails.reshape(n, mask.shape[1], 3) - np.float32(0.5)) * mask[:, :, None]
    square = np.square(image).sum(axis=2)
    flat = image.reshape(n, mask.shape[1] * 3)
    found = []
    for start in range(0, n, block):
        here = slice(start, start + block)
        total = square[here] @ mask[start:].T + mask[here] @ square[start:].T - 2 * (flat[here] @ flat[start:].T)
        shared = mask[here] @ mask[start:].T
        near = (total <= shared * 3 * (2 * DISTANCE) ** 2) & (shared >= SHARED)
        a, b = np.nonzero(near)
        found.append(np.column_stack([a + start, b + start])[a < b])
    pairs = np.concatenate(found) if found else np.empty((0, 2), int)
    return pairs[[distance(thumbnails, known, a, b) <= DISTANCE for a, b in pairs]] if len(pairs) else pairs


def distance(thumbnails: np.ndarray, known: np.ndarray, a: int, b: int) -> float:
    """The RMSE between images a and b over the thumbnail pixels known in both."""
    both = known[a] & known[b]
    return float(np.sqrt(np.mean(np.square(thumbnails[a][both] - thumbnails[b][both]))))


def group(pairs: np.ndarray, n: int) -> np.ndarray:
    """int64 [n]: images connected by pairs, directly or through others, share the number of their first image."""
    graph = coo_array((np.ones(len(pairs)), tuple(pairs.T)), shape=(n, n))
    _, labels = connected_components(graph, directed=False)
    return np.unique(labels, return_index=True)[1][labels]
