"""How the vanilla GAN is trained: generator and discriminator in turn, on the shards' 35,000 images."""

from collections.abc import Callable

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from pipeline.params import VanillaGan
from pipeline.systems.shared import adversarial, unet
from pipeline.systems.vanilla_gan import network as vanilla_gan
from pipeline.training.batches import shard_batches
from pipeline.training.devices import on_all_replicas, update
from pipeline.training.loop import TrainingState

MODEL = vanilla_gan
sources, batches = adversarial.sources, shard_batches


def begin(settings: VanillaGan, precision: str, seed: int) -> TrainingState:
    """Both networks with fresh weights, drawn from the seed, and their optimizers."""
    keras.utils.set_random_seed(seed)
    networks = {
        "generator": vanilla_gan.build(settings.filters, precision),
        "discriminator": vanilla_gan.build_discriminator(settings.filters, precision),
    }
    return adversarial.begin(networks, settings)


def make_step(training: TrainingState, settings: VanillaGan) -> Callable[..., dict[str, tf.Tensor]]:
    """One step of both networks on one batch, compiled; it returns the losses, each a scalar.

    generator_gan is the generator's only loss: of the whole image it learns what the discriminator tells it.
    """
    generator, discriminator = training.networks["generator"], training.networks["discriminator"]
    optimizers = training.optimizers

    def step(masked: tf.Tensor, whole: tf.Tensor, _: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as generator_tape, tf.GradientTape() as discriminator_tape:
            filled = generator(masked, training=True)
            losses = adversarial.losses(discriminator, masked, whole, filled)
        update(generator_tape, losses["generator_gan"], generator, optimizers["generator_optimizer"])
        update(discriminator_tape, losses["discriminator"], discriminator, optimizers["discriminator_optimizer"])
        return losses

    return on_all_replicas(step)


def before_validation(
    settings: VanillaGan, index: pd.DataFrame, keep: np.ndarray, seed: int
) -> Callable[[keras.Model], None]:
    """What measures the generator's statistics anew, on the training's first batches."""
    first = batches(settings, index, keep, seed, 0)
    return lambda generator: unet.calibrate(generator, (masked for masked, _, _ in first))
