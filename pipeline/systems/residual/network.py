"""A U-Net that predicts what the harmonic fill lacks.

It sees a photograph at 64 x 64 or 128 x 128, its holes filled harmonically, with the holes as a fourth channel, and
predicts the residual: target minus fill. It is trained on the squared error inside the holes only, with new holes at
each step, so it learns the conditional mean, which has the least RMSE. The enlarged residual is added to the harmonic
fill of the full photograph. There are no normalisation layers. The last layer starts at zero, so training starts at the
harmonic fill. Plain Keras 3, for any backend. Inside the network photographs are float32 in [-1, 1].
"""

import cv2
import keras
import numpy as np
from keras import KerasTensor, Model, layers, ops

from pipeline.competition.boxes import BOX, LAST, hole_mask, paste
from pipeline.competition.images import SIZE, to_uint8
from pipeline.fills import harmonic
from pipeline.params import Residual

INPUT_VERSION = 1  # grey level / 127.5 - 1, holes filled harmonically; a fourth channel, 1 in the holes
FIRST = 32  # pixels a side after the first layer, at any resolution
WIDTHS = (1, 2, 4, 8)  # filters at 32, 16, 8 and 4 pixels a side, in multiples of the first
WIDEST = 256  # filters of any layer: at 4 pixels a side more cost much and bring little
VIEWS = (SIZE, 209, 193)  # pixels a side of the parts around a box that are filled; odd, so that mirroring is exact
CYCLES = 1  # of the harmonic solver: half a grey level off, in little more than half the time of two


def build(settings: Residual, dtype: str = "float32") -> Model:
    """The network: float32 [n, h, h, 4], photograph and holes, to the residual float32 [n, h, h, 3]; h is resolution.

    filters is the width at 32 x 32, blocks the number of residual blocks at each level on each side. With 32 and 1 it
    has 3,483,715 parameters at 64 x 64. dtype is a Keras precision policy. On a CPU, multiples of 32 are the fastest
    widths.
    """
    image = keras.Input((settings.resolution, settings.resolution, 4), name="filled")
    # Straight to 32 x 32: at full width, 64 x 64 would take half of the time.
    stride = settings.resolution // FIRST
    fold = {"kernel_size": 2 * stride, "strides": stride, "padding": "same", "dtype": dtype}
    x = layers.Conv2D(settings.filters, **fold, activation="relu", kernel_initializer="he_normal")(image)
    skips = []
    widths = [min(factor * settings.filters, WIDEST) for factor in WIDTHS]
    for width in widths[1:]:
        x = refine(x, settings.blocks, dtype)
        skips.append(x)
        x = layers.Conv2D(width, 2, 2, activation="relu", kernel_initializer="he_normal", dtype=dtype)(x)
    x = refine(x, 2 * settings.blocks, dtype)
    for width, skip in zip(widths[-2::-1], skips[::-1], strict=True):
        x = layers.Conv2DTranspose(width, 2, 2, kernel_initializer="he_normal", dtype=dtype)(x)
        x = layers.ReLU(dtype=dtype)(layers.Add(dtype=dtype)([x, skip]))
        x = refine(x, settings.blocks, dtype)
    x = layers.Conv2DTranspose(3, **fold, kernel_initializer="zeros")(x)
    return Model(image, layers.Activation("linear", dtype="float32")(x), name="residual")


def refine(x: KerasTensor, blocks: int, dtype: str) -> KerasTensor:
    """Residual blocks of two convolutions, the second one small at first, so that each block starts close to zero."""
    for _ in range(blocks):
        width = x.shape[-1]
        y = layers.Conv2D(width, 3, 1, "same", activation="relu", kernel_initializer="he_normal", dtype=dtype)(x)
        small = keras.initializers.VarianceScaling(0.2)
        y = layers.Conv2D(width, 3, 1, "same", kernel_initializer=small, dtype=dtype)(y)
        x = layers.Add(dtype=dtype)([x, y])
    return x


def loss(residual: KerasTensor, predicted: KerasTensor, weights: KerasTensor) -> KerasTensor:
    """The mean squared error in the holes, a scalar: residuals [n, h, w, 3], weights [n, h, w], 0 outside the holes."""
    squares = ops.mean(ops.square(ops.cast(predicted, "float32") - residual), axis=-1)
    return ops.sum(weights * squares) / ops.sum(weights)


