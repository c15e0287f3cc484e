"""Several fills of the same holes as one: their weighted mean."""

import numpy as np
from scipy.optimize import nnls

from pipeline.competition.images import to_uint8


def fit(fills: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The weights, float64 [k], not negative and with sum 1, whose mean of the fills [k, ...] is nearest to the target.

    Non-negative least squares (Breiman, "Stacked Regressions", 1996). Weights with sum 1 give the weighted mean of the
    fills' errors. Of all non-negative weights, those that minimise its squared norm plus (sum - 1)^2 are a multiple of
    the solution, since the norm scales with the sum; one row for each fill stands for all pixels.
    """
    errors = fills.reshape(len(fills), -1).astype(np.float64) - target.ravel()
    values, vectors = np.linalg.eigh(errors @ errors.T / max(errors.shape[1], 1))
    rows = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T  # rows' @ rows is the errors' Gram matrix
    scale = max(np.sqrt(values[-1]), 1.0)
    weights, _ = nnls(np.vstack([rows / scale, np.ones(len(fills))]), np.append(np.zeros(len(fills)), 1.0))
    return weights / weights.sum()


def blend(fills: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted mean of uint8 fills [k, ...] as uint8 [...]; a fill of weight 1 is returned unchanged."""
    total = np.tensordot(np.asarray(weights, np.float64), fills, axes=1)
    return to_uint8(total)


def cross_fitted(fills: np.ndarray, target: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The blend of uint8 fills [k, n, ...] as uint8 [n, ...], each image's weights fitted on the half it is not in.

    first, bool [n], says which images are in the first half.
    """
    blended = np.empty_like(target)
    for half in (first, ~first):
        blended[half] = blend(fills[:, half], fit(fills[:, ~half], target[~half]))
    return blended
