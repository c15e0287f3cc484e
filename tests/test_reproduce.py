"""What `python -m pipeline.reproduce` says of two submissions, and of a tag it does not know."""

import platform
import subprocess

import numpy as np
import pandas as pd
import pytest
import yaml

from pipeline import paths
from pipeline.base.errors import BadInput
from pipeline.base.files import sha256
from pipeline.competition import submission
from pipeline.competition.index import COLUMNS
from pipeline.reproduce import (
    compare_versions,
    find_commit,
    judge,
    local_score,
    parting,
    read_outputs,
    set_precision,
)
from pipeline.systems.card import library_versions

CSV = paths.SUBMISSION.as_posix()
THEN = {"train": {"data/model": "a"}, "write": {CSV: "b"}}
NOW = {"train": {"data/model": "c"}, "write": {CSV: "d"}}
BOXES = [58, 27, 100, 60]


def write(path, name, value):
    """A submission of one image, flat but for its first box's first row."""
    path.parent.mkdir(exist_ok=True, parents=True)
    values = np.full((2, 75, 75, 3), 0.5)
    values[0, 0] = value
    submission.write(path, [name], np.array(BOXES).reshape(1, 2, 2), [values])


@pytest.fixture
def tree(tmp_path):
    """A worktree in which the submission was made again."""
    write(tmp_path / "tree" / paths.SUBMISSION, "a.jpeg", 0.5)
    index = tmp_path / "tree" / paths.INDEX
    index.parent.mkdir()
    row = {"split": "test", "class": "", "filename": "a.jpeg", "group": 0}
    row |= dict(zip([name for name in COLUMNS if name.startswith("box")], BOXES, strict=True))
    pd.DataFrame([row])[COLUMNS].to_csv(index, index=False)
    return tmp_path / "tree"


@pytest.fixture
def old(tmp_path):
    """The tag's submission, 0.3 away in a 150th of its rows."""
    write(tmp_path / "old.csv", "a.jpeg", 0.2)
    return tmp_path / "old.csv"


def test_the_same_bytes_are_identical(tree, old):
    same, verdict = judge(sha256(tree / CSV), THEN, NOW, tree, old, 0)
    assert same and verdict.startswith("identical") and "sha256" in verdict


def test_where_nothing_was_uploaded_the_lock_decides(tree, old):
    same, verdict = judge(None, THEN, THEN, tree, old, 0)
    assert same and verdict.startswith("identical") and "md5" in verdict


@pytest.mark.parametrize(("tolerance", "expected"), [(0.025, True), (0.024, False)])
def test_within_the_tolerance_it_is_the_same_and_the_stage_is_named(tree, old, tolerance, expected):
    """The RMSE is 0.3 / sqrt(150) = 0.024495."""
    same, verdict = judge(sha256(old), THEN, NOW, tree, old, tolerance)
    assert same is expected
    assert verdict.startswith("same" if expected else "different")
    assert "0.02449" in verdict and "0.30000" in verdict and "stage train on (data/model)" in verdict


def test_without_the_old_file_only_the_stage_is_told(tree, tmp_path):
    same, verdict = judge("0" * 64, THEN, NOW, tree, tmp_path / "none.csv", 1)
    assert not same and "no cache or remote" in verdict and "train" in verdict


def test_a_ledger_that_names_another_file_than_the_lock_is_told(tree, old):
    same, verdict = judge("0" * 64, THEN, THEN, tree, old, 1)
    assert not same and "another CSV was uploaded" in verdict


def test_rows_of_other_images_are_different(tree, old):
    write(old, "b.jpeg", 0.5)
    same, verdict = judge(sha256(old), THEN, NOW, tree, old, 1)
    assert not same and "not of the same test images" in verdict


def test_the_first_stage_whose_outputs_part_is_named():
    assert parting(THEN, THEN) == ""
    assert "stage write" in parting(THEN, {**THEN, "write": NOW["write"]})


@pytest.mark.parametrize("text", ["a: [", "stages: 1", "stages: {train: {outs: [{path: x}]}}", "- 1"])
def test_a_damaged_lock_is_named(text):
    with pytest.raises(BadInput, match=r"dvc\.lock of v1 is damaged"):
        read_outputs(text, "dvc.lock of v1")


def test_an_unknown_tag_is_told_with_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "x"], check=True)
    with pytest.raises(BadInput, match="no tag yet"):
        find_commit("score-0.2")
    subprocess.run([*git, "tag", "score-0.16714"], check=True)
    with pytest.raises(BadInput, match=r"nearest: score-0\.16714"):
        find_commit("score-0.2")
    assert len(find_commit("score-0.16714")) == 40


def test_versions_that_differ_are_named_and_those_alone():
    here = {"python": platform.python_version(), "libraries": library_versions()}
    assert compare_versions(here) == "made with the versions of Python and the libraries in use here"
    other = {"python": "3.9.1", "libraries": {**here["libraries"], "keras": "2.0.0", "no-such-library": "1.0"}}
    assert compare_versions(other) == (
        f"made with python 3.9.1 (here {here['python']}), keras 2.0.0 (here {here['libraries']['keras']}), "
        "no-such-library 1.0 (here not installed)"
    )


def test_from_scratch_the_precision_is_the_one_the_model_was_trained_in(tmp_path, capsys):
    path = tmp_path / paths.PARAMS
    params = {"recipe": "demo", "train": {"precision": "mixed_bfloat16", "steps": 3}}
    text = yaml.safe_dump(params)
    path.write_text(text, encoding="utf-8")
    for card in (None, {"settings": {"precision": "mixed_bfloat16"}}):
        set_precision(tmp_path, card)
        assert path.read_text(encoding="utf-8") == text
    set_precision(tmp_path, {"settings": {"precision": "float32"}})
    params["train"]["precision"] = "float32"
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == params
    assert "train.precision is set to float32" in capsys.readouterr().err


@pytest.mark.parametrize("metrics", [None, "", "{", "[]", "{}", '{"validation": {"submission": {"all": "high"}}}'])
def test_a_score_that_is_not_there_is_unknown(metrics):
    assert local_score(metrics) == "unknown"
