"""The Makefile and tools/install.sh in a small project: real make, git, pip, DVC and recipes, no network."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.helpers.repository import Repository

REPO = Path(__file__).resolve().parents[1]
PYTHON = Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
PROGRAMS = ("awk", "cat", "cksum", "git", "grep", "ls", "make", "mv", "rm", "sed", "sh")
REQUIREMENTS = ("requirements.txt", "requirements-dev.txt", "requirements-diffusion.txt", "requirements-gpu.txt")
PACKAGES = "packages-1-py3-none-any.whl"
# What a user's shell may have set for other work.
OTHER_WORK = {
    **dict.fromkeys(("PYTHONHOME", "PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON"), "/nowhere"),
    **dict.fromkeys(("PIP_USER", "PIP_DRY_RUN", "PIP_REQUIRE_HASHES", "PYTHONSAFEPATH", "PYTHONOPTIMIZE"), "1"),
}


def write_packages(path: Path) -> None:
    """Write a wheel with which a .venv has the packages of the environment that runs the tests, and DVC's command."""
    info = "packages-1.dist-info"
    files = {
        "packages.pth": "\n".join(entry for entry in sys.path if entry.endswith("-packages")),
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: packages\nVersion: 1\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\ndvc=dvc.cli:main\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)


def python_that(folder: Path, name: str, customised: str) -> Path:
    """A command in the folder: the Python that runs the tests, after these statements."""
    (folder / f"{name}-site").mkdir(parents=True)
    (folder / f"{name}-site" / "sitecustomize.py").write_text(f"import sys\n{customised}\n")
    (folder / name).write_text(f"#!/bin/sh\nPYTHONPATH='{folder / name}-site' exec '{PYTHON}' \"$@\"\n")
    (folder / name).chmod(0o755)
    return folder / name


def is_version(minor: int, *, venv: bool = True) -> str:
    """The statements of python_that for another version, or for one without Debian's package python3-venv."""
    return f"sys.version_info = (3, {minor}, 0, 'final', 0)" + ("" if venv else "; sys.modules['ensurepip'] = None")


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> Path:
    """All programs that an installation uses, but no Python."""
    folder = tmp_path_factory.mktemp("programs")
    for name in PROGRAMS:
        (folder / name).symlink_to(shutil.which(name))
    return folder


@pytest.fixture(scope="module")
def new(environment_of, programs):
    """`new(folder, path)`: the project, committed, of a user who has these folders of commands besides `programs`."""

    def make(folder: Path, *path: Path) -> Repository:
        (folder / "tools").mkdir(parents=True)
        for name in ("Makefile", "tools/install.sh", ".gitignore", "params.yaml"):
            shutil.copy(REPO / name, folder / name)
        for name in ("pipeline", "recipes"):
            (folder / name).symlink_to(REPO / name)
        for name in ("constraints.txt", *REQUIREMENTS):
            (folder / name).touch()
        (folder / "dvc.yaml").write_text("stages: {all: {cmd: python -c 'print(1234 * 2)', always_changed: true}}\n")
        (folder / ".dvc").mkdir()
        shutil.copy(REPO / ".dvc/config", folder / ".dvc/config")
        environment = environment_of(folder.parent) | {"PATH": os.pathsep.join(map(str, (*path, programs)))}
        project = Repository(folder, environment)
        project.run("git", "init", "--quiet")
        project.commit()
        return project

    return make


@pytest.fixture(scope="module")
def installed(tmp_path_factory, new) -> Repository:
    """A project after `make diffusion`, in a folder and an environment that could disturb it."""
    commands = tmp_path_factory.mktemp("commands")
    (commands / "python3.13").write_text("#!/bin/sh\nexit 127\n")  # as pyenv's, of a version that is not in use
    (commands / "python3.13").chmod(0o755)
    python_that(commands, "python3.12", is_version(12, venv=False))
    (commands / "python3.11").symlink_to(PYTHON)
    python_that(commands, "python3", is_version(10))
    project = new(tmp_path_factory.mktemp("user") / "the project é", commands)
    write_packages(project.folder / PACKAGES)
    (project.folder / "requirements.txt").write_text(f"./{PACKAGES}\n")
    (project.folder.parent / "pip.conf").write_text("[global]\nuser = true\ntarget = /nowhere\n")
    project.environment["PIP_CONFIG_FILE"] = str(project.folder.parent / "pip.conf")
    project.environment.update(OTHER_WORK)
    project.run("make", "diffusion")
    return project


