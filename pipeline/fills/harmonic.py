"""The smoothest fill: every pixel of the hole is the mean of its four neighbours (Laplace's equation).

Known pixels are the boundary values; at the image's border the normal derivative is zero. The solver is full multigrid
(Briggs, Henson & McCormick, "A Multigrid Tutorial", 2000, chapters 3 and 4): cell-centred coarsening, where a coarse
pixel is in the hole if all four below it are; Jacobi sweeps with Chebyshev's weights; bilinear interpolation. The
solver's arrays are [height, width, n], images and channels side by side: each step is one long pass over memory.
"""

import numpy as np

from pipeline.competition.boxes import paste, unknown_mask
from pipeline.competition.images import to_uint8

CYCLES = 2  # V-cycles on each level: the error inside 75 x 75 pixels is below half a grey level
# One over the roots of Chebyshev's polynomial of the third degree on [1/2, 2], the rough half of the spectrum.
WEIGHTS = tuple(float(1 / (1.25 + 0.75 * np.cos(np.pi * (k + 0.5) / 3))) for k in (0, 1, 2))
IMAGES_AT_ONCE = 8  # as many as stay in the processor's cache


def fill(masked: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """A Fill (see batched.py)."""
    return paste(to_uint8(smooth(masked, boxes)), masked, boxes)


def smooth(masked: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Fill uint8 [n, 256, 256, 3] without rounding: float32 [n, 256, 256, 3]."""
    hole = unknown_mask(masked, boxes)
    parts = [slice(start, start + IMAGES_AT_ONCE) for start in range(0, len(masked), IMAGES_AT_ONCE)]
    return np.concatenate([solve(masked[part].astype(np.float32), hole[part]) for part in parts])


def solve(images: np.ndarray, hole: np.ndarray, cycles: int = CYCLES) -> np.ndarray:
    """Fill the hole, bool [n, h, w], of images, float32 [n, h, w, c] of any range.

    Height and width are powers of two, and each image has a known pixel. Known pixels stay as they were, and the values
    inside the hole are not used.
    """
    n, height, width, channels = images.shape
    values = np.ascontiguousarray(images.transpose(1, 2, 0, 3), np.float32).reshape(height, width, n * channels)
    levels = coarsen(np.repeat(hole.transpose(1, 2, 0), channels, axis=2).astype(np.float32))
    solved = full_multigrid(values * (1 - levels[0]), levels, cycles)
    return np.ascontiguousarray(solved.reshape(height, width, n, channels).transpose(2, 0, 1, 3))


def coarsen(hole: np.ndarray) -> list[np.ndarray]:
    """The hole, float32 [h, w, n] of 1 and 0, on every level down to one pixel.

    The levels do not depend on the holes, so an image's result does not depend on the images beside it.
    """
    levels = [hole]
    while min(levels[-1].shape[:2]) > 1:
        levels.append(blocks(levels[-1]).min(axis=(1, 3)))
    return levels


def full_multigrid(known: np.ndarray, levels: list[np.ndarray], cycles: int) -> np.ndarray:
    """Solve the coarse levels first; each one's solution is the first guess of the next finer one."""
    hole = levels[0]
    if len(levels) == 1:
        guess = known + hole * (known.sum(axis=(0, 1)) / np.maximum((1 - hole).sum(axis=(0, 1)), 1))
    else:
        share = mean_of_blocks(1 - hole)
        coarse = mean_of_blocks(known) / np.maximum(share, 0.25) * (share > 0)
        guess = known + hole * enlarge(full_multigrid(coarse, levels[1:], cycles))
    for _ in range(cycles):
        guess += v_cycle(residual(guess, hole), levels)
    return guess


def v_cycle(right: np.ndarray, levels: list[np.ndarray]) -> np.ndarray:
    """An approximate solution of 4 x - neighbours(x) = right inside the hole; 0 elsewhere."""
    hole = levels[0]
    quarter = hole * np.float32(0.25)
    solution = WEIGHTS[0] * quarter * right  # the first sweep, from zero
    for weight in WEIGHTS[1:]:
        sweep(solution, right, quarter, weight)
    if len(levels) > 1:
        rest = hole * (right - 4 * solution + neighbours(solution))
        solution += hole * enlarge(v_cycle(4 * levels[1] * mean_of_blocks(rest), levels[1:]))
    for weight in WEIGHTS:
        sweep(solution, right, quarter, weight)
    return solution


def sweep(solution: np.ndarray, right: np.ndarray, quarter: np.ndarray, weight: float) -> None:
    """One weighted Jacobi step, in place."""
    change = neighbours(solution)
    change += right
    change *= quarter
    change -= solution
    change *= weight
    solution += change


def residual(values: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """neighbours - 4 values inside the hole, 0 elsewhere: 0 everywhere for a solution."""
    return hole * (neighbours(values) - 4 * values)


def neighbours(values: np.ndarray) -> np.ndarray:
    """The sum of the four neighbours. Beyond the border the border is repeated, so nothing flows across it."""
    total = np.empty_like(values)
    total[1:] = values[:-1]
    total[0] = values[0]
    total[:-1] += values[1:]
    total[-1] += values[-1]
    total[:, 1:] += values[:, :-1]
    total[:, 0] += values[:, 0]
    total[:, :-1] += values[:, 1:]
    total[:, -1] += values[:, -1]
    return total


def blocks(values: np.ndarray) -> np.ndarray:
    """[h, w, n] as [h / 2, 2, w / 2, 2, n]."""
    height, width, n = values.shape
    return values.reshape(height // 2, 2, width // 2, 2, n)


def mean_of_blocks(values: np.ndarray) -> np.ndarray:
    """The mean of each 2 x 2 values."""
    four = blocks(values)
    return np.float32(0.25) * (four[:, 0, :, 0] + four[:, 0, :, 1] + four[:, 1, :, 0] + four[:, 1, :, 1])


def enlarge(values: np.ndarray) -> np.ndarray:
    """Twice the height and width, bilinear between the centres of the pixels, constant beyond the outermost."""
    for axis in (0, 1):
        values = np.moveaxis(values, axis, 0)
        near, before, after = 0.75 * values, values[:1], values[-1:]
        low = near + 0.25 * np.concatenate([before, values[:-1]])
        high = near + 0.25 * np.concatenate([values[1:], after])
        both = np.stack([low, high], axis=1).reshape(2 * len(values), *values.shape[1:])
        values = np.moveaxis(both, 0, axis)
    return values
