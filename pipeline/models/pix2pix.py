"""pix2pix: a U-Net generator and a PatchGAN discriminator on (masked, whole).

Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", 2017, in the sizes of TensorFlow's
tutorial. Plain Keras 3: nothing here knows the backend. Inside the networks images are float32 in [-1, 1].
"""

from collections.abc import Iterable

import keras
import numpy as np
from keras import KerasTensor, Model, layers, ops

from pipeline.competition.boxes import hole, paste
from pipeline.competition.images import SIZE, to_uint8

SHAPE = ("filters", "mask_channel")  # the settings that `build` takes
DOWN = (1, 2, 4, 8, 8, 8, 8, 8)  # filters of the generator's layers on the way down, in multiples of the first
DROPOUT = 0.5
UNBOUNDED = 1e12  # a variance that leaves nothing of what it divides
NORMALISATION = "grey level / 127.5 - 1; the pixels of the boxes -1; with mask_channel, 1 where missing, else 0"


def build(filters: int = 64, mask_channel: bool = False, dtype: str = "float32") -> Model:
    """The U-Net: float32 [n, 256, 256, 3] masked to float32 [n, 256, 256, 3] filled, both in [-1, 1].

    With 64 filters it has 54,425,859 parameters, 54,414,979 of them trainable. With mask_channel a fourth channel says
    which pixels are missing. dtype is a Keras precision policy.
    """
    x = image = keras.Input((SIZE, SIZE, 3 + mask_channel), name="masked")
    skips = []
    for number, factor in enumerate(DOWN):
        x = down(x, factor * filters, dtype, norm=number > 0)
        skips.append(x)
    for number, (factor, skip) in enumerate(zip(DOWN[-2::-1], skips[-2::-1], strict=True)):
        x = up(x, factor * filters, dtype, dropout=number < 3)
        x = layers.Concatenate(dtype=dtype)([x, skip])
    x = layers.Conv2DTranspose(3, 4, 2, "same", kernel_initializer=normal(), dtype=dtype)(x)
    return Model(image, layers.Activation("tanh", dtype="float32")(x), name="generator")


def build_discriminator(filters: int = 64, dtype: str = "float32") -> Model:
    """The PatchGAN: two float32 [n, 256, 256, 3], masked and whole, to logits float32 [n, 30, 30, 1]."""
    masked, whole = (keras.Input((SIZE, SIZE, 3), name=name) for name in ("masked", "whole"))
    x = layers.Concatenate(dtype=dtype)([masked, whole])
    for number, factor in enumerate((1, 2, 4)):
        x = down(x, factor * filters, dtype, norm=number > 0)
    x = layers.ZeroPadding2D(dtype=dtype)(x)
    x = layers.Conv2D(8 * filters, 4, use_bias=False, kernel_initializer=normal(), dtype=dtype)(x)
    x = layers.LeakyReLU(dtype=dtype)(layers.BatchNormalization(dtype=dtype)(x))
    x = layers.ZeroPadding2D(dtype=dtype)(x)
    x = layers.Conv2D(1, 4, kernel_initializer=normal(), dtype=dtype)(x)
    return Model([masked, whole], layers.Activation("linear", dtype="float32")(x), name="discriminator")


def normal() -> keras.initializers.Initializer:
    """The paper's initial weights."""
    return keras.initializers.RandomNormal(0.0, 0.02)


def down(x: KerasTensor, filters: int, dtype: str, norm: bool = True) -> KerasTensor:
    """Half the height and width: convolution, batch normalisation, leaky ReLU."""
    x = layers.Conv2D(filters, 4, 2, "same", use_bias=False, kernel_initializer=normal(), dtype=dtype)(x)
    if norm:
        x = layers.BatchNormalization(dtype=dtype)(x)
    return layers.LeakyReLU(dtype=dtype)(x)


def up(x: KerasTensor, filters: int, dtype: str, dropout: bool) -> KerasTensor:
    """Twice the height and width: transposed convolution, batch normalisation, dropout if asked, ReLU."""
    x = layers.Conv2DTranspose(filters, 4, 2, "same", use_bias=False, kernel_initializer=normal(), dtype=dtype)(x)
    x = layers.BatchNormalization(dtype=dtype)(x)
    if dropout:
        x = layers.Dropout(DROPOUT, dtype=dtype)(x)
    return layers.ReLU(dtype=dtype)(x)


def differences(whole: KerasTensor, filled: KerasTensor, weights: KerasTensor) -> dict[str, KerasTensor]:
    """The mean absolute and the mean squared error, each a scalar, of images [n, h, w, 3] in [-1, 1].

    weights, float32 [n, h, w, 1], say how much a pixel counts.
    """
    off, total = whole - filled, 3 * ops.sum(weights)
    return {
        "generator_l1": ops.sum(weights * ops.abs(off)) / total,
        "generator_l2": ops.sum(weights * ops.square(off)) / total,
    }


def cross_entropy(logits: KerasTensor, label: float) -> KerasTensor:
    """Mean binary cross-entropy of logits with one label for all of them."""
    return ops.mean(ops.binary_crossentropy(ops.full_like(logits, label), logits, from_logits=True))


def calibrate(generator: Model, batches: Iterable[np.ndarray]) -> None:
    """Set the moving statistics to the mean of those of these batches, as training sees them but without dropout.

    Wu & Johnson, "Rethinking 'Batch' in BatchNorm", 2021, section 3: an average that trails the weights is far off
    when batches are small. A layer that sees one value a channel, as the innermost does at batch 1, gives its beta in
    training whatever the value is; a variance without bound has it do so in evaluation.
    """
    norms = [layer for layer in generator.layers if isinstance(layer, layers.BatchNormalization)]
    inputs = Model(generator.input, [norm.input for norm in norms])
    dropouts = [layer for layer in generator.layers if isinstance(layer, layers.Dropout)]
    for dropout in dropouts:
        dropout.rate = 0
    moments = []
    for batch in batches:
        outputs = [ops.cast(output, "float32") for output in inputs(batch, training=True)]
        moments.append([ops.convert_to_numpy(ops.stack(ops.moments(output, (0, 1, 2)))) for output in outputs])
    for dropout in dropouts:
        dropout.rate = DROPOUT
    for norm, output, statistics in zip(norms, outputs, zip(*moments, strict=True), strict=True):
        mean, variance = np.mean(statistics, axis=0)
        norm.moving_mean.assign(mean)
        norm.moving_variance.assign(variance if np.prod(output.shape[:3]) > 1 else np.full_like(variance, UNBOUNDED))


def normalise(images: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """What the generator is given: float32 [n, 256, 256, 3] in [-1, 1], the boxes at -1, whatever JPEG left there."""
    scaled = images.astype(np.float32) / np.float32(127.5) - np.float32(1)
    return np.where(hole(boxes)[..., None], np.float32(-1), scaled)


def fill(generator: Model, masked: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Fill the boxes of uint8 [n, 256, 256, 3]: the same shape and dtype, known pixels byte for byte as they were.

    The generator runs in evaluation mode: no dropout, moving statistics.
    """
    given = normalise(masked, boxes)
    if generator.input_shape[-1] == 4:
        given = np.concatenate([given, hole(boxes)[..., None]], axis=-1, dtype=np.float32)
    filled = ops.convert_to_numpy(generator(given, training=False))
    return paste(to_uint8((filled + 1) * 127.5), masked, boxes)
