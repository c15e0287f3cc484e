"""Several fills of the same holes as one: their weighted mean."""

import numpy as np

from pipeline.competition.images import to_uint8


def fit(fills: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The weights, float64 [k] with sum 1, whose mean of the fills [k, ...] is nearest to the truth [...].

    Least squares with one linear constraint, in closed form: the last weight is what the others leave, and those solve
    the normal equations of the differences to the last fill (Breiman, "Stacked Regressions", 1996, without his
    constraint to positive weights). One fill has the weight 1.
    """
    last = fills[-1].astype(np.float64).ravel()
    differences = fills[:-1].astype(np.float64).reshape(len(fills) - 1, last.size) - last
    weights = np.linalg.lstsq(differences @ differences.T, differences @ (truth.ravel() - last), rcond=None)[0]
    return np.append(weights, 1 - weights.sum())


def blend(fills: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted mean of uint8 fills [k, ...] as uint8 [...]; a fill whose weight is 1 comes back as it is."""
    total = np.tensordot(np.asarray(weights, np.float64), fills, axes=1)
    return to_uint8(total)


def cross_fitted(fills: np.ndarray, truth: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The blend of uint8 fills [k, n, ...] as uint8 [n, ...], each image's weights fitted on the half it is not in.

    first, bool [n], says which images are in the first half.
    """
    blended = np.empty_like(truth)
    for half in (first, ~first):
        blended[half] = blend(fills[:, half], fit(fills[:, ~half], truth[~half]))
    return blended
