"""CycleGAN: two generators, from masked to target and back, and a PatchGAN discriminator for each of the two.

Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", 2017, as in keras.io's
example, whose generator is the hub's keras-io/CycleGAN; or with the U-Net of TensorFlow's tutorial, which is that of
Rietta/CycleGAN_DL. Plain Keras 3, for any backend. Inside the networks images are float32 in [-1, 1].
"""

from functools import partial

import keras
import numpy as np
from keras import KerasTensor, Model, layers, ops

from pipeline.competition.images import SIZE
from pipeline.params import CycleGan
from pipeline.systems.shared import unet

INPUT_VERSION = 1  # grey level / 127.5 - 1, the boxes at -1
BLOCKS = 9  # residual blocks
SLOPE = 0.2  # of leaky ReLU below 0

# One group a channel is instance normalisation. Each epsilon is that of the pretrained weights.
RESNET_NORM = partial(layers.GroupNormalization, groups=-1, epsilon=1e-3)
UNET_NORM = partial(layers.GroupNormalization, groups=-1, epsilon=1e-5)


class ReflectionPadding(layers.Layer):
    """[n, h, w, c] to [n, h + 2 * size, w + 2 * size, c]: the margin mirrors the image."""

    def __init__(self, size: int, dtype: str) -> None:
        super().__init__(dtype=dtype)
        self.size = (size, size)

    def call(self, x: KerasTensor) -> KerasTensor:
        return ops.pad(x, [(0, 0), self.size, self.size, (0, 0)], mode="reflect")


def build(settings: CycleGan, dtype: str = "float32") -> Model:
    """A generator: float32 [n, 256, 256, 3] to float32 [n, 256, 256, 3], images in [-1, 1].

    With 64 filters "resnet" has 11,383,427 parameters and "unet" 54,414,979, all trainable. dtype is a Keras
    precision policy.
    """
    if settings.generator == "resnet":
        return resnet(settings.filters, dtype)
    return unet.generator(3, settings.filters, dtype, UNET_NORM)


def resnet(filters: int, dtype: str) -> Model:
    """The paper's generator for 256 x 256 (appendix 7.2): down to 64 x 64, nine residual blocks, and up again."""
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = convolve(image, filters, 7, 1, dtype)
    for factor in (2, 4):
        x = convolve(x, factor * filters, 3, 2, dtype)
    for _ in range(BLOCKS):
        y = convolve(x, 4 * filters, 3, 1, dtype)
        x = layers.Add(dtype=dtype)([x, convolve(y, 4 * filters, 3, 1, dtype, activate=False)])
    for factor in (2, 1):
        x = convolve(x, factor * filters, 3, 2, dtype, layer=layers.Conv2DTranspose)
    x = layers.Conv2D(3, 7, kernel_initializer=unet.normal(), dtype=dtype)(ReflectionPadding(3, dtype)(x))
    return Model(image, layers.Activation("tanh", dtype="float32")(x), name="generator")


def convolve(
    x: KerasTensor,
    filters: int,
    size: int,
    stride: int,
    dtype: str,
    activate: bool = True,
    layer: type[layers.Layer] = layers.Conv2D,
) -> KerasTensor:
    """Convolution (at stride 1 with reflection padding), instance normalisation, optional ReLU."""
    if stride == 1:
        x = ReflectionPadding(size // 2, dtype)(x)
    edges = "valid" if stride == 1 else "same"
    x = layer(filters, size, stride, edges, use_bias=False, kernel_initializer=unet.normal(), dtype=dtype)(x)
    x = RESNET_NORM(dtype=dtype)(x)
    return layers.ReLU(dtype=dtype)(x) if activate else x


def build_discriminator(settings: CycleGan, dtype: str = "float32") -> Model:
    """The PatchGAN: float32 [n, 256, 256, 3] to float32 [n, 32, 32, 1], each a score of 70 x 70 pixels.

    1 means real, 0 generated. With 64 filters it has 2,765,633 parameters.
    """
    filters, image = settings.filters, keras.Input((SIZE, SIZE, 3), name="image")
    x = layers.Conv2D(filters, 4, 2, "same", kernel_initializer=unet.normal(), dtype=dtype)(image)
    x = layers.LeakyReLU(SLOPE, dtype=dtype)(x)
    for factor, stride in ((2, 2), (4, 2), (8, 1)):
        kernel = {"use_bias": False, "kernel_initializer": unet.normal(), "dtype": dtype}
        x = RESNET_NORM(dtype=dtype)(layers.Conv2D(factor * filters, 4, stride, "same", **kernel)(x))
        x = layers.LeakyReLU(SLOPE, dtype=dtype)(x)
    x = layers.Conv2D(1, 4, 1, "same", kernel_initializer=unet.normal(), dtype=dtype)(x)
    return Model(image, layers.Activation("linear", dtype="float32")(x), name="discriminator")


def least_squares(scores: KerasTensor, label: float) -> KerasTensor:
    """The mean squared distance of a discriminator's output from a label, a scalar (section 4)."""
    return ops.mean(ops.square(scores - label))


def distance(one: KerasTensor, other: KerasTensor) -> KerasTensor:
    """The mean absolute difference of two batches of images, a scalar (equation 2)."""
    return ops.mean(ops.abs(one - other))


def fill(model: Model, masked: np.ndarray, boxes: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Fill the boxes, as systems.Network says; the model is the generator to targets. Classes are not used."""
    return unet.fill(model, unet.normalise(masked, boxes), masked, boxes)
