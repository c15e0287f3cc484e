"""Who imports whom, and that dvc.yaml says of each stage what its script does: read from the source, with ast."""

import ast
import configparser
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
import yaml

from pipeline import paths
from pipeline.params import Params, System

REPO = Path(__file__).resolve().parents[1]
STAGES = ("fetch", "augment", "train", "predict", "write", "evaluate")
MODULES = {
    ".".join(path.relative_to(REPO).with_suffix("").parts): path
    for path in sorted((REPO / "pipeline").rglob("*.py"))
    if path.name != "__init__.py"
}
DVC = yaml.safe_load((REPO / "dvc.yaml").read_text(encoding="utf-8"))
SYSTEMS = get_args(System)
SHARED = {"pipeline.systems.shared.unet"}  # of the models' files: what several systems use
ITEM = "${item}"  # in dvc.yaml: a system, as train has one stage for each
NOT_DATA = {
    "PARAMS",
    "RECIPES",
    "LEDGER",
    "WORK",
    "TIMES",
    "COMPARISON",
    "COMPARISON_SHEET",
}  # of the names in paths: what no stage makes


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imported_names(node: ast.AST) -> set[str]:
    """The dotted names that the import statements in a tree name: `from a import b` names a and a.b."""
    names = set()
    for statement in ast.walk(node):
        if isinstance(statement, ast.Import):
            names |= {alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            assert statement.level == 0, "a relative import"
            names |= {statement.module} | {f"{statement.module}.{alias.name}" for alias in statement.names}
    return names


def imports(module: str) -> set[str]:
    """The modules of ours that a module imports."""
    return imported_names(tree(module)) & set(MODULES)


def needed_by(module: str) -> set[str]:
    """A module and all that it imports, directly or through others."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            waiting += imports(name)
    return found


def part(module: str) -> str:
    """The folder below pipeline that a module stands in, or the module's own name."""
    return module.split(".")[1]


def paths_used(node: ast.AST) -> set[str]:
    """The names of pipeline.paths used in a tree."""
    return {
        name.attr
        for name in ast.walk(node)
        if isinstance(name, ast.Attribute) and isinstance(name.value, ast.Name) and name.value.id == "paths"
    }


def made_by(stage: str) -> set[str]:
    """The paths that a stage's script puts in place."""
    calls = [node for node in ast.walk(tree(f"pipeline.{stage}")) if isinstance(node, ast.Call)]
    made = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "replacing"]
    return {name for call in made for argument in call.args for name in paths_used(argument)}


def entry_of(stage: str) -> dict:
    """What dvc.yaml says of a stage."""
    entry = DVC["stages"][stage]
    return entry["do"] if stage == "train" else entry


def modules_of(stage: str) -> set[str]:
    """What a stage runs: its script's modules and, of the systems, which are imported by name, what all of them use."""
    needed = needed_by(f"pipeline.{stage}")
    if stage == "train":
        needed = needed.union(*(needed_by(f"pipeline.systems.{system}") for system in SYSTEMS))
        needed = {module for module in needed if part(module) not in ("systems", "models") or module in SHARED}
    return needed


def listed(stage: str, kind: str) -> dict[str, dict]:
    """The outs, metrics or deps of a stage in dvc.yaml, with their options."""
    result = {}
    for entry in entry_of(stage).get(kind, []):
        result |= entry if isinstance(entry, dict) else {entry: {}}
    return result


def outputs(stage: str) -> dict[str, dict]:
    return listed(stage, "outs") | listed(stage, "metrics") | listed(stage, "plots")


def sections_read(stage: str) -> set[str]:
    """The top-level keys of params.yaml that a stage's script reads."""
    known = set(Params.model_fields)
    found = set()
    for node in ast.walk(tree(f"pipeline.{stage}")):
        if isinstance(node, ast.Attribute) and node.attr in known:
            owner = node.value
            if isinstance(owner, ast.Name) and owner.id == "params":
                found.add(node.attr)
            if isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name) and owner.func.id == "load_params":
                found.add(node.attr)
    return found


def test_there_is_one_stage_for_each_script_that_dvc_runs():
    assert tuple(DVC["stages"]) == STAGES
    assert DVC["stages"]["train"]["foreach"] == "${systems}"
    for name in STAGES:
        assert entry_of(name)["cmd"] == f"python -m pipeline.{name}" + (f" {ITEM}" if name == "train" else "")


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_system_has_its_settings_its_model_and_its_training_and_needs_no_other_ones(system):
    assert system in Params.model_fields
    needed = needed_by(f"pipeline.systems.{system}")
    own = {module for module in needed if part(module) in ("systems", "models")} - SHARED
    assert own == {f"pipeline.systems.{system}", f"pipeline.models.{system}"}


def test_every_system_can_be_loaded_and_nothing_else():
    statements = tree("pipeline.systems.trained").body
    (value,) = [node.value for node in statements if isinstance(node, ast.Assign) and node.targets[0].id == "MODELS"]
    assert [key.value for key in value.keys] == [name.id for name in value.values] == list(SYSTEMS)
    shared = {module.rpartition(".")[2] for module in SHARED}
    for folder, others in (("systems", set()), ("models", shared)):
        assert {path.stem for path in (REPO / "pipeline" / folder).glob("[!_]*.py")} == set(SYSTEMS) | others


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_deps_are_the_modules_it_imports(stage):
    files = {MODULES[module].relative_to(REPO).as_posix() for module in modules_of(stage)}
    if stage == "train":
        files |= {f"pipeline/{folder}/{ITEM}.py" for folder in ("systems", "models")}
    assert {dep for dep in listed(stage, "deps") if dep.endswith(".py")} == files


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_data_deps_are_the_paths_its_script_reads(stage):
    scripts = [f"pipeline.{stage}", *(f"pipeline.systems.{system}" for system in SYSTEMS if stage == "train")]
    read = set().union(*(paths_used(tree(script)) for script in scripts)) - made_by(stage) - NOT_DATA
    expected = {getattr(paths, name).as_posix() for name in read}
    if stage == "fetch":
        expected.add("${fetch.archive}")
    assert {dep for dep in listed(stage, "deps") if not dep.endswith(".py")} == expected


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_outs_are_the_paths_its_script_makes(stage):
    made = {getattr(paths, name).as_posix() for name in made_by(stage)}
    assert set(outputs(stage)) == ({f"{path}/{ITEM}" for path in made} if stage == "train" else made)


