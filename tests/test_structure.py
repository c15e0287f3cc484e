"""Who imports whom, and that dvc.yaml says of each stage what its script does: read from the source, with ast."""

import ast
import configparser
import inspect
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from pipeline import paths, systems
from pipeline.base.errors import BadInput
from pipeline.params import SYSTEMS, Params
from pipeline.systems.card import NO_OUTPUT_FOLDER, can_change_output

REPO = Path(__file__).resolve().parents[1]
STAGES = ("fetch", "split", "augment", "train", "match", "predict", "write", "evaluate")
COMMANDS = ("upload", "leaderboard", "reproduce", "compare", "recipe", "remote")
MODULES = {
    ".".join(path.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((REPO / "pipeline").rglob("*.py"))
}
DVC = yaml.safe_load((REPO / "dvc.yaml").read_text(encoding="utf-8"))
ITEM = "${item}"  # in dvc.yaml: a system, because train has one stage for each
NOT_MADE = {
    "PARAMS",
    "RECIPES",
    "DEFAULTS",
    "LEDGER",
    "TENSORBOARD",
    "WORK",
    "TIMES",
    "COMPARISON",
    "COMPARISON_SHEET",
}  # paths that no stage makes
WITHOUT_TENSORFLOW = ("base", "competition", "fills", "twins", "archive", "demo", "kaggle", "history", "report")


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
    """The modules of ours that a module imports, empty packages left out."""
    return {name for name in imported_names(tree(module)) & set(MODULES) if tree(name).body} - {"pipeline"}


def needed_by(*modules: str) -> set[str]:
    """These modules and all that they import, directly or through others."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            waiting += imports(name)
    return found


def part(module: str) -> str:
    """The folder below pipeline that a module stands in, or the module's own name."""
    return module.split(".")[1]


def system_of(module: str) -> str | None:
    """The system in whose folder a module stands."""
    return next((name for name in SYSTEMS if f"{module}.".startswith(f"pipeline.systems.{name}.")), None)


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
    """The entry of a stage in dvc.yaml."""
    entry = DVC["stages"][stage]
    return entry["do"] if stage == "train" else entry


def modules_of(stage: str, system: str = "residual") -> set[str]:
    """The modules a stage runs that can change its outputs. It imports systems by name: train one, predict all."""
    own = {"train": {system}, "predict": set(SYSTEMS)}.get(stage, set())
    roots = [name for name in MODULES if system_of(name) in own and (stage == "train" or name.endswith(".network"))]
    return {name for name in needed_by(f"pipeline.{stage}", *roots) if can_change_output(name)}


def listed(stage: str, kind: str) -> dict[str, dict]:
    """The outs, metrics or deps of a stage in dvc.yaml, with their options."""
    result = {}
    for entry in entry_of(stage).get(kind, []):
        result |= entry if isinstance(entry, dict) else {entry: {}}
    return result


def code_deps(stage: str, system: str = "residual") -> list[Path]:
    """The files and folders of code that a stage depends on."""
    return [Path(dep.replace(ITEM, system)) for dep in listed(stage, "deps") if dep.startswith("pipeline/")]


def outputs(stage: str) -> dict[str, dict]:
    return listed(stage, "outs") | listed(stage, "metrics") | listed(stage, "plots")


def sections_read(stage: str) -> set[str]:
    """The top-level keys of params.yaml that a stage's script reads."""
    return {
        node.attr
        for node in ast.walk(tree(f"pipeline.{stage}"))
        if isinstance(node, ast.Attribute) and node.attr in Params.model_fields
        if (isinstance(node.value, ast.Name) and node.value.id == "params")
        or (isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == "load_params")
    }


def test_there_is_one_stage_for_each_script_that_dvc_runs():
    assert tuple(DVC["stages"]) == STAGES
    assert DVC["stages"]["train"]["foreach"] == "${systems}"
    for name in STAGES:
        assert entry_of(name)["cmd"] == f"python -m pipeline.{name}" + (f" {ITEM}" if name == "train" else "")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_stage_lists_the_code_that_can_change_its_outputs_and_no_other(stage, system):
    files = {MODULES[name].relative_to(REPO) for name in modules_of(stage, system)}
    deps = code_deps(stage, system)
    assert all((REPO / dep).exists() for dep in deps)
    # Of a system's folder, and of what several systems share, each part counts for all that use any of it.
    assert [file for file in files if not any(file.is_relative_to(dep) for dep in deps)] == []
    unused = [dep for dep in deps if not any(file.is_relative_to(dep) for file in files)]
    assert unused in ([], [Path("pipeline/systems/shared")])


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_data_deps_are_the_paths_its_script_reads(stage):
    roots = [f"pipeline.{stage}"]
    if stage == "train":
        roots += [name for name in MODULES if system_of(name)] + ["pipeline.systems.shared.adversarial"]
        roots += ["pipeline.training.batches"]
    read = set().union(*(paths_used(tree(root)) for root in roots)) - made_by(stage) - (NOT_MADE - {"DEFAULTS"})
    expected = {getattr(paths, name).as_posix() for name in read}
    assert {dep for dep in listed(stage, "deps") if not dep.startswith("pipeline/")} == expected


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_outs_are_the_paths_its_script_makes(stage):
    made = {getattr(paths, name).as_posix() for name in made_by(stage)}
    assert set(outputs(stage)) == ({f"{path}/{ITEM}" for path in made} if stage == "train" else made)


def test_every_path_is_made_by_one_stage():
    made = [out.removesuffix(f"/{ITEM}") for stage in STAGES for out in outputs(stage)]
    assert sorted(made) == sorted(
        value.as_posix() for name, value in vars(paths).items() if name.isupper() and name not in NOT_MADE
    )


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_params_are_whole_sections_and_all_that_its_script_reads(stage):
    own = {ITEM} if stage == "train" else set()
    assert sections_read(stage) and set(entry_of(stage)["params"]) == sections_read(stage) | own


def test_what_git_keeps_is_small_and_all_else_is_dvcs():
    uncached = {out for stage in STAGES for out, options in outputs(stage).items() if options.get("cache") is False}
    small = (paths.METRICS, paths.SCORES, paths.CURVES / ITEM, paths.SHEET, paths.TEST_SHEET, paths.PAGE)
    assert uncached == {path.as_posix() for path in small}


def test_dvc_keeps_the_runs_of_the_training():
    """It keeps no run, and restores none, of a stage with an uncached out that is no metric and no plot."""
    assert not [out for out, options in listed("train", "outs").items() if options.get("cache") is False]


def test_no_out_persists():
    assert not any(options.get("persist") for stage in STAGES for options in outputs(stage).values())


def test_the_plots_in_dvc_yaml_are_of_outs():
    sources = {
        name for plot in DVC["plots"] for name in ([plot] if isinstance(plot, str) else next(iter(plot.values()))["y"])
    }
    assert sources <= {out for stage in STAGES for out in outputs(stage)}


def test_dvc_sends_nothing():
    config = configparser.ConfigParser()
    config.read(REPO / ".dvc" / "config")
    assert config["core"]["analytics"] == config["core"]["check_update"] == "false"


BELOW = {"base", "params", "paths"}
ALLOWED = {
    "base": {"base"},
    "paths": set(),
    "params": {"base", "paths"},
    "competition": {"competition", "base"},
    "archive": {"archive", "competition", "base"},
    "demo": {"demo", "competition", "base"},
    "twins": {"twins", "competition", "base"},
    "fills": {"fills", "competition", "base"},
    "kaggle": {"kaggle", "competition", "base", "paths"},
    "training": {"training", "fills", "competition"} | BELOW,
    "systems": {"systems", "training", "fills", "competition"} | BELOW,
    "report": {"report", "competition", "base"},
    "history": {"history", "base", "paths"},
}


@pytest.mark.parametrize("module", [module for module in MODULES if module != "pipeline" and part(module) in ALLOWED])
def test_what_stands_below_the_stages_imports_only_what_it_may(module):
    assert {part(other) for other in imports(module)} <= ALLOWED[part(module)]


def test_every_folder_has_its_rule():
    assert {part(module) for module in MODULES if module.count(".") > 1} <= set(ALLOWED)


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("pipeline.systems.")])
def test_a_system_imports_no_other_and_what_several_share_imports_none(module):
    found = {system_of(other) for other in imports(module)} - {None, system_of(module)}
    assert not found
    assert system_of(module) or module.count(".") == 2 or module.startswith("pipeline.systems.shared")


