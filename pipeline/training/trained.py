"""A trained model, ready to fill images as it did when it was trained."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf

from pipeline.base.errors import BadInput
from pipeline.base.files import sha256
from pipeline.base.progress import progress
from pipeline.models import pix2pix
from pipeline.training.card import read_card
from pipeline.training.precision import usable_precision

Fill = Callable[[np.ndarray, np.ndarray], np.ndarray]


def load_fill(folder: Path, weights: str) -> Fill:
    """The function (masked uint8 [n, 256, 256, 3], boxes [n, 2, 2]) -> filled uint8 of the model in `folder`.

    weights is "best" or "last". Network and number of threads are those on the model's card, and so is the precision
    where this machine has it. Raises BadInput where the card or the weights are missing, damaged or of another
    network. Must come before any other use of TensorFlow, which fixes its threads then.
    """
    card = read_card(folder)
    if card["normalisation"] != pix2pix.NORMALISATION:
        raise BadInput(f"{folder} was trained on {card['normalisation']!r}, this code gives {pix2pix.NORMALISATION!r}")
    settings = card["settings"]
    tf.config.threading.set_intra_op_parallelism_threads(settings["threads"])
    generator = pix2pix.build_generator(settings["filters"], usable_precision(settings["precision"]))
    path = folder / f"{weights}.weights.h5"
    try:
        if sha256(path) != card["weights"][path.name]:
            raise ValueError("its checksum is not the one on the card")
        generator.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(
            f"{path} cannot be loaded ({error}); `dvc checkout` or `dvc repro train` brings it back"
        ) from None
    return partial(pix2pix.fill, generator)


def in_batches(fill: Fill, masked: np.ndarray, boxes: np.ndarray, size: int, what: str) -> Iterator[np.ndarray]:
    """Fill images `size` at a time, showing progress; yields one filled image after the other."""
    parts = [slice(start, start + size) for start in range(0, len(masked), size)]
    for filled in progress((fill(masked[part], boxes[part]) for part in parts), what, len(parts), "batch"):
        yield from filled
