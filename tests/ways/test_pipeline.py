"""All stages on the real archive, or on a small one with the same layout."""

import json
import math
from shutil import copytree

import pandas as pd
import pytest

from pipeline import paths
from pipeline.competition import submission
from pipeline.competition.index import boxes_of, read_index
from tests.helpers.scores import read_scores

SETTINGS = {
    "fetch.source": "archive",
    "pix2pix.steps": 8,
    "pix2pix.batch_size": 4,
    "train.precision": "float32",
    "pix2pix.filters": 2,
    "split.validation_pairs": 24,
    "pix2pix.validate_every": 4,
    "residual.steps": 40,
    "residual.filters": 8,
}
STAGES = ("fetch", "split", "augment", "train pix2pix", "train residual", "match", "predict", "write", "evaluate")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory, real_archive, params_file, run_stage, repo):
    """A folder after all stages."""
    folder = tmp_path_factory.mktemp("real")
    params_file(folder, **SETTINGS, **{"fetch.archive": str(real_archive)})
    copytree(repo / paths.RECIPES, folder / paths.RECIPES)
    for stage in STAGES:
        done = run_stage(stage, folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def metrics(folder) -> dict:
    """The scores by set, fill and subset, and the shares filled from twins."""
    shares = json.loads((folder / paths.METRICS).read_text(encoding="utf-8"))["filled_from_twins"]
    return read_scores(folder) | {"filled_from_twins": shares}


def test_the_submission_has_all_its_rows(folder):
    with (folder / paths.SUBMISSION).open("rb") as file:
        assert file.readline() == b"filename_box_pixel,value\n"
        assert sum(1 for _ in file) == 6_750_000


def test_the_submission_passes_its_check(folder):
    index = read_index(folder / paths.INDEX)
    test = index[index["split"] == "test"]
    assert len(test) == 200
    values = submission.read(folder / paths.SUBMISSION, test["filename"].tolist(), boxes_of(test))
    assert values.shape == (200, 2, 75, 75, 3) and values.std() > 0


def test_every_test_image_is_filled(folder):
    table = pd.read_csv(folder / paths.RAW / "Testing_Data" / "masked_info.csv", index_col=0)
    names = {path.name for path in (folder / paths.FILLED).iterdir()}
    assert names == {f"{name}.png" for name in table["filename"]}


def test_only_the_validation_pairs_have_a_score_and_each_is_a_number(metrics):
    assert metrics.keys() == {"validation", "filled_from_twins"}
    for values in metrics["validation"].values():
        assert all(math.isfinite(value) and 0 < value < 1 for value in values.values())


def test_telea_is_better_than_one_colour_on_real_photographs(metrics):
    telea, flat = (metrics["validation"][name]["all"] for name in ("telea", "mean_colour"))
    assert 0.12 < telea < flat < 0.32
    assert telea < 0.9 * flat


def test_the_harmonic_fill_is_better_than_telea_on_real_photographs(metrics):
    harmonic, telea = (metrics["validation"][name]["all"] for name in ("harmonic", "telea"))
    assert 0.12 < harmonic < telea


def test_twins_fill_a_share_and_never_make_the_submission_worse(metrics):
    shares, scores = metrics["filled_from_twins"], metrics["validation"]
    assert shares.keys() == {"validation", "test"} and all(0 <= share < 1 for share in shares.values())
    model = scores["blend"]["all"]
    assert scores["submission"]["all"] < model if shares["validation"] else scores["submission"]["all"] == model
