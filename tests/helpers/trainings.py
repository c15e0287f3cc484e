"""What the systems' tests share: comparing weights, drawing batches, resuming a training, saving a model."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from copy import deepcopy
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from pipeline.params import SystemSettings
from pipeline.systems.card import write_card
from pipeline.training import loop
from pipeline.training.checkpoints import load_checkpoint, save_checkpoint
from pipeline.training.data import TrainingData

THREADS = 2


def shard_data(seed: int) -> TrainingData:
    """Of the four pairs in the shards of conftest.py, the training pairs are 0, 1 and 3."""
    return TrainingData(pd.DataFrame(index=[0, 1, 3]), pd.DataFrame(index=[2]), seed)


def same(a: Collection[np.ndarray], b: Collection[np.ndarray]) -> bool:
    return len(a) == len(b) and all((x == y).all() for x, y in zip(a, b, strict=True))


def drawn(batches: tf.data.Dataset, steps: int) -> list[np.ndarray]:
    """The parts of the first batches, one after the other."""
    return [part for batch in islice(batches.as_numpy_iterator(), steps) for part in batch]


@contextmanager
def uncompiled() -> Iterator[None]:
    """Steps run uncompiled: for a few of them, compiling takes longer than it saves."""
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


def check_resumed(system: ModuleType, settings: SystemSettings, data: TrainingData, folder: Path, *steps: int) -> None:
    """A training resumed from the checkpoint of each of `steps` ends with the same bits as the uninterrupted one.

    All use one compiled step. A resumed one begins with the variables that the one before it ended with.
    """
    state = system.begin(settings, "float32", data.seed)
    step = system.make_step(state, settings)

    def go_on() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        loop.train(
            state,
            settings,
            step,
            system.batches(settings, data, state.step),
            # Lowest at first, so that the best weights come out of the checkpoint.
            validate=lambda: state.step + float(np.abs(state.model.get_weights()[0]).mean()),
            checkpoint=lambda now: save_checkpoint(folder / str(now.step), now.step, *loop.dump(now)),
        )
        return deepcopy(loop.dump(state))

    expected, expected_counters = go_on()
    del expected_counters["seconds"]
    for at in steps:
        loop.restore(state, *load_checkpoint(folder / str(at)))
        resumed = loop.dump(state)[0]
        assert state.step == at and not same(resumed.values(), expected.values())
        arrays, counters = go_on()
        del counters["seconds"]
        assert arrays.keys() == expected.keys() and same(arrays.values(), expected.values())
        assert counters == expected_counters


def lively(model: keras.Model, seed: int) -> keras.Model:
    """The model with weights that make its fill depend on its input: fresh weights give one grey."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.path.endswith("kernel"):
            weight.assign(rng.normal(0, 0.25, weight.shape))
        elif weight.path.endswith("moving_mean"):
            weight.assign(rng.normal(0, 0.1, weight.shape))
    return model


def save(folder: Path, network: ModuleType, settings: SystemSettings, **models: loop.Model) -> None:
    """Write weights and card as the train stage does: `save(folder, pix2pix, settings, best=model, last=other)`."""
    for name, model in models.items():
        model.save_weights(folder / f"{name}.weights.h5")
    write_card(
        folder,
        model=network.__name__.split(".")[-2],
        parameters=model.count_params(),
        devices="1 x CPU",
        settings=settings.model_dump() | {"precision": "float32", "threads": THREADS, "seed": 7},
        input_version=network.INPUT_VERSION,
        best={"step": 1, "rmse": 0.1} if "best" in models else None,
    )
