"""The blend: least squares with weights that add up to 1, none negative, and no image blended with its own weights."""

import numpy as np
import pytest

from pipeline.systems import blend


def fills_and_target(k: int, n: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = rng.integers(40, 216, (n, 2, 5, 5, 3))
    noisy = [target + rng.normal(0, 10 + 10 * i, target.shape) for i in range(k)]
    return np.clip(np.round(noisy), 0, 255).astype(np.uint8), target.astype(np.uint8)


def test_a_blend_of_one_is_that_one():
    fills, target = fills_and_target(1)
    assert blend.fit(fills, target).tolist() == [1.0]
    assert (blend.blend(fills, np.array([1.0])) == fills[0]).all()
    assert (blend.cross_fitted(fills, target, np.arange(6) < 3) == fills[0]).all()


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("bias", [0, 60])
def test_fitted_weights_are_the_least_squares_among_those_that_are_not_negative_and_have_the_sum_1(k, bias):
    """The conditions of Karush, Kuhn and Tucker: one gradient for all weights above 0, none below it for the others."""
    fills, target = fills_and_target(k)
    fills = np.clip(fills.astype(int) + bias, 0, 255).astype(np.uint8)
    weights = blend.fit(fills, target)
    assert weights.sum() == pytest.approx(1) and (weights >= 0).all()
    flat = fills.reshape(k, -1).astype(float)
    gradient = flat @ (weights @ flat - target.ravel())
    tolerance = 1e-6 * np.abs(flat @ target.ravel()).max()
    used = weights > 1e-9
    assert np.ptp(gradient[used]) < tolerance and (gradient[~used] > gradient[used].min() - tolerance).all()
    assert bias or weights[0] == weights.max()  # of the least noise


@pytest.mark.parametrize("sizes", [(1, 2), (2, 1)])
def test_a_fill_that_would_have_a_negative_weight_has_none(sizes):
    """Twice the one less the other would be the target."""
    target = np.full((3, 4), 100, np.uint8)
    error = np.random.default_rng(0).integers(-20, 21, (3, 4))
    fills = np.stack([target + size * error for size in sizes]).astype(np.uint8)
    assert blend.fit(fills, target).tolist() == [float(size == 1) for size in sizes]


def test_the_same_fill_twice_still_has_weights():
    fills, target = fills_and_target(1)
    weights = blend.fit(np.concatenate([fills, fills]), target)
    assert np.isfinite(weights).all() and weights.sum() == pytest.approx(1)


def test_a_blend_is_the_rounded_mean_within_the_grey_levels():
    fills = np.array([[0, 10, 255, 200], [3, 20, 0, 250]], np.uint8)
    assert blend.blend(fills, np.array([0.25, 0.75])).tolist() == [2, 18, 64, 238]
    assert blend.blend(fills, np.array([-1.0, 2.0])).tolist() == [6, 30, 0, 255]


def test_a_half_is_blended_with_the_weights_of_the_other():
    fills, target = fills_and_target(2)
    first = np.array([True, False, True, True, False, False])
    found = blend.cross_fitted(fills, target, first)
    for half in (first, ~first):
        expected = blend.blend(fills[:, half], blend.fit(fills[:, ~half], target[~half]))
        assert (found[half] == expected).all()
    other = target.copy()
    other[0] = 255 - other[0]
    changed = (blend.cross_fitted(fills, other, first) != found).any(axis=(1, 2, 3, 4))
    assert not changed[first].any() and changed[~first].any()
