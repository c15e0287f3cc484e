"""A model's card, and the code version on it and in a checkpoint's key."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from shutil import copytree

import pytest

from pipeline.base.environment import INSTRUCTIONS
from pipeline.base.errors import BadInput
from pipeline.systems.card import CARD, can_change_output, code_version, library_versions, read_card, write_card

FACTS = {
    "input_version": 1,
    "model": "pix2pix",
    "settings": {"steps": 3, "threads": 2},
    "best": {"step": 3, "rmse": 0.25},
    "parameters": 54_425_859,
    "devices": "1 x CPU",
    "split": "0" * 64,
}


def test_the_card_has_the_facts_and_the_versions(tmp_path):
    write_card(tmp_path, **FACTS)
    card = read_card(tmp_path)
    assert {name: card[name] for name in FACTS} == FACTS
    assert card["code"] == code_version() and len(card["code"]) == 64
    assert card["python"] == platform.python_version()
    assert card["libraries"] == library_versions()


def test_the_same_facts_give_the_same_bytes(tmp_path):
    found = []
    for _ in range(2):
        write_card(tmp_path, **FACTS)
        found.append((tmp_path / CARD).read_bytes())
    assert found[0] == found[1]


def test_the_libraries_are_those_installed(monkeypatch):
    for name in INSTRUCTIONS:
        monkeypatch.delenv(name, raising=False)
    versions = library_versions()
    assert {"tensorflow", "keras", "numpy", "pillow"} <= set(versions)
    assert all(importlib.metadata.version(name) == version for name, version in versions.items())


def test_a_limit_to_the_processors_instructions_is_among_them(monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert library_versions()["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    assert "ONEDNN_MAX_CPU_ISA" not in library_versions()


def test_a_missing_card_is_named_with_the_remedy(tmp_path):
    with pytest.raises(BadInput, match=r"card\.json is missing; `dvc repro train`"):
        read_card(tmp_path)


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe{}", b"nonsense", b"[]", b"{}", b'{"model": "pix2pix"}'])
def test_a_damaged_card_is_named_with_the_remedy(tmp_path, damage):
    (tmp_path / CARD).write_bytes(damage)
    with pytest.raises(BadInput, match=r"card\.json is damaged .*dvc checkout"):
        read_card(tmp_path)


@pytest.fixture
def project(repo, tmp_path):
    """A copy of the code with one more stage, pipeline.probe, that prints the code version."""
    folder = tmp_path / "project"
    copytree(repo / "pipeline", folder / "pipeline", ignore=lambda *_: ["__pycache__"])
    (folder / "pipeline" / "probe.py").write_text(
        'from pipeline.systems.card import code_version\n\nif __name__ == "__main__":\n    print(code_version())\n',
        encoding="utf-8",
    )
    return folder


def version_in(folder) -> str:
    env = {**os.environ, "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pipeline.probe"]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.slow
def test_the_codes_version_is_the_same_each_time_and_in_any_folder(project, tmp_path):
    first, second = version_in(project), version_in(project)
    project.rename(tmp_path / "moved")
    assert first == second == version_in(tmp_path / "moved") and len(first) == 64


@pytest.mark.parametrize(
    ("module", "changes"),
    [
        ("probe", True),
        ("base/files", False),
        pytest.param("systems/card", True, marks=pytest.mark.slow),
        pytest.param("write", False, marks=pytest.mark.slow),
    ],
)
def test_the_codes_version_changes_with_loaded_modules_that_can_change_an_output(project, module, changes):
    """So no training resumes from a checkpoint of another train.py or network, but rewording a message is harmless."""
    before = version_in(project)
    with (project / "pipeline" / f"{module}.py").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert (version_in(project) != before) == changes


@pytest.mark.parametrize(
    ("module", "can"),
    [
        ("pipeline", False),
        ("pipeline.params", False),
        ("pipeline.paths", False),
        ("pipeline.base", False),
        ("pipeline.base.progress", False),
        ("pipeline.systems", False),
        ("pipeline.systems.residual.network", True),
        ("pipeline.train", True),
    ],
)
def test_modules_that_cannot_change_an_output(module, can):
    assert can_change_output(module) == can