@pytest.mark.parametrize("script", STAGES + COMMANDS)
def test_no_stage_and_no_command_imports_a_stage_or_a_command(script):
    assert not needed_by(f"pipeline.{script}") & {f"pipeline.{name}" for name in STAGES + COMMANDS if name != script}


def test_every_system_is_a_folder_with_the_two_modules_of_the_contract():
    folders = {path.name for path in (REPO / "pipeline" / "systems").iterdir() if (path / "__init__.py").exists()}
    assert folders == {*SYSTEMS, "shared"}


@pytest.mark.parametrize(
    "system", [pytest.param(name, marks=[pytest.mark.slow] * (name == "diffusion")) for name in SYSTEMS]
)
@pytest.mark.parametrize("contract", [systems.Network, systems.Training])
def test_every_system_keeps_the_contract(system, contract):
    try:
        module = (systems.load_network if contract is systems.Network else systems.load_training)(system)
    except BadInput as error:
        pytest.skip(str(error))  # without PyTorch
    for name, member in inspect.getmembers(contract, inspect.isfunction):
        if not name.startswith("_"):
            function = getattr(module, name)
            _, *expected = inspect.signature(member).parameters
            own = inspect.signature(function).parameters
            assert list(own)[: len(expected)] == expected and function.__doc__
            assert all(own[other].default is not inspect.Parameter.empty for other in list(own)[len(expected) :])
    assert contract is systems.Training or type(module.INPUT_VERSION) is int


