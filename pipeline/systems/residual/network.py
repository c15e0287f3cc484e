"""A U-Net that predicts what the harmonic fill lacks.

It sees a photograph at 64 x 64 or 128 x 128 whose holes are filled harmonically, and which pixels those are, and gives
the residual: truth less fill. It is trained on the squared error inside the holes only, on holes drawn anew each step,
so its answer is the conditional mean, which is what the RMSE asks for. The residual, enlarged, is added to the harmonic
fill of the full photograph. No normalisation layers; the last layer starts at zero, so training starts at the harmonic
fill. Plain Keras 3: nothing here knows the backend. Inside the network photographs are float32 in [-1, 1].
"""

import cv2
import keras
import numpy as np
from keras import KerasTensor, Model, layers, ops

from pipeline.competition.boxes import BOX, LAST, hole_mask, paste
from pipeline.competition.images import SIZE, to_uint8
from pipeline.fills import harmonic

SHAPE = ("filters", "blocks", "resolution")  # the settings that `build` takes
FIRST = 32  # pixels a side after the first layer, whatever the network sees
WIDTHS = (1, 2, 4, 8)  # filters at 32, 16, 8 and 4 pixels a side, in multiples of the first
WIDEST = 256  # filters of any layer: at 4 pixels a side more cost much and bring little
VIEWS = (SIZE, 209, 193)  # pixels a side of what is seen around a box when filling; odd, so that mirrored is alike
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
    whole = scale(photographs)
    smooth = harmonic.solve(whole, missing, CYCLES)
    return np.concatenate([smooth, missing[..., None]], axis=-1, dtype=np.float32), whole - smooth


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
    return hole_mask(boxes).reshape(-1, side, cell, side, cell).any(axis=(2, 4))


def fill(model: Model, masked: np.ndarray, boxes: np.ndarray, _: np.ndarray | None = None) -> np.ndarray:
    """Fill the boxes of uint8 [n, 256, 256, 3]: the same shape and dtype, known pixels byte for byte as they were."""
    smooth = harmonic.smooth(masked, boxes)
    return paste(to_uint8(smooth + 127.5 * predict(model, smooth, boxes)), masked, boxes)


def predict(model: Model, smooth: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The residual in the boxes, float32 [n, 256, 256, 3]: the mean over the views of each box and their mirror images.

    A nearer view has finer pixels, and each has its own errors. smooth, in grey levels, has its holes filled.
    """
    filled = np.concatenate([scale(smooth), hole_mask(boxes)[..., None]], axis=-1, dtype=np.float32)
    views = [(image, box, length) for image in range(len(boxes)) for box in boxes[image] for length in VIEWS]
    corners = [np.clip(box - (length - BOX) // 2, 0, SIZE - length) for _, box, length in views]
    given = np.stack(
        [
            reduce(filled[image, top : top + length, left : left + length], model.input_shape[1])
            for (image, _, length), (top, left) in zip(views, corners, strict=True)
        ]
    )
    both = np.concatenate([given, given[:, :, ::-1]])  # all in one call: a call by itself costs more than 8 images
    straight, mirrored = np.split(ops.convert_to_numpy(model(both, training=False)), 2)
    residuals = (straight + mirrored[:, :, ::-1]) / 2 * given[..., 3:]
    total, count = np.zeros_like(filled[..., :3]), np.zeros_like(filled[..., 3:])
    for residual, (image, (row, column), length), (top, left) in zip(residuals, views, corners, strict=True):
        large = cv2.resize(residual, (length, length), interpolation=cv2.INTER_LINEAR)
        rows, columns = slice(row, row + BOX), slice(column, column + BOX)
        total[image, rows, columns] += large[row - top :, column - left :][:BOX, :BOX]
        count[image, rows, columns] += 1
    return total / np.maximum(count, 1)


def reduce(part: np.ndarray, side: int) -> np.ndarray:
    """A part of a filled photograph and its mask, [h, h, 4], as the network sees it: float32 [side, side, 4].

    A pixel is missing there if a hole touches it.
    """
    small = cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA)
    small[..., 3] = small[..., 3] > 0
    return small
