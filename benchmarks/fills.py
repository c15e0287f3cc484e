"""The harmonic fill for a training batch, and the same equations solved directly."""

import statistics
import time
from collections.abc import Callable

import numpy as np

from benchmarks.measure import main
from pipeline.competition.boxes import LAST
from pipeline.fills import harmonic
from pipeline.systems.residual import network as residual

BATCH, SIDE = 32, 64  # photographs of 64 x 64
TIMES = 20


def batch() -> tuple[np.ndarray, np.ndarray]:
    """Noise, float32 [32, 64, 64, 3], and the holes of a training step, bool [32, 64, 64]."""
    rng = np.random.default_rng(0)
    photographs = rng.uniform(-1, 1, (BATCH, SIDE, SIDE, 3)).astype(np.float32)
    return photographs, residual.weigh(rng.integers(0, LAST + 1, (BATCH, 2, 2)), SIDE) > 0


def direct(photographs: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """Solve each image's linear equations as one dense matrix with LAPACK."""
    solved = photographs.copy()
    for image, hole in zip(solved, holes, strict=True):
        cells = np.argwhere(hole)
        number = np.full(np.add(hole.shape, 2), -1)
        number[1:-1, 1:-1][hole] = np.arange(len(cells))
        inside = np.pad(np.ones(hole.shape, bool), 1)
        padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
        matrix, right = np.zeros((len(cells), len(cells))), np.zeros((len(cells), 3))
        for step in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            rows, columns = (cells + 1 + step).T
            there, other = inside[rows, columns], number[rows, columns]
            matrix[np.arange(len(cells)), np.arange(len(cells))] += there
            unknown = np.flatnonzero(other >= 0)
            matrix[unknown, other[unknown]] -= 1
            known = there & (other < 0)
            right[known] += padded[rows[known], columns[known]]
        image[hole] = np.linalg.solve(matrix, right)
    return solved


def timed(solve: Callable[[np.ndarray, np.ndarray], np.ndarray], times: int) -> float:
    """Seconds for a batch, the median of `times`."""
    photographs, holes = batch()
    seconds = []
    for _ in range(times + 1):
        start = time.perf_counter()
        solve(photographs, holes)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def difference() -> float:
    """The RMSE between the two solutions over the holes, in grey levels."""
    photographs, holes = batch()
    error = harmonic.solve(photographs, holes) - direct(photographs, holes)
    return float(127.5 * np.sqrt(np.mean(error[holes] ** 2)))


if __name__ == "__main__":
    ways = {"harmonic": lambda: timed(harmonic.solve, TIMES), "direct": lambda: timed(direct, 3)}
    main({"difference": difference, **ways})
