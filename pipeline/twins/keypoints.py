"""Find candidate twins by their keypoints, which tell a photograph by its details, whatever its crop, size and colours.

Keypoints are SIFT's (Lowe, "Distinctive Image Features from Scale-Invariant Keypoints", 2004), compared as RootSIFT
(Arandjelović & Zisserman, 2012). Each becomes TABLES words, the signs of BITS random projections (Charikar, "Similarity
Estimation Techniques from Rounding Algorithms", 2002). The images that share the most rare words (tf-idf) are matched
point by point, and RANSAC fits the similarity that moves the most points of one onto the other.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
from scipy.sparse import csr_array

from pipeline.competition.images import SIZE

DETECTED = 128  # pixels a side of the image in which keypoints are looked for
MOST = 200  # keypoints of an image
CONTRAST = 0.01  # the least of a keypoint; photographs of animals have smooth fur
RIM = 9  # pixels a side of the erosion that keeps keypoints away from a hole's rim
TABLES, BITS = 6, 14
SAMPLED = 100  # images whose descriptors' mean is that of all
ROWS = 50_000  # descriptors turned into words at once
MATCHED = 12  # images that are matched point by point, as they are and mirrored
RATIO = 0.85  # of the distances to the nearest and the second nearest descriptor, at most
REACH = 4.0  # pixels between a moved point and its match
TRIALS = 500  # of RANSAC
LEAST = 5  # points that must agree
SCALES = (0.4, 2.5)  # beyond, a fit gathers its points on whiskers and grass
TILT = 15.0  # degrees; photographs are cropped and mirrored, hardly rotated
MIRROR = np.array([[-1.0, 0.0, SIZE - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


class Keypoints(NamedTuple):
    points: np.ndarray  # float32 [k, 2]: x and y in pixels of the image
    descriptors: np.ndarray  # uint8 [k, 128]


class Match(NamedTuple):
    """A candidate, where it lies, and how many points agree."""

    image: int
    matrix: np.ndarray  # float64 [2, 3], from (x, y, 1) in the masked image to (x, y) in the candidate
    agreeing: int


def detect(image: np.ndarray, known: np.ndarray | None = None) -> Keypoints:
    """The keypoints of an image, uint8 [256, 256, 3], well inside its known pixels, bool [256, 256]."""
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (DETECTED, DETECTED), interpolation=cv2.INTER_AREA)
    inside = None
    if known is not None:
        inside = cv2.erode(255 * known.astype(np.uint8), np.ones((RIM, RIM), np.uint8))
        inside = 255 * (cv2.resize(inside, grey.shape, interpolation=cv2.INTER_AREA) == 255).astype(np.uint8)
    found, descriptors = cv2.SIFT_create(MOST, contrastThreshold=CONTRAST).detectAndCompute(grey, inside)
    if descriptors is None:
        return Keypoints(np.empty((0, 2), np.float32), np.empty((0, 128), np.uint8))
    points = (np.array([one.pt for one in found], np.float32) + 0.5) * (SIZE / DETECTED) - 0.5
    return Keypoints(points, descriptors.astype(np.uint8))


def search(
    masked: np.ndarray, known: np.ndarray, candidates: Sequence[Keypoints], own: np.ndarray
) -> list[list[Match]]:
    """The matches of each masked image, uint8 [n, 256, 256, 3] with known bool [n, 256, 256].

    own, int [n], is the candidate that is the image itself and is skipped, -1 for none.
    """
    sample = candidates[:: max(1, len(candidates) // SAMPLED)]
    descriptors = root(np.concatenate([one.descriptors for one in sample]))
    centre = descriptors.mean(axis=0) if len(descriptors) else np.float32(0)
    counts = count_words(candidates, centre)
    rarity = np.log(len(candidates) / np.maximum(np.bincount(counts.indices, minlength=counts.shape[1]), 1))
    weighed = weigh(counts, rarity)
    found: list[list[Match]] = [[] for _ in masked]
    for mirror in (np.eye(3), MIRROR):
        turn = slice(None, None, int(mirror[0, 0]))
        with ThreadPoolExecutor() as pool:
            seen = list(pool.map(detect, *(map(np.ascontiguousarray, a[:, :, turn]) for a in (masked, known))))
            shared = (weigh(count_words(seen, centre), rarity) @ weighed.T).toarray()
            shared[np.flatnonzero(own >= 0), own[own >= 0]] = 0
            orders = np.argsort(-shared, kind="stable")[:, :MATCHED]
            nearest = [order[scores[order] > 0] for scores, order in zip(shared, orders, strict=True)]
            matched = pool.map(partial(match_all, candidates), seen, nearest)
        for all_found, matches in zip(found, matched, strict=True):
            all_found += [one._replace(matrix=one.matrix @ mirror) for one in matches]
    return found


def root(descriptors: np.ndarray) -> np.ndarray:
    """RootSIFT, float32 [k, 128]: square roots of shares, so that the Euclidean distance is Hellinger's."""
    return np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True, dtype=np.float32), 1))


