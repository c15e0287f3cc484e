"""The card of a model: the settings, code, libraries and data it was made from. And how long its training took."""

import hashlib
import importlib.metadata
import json
import platform
import sys
from pathlib import Path
from typing import Any

from pipeline.base.environment import instruction_limits
from pipeline.base.errors import BadInput
from pipeline.base.files import replacing, sha256

CARD = "card.json"
NEEDED = {"model", "settings", "weights", "parameters", "devices"}  # by every reader; cards of all versions have them
LIBRARIES = ("tensorflow", "keras", "numpy", "pillow", "opencv-python-headless")
EXTRA = ("torch", "diffusers", "transformers", "peft")  # named if they are loaded
# Code that cannot change what a stage writes: in no list of dvc.yaml, and not part of a checkpoint's key.
NO_OUTPUT = ("pipeline", "pipeline.params", "pipeline.paths", "pipeline.systems")
NO_OUTPUT_FOLDER = "pipeline.base"


def write_card(folder: Path, **facts: Any) -> None:
    """Write a model's card: these facts, the weights' checksums, the versions of the code and of the libraries."""
    weights = {path.name: sha256(path) for path in sorted(folder.glob("*.weights.h5"))}
    versions = {"code": code_version(), "python": platform.python_version(), "libraries": library_versions()}
    card = {**facts, "weights": weights, **versions}
    (folder / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def read_card(folder: Path) -> dict[str, Any]:
    """A model's card. Raises BadInput if it is missing or damaged."""
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        if missing := NEEDED - set(card):
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    except FileNotFoundError:
        raise BadInput(f"{folder / CARD} is missing; `dvc repro train` writes it") from None
    except (ValueError, TypeError) as error:
        raise BadInput(
            f"{folder / CARD} is damaged ({error}); `dvc checkout` or `dvc repro train` restores it"
        ) from None
    return card


def library_versions() -> dict[str, str]:
    """What a model's numbers depend on besides code, settings and data: the installed versions of the libraries, and
    the limits, if any are set, to the processor's instructions that they use."""
    used = [*LIBRARIES, *(name for name in EXTRA if name in sys.modules)]
    return {name: importlib.metadata.version(name) for name in used} | instruction_limits()


def code_version() -> str:
    """sha256 over the source of the loaded modules of ours that can change a model."""
    # By the spec's name: the stage that runs is __main__ in sys.modules.
    found = [spec for module in list(sys.modules.values()) if (spec := getattr(module, "__spec__", None))]
    specs = {spec.name: spec for spec in found if spec.name.partition(".")[0] == "pipeline"}
    digest = hashlib.sha256()
    for name in sorted(filter(can_change_output, specs)):
        digest.update(name.encode() + b"\0" + Path(specs[name].origin).read_bytes() + b"\0")
    return digest.hexdigest()


def can_change_output(module: str) -> bool:
    """Whether a module of ours can change what a stage writes."""
    return module not in NO_OUTPUT and not f"{module}.".startswith(f"{NO_OUTPUT_FOLDER}.")


def note_seconds(folder: Path, card: dict[str, Any], seconds: dict[str, float]) -> None:
    """Keep the seconds that a training spent in steps and in validation, in `folder`.

    They are not on the card: a model's bytes depend on nothing but inputs, settings and code.
    """
    with replacing(times_path(folder, card)) as path:
        path.write_text(json.dumps(seconds) + "\n", encoding="utf-8")


def seconds_of(folder: Path, card: dict[str, Any]) -> dict[str, float] | None:
    """The seconds that note_seconds kept for the model with this card; None if it was trained elsewhere."""
    path = times_path(folder, card)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def times_path(folder: Path, card: dict[str, Any]) -> Path:
    """A file for each model, named after the checksum of its last weights."""
    return folder / f"{card['weights']['last.weights.h5'][:16]}.json"
