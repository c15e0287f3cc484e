"""A vanilla GAN: pix2pix's U-Net and a deeper PatchGAN on (masked, target), with no loss but the adversary's.

The baseline names four downsampling blocks, two convolutions and 30 x 30 logits. Four blocks that each halve 256 leave
16 x 16, so we read the fourth as one of stride 1: 256, 128, 64, 32, 32, then 31 and 30 by the two convolutions, each
after a padding of one pixel. Plain Keras 3, for any backend.
"""

import numpy as np
from keras import Model

from pipeline.params import VanillaGan
from pipeline.systems.shared import unet

INPUT_VERSION = 1  # grey level / 127.5 - 1, the boxes at -1
STRIDES = (2, 2, 2, 1)  # of the discriminator's downsampling blocks


def build(settings: VanillaGan, dtype: str = "float32") -> Model:
    """The U-Net: float32 [n, 256, 256, 3] masked to float32 [n, 256, 256, 3] filled, both in [-1, 1].

    With 64 filters it has pix2pix's 54,425,859 parameters. dtype is a Keras precision policy.
    """
    return unet.generator(3, settings.filters, dtype)


def build_discriminator(settings: VanillaGan, dtype: str = "float32") -> Model:
    """The PatchGAN: two float32 [n, 256, 256, 3], masked and target, to logits float32 [n, 30, 30, 1]."""
    return unet.discriminator(STRIDES, settings.filters, dtype)


def fill(model: Model, masked: np.ndarray, boxes: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Fill the boxes, as systems.Network says: without dropout, with moving statistics. Classes are not used."""
    return unet.fill(model, unet.normalise(masked, boxes), masked, boxes)
