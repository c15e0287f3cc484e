"""A U-Net that predicts what the harmonic fill lacks, and a small one that mends the rim of each box.

The first sees a photograph at 64 x 64 or 128 x 128, its holes filled harmonically, with the holes as a fourth channel,
and predicts the residual: target minus fill. The enlarged residual is added to the harmonic fill of the full
photograph. The second sees the result at full resolution, 96 x 96 pixels around a box, and predicts what is still
lacking, most at the rim, where the known pixels tell more than the reduced photograph shows. Both are trained on the
squared error inside the holes only, with new holes at each step, so they learn the conditional mean, which has the
least RMSE. There are no normalisation layers. The last layers start at zero, so training starts at the harmonic fill.
Plain Keras 3, for any backend. Inside the networks photographs are float32 in [-1, 1].
"""

import cv2
import keras
import numpy as np
from keras import KerasTensor, Model, layers, ops

from pipeline.competition.boxes import (
    BOX,
    count_between,
    count_boxes,
    hole_mask,
    paste,
    pixels,
    turn_boxes,
    unknown_mask,
)
from pipeline.competition.images import SIZE, to_uint8
from pipeline.fills import harmonic
from pipeline.params import Residual

INPUT_VERSION = 2  # grey level / 127.5 - 1, holes filled; 1 in the holes; for the rim also 1 in the photograph
FIRST = 32  # pixels a side after the first layer, at any resolution
WIDTHS = (1, 2, 4, 8)  # filters at 32, 16, 8 and 4 pixels a side, in multiples of the first
WIDEST = 256  # filters of any layer: at 4 pixels a side more cost much and bring little
VIEWS = (SIZE, 209, 193)  # pixels a side of the parts around a box that are filled; odd, so that mirroring is exact
NEAR = 96  # pixels a side around a box that its rim is mended from
MARGIN = (NEAR - BOX) // 2  # of them above and left of the box
CYCLES = 1  # of the harmonic solver: half a grey level off, in little more than half the time of two


def build(settings: Residual, dtype: str = "float32") -> Model:
    """Both networks as one model with the layers `unet` and `rim`. dtype is a Keras precision policy."""
    unet, rim = build_unet(settings, dtype), build_rim(settings.rim_filters, dtype)
    return Model([unet.input, rim.input], [unet(unet.input), rim(rim.input)], name="residual")


def build_unet(settings: Residual, dtype: str) -> Model:
    """float32 [n, h, h, 4], photograph and holes, to the residual float32 [n, h, h, 3]; h is resolution.

    filters is the width at 32 x 32, blocks the number of residual blocks at each level on each side. With 32 and 1 it
    has 3,483,715 parameters at 64 x 64. On a CPU, multiples of 32 are the fastest widths.
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
        x = halve(x, width, dtype)
    x = refine(x, 2 * settings.blocks, dtype)
    for skip in reversed(skips):
        x = refine(double(x, skip, dtype), settings.blocks, dtype)
    x = layers.Conv2DTranspose(3, **fold, kernel_initializer="zeros")(x)
    return Model(image, layers.Activation("linear", dtype="float32")(x), name="unet")


def build_rim(filters: int, dtype: str) -> Model:
    """float32 [n, 96, 96, 5], as `look` cuts it out, to what is still lacking, float32 [n, 96, 96, 3]."""
    image = keras.Input((NEAR, NEAR, 5), name="near")
    fold = {"kernel_size": 4, "strides": 2, "padding": "same", "dtype": dtype}
    large = layers.Conv2D(filters, **fold, activation="relu", kernel_initializer="he_normal")(image)  # 48 x 48
    middle = halve(large, filters, dtype)
    x = refine(halve(middle, filters, dtype), 1, dtype)  # 12 x 12
    for skip in (middle, large):
        x = refine(double(x, skip, dtype), 1, dtype)
    x = layers.Conv2DTranspose(3, **fold, kernel_initializer="zeros")(x)
    return Model(image, layers.Activation("linear", dtype="float32")(x), name="rim")


def halve(x: KerasTensor, width: int, dtype: str) -> KerasTensor:
    """Half the height and width."""
    return layers.Conv2D(width, 2, 2, activation="relu", kernel_initializer="he_normal", dtype=dtype)(x)


def double(x: KerasTensor, skip: KerasTensor, dtype: str) -> KerasTensor:
    """Twice the height and width, added to what was there before."""
    x = layers.Conv2DTranspose(skip.shape[-1], 2, 2, kernel_initializer="he_normal", dtype=dtype)(x)
    return layers.ReLU(dtype=dtype)(layers.Add(dtype=dtype)([x, skip]))


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


def weigh(boxes: np.ndarray, side: int) -> np.ndarray:
    """The number of boxes int [n, 2, 2] on each pixel of the reduced photographs, float32 [n, side, side], 0 to 2.

    A pixel in both boxes is scored twice. A pixel that a box only touches counts as in it.
    """
    cell = SIZE // side
    return count_between(boxes // cell, -(-(boxes + BOX) // cell), side).astype(np.float32)


def examples(photographs: np.ndarray, hole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Training examples: the network's input [n, h, h, 4] and the residual [n, h, h, 3], float32.

    photographs are uint8 [n, h, h, 3]; hole, bool [n, h, h], says where to make holes.
    """
    target = scale(photographs)
    smooth = harmonic.solve(target, hole, CYCLES)
    return np.concatenate([smooth, hole[..., None]], axis=-1, dtype=np.float32), target - smooth


