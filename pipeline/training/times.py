"""How long a model took to train.

Kept beside the checkpoints, not with the model: its bytes depend on nothing but inputs, settings and code.
"""

import json
from pathlib import Path
from typing import Any

from pipeline.base.files import replacing


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
