"""How pix2pix is trained: generator and discriminator in turn, on the shards' 35,000 images."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from pipeline import paths
from pipeline.competition.boxes import TURNS
from pipeline.models import pix2pix
from pipeline.params import Pix2pix
from pipeline.training.adam import FusedAdam
from pipeline.training.batches import training_batches
from pipeline.training.loop import Training, snapshot
from pipeline.training.shards import CHECKSUMS, list_shards

MODEL = pix2pix
CALIBRATED_ON = 64  # training images


def begin(settings: Pix2pix, precision: str, seed: int) -> Training:
    """Both networks with fresh weights, drawn from the seed, and their optimizers."""
    keras.utils.set_random_seed(seed)
    networks = {
        "generator": pix2pix.build(settings.filters, settings.mask_channel, precision),
        "discriminator": pix2pix.build_discriminator(settings.filters, precision),
    }
    optimizers = {}
    for name, network in networks.items():
        optimizers[f"{name}_optimizer"] = FusedAdam(settings.learning_rate, beta_1=settings.beta_1)
        optimizers[f"{name}_optimizer"].build(network.trainable_variables)
    return Training(networks["generator"], networks, optimizers, snapshot(networks["generator"]))


def make_step(training: Training, settings: Pix2pix) -> Callable[..., dict[str, tf.Tensor]]:
    """One step of both networks on one batch, compiled; it returns the losses, each a scalar.

    They are those of the paper (equations 1 to 4), each with its weight: generator_gan is the cross-entropy of the
    discriminator's logits on the fill with "real", generator_l1 and generator_l2 the mean absolute and squared error
    over the image or over the holes. Where lambda_gan is 0 there is no adversary to train.
    """
    generator, discriminator = training.networks["generator"], training.networks["discriminator"]
    optimizers, adversarial = training.optimizers, settings.lambda_gan > 0

    def update(tape: tf.GradientTape, loss: tf.Tensor, network: keras.Model, optimizer: keras.Optimizer) -> None:
        gradients = tape.gradient(loss, network.trainable_variables)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))

    @tf.function
    def step(masked: tf.Tensor, whole: tf.Tensor, missing: tf.Tensor) -> dict[str, tf.Tensor]:
        weights = missing if settings.loss == "holes" else tf.ones_like(missing)
        losses = {}
        with tf.GradientTape() as generator_tape, tf.GradientTape() as discriminator_tape:
            filled = generator(given(masked, missing, settings.mask_channel), training=True)
            losses |= pix2pix.differences(whole, filled, weights)
            total = settings.lambda_l1 * losses["generator_l1"] + settings.lambda_l2 * losses["generator_l2"]
            if adversarial:
                real = discriminator([masked, whole], training=True)
                fake = discriminator([masked, filled], training=True)
                losses["generator_gan"] = pix2pix.cross_entropy(fake, 1.0)
                losses["discriminator"] = pix2pix.cross_entropy(real, 1.0) + pix2pix.cross_entropy(fake, 0.0)
                total += settings.lambda_gan * losses["generator_gan"]
        update(generator_tape, total, generator, optimizers["generator_optimizer"])
        if adversarial:
            update(discriminator_tape, losses["discriminator"], discriminator, optimizers["discriminator_optimizer"])
        return losses | {"generator": total}

    return step


def given(masked: tf.Tensor, missing: tf.Tensor, mask_channel: bool) -> tf.Tensor:
    """What the generator sees of a batch."""
    return tf.concat([masked, missing], axis=-1) if mask_channel else masked


def sources(_: pd.DataFrame) -> list[Path]:
    """The files that a checkpoint depends on beside the index: the shards' checksums stand for the shards."""
    return [paths.AUGMENTED / CHECKSUMS]


def batches(
    settings: Pix2pix, index: pd.DataFrame, keep: np.ndarray, seed: int, start: int
) -> tuple[tf.data.Dataset, Callable[[keras.Model], None]]:
    """The training's batches from step `start` on, and what is to be done to the generator before it is measured."""
    shards, records = list_shards(paths.AUGMENTED), int(keep.sum()) * len(TURNS)

    def from_step(step: int) -> tf.data.Dataset:
        return training_batches(
            shards, keep, records, settings.batch_size, settings.shuffle_buffer, seed, step, settings.random_holes
        )

    calibration = from_step(0).take(-(-CALIBRATED_ON // settings.batch_size))

    def prepare(generator: keras.Model) -> None:
        batches = (given(masked, missing, settings.mask_channel) for masked, _, missing in calibration)
        pix2pix.calibrate(generator, batches)

    return from_step(start), prepare
