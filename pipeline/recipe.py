"""Set params.yaml to a recipe: `python -m pipeline.recipe laptop --archive photo-reconstruction.zip`."""

import argparse
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from pipeline import paths
from pipeline.base.command import run
from pipeline.base.errors import BadInput
from pipeline.base.files import replacing
from pipeline.base.progress import say
from pipeline.params import check_params

DEFAULTS = "defaults"  # names every setting; the recipes hold what they change


def main() -> None:
    parser = argparse.ArgumentParser(prog="recipe", description=__doc__)
    parser.add_argument("name", help=f"one of {', '.join(names())}")
    parser.add_argument("--archive", help="the competition's zip or its unpacked folder; sets fetch.source: archive")
    arguments = parser.parse_args()

    if arguments.name not in names():
        raise BadInput(f"there is no recipe {arguments.name!r}; there are {', '.join(names())}")
    yaml = YAML()  # it keeps the comments
    content, changes = (yaml.load(paths.RECIPES / f"{name}.yaml") for name in (DEFAULTS, arguments.name))
    merge(content, changes)
    if arguments.archive:
        if not Path(arguments.archive).exists():
            raise BadInput(f"{arguments.archive}: no such archive; name the competition's zip or its unpacked folder")
        merge(content, {"fetch": {"source": "archive", "archive": DoubleQuotedScalarString(arguments.archive)}})
    check_params(content, f"{paths.RECIPES / arguments.name}.yaml")
    with replacing(paths.PARAMS) as path:
        yaml.dump(content, path)
    say(f"recipe: {paths.PARAMS} is now {arguments.name}; `dvc repro` runs it")


def names() -> list[str]:
    """The names of all recipes."""
    return sorted(path.stem for path in paths.RECIPES.glob("*.yaml") if path.stem != DEFAULTS)


def merge(settings: dict[str, Any], changes: dict[str, Any]) -> None:
    """Apply the changes to the settings, section by section."""
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(settings.get(key), dict):
            merge(settings[key], value)
        else:
            settings[key] = value


if __name__ == "__main__":
    run("recipe", main)