def count_words(images: Sequence[Keypoints], centre: np.ndarray) -> csr_array:
    """How often each image has each word: float32 [n, TABLES * 2**BITS]; centre is the descriptors' mean."""
    projections = np.random.default_rng(0).normal(size=(128, TABLES * BITS)).astype(np.float32)
    words = np.empty((sum(len(one.points) for one in images), TABLES), np.int64)
    descriptors = np.concatenate([one.descriptors for one in images])
    for start in range(0, len(words), ROWS):
        rows = slice(start, start + ROWS)
        signs = (root(descriptors[rows]) - centre) @ projections > 0
        words[rows] = signs.reshape(-1, TABLES, BITS) @ (1 << np.arange(BITS)) + (np.arange(TABLES) << BITS)
    numbers = np.repeat(np.arange(len(images)), [TABLES * len(one.points) for one in images])
    shape = (len(images), TABLES << BITS)
    counts = csr_array((np.ones(words.size, np.float32), (numbers, words.ravel())), shape=shape)
    counts.sum_duplicates()
    return counts


def weigh(counts: csr_array, rarity: np.ndarray) -> csr_array:
    """Words weighed by their rarity, each image's to a length of 1; a word that it has often counts as two."""
    weighed = counts.copy()
    weighed.data = (np.minimum(counts.data, 2) * rarity[counts.indices]).astype(np.float32)
    lengths = np.sqrt(weighed.multiply(weighed).sum(axis=1))
    weighed.data /= np.repeat(np.maximum(lengths, 1e-6), np.diff(weighed.indptr))
    return weighed


def match_all(candidates: Sequence[Keypoints], seen: Keypoints, numbers: np.ndarray) -> list[Match]:
    """The matches of an image's keypoints with the candidates of these numbers."""
    fits = ((int(number), fit(seen, candidates[number])) for number in numbers)
    return [Match(number, *found) for number, found in fits if found]


def fit(seen: Keypoints, other: Keypoints) -> tuple[np.ndarray, int] | None:
    """The similarity, float64 [2, 3], that moves the most keypoints of one image onto those of another, and how many.

    None if too few agree or if the similarity is none of two crops of one photograph.
    """
    if min(len(seen.points), len(other.points)) < LEAST:
        return None
    pairs = cv2.BFMatcher().knnMatch(root(seen.descriptors), root(other.descriptors), k=2)
    good = [nearest for nearest, second in pairs if nearest.distance < RATIO * second.distance]
    if len(good) < LEAST:
        return None
    here, there = seen.points[[one.queryIdx for one in good]], other.points[[one.trainIdx for one in good]]
    matrix, agreeing = cv2.estimateAffinePartial2D(here, there, ransacReprojThreshold=REACH, maxIters=TRIALS)
    if matrix is None or agreeing.sum() < LEAST:
        return None
    scale, tilt = np.hypot(*matrix[:, 0]), np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
    if not SCALES[0] < scale < SCALES[1] or abs(tilt) > TILT:
        return None
    return matrix, int(agreeing.sum())
