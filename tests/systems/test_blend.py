"""The blend: least squares with weights that add up to one, and no image blended with weights fitted on it."""

import numpy as np
import pytest

from pipeline.systems import blend


def fills_and_truth(k: int, n: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(40, 216, (n, 2, 5, 5, 3))
    noisy = [truth + rng.normal(0, 10 + 10 * i, truth.shape) for i in range(k)]
    return np.clip(np.round(noisy), 0, 255).astype(np.uint8), truth.astype(np.uint8)


def test_a_blend_of_one_is_that_one():
    fills, truth = fills_and_truth(1)
    assert blend.fit(fills, truth).tolist() == [1.0]
    assert (blend.blend(fills, np.array([1.0])) == fills[0]).all()
    assert (blend.cross_fitted(fills, truth, np.arange(6) < 3) == fills[0]).all()


@pytest.mark.parametrize("k", [2, 3, 5])
def test_fitted_weights_are_the_least_squares_on_the_plane_where_they_add_up_to_one(k):
    """Lagrange's conditions: the sum is one, and the gradient has the same value for each weight."""
    fills, truth = fills_and_truth(k)
    weights = blend.fit(fills, truth)
    assert weights.sum() == pytest.approx(1)
    flat = fills.reshape(k, -1).astype(float)
    gradient = flat @ (weights @ flat - truth.ravel())
    assert np.ptp(gradient) < 1e-6 * np.abs(flat @ truth.ravel()).max()
    assert weights[0] == weights.max()  # of the least noise


@pytest.mark.parametrize("k", [2, 3, 5])
def test_fitted_weights_are_those_of_numpys_least_squares(k):
    """The weights are one over k each, plus any vector of the null space of the sum: what is left is unconstrained."""
    fills, truth = fills_and_truth(k, seed=1)
    flat = fills.reshape(k, -1).astype(float)
    base = np.full(k, 1 / k)
    null = np.linalg.svd(np.ones((1, k)))[2][1:]  # orthonormal rows, each with the sum 0
    free = np.linalg.lstsq((null @ flat).T, truth.ravel() - base @ flat, rcond=None)[0]
    np.testing.assert_allclose(blend.fit(fills, truth), base + free @ null, atol=1e-9)


@pytest.mark.parametrize("expected", [(2, -1), (-1, 2)])
def test_a_weight_may_be_negative(expected):
    truth = np.full((3, 4), 100, np.uint8)
    error = np.random.default_rng(0).integers(-20, 21, (3, 4))
    sizes = [1, 2] if expected[0] > 0 else [2, 1]
    fills = np.stack([truth + size * error for size in sizes]).astype(np.uint8)
    weights = blend.fit(fills, truth)
    np.testing.assert_allclose(weights, expected, atol=1e-9)
    assert (blend.blend(fills, weights) == truth).all()


def test_the_same_fill_twice_still_has_weights():
    fills, truth = fills_and_truth(1)
    weights = blend.fit(np.concatenate([fills, fills]), truth)
    assert np.isfinite(weights).all() and weights.sum() == pytest.approx(1)


def test_a_blend_is_the_rounded_mean_within_the_grey_levels():
    fills = np.array([[0, 10, 255, 200], [3, 20, 0, 250]], np.uint8)
    assert blend.blend(fills, np.array([0.25, 0.75])).tolist() == [2, 18, 64, 238]
    assert blend.blend(fills, np.array([-1.0, 2.0])).tolist() == [6, 30, 0, 255]


def test_a_half_is_blended_with_the_weights_of_the_other():
    fills, truth = fills_and_truth(2)
    first = np.array([True, False, True, True, False, False])
    found = blend.cross_fitted(fills, truth, first)
    for half in (first, ~first):
        expected = blend.blend(fills[:, half], blend.fit(fills[:, ~half], truth[~half]))
        assert (found[half] == expected).all()
    other = truth.copy()
    other[0] = 255 - other[0]
    changed = (blend.cross_fitted(fills, other, first) != found).any(axis=(1, 2, 3, 4))
    assert not changed[first].any() and changed[~first].any()
