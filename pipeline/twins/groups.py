"""The same photograph twice: near-identical images, found over the pixels that are known in both."""

import cv2
import numpy as np

from pipeline.competition.boxes import hole_mask
from pipeline.competition.images import SIZE

THUMBNAIL = 32  # pixels a side; one stands for 8 x 8 of the photograph
CELL = SIZE // THUMBNAIL
# RMSE over the known pixels of two thumbnails in [0, 1]. In the real data nearly all twins lie below 0.02, cropped or
# recoloured ones up to 0.06, and the next nearest image at 0.11. Grouping two strangers costs a split nothing.
DISTANCE = 0.06
# Two thumbnails that share fewer known pixels than this say nothing of each other (two boxes leave 700 at least).
SHARED = 256


def thumbnail(image: np.ndarray) -> np.ndarray:
    """A photograph, uint8 [256, 256, 3], as float32 [32, 32, 3] in [0, 1]: the mean of each 8 x 8 pixels."""
    small = cv2.resize(image.astype(np.float32), (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return small / np.float32(255)


def known_cells(boxes: np.ndarray) -> np.ndarray:
    """Which thumbnail pixels no box touches: bool [n, 32, 32] from boxes [n, 2, 2]."""
    return ~hole_mask(boxes).reshape(-1, THUMBNAIL, CELL, THUMBNAIL, CELL).any(axis=(2, 4))


def twin_pairs(thumbnails: np.ndarray, known: np.ndarray, block: int = 512) -> np.ndarray:
    """Every two images nearer than DISTANCE: int [k, 2], the lower index first, in order.

    thumbnails float32 [n, 32, 32, 3] in [0, 1], known bool [n, 32, 32]. The mean square over the pixels known in
    both is expanded into products of matrices, sum(ma mb (a - b)^2) = (ma a^2)' mb - 2 (ma a)' (mb b) + ma' (mb b^2),
    block by block; near candidates are then measured directly, which rounding cannot blur.
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
    """RMSE between images a and b over the thumbnail pixels that are known in both."""
    both = known[a] & known[b]
    return float(np.sqrt(np.mean(np.square(thumbnails[a][both] - thumbnails[b][both]))))


def group(pairs: np.ndarray, n: int) -> np.ndarray:
    """int [n]: images joined by twin pairs, directly or through others, share a number: that of their first."""
    parent = list(range(n))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for a, b in pairs:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return np.array([root(i) for i in range(n)], dtype=np.int64)
