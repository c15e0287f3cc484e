"""pix2pix: a U-Net generator and a PatchGAN discriminator on (masked, whole).

Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", 2017, in the sizes of TensorFlow's
tutorial. Plain Keras 3: nothing here knows the backend. Inside the networks images are float32 in [-1, 1].
"""

import numpy as np
from keras import KerasTensor, Model, ops

from pipeline.competition.boxes import hole_mask
from pipeline.systems.shared import unet

SHAPE = ("filters", "mask_channel")  # the settings that `build` takes
NORMALISATION = "grey level / 127.5 - 1; the pixels of the boxes -1; with mask_channel, 1 where missing, else 0"


def build(filters: int = 64, mask_channel: bool = False, dtype: str = "float32") -> Model:
    """The U-Net: float32 [n, 256, 256, 3] masked to float32 [n, 256, 256, 3] filled, both in [-1, 1].

    With 64 filters it has 54,425,859 parameters, 54,414,979 of them trainable. With mask_channel a fourth channel says
    which pixels are missing. dtype is a Keras precision policy.
    """
    return unet.generator(3 + mask_channel, filters, dtype)


def build_discriminator(filters: int = 64, dtype: str = "float32") -> Model:
    """The PatchGAN: two float32 [n, 256, 256, 3], masked and whole, to logits float32 [n, 30, 30, 1]."""
    return unet.discriminator((2, 2, 2), filters, dtype)


def differences(whole: KerasTensor, filled: KerasTensor, weights: KerasTensor) -> dict[str, KerasTensor]:
    """The mean absolute and the mean squared error, each a scalar, of images [n, h, w, 3] in [-1, 1].

    weights, float32 [n, h, w, 1], say how much a pixel counts.
    """
    off, total = whole - filled, 3 * ops.sum(weights)
    return {
        "generator_l1": ops.sum(weights * ops.abs(off)) / total,
        "generator_l2": ops.sum(weights * ops.square(off)) / total,
    }


def fill(generator: Model, masked: np.ndarray, boxes: np.ndarray, _: np.ndarray | None = None) -> np.ndarray:
    """Fill the boxes of uint8 [n, 256, 256, 3]: the same shape and dtype, known pixels byte for byte as they were.

    The generator runs in evaluation mode: no dropout, moving statistics.
    """
    given = unet.normalise(masked, boxes)
    if generator.input_shape[-1] == 4:
        given = np.concatenate([given, hole_mask(boxes)[..., None]], axis=-1, dtype=np.float32)
    return unet.fill(generator, given, masked, boxes)
