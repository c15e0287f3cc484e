"""What DVC knows of one stage: what it depends on now, and that its outputs are made."""

from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo

from pipeline.base.errors import BadInput
from pipeline.history import repo
from pipeline.history.store import one_line

Inputs = dict[str, Any]  # the md5 of each file and folder that a stage depends on, and its sections of params.yaml


def inputs_now(name: str) -> Inputs:
    """What a stage of dvc.yaml depends on, as it is now. Raises BadInput if something is missing or DVC is at work."""
    found: Inputs = {}
    try:
        with Repo() as project, project.lock:
            (stage,) = project.stage.collect(name)
            for dep in stage.deps:
                dep.save()
                found |= dep.hash_info.value if dep.hash_info.name == "params" else {dep.def_path: dep.hash_info.value}
    except DvcException as error:
        raise BadInput(f"DVC cannot read what {name} depends on: {one_line(error)}") from None
    return found


def inputs_in(lock: dict[str, Any], name: str) -> Inputs:
    """What a stage depended on when it ran, from the content of a dvc.lock."""
    entry = lock["stages"][name]
    return {dep["path"]: dep["md5"] for dep in entry["deps"]} | entry["params"]["params.yaml"]


def differences(here: Inputs, there: Inputs) -> list[str]:
    """The files, folders and settings that differ, by name."""
    settings = [key for key, value in here.items() if isinstance(value, dict) and isinstance(there.get(key), dict)]
    found = [key for key in sorted({*here, *there}) if key not in settings and here.get(key) != there.get(key)]
    for section in settings:
        found += [f"{section}.{name}" for name in differences(here[section], there[section])]
    return found


def commit(name: str) -> None:
    """Record a stage's outputs, as they are now, as made from what it depends on now."""
    repo.output_of(*repo.DVC, "commit", "--quiet", "--force", name)
