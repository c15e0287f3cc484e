"""How the toy is trained: plain gradient descent on pairs read from data/raw."""

from itertools import count
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from pipeline.systems.toy import network

from pipeline import paths
from pipeline.competition.index import read_pairs, target_path
from pipeline.params import Toy
from pipeline.training.data import TrainingData
from pipeline.training.devices import on_all_replicas, update
from pipeline.training.loop import Step, TrainingState, snapshot


def begin(settings: Toy, dtype: str, seed: int) -> TrainingState:
    """The layer and its optimizer."""
    keras.utils.set_random_seed(seed)
    model, optimizer = network.build(settings, dtype), keras.optimizers.SGD(0.1)
    optimizer.build(model.trainable_variables)
    return TrainingState(model, {"model": model}, {"optimizer": optimizer}, snapshot(model))


def make_step(state: TrainingState, settings: Toy) -> Step:
    """One step of gradient descent."""

    def step(masked: tf.Tensor, target: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(target - state.model(masked, training=True)))
        update(tape, loss, (state.model, state.optimizers["optimizer"]))
        return {"loss": loss}

    return on_all_replicas(step)


def batches(settings: Toy, data: TrainingData, start: int, context: tf.distribute.InputContext) -> tf.data.Dataset:
    """Pairs in order."""

    def draw() -> tuple[np.ndarray, np.ndarray]:
        for step in count(start):
            rows = data.pairs.iloc[
                [(step * settings.batch_size + i) % len(data.pairs) for i in range(settings.batch_size)]
            ]
            masked, target, _ = read_pairs(paths.RAW, rows)
            yield np.float32(masked) / 255, np.float32(target) / 255

    image = tf.TensorSpec((None, 256, 256, 3))
    return tf.data.Dataset.from_generator(draw, output_signature=(image, image))


def input_files(settings: Toy, data: TrainingData) -> list[Path]:
    """The targets."""
    return [target_path(paths.RAW, row) for row in data.pairs.to_dict("records")]


def before_validation(model: keras.Model, settings: Toy, data: TrainingData) -> None:
    """Nothing."""