def draw_weights(rng: np.random.Generator, n: int, side: int) -> np.ndarray:
    """Holes as the competition draws them: the number of boxes on each pixel, float32 [n, side, side], 0 to 2.

    A pixel in both boxes is scored twice. A pixel that a box only touches counts as in it.
    """
    boxes = rng.integers(0, LAST + 1, (n, 2, 2))
    cell, position = SIZE // side, np.arange(side)
    start, stop = boxes // cell, -(-(boxes + BOX) // cell)
    inside = (position >= start[..., None]) & (position < stop[..., None])  # [n, box, axis, side]
    return (inside[:, :, 0, :, None] & inside[:, :, 1, None, :]).sum(axis=1).astype(np.float32)


def examples(photographs: np.ndarray, hole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Training examples: the network's input [n, h, h, 4] and the residual [n, h, h, 3], float32.

    photographs are uint8 [n, h, h, 3]; hole, bool [n, h, h], says where to make holes.
    """
    target = scale(photographs)
    smooth = harmonic.solve(target, hole, CYCLES)
    return np.concatenate([smooth, hole[..., None]], axis=-1, dtype=np.float32), target - smooth


def scale(photographs: np.ndarray) -> np.ndarray:
    """Grey levels as float32 in [-1, 1]."""
    return photographs.astype(np.float32) / np.float32(127.5) - np.float32(1)


def shrink(image: np.ndarray, side: int) -> np.ndarray:
    """An image [h, h, channels], reduced to float32 [side, side, channels]: the mean of each cell of pixels."""
    return cv2.resize(image.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)


def hole_cells(boxes: np.ndarray, side: int) -> np.ndarray:
    """The pixels of the reduced photographs that a hole touches: bool [n, side, side]."""
    cell = SIZE // side
    return hole_mask(boxes).reshape(-1, side, cell, side, cell).any(axis=(2, 4))


def fill(model: Model, masked: np.ndarray, boxes: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Fill the boxes, as systems.Network says. Classes are not used."""
    smooth = harmonic.smooth(masked, boxes)
    return paste(to_uint8(smooth + 127.5 * predict(model, smooth, boxes)), masked, boxes)


def predict(model: Model, smooth: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The residual in the boxes, float32 [n, 256, 256, 3]: the mean over each box's views and their mirror images.

    A closer view has finer pixels, and the errors of the views differ. smooth, in grey levels, has its holes filled.
    """
    filled = np.concatenate([scale(smooth), hole_mask(boxes)[..., None]], axis=-1, dtype=np.float32)
    views = [(image, box, length) for image in range(len(boxes)) for box in boxes[image] for length in VIEWS]
    corners = [np.clip(box - (length - BOX) // 2, 0, SIZE - length) for _, box, length in views]
    inputs = np.stack(
        [
            shrink(filled[image, top : top + length, left : left + length], model.input_shape[1])
            for (image, _, length), (top, left) in zip(views, corners, strict=True)
        ]
    )
    inputs[..., 3] = inputs[..., 3] > 0
    residuals = predict_views(model, inputs)
    total, count = np.zeros_like(filled[..., :3]), np.zeros_like(filled[..., 3:])
    for residual, (image, (row, column), length), (top, left) in zip(residuals, views, corners, strict=True):
        large = cv2.resize(residual, (length, length), interpolation=cv2.INTER_LINEAR)
        rows, columns = slice(row, row + BOX), slice(column, column + BOX)
        total[image, rows, columns] += large[row - top :, column - left :][:BOX, :BOX]
        count[image, rows, columns] += 1
    return total / np.maximum(count, 1)


def predict_views(model: Model, inputs: np.ndarray) -> np.ndarray:
    """The residual in the holes of inputs [n, h, h, 4]: float32 [n, h, h, 3], the mean with the mirror images."""
    both = np.concatenate([inputs, inputs[:, :, ::-1]])  # in one call: each call costs more than 8 images
    straight, mirrored = np.split(ops.convert_to_numpy(model(both, training=False)), 2)
    return (straight + mirrored[:, :, ::-1]) / 2 * inputs[..., 3:]
