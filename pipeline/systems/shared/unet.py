"""The networks that adversarial systems share: pix2pix's U-Net and PatchGAN, their loss and their statistics.

Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", 2017, in the sizes of TensorFlow's
tutorial. Plain Keras 3, for any backend. Inside the networks images are float32 in [-1, 1].
"""

from collections.abc import Callable, Iterable, Sequence

import keras
import numpy as np
from keras import KerasTensor, Model, layers, ops

from pipeline.competition.boxes import paste, unknown_mask
from pipeline.competition.images import SIZE, to_uint8

DOWN = (1, 2, 4, 8, 8, 8, 8, 8)  # filters of the layers on the way down, in multiples of the first
DROPOUT = 0.5
UNBOUNDED = 1e12  # a variance so large that normalised values are 0
CALIBRATED_ON = 64  # images

Normalisation = Callable[..., layers.Layer]  # makes a layer, given its dtype


def generator(
    channels: int, filters: int, dtype: str, normalisation: Normalisation = layers.BatchNormalization
) -> Model:
    """The U-Net: float32 [n, 256, 256, channels] masked to float32 [n, 256, 256, 3] filled, images in [-1, 1].

    dtype is a Keras precision policy.
    """
    x = image = keras.Input((SIZE, SIZE, channels), name="masked")
    skips = []
    for number, factor in enumerate(DOWN):
        x = down(x, factor * filters, dtype, normalisation if number > 0 else None)
        skips.append(x)
    for number, (factor, skip) in enumerate(zip(DOWN[-2::-1], skips[-2::-1], strict=True)):
        x = up(x, factor * filters, dtype, normalisation, dropout=number < 3)
        x = layers.Concatenate(dtype=dtype)([x, skip])
    x = layers.Conv2DTranspose(3, 4, 2, "same", kernel_initializer=normal(), dtype=dtype)(x)
    return Model(image, layers.Activation("tanh", dtype="float32")(x), name="generator")


def discriminator(strides: Sequence[int], filters: int, dtype: str) -> Model:
    """The PatchGAN: two float32 [n, 256, 256, 3], masked and target, to logits float32 [n, h, w, 1].

    A downsampling block for each stride, then two convolutions that each remove one row and column.
    """
    masked, target = (keras.Input((SIZE, SIZE, 3), name=name) for name in ("masked", "target"))
    x = layers.Concatenate(dtype=dtype)([masked, target])
    for number, (factor, stride) in enumerate(zip(DOWN, strides, strict=False)):
        x = down(x, factor * filters, dtype, layers.BatchNormalization if number > 0 else None, stride)
    x = layers.ZeroPadding2D(dtype=dtype)(x)
    x = layers.Conv2D(DOWN[len(strides)] * filters, 4, use_bias=False, kernel_initializer=normal(), dtype=dtype)(x)
    x = layers.LeakyReLU(dtype=dtype)(layers.BatchNormalization(dtype=dtype)(x))
    x = layers.ZeroPadding2D(dtype=dtype)(x)
    x = layers.Conv2D(1, 4, kernel_initializer=normal(), dtype=dtype)(x)
    return Model([masked, target], layers.Activation("linear", dtype="float32")(x), name="discriminator")


def normal() -> keras.initializers.Initializer:
    """The paper's initial weights."""
    return keras.initializers.RandomNormal(0.0, 0.02)


def down(x: KerasTensor, filters: int, dtype: str, normalisation: Normalisation | None, stride: int = 2) -> KerasTensor:
    """Divide height and width by the stride: convolution, optional normalisation, leaky ReLU."""
    x = layers.Conv2D(filters, 4, stride, "same", use_bias=False, kernel_initializer=normal(), dtype=dtype)(x)
    if normalisation:
        x = normalisation(dtype=dtype)(x)
    return layers.LeakyReLU(dtype=dtype)(x)


def up(x: KerasTensor, filters: int, dtype: str, normalisation: Normalisation, dropout: bool) -> KerasTensor:
    """Double height and width: transposed convolution, normalisation, optional dropout, ReLU."""
    x = layers.Conv2DTranspose(filters, 4, 2, "same", use_bias=False, kernel_initializer=normal(), dtype=dtype)(x)
    x = normalisation(dtype=dtype)(x)
    if dropout:
        x = layers.Dropout(DROPOUT, dtype=dtype)(x)
    return layers.ReLU(dtype=dtype)(x)


def cross_entropy(logits: KerasTensor, label: float) -> KerasTensor:
    """Mean binary cross-entropy of logits that all have one label, a scalar."""
    return ops.mean(ops.binary_crossentropy(ops.full_like(logits, label), logits, from_logits=True))


def calibrate(generator: Model, batches: Iterable[np.ndarray]) -> None:
    """Set batch normalisation's moving statistics to their mean over the first 64 images of these batches.

    They are those that training sees, but without dropout. Wu & Johnson, "Rethinking 'Batch' in BatchNorm", 2021,
    section 3: with small batches, a moving average lags far behind the weights. At batch 1 the innermost layer has one
    value a channel, which batch normalisation replaces by its beta; an unbounded variance does the same in evaluation.
    """
    norms = [layer for layer in generator.layers if isinstance(layer, layers.BatchNormalization)]
    inputs = Model(generator.input, [norm.input for norm in norms])
    dropouts = [layer for layer in generator.layers if isinstance(layer, layers.Dropout)]
    for dropout in dropouts:
        dropout.rate = 0
    moments, images = [], 0
    for batch in batches:
        outputs = [ops.cast(output, "float32") for output in inputs(batch, training=True)]
        moments.append([ops.convert_to_numpy(ops.stack(ops.moments(output, (0, 1, 2)))) for output in outputs])
        images += len(batch)
        if images >= CALIBRATED_ON:
            break
    for dropout in dropouts:
        dropout.rate = DROPOUT
    for norm, output, statistics in zip(norms, outputs, zip(*moments, strict=True), strict=True):
        mean, variance = np.mean(statistics, axis=0)
        norm.moving_mean.assign(mean)
        norm.moving_variance.assign(variance if np.prod(output.shape[:3]) > 1 else np.full_like(variance, UNBOUNDED))


def normalise(images: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The generator's input: float32 [n, 256, 256, 3] in [-1, 1] from masked uint8, the hole exactly -1."""
    scaled = images.astype(np.float32) / np.float32(127.5) - np.float32(1)
    return np.where(unknown_mask(images, boxes)[..., None], np.float32(-1), scaled)


def fill(generator: Model, inputs: np.ndarray, masked: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The generator's output for `inputs` in the boxes of `masked`, uint8 [n, 256, 256, 3], in evaluation mode."""
    filled = ops.convert_to_numpy(generator(inputs, training=False))
    return paste(to_uint8((filled + 1) * 127.5), masked, boxes)
