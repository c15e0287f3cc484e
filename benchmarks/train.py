"""Training at batch 1: our step and TensorFlow's tutorial loop, in turn in one process, and the input pipeline alone."""

import statistics
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from benchmarks.measure import main
from pipeline import paths
from pipeline.competition.boxes import TURNS
from pipeline.competition.index import read_index
from pipeline.models import pix2pix
from pipeline.params import load_params
from pipeline.training import loop
from pipeline.training.batches import training_batches
from pipeline.training.memory import keep_freed_memory
from pipeline.training.shards import list_shards

ROUNDS, STEPS = 5, 4


def tutorial_step(lambda_l1: float) -> Callable[[tf.Tensor, tf.Tensor], None]:
    """https://www.tensorflow.org/tutorials/generative/pix2pix: one tf.function, two tapes, Keras' Adam."""
    generator, discriminator = pix2pix.build_generator(), pix2pix.build_discriminator()
    generator_optimizer = keras.optimizers.Adam(3e-4, beta_1=0.5)
    discriminator_optimizer = keras.optimizers.Adam(3e-4, beta_1=0.5)
    cross_entropy = keras.losses.BinaryCrossentropy(from_logits=True)

    @tf.function
    def step(masked: tf.Tensor, whole: tf.Tensor) -> None:
        with tf.GradientTape() as generator_tape, tf.GradientTape() as discriminator_tape:
            filled = generator(masked, training=True)
            real = discriminator([masked, whole], training=True)
            fake = discriminator([masked, filled], training=True)
            generator_loss = cross_entropy(tf.ones_like(fake), fake)
            generator_loss += lambda_l1 * tf.reduce_mean(tf.abs(whole - filled))
            discriminator_loss = cross_entropy(tf.ones_like(real), real) + cross_entropy(tf.zeros_like(fake), fake)
        gradients = generator_tape.gradient(generator_loss, generator.trainable_variables)
        generator_optimizer.apply_gradients(zip(gradients, generator.trainable_variables, strict=True))
        gradients = discriminator_tape.gradient(discriminator_loss, discriminator.trainable_variables)
        discriminator_optimizer.apply_gradients(zip(gradients, discriminator.trainable_variables, strict=True))

    return step


def our_step(precision: str, lambda_l1: float) -> Callable[[tf.Tensor, tf.Tensor], object]:
    """The step of the train stage."""
    settings = load_params().train.model_copy(update={"precision": precision})
    return loop.make_step(loop.begin(settings), lambda_l1)


def steps() -> dict[str, float]:
    """Seconds a step of each way, the median over rounds in which they take turns."""
    tf.config.threading.set_intra_op_parallelism_threads(load_params().train.threads)
    keep_freed_memory()
    ways = {"plain": tutorial_step(1000.0)}
    ways |= {precision: our_step(precision, 1000.0) for precision in ("float32", "mixed_bfloat16")}
    masked, whole = next(iter(batches()))
    times: dict[str, list[float]] = {name: [] for name in ways}
    for step in ways.values():
        step(masked, whole)
    for _ in range(ROUNDS):
        for name, step in ways.items():
            start = time.perf_counter()
            for _ in range(STEPS):
                step(masked, whole)
            tf.test.experimental.sync_devices()
            times[name].append((time.perf_counter() - start) / STEPS)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def batches() -> tf.data.Dataset:
    """Batches of one, as the train stage has them at batch size 1."""
    pairs = (read_index(paths.INDEX)["split"] == "train").to_numpy()
    return training_batches(list_shards(paths.AUGMENTED), pairs, int(np.sum(pairs)) * len(TURNS), 1, 1000, 7)


def inputs() -> float:
    """Seconds an image of the input pipeline alone."""
    iterator = iter(batches())
    next(iterator)
    start = time.perf_counter()
    for _ in range(1000):
        next(iterator)
    return (time.perf_counter() - start) / 1000


if __name__ == "__main__":
    main({"steps": steps, "inputs": inputs})