@pytest.fixture
def python(tmp_path) -> Path:
    """The Python of `installed`, which cannot make a .venv, so that `make` ends where it would make one."""
    return python_that(tmp_path, "python", "sys.modules['ensurepip'] = None")


@pytest.fixture
def fresh(tmp_path, new) -> Repository:
    """A project that nothing is installed in, of a user who has no Python."""
    return new(tmp_path / "project", tmp_path / "commands")


def refusal(project: Repository, *arguments: str) -> str:
    """What `make` with these arguments prints before its own line, when it fails and has installed nothing."""
    *lines, of_make = project.run("make", *arguments, status=2).splitlines()
    assert of_make.startswith("make: ***") and not (project.folder / ".venv").exists()
    return "\n".join(lines)


def is_kept(project: Repository, python: Path) -> bool:
    """Whether `make` uses .venv as it is, and does not make another with this Python, which cannot."""
    process = project.start("make", "diffusion", f"PYTHON={python}")
    output, _ = process.communicate(timeout=300)
    assert ("no venv module" in output) == (process.returncode == 2), output
    return process.returncode == 0


def test_make_alone_lists_the_targets(fresh):
    assert "make submission " in fresh.run("make") and not (fresh.folder / ".venv").exists()


def test_on_windows_one_line_says_where_it_runs(fresh):
    output = fresh.run("make", "OS=Windows_NT", "test", status=2)
    assert output.count("\n") == 1 and "Linux, macOS or WSL" in output


def test_the_newest_python_that_works_is_taken(installed):
    command = next(
        line for line in (installed.folder / ".venv/pyvenv.cfg").read_text().splitlines() if "-m venv" in line
    )
    assert "/python3.11 -m venv" in command


@pytest.mark.parametrize("minor", [10, 14])
def test_another_version_is_refused(fresh, tmp_path, minor):
    python = python_that(tmp_path / "it's $HOME", "python", is_version(minor))
    assert refusal(fresh, "test", f"PYTHON={python}") == (
        f"{python} is not Python 3.11, 3.12 or 3.13; name one: make PYTHON=/path/to/python3.13"
    )


def test_without_a_python_the_versions_are_named(fresh):
    assert "Python 3.11, 3.12 or 3.13" in refusal(fresh, "submission")


def test_without_the_venv_module_the_package_to_install_is_named(fresh, tmp_path):
    for minor in (12, 13):
        python_that(tmp_path / "commands", f"python3.{minor}", is_version(minor, venv=False))
    assert "sudo apt install python3.13-venv" in refusal(fresh, "test")


def test_a_venv_that_works_is_kept(installed, python):
    assert is_kept(installed, python)
    assert "made again" not in installed.run("make", "diffusion")


def test_a_venv_of_another_python_is_not(installed, tmp_path):
    other = python_that(tmp_path, "python", "sys.base_prefix = '/another'; sys.modules['ensurepip'] = None")
    assert not is_kept(installed, other)


@pytest.mark.parametrize("name", ["bin/python", "bin/pip"])
def test_a_venv_without_pip_or_its_python_is_not(installed, python, name):
    part = installed.folder / ".venv" / name
    away = part.rename(part.with_name("away"))
    assert not is_kept(installed, python)
    away.rename(part)
    assert is_kept(installed, python)


