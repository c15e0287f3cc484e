"""How CycleGAN is trained: four networks at once on the shards' 35,000 images, from scratch or from pretrained weights.

As in the paper, no loss uses that masked and target of a batch show the same photograph.
"""

from pathlib import Path

import keras
import tensorflow as tf

from pipeline import paths
from pipeline.params import CycleGan
from pipeline.systems.cyclegan import network
from pipeline.systems.cyclegan.savedmodel import FILES, list_files, read_generators
from pipeline.systems.shared import adversarial
from pipeline.systems.shared.hub import locate
from pipeline.training.batches import shard_batches
from pipeline.training.data import TrainingData
from pipeline.training.devices import on_all_replicas, replica_share, update
from pipeline.training.loop import Step, TrainingState, snapshot

GENERATORS = ("generator", "back_generator")  # masked to target, which fills, and target to masked
DISCRIMINATORS = ("target_discriminator", "masked_discriminator")
batches = shard_batches


def begin(settings: CycleGan, dtype: str, seed: int) -> TrainingState:
    """The four networks, with weights drawn from the seed or pretrained generators, and their optimizers."""
    builders = dict.fromkeys(GENERATORS, network.build) | dict.fromkeys(DISCRIMINATORS, network.build_discriminator)
    state = adversarial.begin(builders, settings, dtype, seed)
    if settings.pretrained:
        weights = read_generators(pretrained(settings), network.build(settings))
        for name, own in zip(GENERATORS, weights, strict=True):
            state.networks[name].set_weights(own)
        state.best = snapshot(state.model)
    return state


def pretrained(settings: CycleGan) -> Path:
    """The folder of the pretrained weights."""
    return locate(settings.pretrained, settings.revision, paths.WORK / "hub", FILES)


def make_step(state: TrainingState, settings: CycleGan) -> Step:
    """One step of all four networks on one batch, compiled; it returns the losses, each a scalar.

    They are those of the paper, each summed over both directions. generator_gan and discriminator are the squared
    distances of the discriminators' outputs from the generators' and their own goals (section 4), generator_cycle the
    absolute distance of an image from its reconstruction (equation 2), generator_identity that of an image from the
    output of the generator to its own side (section 5.2). Both generators minimise `generator`, the weighted sum
    (equation 3).
    """
    networks = state.networks
    fill, back = (networks[name] for name in GENERATORS)
    judge_target, judge_masked = (networks[name] for name in DISCRIMINATORS)

    def trained(names: tuple[str, ...]) -> list[tuple[keras.Model, keras.Optimizer]]:
        return [(networks[name], state.optimizers[f"{name}_optimizer"]) for name in names]

    def step(masked: tf.Tensor, target: tf.Tensor, _: tf.Tensor) -> adversarial.Losses:
        share, with_identity = replica_share(), settings.lambda_identity > 0
        with tf.GradientTape() as generator_tape, tf.GradientTape() as discriminator_tape:
            forth = one_way((fill, back, judge_target), masked, target, with_identity)
            back_again = one_way((back, fill, judge_masked), target, masked, with_identity)
            losses = {name: share * (loss + back_again[name]) for name, loss in forth.items()}
            total = losses["generator_gan"] + settings.lambda_cycle * losses["generator_cycle"]
            if with_identity:
                total += settings.lambda_identity * losses["generator_identity"]
        update(generator_tape, total, *trained(GENERATORS))
        update(discriminator_tape, losses["discriminator"], *trained(DISCRIMINATORS))
        return losses | {"generator": total}

    return on_all_replicas(step)


def one_way(
    networks: tuple[keras.Model, keras.Model, keras.Model], inputs: tf.Tensor, goal: tf.Tensor, with_identity: bool
) -> adversarial.Losses:
    """The losses of one direction, from `inputs` to images such as `goal`, each a mean over the batch.

    networks are the generator of this direction, that of the other, and this direction's discriminator.
    """
    generator, back, discriminator = networks
    made = generator(inputs, training=True)
    real, fake = (discriminator(images, training=True) for images in (goal, made))
    losses = {
        "generator_gan": network.least_squares(fake, 1.0),
        "generator_cycle": network.distance(inputs, back(made, training=True)),
        "discriminator": (network.least_squares(real, 1.0) + network.least_squares(fake, 0.0)) / 2,
    }
    if with_identity:
        losses["generator_identity"] = network.distance(goal, generator(goal, training=True))
    return losses


def input_files(settings: CycleGan, data: TrainingData) -> list[Path]:
    """The shards' checksums, and the pretrained weights."""
    weights = list_files(pretrained(settings)) if settings.pretrained else []
    return adversarial.input_files(settings, data) + weights


def before_validation(model: keras.Model, settings: CycleGan, data: TrainingData) -> None:
    """Nothing: instance normalisation has no statistics."""
