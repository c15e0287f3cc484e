"""The leaderboard's score."""

import math

import numpy as np
import pytest

from pipeline.competition.metric import rmse


def test_golden():
    assert rmse(np.array([0.0, 0.5, 1.0, 0.25]), np.array([0.0, 0.0, 0.0, 1.0])) == math.sqrt(
        (0 + 0.25 + 1 + 0.5625) / 4
    )
    assert rmse(np.array([0.1, 0.7]), np.array([0.4, 0.3])) == pytest.approx(0.3535533905932738, abs=1e-15)


def test_equal_values_score_zero():
    values = np.random.default_rng(0).random((2, 2, 75, 75, 3))
    assert rmse(values, values.copy()) == 0


def test_it_is_a_global_mean_and_not_a_mean_of_means():
    parts = [np.full(1, 0.9), np.full(99, 0.1)]  # of unequal size and unequal error
    values = np.concatenate(parts)
    score = rmse(values, np.zeros(100))
    assert score == pytest.approx(math.sqrt((0.81 + 99 * 0.01) / 100), abs=1e-12)
    of_parts = [rmse(part, np.zeros(len(part))) for part in parts]
    assert score < 0.15 and sum(of_parts) / 2 == pytest.approx(0.5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_small_types_are_accumulated_in_float64(dtype):
    values, truth = np.random.default_rng(2).random((2, 2**16)).astype(dtype)
    exact = math.fsum((a - b) ** 2 for a, b in zip(values.tolist(), truth.tolist(), strict=True)) / 2**16
    assert rmse(values, truth) == pytest.approx(math.sqrt(exact), rel=1e-12)


@pytest.mark.parametrize("shape", [(3,), (1, 4), ()])
def test_another_shape_is_refused_and_never_broadcast(shape):
    with pytest.raises(ValueError, match="shapes differ"):
        rmse(np.zeros(4), np.zeros(shape))
