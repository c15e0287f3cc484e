"""Training at batch 1: our step, TensorFlow's tutorial loop, and the input pipeline alone."""

import statistics
import time
from collections.abc import Callable
from functools import partial

import keras
import tensorflow as tf

from benchmarks.measure import main
from pipeline import paths
from pipeline.competition.boxes import TURNS
from pipeline.competition.index import read_index
from pipeline.params import load_params
from pipeline.systems.pix2pix import network as pix2pix
from pipeline.systems.pix2pix import training as system
from pipeline.training.batches import training_batches
from pipeline.training.runtime import keep_freed_memory
from pipeline.training.shards import list_shards

STEPS = 20


def tutorial() -> float:
    """https://www.tensorflow.org/tutorials/generative/pix2pix: one tf.function, two tapes, Keras' Adam."""
    generator, discriminator = pix2pix.build(), pix2pix.build_discriminator()
    generator_optimizer = keras.optimizers.Adam(3e-4, beta_1=0.5)
    discriminator_optimizer = keras.optimizers.Adam(3e-4, beta_1=0.5)
    cross_entropy = keras.losses.BinaryCrossentropy(from_logits=True)

    @tf.function
    def step(masked: tf.Tensor, whole: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as generator_tape, tf.GradientTape() as discriminator_tape:
            filled = generator(masked, training=True)
            real = discriminator([masked, whole], training=True)
            fake = discriminator([masked, filled], training=True)
            generator_loss = cross_entropy(tf.ones_like(fake), fake)
            generator_loss += 1000 * tf.reduce_mean(tf.abs(whole - filled))
            discriminator_loss = cross_entropy(tf.ones_like(real), real) + cross_entropy(tf.zeros_like(fake), fake)
        gradients = generator_tape.gradient(generator_loss, generator.trainable_variables)
        generator_optimizer.apply_gradients(zip(gradients, generator.trainable_variables, strict=True))
        gradients = discriminator_tape.gradient(discriminator_loss, discriminator.trainable_variables)
        discriminator_optimizer.apply_gradients(zip(gradients, discriminator.trainable_variables, strict=True))
        return generator_loss

    return time_steps(step)


def ours(precision: str) -> float:
    """What the train stage does."""
    keep_freed_memory()
    settings = load_params().pix2pix
    return time_steps(system.make_step(system.begin(settings, precision, 7), settings))


def time_steps(step: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], object]) -> float:
    """Seconds a step, the median of STEPS, on real batches, input included."""
    seconds = []
    for batch in batches().take(STEPS + 2):
        start = time.perf_counter()
        tf.nest.map_structure(lambda loss: loss.numpy(), step(*batch))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def batches() -> tf.data.Dataset:
    """Batches of one, as the train stage has them at batch size 1."""
    pairs = (read_index(paths.INDEX)["split"] == "train").to_numpy()
    return training_batches(list_shards(paths.AUGMENTED), pairs, int(pairs.sum()) * len(TURNS), 1, 1000, 7)


def inputs() -> float:
    """Seconds an image of the input pipeline alone."""
    iterator = iter(batches())
    next(iterator)
    start = time.perf_counter()
    for _ in range(1000):
        next(iterator)
    return (time.perf_counter() - start) / 1000


if __name__ == "__main__":
    tf.config.threading.set_intra_op_parallelism_threads(load_params().train.threads)
    main(
        {
            "plain": tutorial,
            "float32": partial(ours, "float32"),
            "mixed_bfloat16": partial(ours, "mixed_bfloat16"),
            "inputs": inputs,
        }
    )
