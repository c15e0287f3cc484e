"""FusedAdam computes the same as keras.optimizers.Adam."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.training.adam import FusedAdam

SHAPES = ((4, 4, 3, 8), (8,), (), (5, 2))
SETTINGS = [{}, {"beta_1": 0.5}, {"beta_1": 0.0}, {"beta_2": 0.9, "epsilon": 1e-3}]


def begin() -> list[keras.Variable]:
    rng = np.random.default_rng(0)
    return [keras.Variable(rng.normal(size=shape).astype(np.float32)) for shape in SHAPES]


def gradients(step: int) -> list[tf.Tensor]:
    """Their sizes differ widely; some are exactly 0."""
    rng = np.random.default_rng([1, step])
    values = [rng.normal(size=shape) * 10.0 ** rng.integers(-4, 4) * (rng.random(shape) > 0.1) for shape in SHAPES]
    return [tf.constant(value, tf.float32) for value in values]


def run(optimizer: keras.Optimizer, variables: list[keras.Variable], steps: range) -> list[np.ndarray]:
    for step in steps:
        optimizer.apply_gradients(zip(gradients(step), variables, strict=True))
    return [variable.numpy() for variable in variables]


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_variables_are_adams(settings):
    ours, theirs = (run(adam(3e-4, **settings), begin(), range(30)) for adam in (FusedAdam, keras.optimizers.Adam))
    before = [variable.numpy() for variable in begin()]
    for a, b, start in zip(ours, theirs, before, strict=True):
        np.testing.assert_allclose(a - start, b - start, rtol=1e-4, atol=1e-6)
        assert np.abs(a - start).max() > 1e-3


def test_the_moments_and_the_count_are_adams():
    ours, theirs = FusedAdam(1e-2, beta_1=0.5), keras.optimizers.Adam(1e-2, beta_1=0.5)
    for optimizer in (ours, theirs):
        run(optimizer, begin(), range(7))
    found, expected = list(ours.variables), list(theirs.variables)
    assert len(found) == len(expected) == 2 + 2 * len(SHAPES)
    assert int(ours.iterations.numpy()) == 7
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=3e-5, atol=1e-12)  # 1 - 0.999 in float32 is 1.3e-5 off


def test_compiled_it_does_the_same():
    plain, variables = FusedAdam(1e-2), begin()
    expected = run(plain, variables, range(5))
    compiled, variables = FusedAdam(1e-2), begin()
    compiled.build(variables)

    @tf.function
    def step(values):
        compiled.apply_gradients(zip(values, variables, strict=True))

    for number in range(5):
        step(gradients(number))
    for a, b in zip(variables, expected, strict=True):
        np.testing.assert_allclose(a.numpy(), b, rtol=1e-6, atol=1e-7)


def test_restored_from_a_save_it_continues_to_the_bit():
    expected = run(FusedAdam(1e-2, beta_1=0.5), begin(), range(12))
    first, variables = FusedAdam(1e-2, beta_1=0.5), begin()
    values = run(first, variables, range(5))
    second, others = FusedAdam(1e-2, beta_1=0.5), begin()
    second.build(others)
    for variable, value in zip([*second.variables, *others], [*first.variables, *values], strict=True):
        variable.assign(np.array(value.numpy() if hasattr(value, "numpy") else value))
    assert all((a == b).all() for a, b in zip(run(second, others, range(5, 12)), expected, strict=True))


def test_it_takes_bfloat16_gradients_of_float32_variables():
    optimizer, variables = FusedAdam(1e-2), begin()
    values = [tf.cast(gradient, tf.bfloat16) for gradient in gradients(0)]
    optimizer.apply_gradients(zip(values, variables, strict=True))
    exact = FusedAdam(1e-2)
    for a, b in zip(variables, run(exact, begin(), range(1)), strict=True):
        np.testing.assert_allclose(a.numpy(), b, atol=1e-3)