def test_the_stages_use_nothing_else_of_a_system():
    contract = {name for kind in (systems.Network, systems.Training) for name in vars(kind)} | {"INPUT_VERSION"}
    for stage in ("train", "predict"):
        uses = [node for node in ast.walk(tree(f"pipeline.{stage}")) if isinstance(node, ast.Attribute)]
        loaded = [
            node for node in uses if isinstance(node.value, ast.Name) and node.value.id in ("network", "training")
        ]
        assert {node.attr for node in loaded} <= contract
        assert not [name for name in imports(f"pipeline.{stage}") if system_of(name)]


def test_code_that_cannot_change_an_output_is_no_dependency():
    for stage in STAGES:
        for dep in code_deps(stage):
            assert can_change_output(".".join(dep.with_suffix("").parts)) or dep == Path("pipeline/systems")
            assert not dep.is_relative_to(NO_OUTPUT_FOLDER.replace(".", "/"))


def test_two_files_import_kaggle_and_that_only_inside_functions():
    def uses_it(node: ast.AST) -> bool:
        return any(name.split(".")[0] in ("kaggle", "kagglesdk") for name in imported_names(node))

    users = [module for module in MODULES if uses_it(tree(module))]
    assert users == ["pipeline.kaggle.client", "pipeline.kaggle.kernels"]
    body = [node for module in users for node in tree(module).body]
    assert not [node for node in body if isinstance(node, ast.Import | ast.ImportFrom) and uses_it(node)]


def test_the_script_for_kaggle_needs_nothing_but_the_standard_library():
    names = {name.split(".")[0] for name in imported_names(tree("pipeline.kaggle.on_kaggle"))}
    assert names <= sys.stdlib_module_names


@pytest.mark.parametrize("module", [module for module in MODULES if part(f"{module}.") in WITHOUT_TENSORFLOW])
def test_what_needs_no_tensorflow_names_none(module):
    assert not {name.split(".")[0] for name in imported_names(tree(module))} & {"tensorflow", "keras", "torch", "jax"}


def test_what_needs_no_tensorflow_loads_none_and_no_kaggle_client():
    modules = [module for module in MODULES if part(f"{module}.") in WITHOUT_TENSORFLOW]
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
