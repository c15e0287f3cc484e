"""pix2pix trained at batch 1: our step, TensorFlow's tutorial loop, and the input pipeline alone."""

import statistics
import time
from collections.abc import Callable
from functools import partial

import keras
import tensorflow as tf

from benchmarks.measure import main
from pipeline import paths
from pipeline.competition.index import read_index
from pipeline.params import Pix2pix, load_params
from pipeline.systems.pix2pix import network, training
from pipeline.training.data import training_data
from pipeline.training.runtime import keep_freed_memory, set_threads

STEPS = 20


def tutorial() -> float:
    """https://www.tensorflow.org/tutorials/generative/pix2pix: one tf.function, two tapes, Keras' Adam."""
    generator, discriminator = network.build(settings()), network.build_discriminator(settings())
    generator_optimizer = keras.optimizers.Adam(3e-4, beta_1=0.5)
    discriminator_optimizer = keras.optimizers.Adam(3e-4, beta_1=0.5)
    cross_entropy = keras.losses.BinaryCrossentropy(from_logits=True)

    @tf.function
    def step(masked: tf.Tensor, target: tf.Tensor, hole: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as generator_tape, tf.GradientTape() as discriminator_tape:
            filled = generator(masked, training=True)
            real = discriminator([masked, target], training=True)
            fake = discriminator([masked, filled], training=True)
            generator_loss = cross_entropy(tf.ones_like(fake), fake)
            generator_loss += 1000 * tf.reduce_mean(tf.abs(target - filled))
            discriminator_loss = cross_entropy(tf.ones_like(real), real) + cross_entropy(tf.zeros_like(fake), fake)
        gradients = generator_tape.gradient(generator_loss, generator.trainable_variables)
        generator_optimizer.apply_gradients(zip(gradients, generator.trainable_variables, strict=True))
        gradients = discriminator_tape.gradient(discriminator_loss, discriminator.trainable_variables)
        discriminator_optimizer.apply_gradients(zip(gradients, discriminator.trainable_variables, strict=True))
        return generator_loss

    return time_steps(step)


def ours(precision: str) -> float:
    """The train stage's step."""
    keep_freed_memory()
    return time_steps(training.make_step(training.begin(settings(), precision, 7), settings()))


def time_steps(step: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], object]) -> float:
    """Seconds a step, the median of STEPS, on the shards' batches, input included."""
    seconds = []
    for batch in batches().take(STEPS + 2):
        start = time.perf_counter()
        tf.nest.map_structure(lambda loss: loss.numpy(), step(*batch))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def batches() -> tf.data.Dataset:
    """The train stage's batches of one image."""
    return training.batches(settings(), training_data(read_index(paths.SPLIT), 7), 0)


def settings() -> Pix2pix:
    """Those of params.yaml, at batch size 1."""
    return load_params().pix2pix.model_copy(update={"batch_size": 1})


def inputs() -> float:
    """Seconds an image of the input pipeline alone."""
    iterator = iter(batches())
    next(iterator)
    start = time.perf_counter()
    for _ in range(1000):
        next(iterator)
    return (time.perf_counter() - start) / 1000


if __name__ == "__main__":
    set_threads(load_params().train.threads)
    ways = {precision: partial(ours, precision) for precision in ("float32", "mixed_bfloat16")}
    main({"plain": tutorial, "inputs": inputs, **ways})
