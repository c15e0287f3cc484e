"""The score as the leaderboard has it."""

import numpy as np


def rmse(values: np.ndarray, truth: np.ndarray) -> float:
    """sqrt(mean((values - truth)**2)) over every element at once, accumulated in float64.

    Both arrays have one shape and values in [0, 1]; one global mean, never a mean of per-image means.
    """
    if values.shape != truth.shape:
        raise ValueError(f"shapes differ: {values.shape} and {truth.shape}")
    return float(np.sqrt(np.mean(np.square(values.astype(np.float64) - truth))))