def rim_examples(photographs: np.ndarray, known: np.ndarray, boxes: np.ndarray, side: int) -> tuple[np.ndarray, ...]:
    """Examples for the rim of n photographs uint8 [n, 256, 256, 3], two each, before the U-Net's residual is added.

    known, bool [n, 256, 256], says which of their pixels are; boxes are int [n, 2, 2]. Returns, all float32, what
    `look` cuts out of the harmonic fill [2n, 96, 96, 5], its residual [2n, 96, 96, 3], the pixels' weights
    [2n, 96, 96], as many as the boxes that they are in, 0 for an unknown pixel, and `sampling`'s rows and columns.
    """
    target, count = scale(photographs), count_boxes(boxes)
    hole = (count > 0) | ~known
    smooth = harmonic.solve(target, hole, CYCLES)
    weights = (count * known).astype(np.float32)
    near = look(present(smooth, hole), boxes)
    lacking = look(np.concatenate([target - smooth, weights[..., None]], axis=-1), boxes)
    rows, columns = (sampling(boxes[..., axis].ravel(), side) for axis in (0, 1))
    return near, lacking[..., :3], lacking[..., 3], rows, columns


def sampling(starts: np.ndarray, side: int) -> np.ndarray:
    """Bilinear interpolation along one axis, float32 [n, 96, side]: what each pixel near a box takes from a residual.

    starts, int [n], is where the boxes start. Beyond the outermost centre of a residual's pixel it stays the same.
    """
    position = (starts[:, None] - MARGIN + np.arange(NEAR) + 0.5) * (side / SIZE) - 0.5
    distance = np.abs(np.clip(position, 0, side - 1)[..., None] - np.arange(side))
    return np.maximum(1 - distance, 0).astype(np.float32)


def add_residual(near: KerasTensor, residual: KerasTensor, rows: KerasTensor, columns: KerasTensor) -> KerasTensor:
    """What rim_examples cut out, with the U-Net's residual float32 [n, side, side, 3] added in the holes."""
    enlarged = ops.einsum("nih,nhwc,njw->nijc", rows, ops.repeat(residual, 2, axis=0), columns)
    return ops.concatenate([near[..., :3] + near[..., 3:4] * enlarged, near[..., 3:]], axis=-1)


def scale(photographs: np.ndarray) -> np.ndarray:
    """Grey levels as float32 in [-1, 1]."""
    return photographs.astype(np.float32) / np.float32(127.5) - np.float32(1)


def shrink(image: np.ndarray, side: int) -> np.ndarray:
    """An image [h, h, channels], reduced to float32 [side, side, channels]: the mean of each cell of pixels."""
    return cv2.resize(image.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)


def present(filled: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Filled photographs [n, h, w, 3] with their holes bool [n, h, w] and a channel of ones: float32 [n, h, w, 5]."""
    return np.concatenate([filled, hole[..., None], np.ones_like(filled[..., :1])], axis=-1, dtype=np.float32)


def look(images: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The 96 x 96 pixels around both boxes of images float32 [n, 256, 256, c]: [2n, 96, 96, c], 0 outside the image."""
    cut = np.zeros((2 * len(images), NEAR, NEAR, images.shape[-1]), np.float32)
    for number, (top, left) in enumerate(boxes.reshape(-1, 2) - MARGIN):
        part = images[number // 2, max(top, 0) : top + NEAR, max(left, 0) : left + NEAR]
        cut[number, max(-top, 0) :, max(-left, 0) :][: part.shape[0], : part.shape[1]] = part
    return cut


def fill(model: Model, masked: np.ndarray, boxes: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Fill the boxes, as systems.Network says. Classes are not used."""
    smooth, hole = scale(harmonic.smooth(masked, boxes)), unknown_mask(masked, boxes)
    filled = smooth + hole[..., None] * predict(model.get_layer("unet"), smooth, boxes)
    filled += mend(model.get_layer("rim"), present(filled, hole), boxes)
    return paste(to_uint8(127.5 * (filled + 1)), masked, boxes)


def mend(model: Model, seen: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """What is still lacking in the boxes of `seen` [n, 256, 256, 5]: float32 [n, 256, 256, 3], 0 outside the boxes.

    It is the mean with the mirror image's; where two boxes overlap, the mean of both.
    """
    mirrored = mend_boxes(model, seen[:, :, ::-1], turn_boxes(boxes, "flip"))[..., ::-1, :]
    total = np.zeros((*seen.shape[:3], 3), np.float32)
    np.add.at(total, pixels(boxes), (mend_boxes(model, seen, boxes) + mirrored) / 2)
    return total / np.maximum(count_boxes(boxes), 1)[..., None]


def mend_boxes(model: Model, seen: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """What is still lacking in each box, float32 [n, 2, 75, 75, 3]."""
    lacking, inside = ops.convert_to_numpy(model(look(seen, boxes), training=False)), slice(MARGIN, MARGIN + BOX)
    return lacking[:, inside, inside].reshape(len(boxes), 2, BOX, BOX, 3)


def predict(model: Model, smooth: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The U-Net's residual in the boxes, float32 [n, 256, 256, 3]: the mean over each box's views and mirror images.

    A closer view has finer pixels, and the errors of the views differ. smooth, in [-1, 1], has its holes filled.
    """
    filled = np.concatenate([smooth, hole_mask(boxes)[..., None]], axis=-1, dtype=np.float32)
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
