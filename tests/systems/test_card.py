"""The card that a model carries, and the fingerprint that a checkpoint is kept under."""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from shutil import copytree

import pytest

from pipeline.base.errors import BadInput
from pipeline.systems.card import CARD, code_version, fingerprint, library_versions, read_card, write_card

FACTS = {
    "normalisation": "none",
    "model": "pix2pix",
    "settings": {"steps": 3, "threads": 2},
    "best": {"step": 3, "rmse": 0.25},
    "parameters": 54_425_859,
    "devices": "1 x CPU",
    "validation": [1, 5],
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


def test_the_libraries_are_those_installed():
    versions = library_versions()
    assert {"tensorflow", "keras", "numpy", "pillow"} <= set(versions)
    assert all(importlib.metadata.version(name) == version for name, version in versions.items())


def test_a_missing_card_is_named_with_the_remedy(tmp_path):
    with pytest.raises(BadInput, match=r"card\.json is missing; `dvc repro train`"):
        read_card(tmp_path)


@pytest.mark.parametrize("damage", [b"", b"{", b'{"model": "pix2pix"', b"\xff\xfe{}", b"nonsense"])
def test_a_damaged_card_is_named_with_the_remedy(tmp_path, damage):
    (tmp_path / CARD).write_bytes(damage)
    with pytest.raises(BadInput, match=r"card\.json is damaged .*dvc checkout"):
        read_card(tmp_path)


@pytest.mark.parametrize("damage", [b"[]", b"{}", b'{"model": "pix2pix"}'])
def test_json_that_is_no_card_is_refused_as_well(tmp_path, damage):
    (tmp_path / CARD).write_bytes(damage)
    with pytest.raises(BadInput, match=r"card\.json"):
        read_card(tmp_path)


@pytest.fixture
def project(repo, tmp_path):
    """A copy of the code with one more stage, pipeline.probe, that prints the code's version."""
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


def test_the_codes_version_is_the_same_each_time_and_wherever_it_lies(project, tmp_path):
    first, second = version_in(project), version_in(project)
    project.rename(tmp_path / "moved")
    assert first == second == version_in(tmp_path / "moved") and len(first) == 64


@pytest.mark.parametrize("module", ["probe.py", "training/card.py"])
def test_the_codes_version_changes_with_the_stage_that_runs_and_with_what_it_imports(project, module):
    """So no checkpoint is gone on from by another train.py or another network."""
    before = version_in(project)
    with (project / "pipeline" / module).open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert version_in(project) != before


def test_the_codes_version_does_not_change_with_what_it_does_not_import(project):
    before = version_in(project)
    with (project / "pipeline" / "write.py").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert version_in(project) == before


def test_a_fingerprint_is_of_the_facts_and_of_every_byte_of_the_files(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    whole = fingerprint([one, two], {"a": 1, "b": 2})
    assert len(whole) == 64 and whole == fingerprint([one, two], {"b": 2, "a": 1})
    others = [fingerprint([two, one], {"a": 1, "b": 2}), fingerprint([one], {"a": 1, "b": 2})]
    others += [fingerprint([one, two], {"a": 1}), fingerprint([one, two], {"a": 1, "b": 3})]
    two.write_bytes(b"3")
    others.append(fingerprint([one, two], {"a": 1, "b": 2}))
    assert len({whole, *others}) == 6


def test_a_fingerprint_is_the_same_in_every_process():
    """It is a name on disk: no hash that each process salts."""
    facts = json.dumps({"a": 1}, sort_keys=True).encode()
    assert fingerprint([], {"a": 1}) == hashlib.sha256(facts).hexdigest()
