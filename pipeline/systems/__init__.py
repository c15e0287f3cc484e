"""A system fills holes by learning. Each is a folder here with two modules: network.py keeps the contract `Network`,
training.py the contract `Training`. train.py and predict.py use nothing else of it.

How to add a system, for example `mine`:

1. pipeline/systems/mine/: `__init__.py` (empty), `network.py`, `training.py`. They import `training/`, `fills/`,
   `competition/`, `base/` and `systems/shared/`, never another system.
2. pipeline/params.py: a section `class Mine(SystemSettings)` with its own settings, and `mine: Mine` in `Params`.
3. recipes/defaults.yaml: a section `mine` with every setting.
4. recipes/mine.yaml: `recipe: mine`, `systems: [mine]`, and the settings that differ from the defaults.

`make recipe RECIPE=mine` trains it, `python -m pipeline.compare` shows it, and `systems: [mine, residual]` blends it.
The quickest start is a copy of `residual/`, or of `pix2pix/` for a system that reads the shards.
"""

from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pipeline.params import SystemSettings
from pipeline.training.data import TrainingData
from pipeline.training.loop import Model, Step, TrainingState

if TYPE_CHECKING:
    import tensorflow as tf

Fill = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # (masked, boxes, classes), as Network.fill


class Network(Protocol):
    """The module network.py of a system: the model and how it fills. Plain Keras 3 where the model is Keras'."""

    INPUT_VERSION: int  # raise it when the same image is presented to the network differently

    def build(self, settings: SystemSettings, dtype: str) -> Model:
        """The model with fresh weights. settings is the system's section of params.yaml, dtype "float32" or
        "mixed_bfloat16". Raises BadInput if something it needs, such as pretrained weights, is absent."""

    def fill(self, model: Model, masked: np.ndarray, boxes: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """The images with their boxes filled, uint8 [n, 256, 256, 3] RGB; known pixels are those of `masked`.

        masked is uint8 [n, 256, 256, 3] RGB, boxes int32 [n, 2, 2] as (row, column), classes str [n], "" if unknown.
        The model runs in evaluation mode. An image is filled alike whatever others are in the batch.
        """


class Training(Protocol):
    """The module training.py of a system. A training is a function of the settings, the data and its seed."""

    def begin(self, settings: SystemSettings, dtype: str, seed: int) -> TrainingState:
        """The state before the first step: networks with weights drawn from the seed, and their optimizers.

        Called inside the scope of the distribution strategy. Raises BadInput if the system cannot run under it.
        """

    def make_step(self, state: TrainingState, settings: SystemSettings) -> Step:
        """The function that trains on one batch and returns its losses by name, each a finite scalar."""

    def batches(
        self, settings: SystemSettings, data: TrainingData, start: int, context: "tf.distribute.InputContext"
    ) -> Iterable[tuple]:
        """Endless batches from step `start` on, the same as if the training had begun at step 0.

        Each is a tuple of the step's arguments, this worker's part of `settings.batch_size` samples (context says which
        part). Raises BadInput if its files are missing or damaged.
        """

    def input_files(self, settings: SystemSettings, data: TrainingData) -> list[Path]:
        """The files, besides data/split.csv, whose content the training depends on: part of a checkpoint's key."""

    def before_validation(self, model: Model, settings: SystemSettings, data: TrainingData) -> None:
        """Whatever the model needs before it fills validation pairs, such as statistics measured on training data."""


def load_network(name: str) -> Network:
    """The network module of a system. Imported by name, so that no system depends on another's code."""
    return import_module(f"{__name__}.{name}.network")


def load_training(name: str) -> Training:
    """The training module of a system."""
    return import_module(f"{__name__}.{name}.training")
