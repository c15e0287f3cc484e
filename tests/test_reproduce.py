"""The verdicts and messages of `python -m pipeline.reproduce`."""

import platform
import subprocess
from dataclasses import replace
from pathlib import Path

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
    Made,
    compare_rounding,
    compare_versions,
    find_commit,
    first_difference,
    judge,
    local_score,
    of_stages,
    read_outputs,
    set_precision,
)
from pipeline.systems.card import library_versions

CSV = paths.SUBMISSION.as_posix()
THEN = {"train": {"data/model": "a"}, "write": {CSV: "b"}}
NOW = {"train": {"data/model": "c"}, "write": {CSV: "d"}}
BOXES = [58, 27, 100, 60]


def write(path, name, value):
    """A submission of one image: 0.5, and `value` in the first row of its first box."""
    values = np.full((2, 75, 75, 3), 0.5)
    values[0, 0] = value
    submission.write(path, [name], np.array(BOXES).reshape(1, 2, 2), [values])


@pytest.fixture
def now(tmp_path) -> Made:
    """The submission that was made again, with its data/index.csv."""
    write(tmp_path / "now.csv", "a.jpeg", 0.5)
    row = {"split": "test", "class": "", "filename": "a.jpeg", "group": 0}
    row |= dict(zip([name for name in COLUMNS if name.startswith("box")], BOXES, strict=True))
    pd.DataFrame([row])[COLUMNS].to_csv(tmp_path / "index.csv", index=False)
    return Made(NOW, tmp_path / "now.csv", sha256(tmp_path / "now.csv"))


@pytest.fixture
def then(tmp_path) -> Made:
    """The tag's submission, which differs by 0.3 in a 150th of its rows."""
    write(tmp_path / "old.csv", "a.jpeg", 0.2)
    return Made(THEN, tmp_path / "old.csv", sha256(tmp_path / "old.csv"))


def verdict_of(then: Made, now: Made, tolerance: float = 1) -> tuple[bool, str]:
    return judge(then, now, now.csv.with_name("index.csv"), tolerance)


def test_the_same_bytes_are_identical(then, now):
    assert verdict_of(replace(then, sha256=now.sha256), now) == (True, "identical, by the sha256 in the ledger")


def test_without_an_upload_the_lock_decides(then, now):
    assert verdict_of(replace(then, sha256=None), replace(now, outputs=THEN)) == (
        True,
        "identical, by the md5 in its dvc.lock",
    )


@pytest.mark.parametrize(("tolerance", "expected"), [(0.025, True), (0.024, False)])
def test_within_the_tolerance_it_is_the_same_and_the_stage_is_named(then, now, tolerance, expected):
    """The RMSE is 0.3 / sqrt(150) = 0.024495."""
    same, verdict = verdict_of(then, now, tolerance)
    assert same is expected
    assert verdict.startswith("same" if expected else "different")
    assert "0.02449" in verdict and "0.30000" in verdict and "stage train on (data/model)" in verdict


@pytest.mark.parametrize("change", [{"csv": Path("none.csv")}, {"sha256": "0" * 64}])
def test_without_the_uploaded_csv_only_the_stage_is_named(then, now, change):
    same, verdict = verdict_of(replace(then, **change), now)
    assert not same and "in no cache or remote" in verdict and "train" in verdict


def test_an_upload_that_is_not_the_csv_in_the_lock_is_reported(then, now):
    same, verdict = verdict_of(replace(then, sha256="0" * 64), replace(now, outputs=THEN))
    assert not same and "another one was uploaded" in verdict


def test_rows_of_other_images_are_different(then, now):
    write(then.csv, "b.jpeg", 0.5)
    same, verdict = verdict_of(replace(then, sha256=sha256(then.csv)), now)
    assert not same and "not of the same test images" in verdict


def test_the_first_stage_with_other_outputs_is_named():
    assert first_difference(THEN, THEN) == ""
    assert "stage write" in first_difference(THEN, {**THEN, "write": NOW["write"]})


@pytest.mark.parametrize("text", ["a: [", "stages: 1", "stages: {train: {outs: [{path: x}]}}", "- 1"])
def test_a_damaged_lock_is_named(text):
    with pytest.raises(BadInput, match=r"dvc\.lock of v1 is damaged"):
        read_outputs(text, "dvc.lock of v1")


def test_an_unknown_tag_is_reported_with_the_most_similar(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "x"], check=True)
    with pytest.raises(BadInput, match="no tag yet"):
        find_commit("score-0.2")
    subprocess.run([*git, "tag", "score-0.16714"], check=True)
    with pytest.raises(BadInput, match=r"most similar: score-0\.16714"):
        find_commit("score-0.2")
    assert len(find_commit("score-0.16714")) == 40


def test_only_versions_that_differ_are_named():
    here = {"python": platform.python_version(), "libraries": library_versions()}
    assert compare_versions(here) == "made with the versions of Python and the libraries in use here"
    other = {"python": "3.9.1", "libraries": {**here["libraries"], "keras": "2.0.0", "no-such-library": "1.0"}}
    assert compare_versions(other) == (
        f"made with python 3.9.1 (here {here['python']}), keras 2.0.0 (here {here['libraries']['keras']}), "
        "no-such-library 1.0 (here not installed)"
    )


def test_only_rounding_settings_that_differ_are_named():
    card = {"settings": {"precision": "float32", "threads": 2, "steps": 5}}
    other = {"settings": {"precision": "float32", "threads": 4, "steps": 6}}
    assert compare_rounding(card, other) == ["train.threads was 2, here it is 4"]
    assert compare_rounding(None, other) == []


def test_from_scratch_the_precision_is_that_of_the_tags_model(tmp_path, capsys):
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
def test_a_missing_score_is_unknown(metrics):
    assert local_score(metrics) == "unknown"


@pytest.mark.parametrize("submission", ["0.25", '{"all": 0.25, "Cat": 0.1}'])
def test_the_score_is_read_in_every_layout(submission):
    assert local_score(f'{{"validation": {{"submission": {submission}}}}}') == "0.25000"


def test_only_the_stages_of_dvc_yaml_count_and_in_its_order():
    lock = {name: {} for name in ("write", "train", "train@a", "train@b", "gone", "fetch", "tune@1")}
    dvc = {"stages": {"fetch": {}, "tune": {"foreach": [1]}, "train": {"foreach": "${systems}"}, "write": {}}}
    assert list(of_stages(lock, dvc, {"systems": ["b"]})) == ["fetch", "tune@1", "train@b", "write"]
    assert list(of_stages(lock, {"stages": {"train": {}}}, {})) == ["train"]
