"""Set params.yaml to a recipe: `python -m pipeline.recipe laptop --archive photo-reconstruction.zip`."""

import argparse
import subprocess
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from pipeline import paths
from pipeline.archive.unpack import checksum, contents
from pipeline.base.command import run
from pipeline.base.errors import BadInput
from pipeline.base.files import replacing
from pipeline.base.progress import say
from pipeline.params import check_params, load_params

DEFAULTS = "defaults"  # names every setting; the recipes hold what they change


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="recipe",
        description=__doc__,
        epilog="Without a source, the archive or the account that params.yaml names is kept.",
    )
    parser.add_argument("name", help=f"one of {', '.join(names())}")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--archive", help="train on the competition's zip or its unpacked folder")
    source.add_argument("--kaggle", action="store_true", help="download the competition with a Kaggle account")
    source.add_argument("--demo", action="store_true", help="train on a drawn competition")
    arguments = parser.parse_args()

    if arguments.name not in names():
        raise BadInput(f"there is no recipe {arguments.name!r}; there are {', '.join(names())}")
    yaml = YAML()  # it keeps the comments
    content, changes = (yaml.load(paths.RECIPES / f"{name}.yaml") for name in (DEFAULTS, arguments.name))
    merge(content, changes)
    if arguments.archive is not None:
        merge(content, {"fetch": archive_source(arguments.archive)})
    elif arguments.kaggle or arguments.demo:
        merge(content, {"fetch": {"source": "kaggle" if arguments.kaggle else "demo"}})
    elif "fetch" not in changes:
        merge(content, {"fetch": current_source(arguments.name)})
    check_params(content, f"{paths.RECIPES / arguments.name}.yaml")
    with replacing(paths.PARAMS) as path:
        yaml.dump(content, path)
    if arguments.archive is not None:
        ignore(Path(arguments.archive).expanduser())
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


def archive_source(name: str) -> dict[str, str]:
    """The section `fetch` of an archive. Raises BadInput if it is missing, incomplete or damaged."""
    path = Path(name).expanduser()  # zsh leaves the ~ of ARCHIVE=~/photos.zip
    return {
        "source": "archive",
        "archive": DoubleQuotedScalarString(str(path)),
        "checksum": checksum(path, contents(path)),
    }


def current_source(recipe: str) -> dict[str, Any]:
    """The section `fetch` of params.yaml. Raises BadInput if it does not name an archive or Kaggle."""
    try:
        fetch = load_params().fetch
    except BadInput:
        fetch = None
    if fetch is None or fetch.source == "demo":
        raise BadInput(
            f"recipe {recipe} is for the competition's own data: add ARCHIVE=photo-reconstruction.zip or SOURCE=kaggle "
            f"to `make recipe RECIPE={recipe}`, or --archive FILE or --kaggle to `python -m pipeline.recipe {recipe}`"
        )
    return fetch.model_dump(exclude={"demo"})


def ignore(archive: Path) -> None:
    """Add an archive inside this repository to .gitignore, unless git ignores it: it must not be published."""
    inside = Path.cwd() in archive.resolve().parents
    if (
        inside
        and subprocess.run(["git", "check-ignore", "--quiet", archive], stderr=subprocess.DEVNULL).returncode == 1
    ):
        line = f"/{archive.resolve().relative_to(Path.cwd()).as_posix()}"
        with Path(".gitignore").open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
        say(f"recipe: {line} is now in .gitignore: the competition's images are not yours to publish")


if __name__ == "__main__":
    run("recipe", main)
