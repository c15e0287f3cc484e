"""The leaderboard's score."""

import numpy as np


def rmse(values: np.ndarray, target: np.ndarray) -> float:
    """sqrt(mean((values - target)**2)) over all elements, accumulated in float64.

    Both arrays have the same shape and values in [0, 1]. It is one global mean, not a mean of per-image scores.
    """
    if values.shape != target.shape:
        raise ValueError(f"shapes differ: {values.shape} and {target.shape}")
    return float(np.sqrt(np.mean(np.square(values.astype(np.float64) - target))))
