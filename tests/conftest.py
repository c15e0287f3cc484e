"""What tests share: a drawn competition, the real archive where there is one, stages run as the user runs them."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import copy, copytree, ignore_patterns
from typing import Any

import pytest
import yaml

from pipeline.archive.unpack import checksum, contents
from pipeline.base.errors import BadInput
from pipeline.demo.competition import draw_competition

REPO = Path(__file__).resolve().parents[1]
REAL = "PHOTO_RECONSTRUCTION_ARCHIVE"
PAIRS, TESTS = 6, 9  # of the drawn competition: pairs a class, test images
# Longest first, so that no worker is left alone with one at the end.
LONGEST = (
    "test_pipeline.py",
    "test_reproduce.py",
    "test_upload.py",
    "test_loop.py",
    "test_training.py",
    "test_contract.py",
    "test_makefile.py",
    "test_client.py",
    "test_batches.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, in this order."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@dataclass(frozen=True)
class Competition:
    """A drawn competition, laid out as data/raw. Many tests read it: copy it before changing it."""

    raw: Path
    truth: Path
    paths: list[Path]  # as draw_competition yields them
    pairs: int  # a class
    tests: int


@pytest.fixture(scope="session")
def demo_competition(tmp_path_factory) -> Competition:
    """6 pairs a class and 9 test images, two of which have a twin among the pairs."""
    root = tmp_path_factory.mktemp("competition")
    raw, truth = root / "raw", root / "truth"
    raw.mkdir()
    truth.mkdir()
    return Competition(raw, truth, list(draw_competition(raw, truth, PAIRS, TESTS, seed=11)), PAIRS, TESTS)


@pytest.fixture(scope="session")
def real_archive() -> Path:
    """The competition's own zip or its unpacked folder."""
    path = os.environ.get(REAL)
    if not path:
        pytest.skip(f"set {REAL} to the competition's zip or unpacked folder to run this test")
    return Path(path).resolve()


@pytest.fixture(scope="session")
def repo() -> Path:
    """The repository's root."""
    return REPO


@pytest.fixture
def shallow(monkeypatch) -> None:
    """U-Nets of five levels instead of eight, which are compiled in two thirds of the time."""
    monkeypatch.setattr("pipeline.systems.shared.unet.DOWN", (1, 2, 4, 8, 8))


@pytest.fixture(scope="session")
def params_file() -> Callable[..., Path]:
    """`params_file(folder, **{"pix2pix.steps": 3})` writes params.yaml, so changed, to the folder.

    With fetch.archive it also sets fetch.checksum, if that archive can be read.
    """

    def write(folder: Path, **overrides: Any) -> Path:
        if isinstance(archive := overrides.get("fetch.archive"), str):
            with suppress(BadInput):
                path = folder / archive
                overrides = {"fetch.checksum": checksum(path, contents(path))} | overrides
        content = yaml.safe_load((REPO / "params.yaml").read_text(encoding="utf-8"))
        for dotted, value in overrides.items():
            *sections, key = dotted.split(".")
            section = content
            for name in sections:
                section = section[name]
            section[key] = value
        path = folder / "params.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def code_here() -> dict[str, str]:
    """The variables with which Python runs this code from any folder, and leaves nothing beside it."""
    return {"PYTHONPATH": str(REPO), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture(scope="session")
def run_stage(code_here) -> Callable[..., subprocess.CompletedProcess]:
    """`run_stage("train residual", folder)` runs `python -m pipeline.train residual` there; `arguments` follow.

    The environment has no KAGGLE_ variable but those in `env`.
    """

    def run(
        name: str, cwd: Path, env: dict[str, str] | None = None, arguments: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("KAGGLE_")}
        return subprocess.run(
            [sys.executable, "-m", *f"pipeline.{name}".split(), *arguments],
            cwd=cwd,
            env=inherited | code_here | (env or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture(scope="session")
def environment_of() -> Callable[[Path], dict[str, str]]:
    """`environment_of(home)`: of a user with this home, who has activated the environment that runs the tests."""

    def make(home: Path) -> dict[str, str]:
        return {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "DVC_SITE_CACHE_DIR": str(home / "dvc"),
            "DVC_NO_ANALYTICS": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            **{f"GIT_{who}_{what}": "test@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }

    return make


@pytest.fixture(scope="session")
def environment(tmp_path_factory, environment_of) -> dict[str, str]:
    """Of a user whose home is empty."""
    return environment_of(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def run(environment):
    """`run(folder, "dvc", "repro")`: status, and output with errors in one text."""

    def call(folder: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert not check or done.returncode == 0, done.stdout
        return done

    return call


@pytest.fixture(scope="session")
def new_project(tmp_path_factory, params_file, run):
    """`new_project(folder, {"pix2pix.steps": 3})` makes a repository: the code as here, the demo recipe so changed."""
    code = tmp_path_factory.mktemp("code")  # copied once, so that all repositories have the same
    for name in ("pipeline", "recipes"):
        copytree(REPO / name, code / name, ignore=ignore_patterns("__pycache__"))
    ignored = (".gitignore", ".gitattributes", ".dvcignore", "data/.gitignore", "submissions/.gitignore")
    for name in (".dvc/config", "dvc.yaml", *ignored):
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        copy(REPO / name, code / name)

    def make(folder: Path, settings: dict[str, Any]) -> Path:
        folder.mkdir(exist_ok=True)
        run(folder, "git", "init", "--quiet")
        run(folder, "dvc", "init", "--quiet")
        copytree(code, folder, dirs_exist_ok=True)
        params_file(folder, **settings)
        run(folder, "git", "add", "--all")
        run(folder, "git", "commit", "--quiet", "--message", "a run")
        return folder

    return make
