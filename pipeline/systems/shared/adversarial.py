"""What the trainings of adversarial systems share: how they begin, the adversary's losses, the images' source."""

from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from pipeline import paths
from pipeline.systems.shared import unet
from pipeline.training.adam import FusedAdam
from pipeline.training.devices import replica_share
from pipeline.training.loop import TrainingState, snapshot
from pipeline.training.shards import CHECKSUMS


class ForAdam(Protocol):
    """What a system's settings say of its optimizers."""

    learning_rate: float
    beta_1: float


def begin(networks: dict[str, keras.Model], settings: ForAdam) -> TrainingState:
    """The training of these networks, each with its own optimizer; the one named generator fills images."""
    optimizers = {}
    for name, network in networks.items():
        optimizers[f"{name}_optimizer"] = FusedAdam(settings.learning_rate, beta_1=settings.beta_1)
        optimizers[f"{name}_optimizer"].build(network.trainable_variables)
    return TrainingState(networks["generator"], networks, optimizers, snapshot(networks["generator"]))


def losses(discriminator: keras.Model, masked: tf.Tensor, whole: tf.Tensor, filled: tf.Tensor) -> dict[str, tf.Tensor]:
    """In a step: generator_gan and discriminator, each a scalar and this replica's part of that of the whole batch.

    Isola et al., 2017, equation 1 and section 3.3: the discriminator's cross-entropy of its logits on (masked, whole)
    with "real" and on (masked, filled) with "fake"; the generator's of those on (masked, filled) with "real".
    """
    real = discriminator([masked, whole], training=True)
    fake = discriminator([masked, filled], training=True)
    share = replica_share()
    return {
        "generator_gan": share * unet.cross_entropy(fake, 1.0),
        "discriminator": share * (unet.cross_entropy(real, 1.0) + unet.cross_entropy(fake, 0.0)),
    }


def sources(_: Any, __: pd.DataFrame, ___: np.ndarray) -> list[Path]:
    """The files that a checkpoint depends on beside the index: the shards' checksums stand for the shards."""
    return [paths.AUGMENTED / CHECKSUMS]
