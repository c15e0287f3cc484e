"""A trained model, ready to fill images as it did when it was trained."""

from functools import partial
from pathlib import Path

import tensorflow as tf

from pipeline.base.errors import BadInput
from pipeline.base.files import sha256
from pipeline.fills.batched import Fill
from pipeline.systems.card import read_card
from pipeline.systems.cyclegan import network as cyclegan
from pipeline.systems.diffusion import network as diffusion
from pipeline.systems.pix2pix import network as pix2pix
from pipeline.systems.residual import network as residual
from pipeline.systems.vanilla_gan import network as vanilla_gan
from pipeline.training.runtime import grow_gpu_memory, usable_precision

MODELS = {
    "pix2pix": pix2pix,
    "residual": residual,
    "vanilla_gan": vanilla_gan,
    "cyclegan": cyclegan,
    "diffusion": diffusion,
}


def load_fill(folder: Path, weights: str) -> Fill:
    """The function (masked uint8 [n, 256, 256, 3], boxes [n, 2, 2], classes str [n]) -> filled uint8 of the model in
    `folder`.

    weights is "best" or "last". Network and number of threads are those on the model's card, and so is the precision
    where this machine has it. Raises BadInput where the card or the weights are missing, damaged or of another
    network. Must come before any other use of TensorFlow, which fixes its threads then.
    """
    card = read_card(folder)
    model, settings = MODELS[card["model"]], card["settings"]
    if card["normalisation"] != model.NORMALISATION:
        raise BadInput(f"{folder} was trained on {card['normalisation']!r}, this code gives {model.NORMALISATION!r}")
    grow_gpu_memory()
    tf.config.threading.set_intra_op_parallelism_threads(settings["threads"])
    network = model.build(*(settings[name] for name in model.SHAPE), usable_precision(settings["precision"]))
    path = folder / f"{weights}.weights.h5"
    try:
        if sha256(path) != card["weights"][path.name]:
            raise ValueError("its checksum is not the one on the card")
        network.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(
            f"{path} cannot be loaded ({error}); `dvc checkout` or `dvc repro train` brings it back"
        ) from None
    return partial(model.fill, network)