def test_a_venv_that_was_moved_is_not(installed, python):
    moved = installed.folder.rename(installed.folder.with_name("moved"))
    assert not is_kept(Repository(moved, installed.environment), python)
    moved.rename(installed.folder)
    assert is_kept(installed, python)


def test_an_installation_that_fails_before_it_installs_costs_nothing(installed, python):
    (installed.folder / "requirements-dev.txt").write_text("packages == 2\n")
    offline = Repository(installed.folder, installed.environment | {"PIP_NO_INDEX": "1"})
    assert "No matching distribution found for packages==2" in offline.run("make", "lint", status=2)
    assert is_kept(installed, python)


@pytest.mark.slow
def test_a_venv_of_a_killed_installation_is_made_again(installed):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        requirements = installed.folder / "requirements-dev.txt"
        requirements.write_text(f"http://127.0.0.1:{server.getsockname()[1]}/slow-1-py3-none-any.whl\n")
        process = subprocess.Popen(
            ["make", "lint"], cwd=installed.folder, env=installed.environment, start_new_session=True
        )
        connection, _ = server.accept()
        with connection:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    old = installed.folder / ".venv" / "old"
    old.touch()
    assert "2468" in installed.run("make", "submission") and not old.exists()


@pytest.mark.slow
def test_changed_requirements_are_installed(installed):
    (installed.folder / "requirements-diffusion.txt").write_text("# changed\n")
    assert "installing requirements-diffusion.txt" in installed.run("make", "diffusion")
    assert "installing" not in installed.run("make", "diffusion")


@pytest.mark.slow
def test_an_archive_whose_name_has_any_letters_or_an_account(installed, demo_competition, tmp_path):
    def source() -> tuple[str, str]:
        fetch = yaml.safe_load((installed.folder / "params.yaml").read_text(encoding="utf-8"))["fetch"]
        return fetch["source"], fetch["archive"]

    assert "add ARCHIVE=" in installed.run("make", "recipe", "RECIPE=laptop", status=2)
    archive = tmp_path / 'it\'s "$HOME" $(x `y` #é'
    shutil.copytree(demo_competition.raw, archive)
    assert "2468" in installed.run("make", "recipe", "RECIPE=laptop", f"ARCHIVE={archive}")
    assert source() == ("archive", str(archive))
    installed.run("make", "recipe", "RECIPE=laptop", "SOURCE=kaggle")
    assert source()[0] == "kaggle"


@pytest.mark.parametrize("source", ["web", "kaggle 'x", "$(x"])
def test_another_source_is_refused(fresh, source):
    assert refusal(fresh, "recipe", f"SOURCE={source}") == "SOURCE can only be kaggle; ARCHIVE names a zip or folder"


@pytest.mark.parametrize("case", ["no repository", "no commit", "inside another repository"])
def test_without_git_the_commands_to_type_are_named_and_help(fresh, tmp_path, case):
    shutil.rmtree(fresh.folder / ".git")
    if case != "no repository":
        fresh.run("git", "-C", str(tmp_path if case.startswith("inside") else fresh.folder), "init", "--quiet")
    if case.startswith("inside"):
        Repository(tmp_path, fresh.environment).commit()
    reason, commands = refusal(fresh, "submission").split(": ")
    assert "git repository" in reason and commands.count("&&") == 2
    fresh.run("sh", "-c", commands)
    assert "Python 3.11, 3.12 or 3.13" in refusal(fresh, "submission")


def test_without_git_itself_the_package_to_install_is_named(fresh, programs, tmp_path):
    (tmp_path / "commands").mkdir()
    for name in set(PROGRAMS) - {"git"}:
        (tmp_path / "commands" / name).symlink_to(programs / name)
    fresh.environment["PATH"] = str(tmp_path / "commands")
    assert "apt install git" in refusal(fresh, "test")


def test_gits_own_refusal_is_passed_on(fresh):
    fresh.environment["GIT_TEST_ASSUME_DIFFERENT_OWNER"] = "1"
    assert "git config --global --add safe.directory" in refusal(fresh, "test")