def test_every_path_is_made_by_one_stage():
    made = [out.removesuffix(f"/{ITEM}") for stage in STAGES for out in outputs(stage)]
    assert sorted(made) == sorted(
        value.as_posix() for name, value in vars(paths).items() if name.isupper() and name not in NOT_DATA
    )


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_params_are_whole_sections_and_all_that_its_script_reads(stage):
    params = entry_of(stage)["params"]
    own = {ITEM} if stage == "train" else set()
    assert all(isinstance(name, str) and name in Params.model_fields for name in set(params) - own)
    assert sections_read(stage) and set(params) == sections_read(stage) | own


def test_what_git_keeps_is_small_and_all_else_is_dvcs():
    uncached = {out for stage in STAGES for out, options in outputs(stage).items() if options.get("cache") is False}
    small = (paths.METRICS, paths.CURVES / ITEM, paths.SHEET, paths.PAGE)
    assert uncached == {path.as_posix() for path in small}


def test_dvc_keeps_the_runs_of_the_training():
    """It keeps no run, and restores none, of a stage with an uncached out that is no metric and no plot."""
    uncached = {out for out, options in listed("train", "outs").items() if options.get("cache") is False}
    assert not uncached


def test_no_out_persists():
    assert not any(options.get("persist") for stage in STAGES for options in outputs(stage).values())


def test_the_plots_in_dvc_yaml_are_of_outs():
    sources = {
        name for plot in DVC["plots"] for name in ([plot] if isinstance(plot, str) else next(iter(plot.values()))["y"])
    }
    assert sources <= {out for stage in STAGES for out in outputs(stage)}


def test_dvc_tells_nobody():
    config = configparser.ConfigParser()
    config.read(REPO / ".dvc" / "config")
    core = {key: value for name, section in config.items() if name.strip() == "core" for key, value in section.items()}
    assert core["analytics"] == "false" and core["check_update"] == "false"


ALLOWED = {
    "base": {"base"},
    "paths": set(),
    "params": {"base", "paths"},
    "competition": {"competition", "base"},
    "models": {"models", "fills", "competition", "base", "paths"},
    "fills": {"fills", "base"},  # and of the competition OF_THE_COMPETITION
    "training": {"training", "models", "fills", "competition", "base", "params", "paths"},
    "systems": {"training", "models", "competition", "base", "params", "paths"},
    "report": {"report", "competition", "base"},
    "history": {"history", "competition", "base", "paths"},
}

OF_THE_COMPETITION = {f"pipeline.competition.{name}" for name in ("boxes", "images", "index", "twins")}


@pytest.mark.parametrize("module", [module for module in MODULES if part(module) in ALLOWED])
def test_what_stands_below_the_stages_imports_only_what_it_may(module):
    others = imports(module)
    if part(module) == "fills":
        others -= OF_THE_COMPETITION
    assert {part(other) for other in others} <= ALLOWED[part(module)]


def test_every_folder_has_its_rule():
    folders = {part(module) for module in MODULES if module.count(".") > 1}
    assert folders <= set(ALLOWED)


@pytest.mark.parametrize("stage", STAGES)
def test_stages_do_not_import_each_other(stage):
    others = {f"pipeline.{name}" for name in STAGES} - {f"pipeline.{stage}"}
    assert not needed_by(f"pipeline.{stage}") & others


@pytest.mark.parametrize(
    "command", [name for name in MODULES if part(name) in ("upload", "leaderboard", "reproduce", "compare")]
)
def test_commands_import_no_stage(command):
    assert not needed_by(command) & {f"pipeline.{name}" for name in STAGES}


def test_nothing_but_its_own_file_imports_kaggle_and_that_only_inside_functions():
    users = {
        module
        for module in MODULES
        if any(name.split(".")[0] in ("kaggle", "kagglesdk") for name in imported_names(tree(module)))
    }
    assert users == {"pipeline.kaggle.client"}
    top = [node for node in ast.walk(tree("pipeline.kaggle.client")) if isinstance(node, ast.FunctionDef)]
    inside = [statement for node in top for statement in ast.walk(node)]
    for node in ast.walk(tree("pipeline.kaggle.client")):
        if isinstance(node, ast.Import | ast.ImportFrom) and any(
            name.split(".")[0] in ("kaggle", "kagglesdk") for name in imported_names(node)
        ):
            assert node in inside


@pytest.mark.parametrize("module", [module for module in MODULES if part(module) in ("competition", "base", "fills")])
def test_the_competition_and_the_fills_name_no_tensorflow(module):
    assert not {name.split(".")[0] for name in imported_names(tree(module))} & {"tensorflow", "keras", "torch", "jax"}


def test_the_competition_loads_no_tensorflow_and_no_kaggle_client():
    modules = [module for module in MODULES if part(module) in ("competition", "base", "fills")]
    code = f"import sys, {', '.join(modules)}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(REPO)},
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert "pipeline" in loaded and not loaded & {"tensorflow", "keras", "kaggle", "kagglesdk"}
