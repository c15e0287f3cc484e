"""What the tests of the systems share: comparing weights, drawing batches, resuming a training, saving a model."""

from collections.abc import Collection
from itertools import islice
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import tensorflow as tf

from pipeline.params import Schedule
from pipeline.systems.card import write_card
from pipeline.training import loop
from pipeline.training.checkpoints import load_checkpoint, save_checkpoint

THREADS = 2
KEEP = np.arange(4) != 2  # of the shards' pairs, those that are trained on
NO_INDEX = pd.DataFrame()  # the shards have all that is needed


def same(a: Collection[np.ndarray], b: Collection[np.ndarray]) -> bool:
    return len(a) == len(b) and all((x == y).all() for x, y in zip(a, b, strict=True))


def drawn(batches: tf.data.Dataset, steps: int) -> list[np.ndarray]:
    return [part for batch in islice(batches.as_numpy_iterator(), steps) for part in batch]


def check_resumed(
    system: ModuleType, chosen: Schedule, index: pd.DataFrame, keep: np.ndarray, folder: Path, at: int
) -> None:
    """A training that goes on from the checkpoint of step `at` ends as the one that made it, bit for bit."""

    def go_on(training: loop.TrainingState) -> None:
        loop.train(
            training,
            chosen,
            system.make_step(training, chosen),
            system.batches(chosen, index, keep, 3, training.step),
            # Of the weights, and lowest at first, so that the best ones come out of the checkpoint.
            validate=lambda: training.step + float(np.abs(training.model.get_weights()[0]).mean()),
            checkpoint=lambda now: save_checkpoint(folder / str(now.step), now.step, *loop.dump(now)),
        )

    whole, resumed = (system.begin(chosen, "float32", seed) for seed in (3, 4))
    go_on(whole)
    loop.restore(resumed, *load_checkpoint(folder / str(at)))
    assert resumed.step == at and not same(resumed.model.get_weights(), whole.model.get_weights())
    go_on(resumed)
    (arrays, state), (expected, expected_state) = loop.dump(resumed), loop.dump(whole)
    del state["seconds"], expected_state["seconds"]
    assert arrays.keys() == expected.keys() and same(arrays.values(), expected.values())
    assert state == expected_state


def save(folder: Path, networks: ModuleType, model: loop.Network, chosen: Schedule, seed: int) -> None:
    """Write the model's best weights and its card, as the train stage does."""
    model.save_weights(folder / "best.weights.h5")
    write_card(
        folder,
        model=networks.__name__.rpartition(".")[2],
        parameters=model.count_params(),
        devices="1 x CPU",
        settings=chosen.model_dump() | {"precision": "float32", "seed": seed, "threads": THREADS},
        normalisation=networks.NORMALISATION,
        validation=[],
    )
