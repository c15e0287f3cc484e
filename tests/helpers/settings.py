"""Settings as recipes/defaults.yaml has them, with a test's changes."""

from functools import cache
from pathlib import Path

import yaml

from pipeline.params import Params, SystemSettings

DEFAULTS = Path(__file__).parents[2] / "recipes" / "defaults.yaml"


@cache
def defaults() -> dict:
    return yaml.safe_load(DEFAULTS.read_text(encoding="utf-8"))


def settings_of(system: str, **changes: object) -> SystemSettings:
    """`settings_of("residual", steps=3)`: the section of the defaults, so changed, checked as params.yaml is."""
    return Params.model_fields[system].annotation.model_validate(defaults()[system] | changes)
