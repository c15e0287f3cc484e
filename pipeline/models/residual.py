"""A U-Net that predicts what the harmonic fill lacks.

It sees a photograph at 64 x 64 or 128 x 128 whose holes are filled harmonically, and which pixels those are, and gives
the residual: truth less fill. It is trained on the squared error inside the holes only, on holes drawn anew each step,
so its answer is the conditional mean, which is what the RMSE asks for. The residual, enlarged, is added to the harmonic
fill of the full photograph. No normalisation layers; the last layer starts at zero, so training starts at the harmonic
fill. Plain Keras 3: nothing here knows the backend. Inside the network photographs are float32 in [-1, 1].
"""

from typing import Any

import cv2
import keras
import numpy as np
from keras import KerasTensor, Model, layers, ops

from pipeline.competition.boxes import BOX, LAST, hole, paste
from pipeline.competition.images import SIZE, to_uint8
from pipeline.fills import harmonic

SHAPE = ("filters", "blocks", "resolution")  # the settings that `build` takes
FIRST = 32  # pixels a side after the first layer, whatever the network sees
WIDTHS = (1, 2, 4, 8)  # filters at 32, 16, 8 and 4 pixels a side, in multiples of the first
WIDEST = 256  # filters of any layer: at 4 pixels a side more cost much and bring little
SHIFTS = ((0, 0), (2, 0), (-2, 0), (0, 2), (0, -2))  # down and right, in the network's pixels
CYCLES = 1  # of the harmonic solver: it errs by half a grey level, in little more than half the time of two
NORMALISATION = "grey level / 127.5 - 1, holes filled harmonically; 1 where missing"


def build(filters: int = 32, blocks: int = 1, resolution: int = 64, dtype: str = "float32") -> Model:
    """The network: float32 [n, h, h, 4], photograph and mask, to the residual float32 [n, h, h, 3]; h is resolution.

    filters is the width at 32 x 32, blocks how many residual blocks stand at each level on each side. With 32 and 1 it
    has 3,483,715 parameters at 64 x 64. dtype is a Keras precision policy. On a CPU widths that 32 divides are the
    fastest.
    """
    image = keras.Input((resolution, resolution, 4), name="filled")
    # At once to 32 x 32: at full width half of all the time would go into 64 x 64.
    stride = resolution // FIRST
    fold = {"kernel_size": 2 * stride, "strides": stride, "padding": "same", "dtype": dtype}
    x = layers.Conv2D(filters, **fold, activation="relu", kernel_initializer="he_normal")(image)
    skips = []
    widths = [min(factor * filters, WIDEST) for factor in WIDTHS]
    for width in widths[1:]:
        x = refine(x, blocks, dtype)
        skips.append(x)
        x = layers.Conv2D(width, 2, 2, activation="relu", kernel_initializer="he_normal", dtype=dtype)(x)
    x = refine(x, 2 * blocks, dtype)
    for width, skip in zip(widths[-2::-1], skips[::-1], strict=True):
        x = layers.Conv2DTranspose(width, 2, 2, kernel_initializer="he_normal", dtype=dtype)(x)
        x = layers.ReLU(dtype=dtype)(layers.Add(dtype=dtype)([x, skip]))
        x = refine(x, blocks, dtype)
    x = layers.Conv2DTranspose(3, **fold, kernel_initializer="zeros")(x)
    return Model(image, layers.Activation("linear", dtype="float32")(x), name="residual")


def refine(x: KerasTensor, blocks: int, dtype: str) -> KerasTensor:
    """Residual blocks of two convolutions, the second one small at first, so that each begins as nearly nothing."""
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
    """Fresh holes as the competition draws them: in how many boxes a pixel is, float32 [n, side, side], 0 to 2.

    A pixel in both boxes is scored twice. One that a box only touches is missing too.
    """
    boxes = rng.integers(0, LAST + 1, (n, 2, 2))
    cell, position = SIZE // side, np.arange(side)
    start, stop = boxes // cell, -(-(boxes + BOX) // cell)
    inside = (position >= start[..., None]) & (position < stop[..., None])  # [n, box, axis, side]
    return (inside[:, :, 0, :, None] & inside[:, :, 1, None, :]).sum(axis=1).astype(np.float32)


def examples(photographs: np.ndarray, missing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What to train on: the network's input [n, h, h, 4] and the residual it should give [n, h, h, 3], float32.

    photographs are uint8 [n, h, h, 3]; missing, bool [n, h, h], says where to make holes.
    """
    given = network_input(photographs, missing)
    return given, scale(photographs) - given[..., :3]


def network_input(photographs: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Photographs [n, h, w, 3] in grey levels, holes bool [n, h, w] filled, and the mask: float32 [n, h, w, 4]."""
    smooth = harmonic.solve(scale(photographs), missing, CYCLES)
    return np.concatenate([smooth, missing[..., None]], axis=-1, dtype=np.float32)


def scale(photographs: np.ndarray) -> np.ndarray:
    """Grey levels to float32 in [-1, 1]."""
    return photographs.astype(np.float32) / np.float32(127.5) - np.float32(1)


def shrink(photographs: np.ndarray, side: int) -> np.ndarray:
    """[n, 256, 256, 3] to float32 [n, side, side, 3]: the mean of each cell of pixels."""
    cell = SIZE // side
    cells = photographs.reshape(len(photographs), side, cell, side, cell, 3)
    return cells.mean(axis=(2, 4), dtype=np.float32)


def missing_cells(boxes: np.ndarray, side: int) -> np.ndarray:
    """Which pixels of the reduced photographs a hole touches: bool [n, side, side]."""
    cell = SIZE // side
    return hole(boxes).reshape(-1, side, cell, side, cell).any(axis=(2, 4))


def fill(model: Model, masked: np.ndarray, boxes: np.ndarray, _: np.ndarray | None = None) -> np.ndarray:
    """Fill the boxes of uint8 [n, 256, 256, 3]: the same shape and dtype, known pixels byte for byte as they were."""
    filled = harmonic.smooth(masked, boxes) + 127.5 * predict(model, masked, boxes)
    return paste(to_uint8(filled), masked, boxes)


def predict(model: Model, masked: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The residual at full size, float32 [n, 256, 256, 3]: the mean over small shifts and mirror images of the input.

    The network's strides make its error depend on where the grid lies; shifted, it errs otherwise.
    """
    side = model.input_shape[1]
    missing = missing_cells(boxes, side)
    given = network_input(shrink(masked, side), missing)
    seen = np.concatenate([shift(given, down, right, mode="edge") for down, right in SHIFTS])
    both = np.concatenate([seen, seen[:, :, ::-1]])  # all in one call: a call by itself costs more than 8 images
    straight, mirrored = np.split(ops.convert_to_numpy(model(both, training=False)), 2)
    means = np.split((straight + mirrored[:, :, ::-1]) / 2, len(SHIFTS))
    shifted = zip(means, SHIFTS, strict=True)
    back = [shift(mean, -down, -right, constant_values=np.nan) for mean, (down, right) in shifted]
    residual = np.nanmean(back, axis=0) * missing[..., None]
    return np.stack([cv2.resize(one, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR) for one in residual])


def shift(images: np.ndarray, down: int, right: int, **padding: Any) -> np.ndarray:
    """Images [n, h, w, c] moved by so many pixels; `padding` says, in np.pad's words, what comes in at the edge."""
    reach = max(abs(down), abs(right))
    height, width = images.shape[1:3]
    wide = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), **padding)
    return wide[:, reach - down : reach - down + height, reach - right : reach - right + width]
