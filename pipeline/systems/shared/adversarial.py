"""What adversarial systems share: how their training begins, its losses, its step."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import keras
import tensorflow as tf

from pipeline import paths
from pipeline.systems.shared import unet
from pipeline.training.adam import FusedAdam
from pipeline.training.data import TrainingData
from pipeline.training.devices import on_all_replicas, replica_share, update
from pipeline.training.loop import Step, TrainingState, snapshot
from pipeline.training.shards import CONTENT

Losses = dict[str, tf.Tensor]
Builders = dict[str, Callable[..., keras.Model]]  # by network, as network.build of a system


class AdamSettings(Protocol):
    """A system's settings for its optimizers."""

    learning_rate: float
    beta_1: float


def begin(builders: Builders, settings: AdamSettings, dtype: str, seed: int) -> TrainingState:
    """The networks that `builders` make, drawn from the seed, each with its optimizer; `generator` fills images."""
    keras.utils.set_random_seed(seed)
    networks, optimizers = {name: build(settings, dtype) for name, build in builders.items()}, {}
    for name, network in networks.items():
        optimizers[f"{name}_optimizer"] = FusedAdam(settings.learning_rate, beta_1=settings.beta_1)
        optimizers[f"{name}_optimizer"].build(network.trainable_variables)
    return TrainingState(networks["generator"], networks, optimizers, snapshot(networks["generator"]))


def make_step(
    state: TrainingState,
    see: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    errors: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], Losses],
    weights: dict[str, float],
) -> Step:
    """A compiled step of generator and discriminator on one batch (masked, target, hole) that returns the losses.

    see(masked, hole) returns the generator's input, errors(target, filled, hole) this replica's share of the losses
    that need no adversary. The generator minimises the sum of the losses in `weights`, each times its weight; with
    several, the sum is returned as `generator`. If `generator_gan` has weight 0, no discriminator is trained.
    """
    generator, discriminator = state.networks["generator"], state.networks["discriminator"]
    optimizers = state.optimizers

    def step(masked: tf.Tensor, target: tf.Tensor, hole: tf.Tensor) -> Losses:
        with tf.GradientTape() as generator_tape, tf.GradientTape() as discriminator_tape:
            filled = generator(see(masked, hole), training=True)
            losses = errors(target, filled, hole)
            if weights["generator_gan"]:
                losses |= gan_losses(discriminator, masked, target, filled)
            total = weighted_sum(losses, weights)
        update(generator_tape, total, (generator, optimizers["generator_optimizer"]))
        if weights["generator_gan"]:
            update(discriminator_tape, losses["discriminator"], (discriminator, optimizers["discriminator_optimizer"]))
        return losses | ({"generator": total} if len(weights) > 1 else {})

    return on_all_replicas(step)


def weighted_sum(losses: Losses, weights: dict[str, float]) -> tf.Tensor:
    """The sum of the losses that have a weight, in the order of `weights`."""
    first, *others = (weight * losses[name] for name, weight in weights.items() if name in losses)
    for term in others:
        first += term
    return first


def gan_losses(discriminator: keras.Model, masked: tf.Tensor, target: tf.Tensor, filled: tf.Tensor) -> Losses:
    """In a step: `generator_gan` and `discriminator`, each a scalar and this replica's share.

    Isola et al., 2017, equation 1 and section 3.3. The discriminator's loss is the cross-entropy of its logits on
    (masked, target) with "real" and on (masked, filled) with "fake". The generator's is that of the latter with "real".
    """
    real = discriminator([masked, target], training=True)
    fake = discriminator([masked, filled], training=True)
    share = replica_share()
    return {
        "generator_gan": share * unet.cross_entropy(fake, 1.0),
        "discriminator": share * (unet.cross_entropy(real, 1.0) + unet.cross_entropy(fake, 0.0)),
    }


def input_files(settings: AdamSettings, data: TrainingData) -> list[Path]:
    """The shards' checksums, which stand for the shards."""
    return [paths.AUGMENTED / CONTENT]
