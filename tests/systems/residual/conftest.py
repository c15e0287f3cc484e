"""Photographs for the residual system."""

import numpy as np
import pytest

from tests.helpers.residual import with_known


@pytest.fixture(scope="module")
def small() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    return with_known(coarse.repeat(32, axis=1).repeat(32, axis=2))
