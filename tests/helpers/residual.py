"""Samples of the residual system, with small settings."""

import numpy as np

from pipeline.params import Residual
from pipeline.systems.residual import samples
from tests.helpers.settings import settings_of

SEED = 3
SMALL = {
    "steps": 8,
    "batch_size": 2,
    "checkpoint_every": 1,
    "learning_rate": 1e-3,
    "average": 0.9,
    "filters": 2,
    "rim_filters": 2,
}


def settings(**changes) -> Residual:
    return settings_of("residual", **(SMALL | {"validate_every": 3, "zoom": 1.0} | changes))


def with_known(photographs: np.ndarray) -> np.ndarray:
    """Photographs [n, h, h, 3] as read_photographs returns them, known everywhere."""
    return np.concatenate([photographs, np.full((*photographs.shape[:3], 1), 255, np.uint8)], axis=-1)


def draw(photographs: np.ndarray, chosen: Residual, steps: int) -> list[tuple[np.ndarray, ...]]:
    """The first batches."""
    generators = [np.random.default_rng((SEED, step)) for step in range(steps)]
    size = chosen.batch_size
    return [samples.draw_batch(photographs, chosen, rng, slice(0, size), size) for rng in generators]
