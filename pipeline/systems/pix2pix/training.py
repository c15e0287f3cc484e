"""How pix2pix is trained: generator and discriminator in turn, on the shards' 35,000 images."""

import keras
import tensorflow as tf

from pipeline.params import Pix2pix
from pipeline.systems.pix2pix import network
from pipeline.systems.shared import adversarial, unet
from pipeline.training.batches import ONE_DEVICE, shard_batches
from pipeline.training.data import TrainingData
from pipeline.training.devices import replica_share
from pipeline.training.loop import Step, TrainingState

input_files = adversarial.input_files


def begin(settings: Pix2pix, dtype: str, seed: int) -> TrainingState:
    """Both networks with fresh weights drawn from the seed, and their optimizers."""
    builders = {"generator": network.build, "discriminator": network.build_discriminator}
    return adversarial.begin(builders, settings, dtype, seed)


def make_step(state: TrainingState, settings: Pix2pix) -> Step:
    """One step of both networks on one batch, compiled; it returns the losses, each a scalar.

    They are those of the paper (equations 1 to 4), each with its weight: generator_gan is the cross-entropy of the
    discriminator's logits on the fill with "real", generator_l1 and generator_l2 are the mean absolute and squared
    error over the image or over the holes.
    """

    def see(masked: tf.Tensor, hole: tf.Tensor) -> tf.Tensor:
        return network.generator_input(masked, hole, settings.mask_channel)

    def errors(target: tf.Tensor, filled: tf.Tensor, hole: tf.Tensor) -> adversarial.Losses:
        weights = hole if settings.loss == "holes" else tf.ones_like(hole)
        share = replica_share(weights)
        return {name: share * loss for name, loss in network.differences(target, filled, weights).items()}

    weights = {
        "generator_l1": settings.lambda_l1,
        "generator_l2": settings.lambda_l2,
        "generator_gan": settings.lambda_gan,
    }
    return adversarial.make_step(state, see, errors, weights)


def batches(
    settings: Pix2pix, data: TrainingData, start: int, context: tf.distribute.InputContext = ONE_DEVICE
) -> tf.data.Dataset:
    """Batches (masked, target, hole) as shard_batches reads them."""
    return shard_batches(settings, data, start, context, settings.random_holes)


def before_validation(model: keras.Model, settings: Pix2pix, data: TrainingData) -> None:
    """Measure the generator's statistics on the training's first batches."""
    first = batches(settings, data, 0)
    unet.calibrate(model, (network.generator_input(masked, hole, settings.mask_channel) for masked, _, hole in first))
