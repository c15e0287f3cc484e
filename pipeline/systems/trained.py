"""A trained model, ready to fill images as it did in training."""

from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.base.errors import BadInput
from pipeline.base.files import sha256
from pipeline.params import Params, SystemSettings, explain
from pipeline.systems import Fill, load_network
from pipeline.systems.card import read_card
from pipeline.training.runtime import grow_gpu_memory, set_threads, usable_precision


def load_fill(folder: Path, weights: str) -> Fill:
    """The fill (masked uint8 [n, 256, 256, 3], boxes [n, 2, 2], classes str [n]) -> uint8 of the model in `folder`.

    weights is "best" or "last"; a model trained without validation pairs has the last ones only. Network, settings and
    number of threads are those on the model's card, and so is the precision if this machine has it.
    Raises BadInput if the card or the weights are missing, damaged or of another network. Call it before any other use
    of TensorFlow, which fixes the number of threads.
    """
    card = read_card(folder)
    network = load_network(card["model"])
    if (version := card.get("input_version")) != network.INPUT_VERSION:
        raise BadInput(
            f"{folder} was trained on input version {version}, this code has version {network.INPUT_VERSION}; "
            "`dvc repro train` trains it again"
        )
    grow_gpu_memory()
    set_threads(card["settings"]["threads"])
    model = network.build(settings_of(folder, card), usable_precision(card["settings"]["precision"]))
    path = folder / f"{weights if card['best'] else 'last'}.weights.h5"
    try:
        if sha256(path) != card["weights"][path.name]:
            raise ValueError("its checksum is not the one on the card")
        model.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{path} cannot be loaded ({error}); `dvc checkout` or `dvc repro train` restores it") from None
    return partial(network.fill, model)


def settings_of(folder: Path, card: dict[str, Any]) -> SystemSettings:
    """The system's own settings on a card. Raises BadInput if they are not those that the system has now."""
    section, settings = Params.model_fields[card["model"]].annotation, card["settings"]
    try:
        return section.model_validate({name: settings[name] for name in section.model_fields if name in settings})
    except ValidationError as error:
        faults = "; ".join(map(explain, error.errors()))
        raise BadInput(
            f"{folder} was trained with settings that {card['model']} has no longer ({faults}); `dvc repro train` "
            "trains it again"
        ) from None
