"""How CycleGAN is trained: four networks at once on the shards' 35,000 images, from scratch or from weights there are.

That the masked and the whole image of a batch show the same photograph is used by no loss, as in the paper.
"""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from pipeline import paths
from pipeline.params import CycleGan
from pipeline.systems.cyclegan import network as cyclegan
from pipeline.systems.cyclegan.savedmodel import FILES, list_files, read_generators
from pipeline.systems.shared import adversarial
from pipeline.systems.shared.hub import locate
from pipeline.training.batches import shard_batches
from pipeline.training.devices import on_all_replicas, replica_share
from pipeline.training.loop import TrainingState

MODEL = cyclegan
GENERATORS = ("generator", "back_generator")  # masked to whole, which fills, and whole to masked
DISCRIMINATORS = ("whole_discriminator", "masked_discriminator")
batches = shard_batches


def begin(settings: CycleGan, precision: str, seed: int) -> TrainingState:
    """The four networks, with fresh weights drawn from the seed or generators as pretrained, and their optimizers."""
    keras.utils.set_random_seed(seed)
    networks = {name: cyclegan.build(settings.generator, settings.filters, precision) for name in GENERATORS}
    networks |= {name: cyclegan.build_discriminator(settings.filters, precision) for name in DISCRIMINATORS}
    if settings.pretrained:
        trial = cyclegan.build(settings.generator, settings.filters)
        for name, weights in zip(GENERATORS, read_generators(pretrained(settings), trial), strict=True):
            networks[name].set_weights(weights)
    return adversarial.begin(networks, settings)


def pretrained(settings: CycleGan) -> Path:
    """The folder of the pretrained weights."""
    return locate(settings.pretrained, settings.revision, paths.WORK / "hub", FILES)


def make_step(training: TrainingState, settings: CycleGan) -> Callable[..., dict[str, tf.Tensor]]:
    """One step of all four networks on one batch, compiled; it returns the losses, each a scalar.

    They are those of the paper, each summed over both directions: generator_gan and discriminator are the squared
    distances of the discriminators' outputs from what the generators and what they themselves want (section 4),
    generator_cycle is the absolute one of an image from what comes back of it (equation 2), generator_identity that of
    an image from what its own kind's generator makes of it (section 5.2). Both generators lower `generator`, the sum
    of their three with the settings' weights (equation 3).
    """
    networks, optimizers = training.networks, training.optimizers
    fill, back = (networks[name] for name in GENERATORS)
    judge_whole, judge_masked = (networks[name] for name in DISCRIMINATORS)

    def update(tape: tf.GradientTape, loss: tf.Tensor, names: tuple[str, ...]) -> None:
        variables = [networks[name].trainable_variables for name in names]
        for name, own, gradients in zip(names, variables, tape.gradient(loss, variables), strict=True):
            optimizers[f"{name}_optimizer"].apply_gradients(zip(gradients, own, strict=True))

    def step(masked: tf.Tensor, whole: tf.Tensor, _: tf.Tensor) -> dict[str, tf.Tensor]:
        share, with_identity = replica_share(), settings.lambda_identity > 0
        with tf.GradientTape() as generator_tape, tf.GradientTape() as discriminator_tape:
            there = one_way(fill, back, judge_whole, masked, whole, with_identity)
            back_again = one_way(back, fill, judge_masked, whole, masked, with_identity)
            losses = {name: share * (loss + back_again[name]) for name, loss in there.items()}
            total = losses["generator_gan"] + settings.lambda_cycle * losses["generator_cycle"]
            if with_identity:
                total += settings.lambda_identity * losses["generator_identity"]
        update(generator_tape, total, GENERATORS)
        update(discriminator_tape, losses["discriminator"], DISCRIMINATORS)
        return losses | {"generator": total}

    return on_all_replicas(step)


def one_way(
    generator: keras.Model,
    back: keras.Model,
    discriminator: keras.Model,
    given: tf.Tensor,
    wanted: tf.Tensor,
    with_identity: bool,
) -> dict[str, tf.Tensor]:
    """The losses of one direction, from images `given` to such as are `wanted`, each a mean over the batch."""
    made = generator(given, training=True)
    real, fake = (discriminator(images, training=True) for images in (wanted, made))
    losses = {
        "generator_gan": cyclegan.least_squares(fake, 1.0),
        "generator_cycle": cyclegan.distance(given, back(made, training=True)),
        "discriminator": (cyclegan.least_squares(real, 1.0) + cyclegan.least_squares(fake, 0.0)) / 2,
    }
    if with_identity:
        losses["generator_identity"] = cyclegan.distance(wanted, generator(wanted, training=True))
    return losses


def sources(settings: CycleGan, index: pd.DataFrame, keep: np.ndarray) -> list[Path]:
    """The files that a checkpoint depends on beside the index: the shards' checksums, and the pretrained weights."""
    weights = list_files(pretrained(settings)) if settings.pretrained else []
    return [*adversarial.sources(settings, index, keep), *weights]


def before_validation(*_: object) -> Callable[[keras.Model], None]:
    """What is to be done to the generator before it is measured: nothing, instance normalisation has no statistics."""
    return lambda generator: None
