"""How the vanilla GAN is trained: generator and discriminator in turn, on the shards' 35,000 images."""

import keras

from pipeline.params import VanillaGan
from pipeline.systems.shared import adversarial, unet
from pipeline.systems.vanilla_gan import network
from pipeline.training.batches import shard_batches
from pipeline.training.data import TrainingData
from pipeline.training.loop import Step, TrainingState

batches, input_files = shard_batches, adversarial.input_files


def begin(settings: VanillaGan, dtype: str, seed: int) -> TrainingState:
    """Both networks with fresh weights drawn from the seed, and their optimizers."""
    builders = {"generator": network.build, "discriminator": network.build_discriminator}
    return adversarial.begin(builders, settings, dtype, seed)


def make_step(state: TrainingState, settings: VanillaGan) -> Step:
    """One step of both networks on one batch, compiled; it returns the losses, each a scalar.

    generator_gan is the generator's only loss: all it learns of the target is what the discriminator tells it.
    """
    return adversarial.make_step(state, lambda masked, _: masked, lambda *_: {}, {"generator_gan": 1.0})


def before_validation(model: keras.Model, settings: VanillaGan, data: TrainingData) -> None:
    """Measure the generator's statistics on the training's first batches."""
    unet.calibrate(model, (masked for masked, _, _ in batches(settings, data, 0)))
