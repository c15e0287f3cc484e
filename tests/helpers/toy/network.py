"""A toy system: a network of one layer that fills with what it makes of the masked image."""

import keras
import numpy as np

from pipeline.competition.boxes import paste
from pipeline.competition.images import SIZE, to_uint8
from pipeline.params import Toy

INPUT_VERSION = 1  # grey level / 255


def build(settings: Toy, dtype: str = "float32") -> keras.Model:
    """One convolution."""
    layer = keras.layers.Conv2D(3, settings.kernel, padding="same", activation="sigmoid", dtype=dtype)
    return keras.Sequential([keras.Input((SIZE, SIZE, 3)), layer])


def fill(model: keras.Model, masked: np.ndarray, boxes: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Fill the boxes."""
    filled = model(masked.astype(np.float32) / 255, training=False)
    return paste(to_uint8(255 * keras.ops.convert_to_numpy(filled)), masked, boxes)
