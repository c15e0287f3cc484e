"""How pix2pix is trained: generator and discriminator in turn, on the shards' 35,000 images."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from pipeline.params import Pix2pix
from pipeline.systems.pix2pix import network as pix2pix
from pipeline.systems.shared import adversarial, unet
from pipeline.training.batches import shard_batches
from pipeline.training.devices import on_all_replicas, replica_share, update
from pipeline.training.loop import TrainingState

MODEL = pix2pix
sources = adversarial.sources


def begin(settings: Pix2pix, precision: str, seed: int) -> TrainingState:
    """Both networks with fresh weights, drawn from the seed, and their optimizers."""
    keras.utils.set_random_seed(seed)
    networks = {
        "generator": pix2pix.build(settings.filters, settings.mask_channel, precision),
        "discriminator": pix2pix.build_discriminator(settings.filters, precision),
    }
    return adversarial.begin(networks, settings)


def make_step(training: TrainingState, settings: Pix2pix) -> Callable[..., dict[str, tf.Tensor]]:
    """One step of both networks on one batch, compiled; it returns the losses, each a scalar.

    They are those of the paper (equations 1 to 4), each with its weight: generator_gan is the cross-entropy of the
    discriminator's logits on the fill with "real", generator_l1 and generator_l2 the mean absolute and squared error
    over the image or over the holes. Where lambda_gan is 0 there is no adversary to train.
    """
    generator, discriminator = training.networks["generator"], training.networks["discriminator"]
    optimizers, has_adversary = training.optimizers, settings.lambda_gan > 0

    def step(masked: tf.Tensor, whole: tf.Tensor, missing: tf.Tensor) -> dict[str, tf.Tensor]:
        weights = missing if settings.loss == "holes" else tf.ones_like(missing)
        with tf.GradientTape() as generator_tape, tf.GradientTape() as discriminator_tape:
            filled = generator(given(masked, missing, settings.mask_channel), training=True)
            differences = pix2pix.differences(whole, filled, weights)
            losses = {name: replica_share(weights) * loss for name, loss in differences.items()}
            total = settings.lambda_l1 * losses["generator_l1"] + settings.lambda_l2 * losses["generator_l2"]
            if has_adversary:
                losses |= adversarial.losses(discriminator, masked, whole, filled)
                total += settings.lambda_gan * losses["generator_gan"]
        update(generator_tape, total, generator, optimizers["generator_optimizer"])
        if has_adversary:
            update(discriminator_tape, losses["discriminator"], discriminator, optimizers["discriminator_optimizer"])
        return losses | {"generator": total}

    return on_all_replicas(step)


def given(masked: tf.Tensor, missing: tf.Tensor, mask_channel: bool) -> tf.Tensor:
    """What the generator sees of a batch."""
    return tf.concat([masked, missing], axis=-1) if mask_channel else masked


def batches(settings: Pix2pix, *place: Any) -> tf.data.Dataset:
    """The training's batches, as shard_batches gives them."""
    return shard_batches(settings, *place, random_holes=settings.random_holes)


def before_validation(
    settings: Pix2pix, index: pd.DataFrame, keep: np.ndarray, seed: int
) -> Callable[[keras.Model], None]:
    """What measures the generator's statistics anew, on the training's first batches."""
    first = batches(settings, index, keep, seed, 0)

    def measure(generator: keras.Model) -> None:
        unet.calibrate(generator, (given(masked, missing, settings.mask_channel) for masked, _, missing in first))

    return measure
