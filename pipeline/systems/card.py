"""What a model carries with it: the settings, code, libraries and data it came from. prediction reads them."""

import hashlib
import importlib.metadata
import json
import platform
import sys
from pathlib import Path
from typing import Any

from pipeline.base.errors import BadInput
from pipeline.base.files import replacing, sha256

CARD = "card.json"
NEEDED = {"model", "settings", "normalisation", "weights", "parameters", "devices", "validation"}
LIBRARIES = ("tensorflow", "keras", "numpy", "pillow", "opencv-python-headless")
EXTRA = ("torch", "diffusers", "transformers", "peft")  # where they are used


def write_card(folder: Path, **facts: Any) -> None:
    """Write a model's card: the facts given, the weights' checksums, the versions of the code and of the libraries."""
    weights = {path.name: sha256(path) for path in sorted(folder.glob("*.weights.h5"))}
    versions = {"code": code_version(), "python": platform.python_version(), "libraries": library_versions()}
    card = {**facts, "weights": weights, **versions}
    (folder / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def read_card(folder: Path) -> dict[str, Any]:
    """A model's card. Raises BadInput where there is none or it is damaged."""
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        if missing := NEEDED - set(card):
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    except FileNotFoundError:
        raise BadInput(f"{folder / CARD} is missing; `dvc repro train` makes it") from None
    except (ValueError, TypeError) as error:
        raise BadInput(
            f"{folder / CARD} is damaged ({error}); `dvc checkout` or `dvc repro train` brings it back"
        ) from None
    return card


def library_versions() -> dict[str, str]:
    """The installed versions of the libraries that a model's numbers depend on; of an extra, where it is loaded."""
    used = [*LIBRARIES, *(name for name in EXTRA if name in sys.modules)]
    return {name: importlib.metadata.version(name) for name in used}


def code_version() -> str:
    """sha256 over the source of every module of ours that is loaded: the code that makes the model."""
    digest = hashlib.sha256()
    # By the spec's name: the stage that runs is __main__ in sys.modules.
    found = [spec for module in list(sys.modules.values()) if (spec := getattr(module, "__spec__", None))]
    specs = {spec.name: spec for spec in found}
    for name in sorted(name for name in specs if name.partition(".")[0] == "pipeline"):
        digest.update(name.encode() + b"\0" + Path(specs[name].origin).read_bytes() + b"\0")
    return digest.hexdigest()


def fingerprint(files: list[Path], facts: dict[str, Any]) -> str:
    """sha256 over facts and the content of files: the key of everything that depends on just these."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for path in files:
        digest.update(sha256(path).encode())
    return digest.hexdigest()


def note_seconds(folder: Path, card: dict[str, Any], seconds: dict[str, float]) -> None:
    """Keep the seconds that a model took in steps and in validation, in `folder`."""
    with replacing(path_of(folder, card)) as path:
        path.write_text(json.dumps(seconds) + "\n", encoding="utf-8")


def seconds_of(folder: Path, card: dict[str, Any]) -> dict[str, float] | None:
    """What note_seconds kept of the model with this card; None where it was trained elsewhere."""
    path = path_of(folder, card)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def path_of(folder: Path, card: dict[str, Any]) -> Path:
    """A file for each model, told from others by the checksum of its last weights."""
    return folder / f"{card['weights']['last.weights.h5'][:16]}.json"
