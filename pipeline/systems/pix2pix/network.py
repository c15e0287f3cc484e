"""pix2pix: a U-Net generator and a PatchGAN discriminator on (masked, target).

Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", 2017, in the sizes of TensorFlow's
tutorial. Plain Keras 3, for any backend. Inside the networks images are float32 in [-1, 1].
"""

import numpy as np
from keras import KerasTensor, Model, ops

from pipeline.competition.boxes import unknown_mask
from pipeline.params import Pix2pix
from pipeline.systems.shared import unet

INPUT_VERSION = 1  # grey level / 127.5 - 1, the boxes at -1; with mask_channel a fourth channel, 1 in the holes, else 0


def build(settings: Pix2pix, dtype: str = "float32") -> Model:
    """The U-Net: float32 [n, 256, 256, 3] masked to float32 [n, 256, 256, 3] filled, both in [-1, 1].

    With 64 filters it has 54,425,859 parameters, 54,414,979 of them trainable. With mask_channel it takes a fourth
    channel, the holes. dtype is a Keras precision policy.
    """
    return unet.generator(3 + settings.mask_channel, settings.filters, dtype)


def build_discriminator(settings: Pix2pix, dtype: str = "float32") -> Model:
    """The PatchGAN: two float32 [n, 256, 256, 3], masked and target, to logits float32 [n, 30, 30, 1]."""
    return unet.discriminator((2, 2, 2), settings.filters, dtype)


def generator_input(masked: KerasTensor, hole: KerasTensor, mask_channel: bool) -> KerasTensor:
    """The generator's input: masked [n, 256, 256, 3], with hole [n, 256, 256, 1] as a fourth channel if asked for."""
    return ops.concatenate([masked, hole], axis=-1) if mask_channel else masked


def differences(target: KerasTensor, filled: KerasTensor, weights: KerasTensor) -> dict[str, KerasTensor]:
    """The mean absolute and the mean squared error, each a scalar, of images [n, h, w, 3] in [-1, 1].

    weights, float32 [n, h, w, 1], say how much a pixel counts.
    """
    off, total = target - filled, 3 * ops.sum(weights)
    return {
        "generator_l1": ops.sum(weights * ops.abs(off)) / total,
        "generator_l2": ops.sum(weights * ops.square(off)) / total,
    }


def fill(model: Model, masked: np.ndarray, boxes: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Fill the boxes, as systems.Network says: without dropout, with moving statistics. Classes are not used."""
    inputs = unet.normalise(masked, boxes)
    if model.input_shape[-1] == 4:
        inputs = np.concatenate([inputs, unknown_mask(masked, boxes)[..., None]], axis=-1, dtype=np.float32)
    return unet.fill(model, inputs, masked, boxes)
