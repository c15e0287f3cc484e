"""A vanilla GAN: pix2pix's U-Net and a deeper PatchGAN on (masked, whole), with no loss but the adversary's.

The report names four downsampling blocks, two convolutions and 30 x 30 logits. Four blocks that each halve 256 leave
16 x 16, so we read the fourth as one of stride 1: 256, 128, 64, 32, 32, then 31 and 30 by the two convolutions, which
follow a padding of one pixel each. Plain Keras 3: nothing here knows the backend.
"""

import numpy as np
from keras import Model

from pipeline.systems.shared import unet

SHAPE = ("filters",)  # the settings that `build` takes
NORMALISATION = "grey level / 127.5 - 1; the pixels of the boxes -1"
STRIDES = (2, 2, 2, 1)  # of the discriminator's downsampling blocks


def build(filters: int = 64, dtype: str = "float32") -> Model:
    """The U-Net: float32 [n, 256, 256, 3] masked to float32 [n, 256, 256, 3] filled, both in [-1, 1].

    With 64 filters it has pix2pix's 54,425,859 parameters. dtype is a Keras precision policy.
    """
    return unet.generator(3, filters, dtype)


def build_discriminator(filters: int = 64, dtype: str = "float32") -> Model:
    """The PatchGAN: two float32 [n, 256, 256, 3], masked and whole, to logits float32 [n, 30, 30, 1]."""
    return unet.discriminator(STRIDES, filters, dtype)


def fill(generator: Model, masked: np.ndarray, boxes: np.ndarray, _: np.ndarray | None = None) -> np.ndarray:
    """Fill the boxes of uint8 [n, 256, 256, 3]: the same shape and dtype, known pixels byte for byte as they were.

    The generator runs in evaluation mode: no dropout, moving statistics.
    """
    return unet.fill(generator, unet.normalise(masked, boxes), masked, boxes)
