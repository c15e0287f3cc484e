"""The whole pipeline under DVC, in repositories of the tests' own: a small drawn competition, a network of two filters.

One run is shared by most tests; what changes something does so in a copy of it.
"""

import json
import os
import re
import signal
import subprocess
from contextlib import chdir
from functools import partial
from pathlib import Path
from shutil import copytree

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml

from pipeline import evaluate, paths
from pipeline.base.files import sha256
from pipeline.competition import submission
from pipeline.competition.boxes import BOX, cut, hole_mask, put
from pipeline.competition.images import read_image, read_images
from pipeline.competition.index import boxes_of, filled_path, masked_path, read_index, target_path
from tests.helpers import browser
from tests.helpers.children import start, wait_for_checkpoint
from tests.helpers.scores import read_conventions, read_scores
from tests.helpers.stages import run_here

TESTS, STEPS, RESIDUAL_STEPS, VALIDATION = 6, 8, 12, 3
SYSTEMS = ["pix2pix", "residual"]
CURVES = [paths.CURVES / system / name for system in SYSTEMS for name in ("losses.csv", "validation.csv")]
SETTINGS = {
    "fetch.demo.pairs_per_class": 4,
    "fetch.demo.test_images": TESTS,
    "fetch.demo.seed": 5,
    "augment.shards": 5,
    "pix2pix.steps": STEPS,
    "pix2pix.batch_size": 4,
    "train.precision": "float32",
    "pix2pix.filters": 2,
    "pix2pix.lambda_gan": 0.0,  # compiled in two thirds of the time
    "split.validation_pairs": VALIDATION,
    "pix2pix.validate_every": 8,
    "pix2pix.checkpoint_every": 2,
    "residual.steps": RESIDUAL_STEPS,
    "residual.batch_size": 2,
    "residual.filters": 2,
    "residual.validate_every": 6,
    "residual.checkpoint_every": 2,
    "evaluate.samples": 3,
    "evaluate.test_samples": 4,
}
TRAINING = [f"train@{system}" for system in SYSTEMS]
TOY = Path(__file__).parent / "helpers" / "toy"
TOY_SETTINGS = {"steps": 4, "batch_size": 2, "validate_every": 2, "checkpoint_every": 2, "kernel": 3}
STAGES = ["fetch", "split", "augment", *TRAINING, "match", "predict", "write", "evaluate"]


def commit(folder: Path, run) -> None:
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", "a run")


def set_params(folder: Path, section: str | None, **changes) -> None:
    path = folder / paths.PARAMS
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    (content if section is None else content[section]).update(changes)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def left_in_work(folder: Path) -> list[Path]:
    """The files in the work folder but TensorBoard's and the notes of how long training took."""
    files = [path for path in (folder / paths.WORK).rglob("*") if path.is_file()]
    kept = (folder / paths.TIMES, folder / paths.TENSORBOARD)
    return [path for path in files if not any(path.is_relative_to(place) for place in kept)]


def stages_run(output: str) -> list[str]:
    return [stage for stage in STAGES if f"Running stage '{stage}'" in output]


def changed_stages(folder: Path, run) -> set[str]:
    """The stages that `dvc repro` would run again, those aside that only follow from them."""
    return set(json.loads(run(folder, "dvc", "status", "--json").stdout))


@pytest.fixture(scope="module")
def first(tmp_path_factory, new_project, run):
    """A repository after its first `dvc repro`, not yet committed, and what DVC printed."""
    folder = new_project(tmp_path_factory.mktemp("first"), SETTINGS)
    return folder, run(folder, "dvc", "repro").stdout


@pytest.fixture(scope="module")
def project(first) -> Path:
    """The repository after its first run. Look, do not touch."""
    return first[0]


@pytest.fixture
def scratch(project, tmp_path) -> Path:
    """A copy of the repository after its first run, to change."""
    return copytree(project, tmp_path / "copy", symlinks=True)


@pytest.fixture(scope="module")
def test_rows(project) -> pd.DataFrame:
    index = read_index(project / paths.INDEX)
    return index[index["split"] == "test"]


def validation_rows(folder: Path) -> pd.DataFrame:
    split = read_index(folder / paths.SPLIT)
    return split[split["split"] == "validation"]


def test_the_first_run_runs_every_stage_and_makes_everything(first):
    folder, output = first
    assert stages_run(output) == STAGES
    for name, path in vars(paths).items():
        if name.isupper() and path not in (paths.LEDGER, paths.COMPARISON, paths.COMPARISON_SHEET):
            assert (folder / path).exists(), name


def test_a_finished_run_leaves_no_checkpoint_and_nothing_half_written(project):
    assert not left_in_work(project)
    assert not list(project.rglob("*.partial"))


def test_git_gets_the_small_results_and_nothing_else(project, run):
    listing = run(project, "git", "status", "--porcelain", "--untracked-files=all").stdout
    new = {line[3:] for line in listing.splitlines()}
    small = (paths.METRICS, paths.SCORES, *CURVES, paths.SHEET, paths.TEST_SHEET, paths.PAGE)
    assert new == {"dvc.lock", *(path.as_posix() for path in small)}
    assert sum((project / name).stat().st_size for name in new) < 1_000_000


def test_the_submission_has_the_competitions_rows_in_the_order_of_the_test_table(project):
    table = pd.read_csv(project / paths.RAW / "Testing_Data" / "masked_info.csv", index_col=0)
    with (project / paths.SUBMISSION).open(encoding="utf-8", newline="") as file:
        assert file.readline() == "filename_box_pixel,value\n"
        for image in table.itertuples():
            for box, row, column in ((1, image.box1_row, image.box1_col), (2, image.box2_row, image.box2_col)):
                for i in range(row, row + BOX):
                    for j in range(column, column + BOX):
                        for c in range(3):
                            name, value = file.readline().rstrip("\n").rsplit(",", 1)
                            assert name == f"{image.filename}_box{box}_{i}_{j}_{c}"
                            assert 0 <= float(value) <= 1
        assert file.read() == ""
    assert len(table) == TESTS


def test_the_submission_passes_its_check_and_holds_the_filled_images(project, test_rows):
    rows, boxes = test_rows.to_dict("records"), boxes_of(test_rows)
    values = submission.read(project / paths.SUBMISSION, test_rows["filename"].tolist(), boxes)
    filled = read_images(filled_path(project / paths.FILLED, row) for row in rows)
    assert (values == submission.encode(filled, boxes, "bgr", "minmax")).all()


def test_known_pixels_of_the_filled_images_are_the_test_images_own(project, test_rows):
    assert len(list((project / paths.FILLED).iterdir())) == TESTS
    for row, boxes in zip(test_rows.to_dict("records"), boxes_of(test_rows), strict=True):
        masked = read_image(masked_path(project / paths.RAW, row))
        filled = read_image(filled_path(project / paths.FILLED, row))
        hole = hole_mask(boxes[None])[0]
        assert (filled[~hole] == masked[~hole]).all()
        assert (filled[hole] != masked[hole]).mean() > 0.5


def metrics(folder: Path) -> dict[str, dict[str, float]]:
    return json.loads((folder / paths.METRICS).read_text(encoding="utf-8"))


def test_the_metrics_are_numbers_for_the_submission_the_model_and_the_simple_fills(project, test_rows):
    found, shares = read_scores(project), metrics(project)["filled_from_twins"]
    assert found.keys() == {"validation", "test"} == shares.keys()
    simple = {"mean_colour", "telea", "harmonic"}
    assert found["validation"].keys() == {"submission", "blend", *SYSTEMS, *simple}
    assert found["test"].keys() == {"submission", *simple}
    for fills in found.values():
        subsets = fills["submission"].keys()
        for values in fills.values():
            assert values.keys() == subsets >= {"all"}
            assert all(isinstance(value, float) and 0 < value < 1 for value in values.values())
    assert set(test_rows["class"]) == {"Cat", "Dog", "Elephant", "Tiger"} <= found["test"]["submission"].keys()
    assert all(0 <= share < 1 for share in shares.values())


def test_runs_are_compared_by_a_few_numbers(project):
    found, all_scores = metrics(project), read_scores(project)
    expected = {f"validation.{name}": all_scores["validation"][name]["all"] for name in ("submission", *SYSTEMS)}
    expected["test.submission"] = all_scores["test"]["submission"]["all"]
    if "without_twins" in all_scores["validation"]["submission"]:
        expected["validation.without_twins"] = all_scores["validation"]["submission"]["without_twins"]
    shares = {f"filled_from_twins.{name}" for name in ("validation", "test")}
    numbers = {f"{name}.{key}": value for name, values in found.items() for key, value in values.items()}
    assert numbers.keys() == expected.keys() | shares and len(numbers) <= 10
    assert {name: numbers[name] for name in expected} == pytest.approx(expected)


def test_what_is_filled_from_twins_is_near_the_truth_and_listed(project, test_rows):
    table = pd.read_csv(project / paths.TWINS, keep_default_na=False)
    assert set(table["split"]) == {"validation", "test"}
    table = table[table["split"] == "test"]
    assert table["filename"].tolist() == test_rows["filename"].tolist()
    found = (table["twin"] != "").to_numpy()
    assert found.any() and not found.all()
    assert ((table["filled"] > 0) == found).all() and (table["filled"] <= table["hole"]).all()
    for name in table["twin"][found]:
        class_name, filename = name.split("/")
        assert target_path(project / paths.RAW, {"class": class_name, "filename": filename}).exists()
    rows = test_rows[found]
    filled = read_images(filled_path(project / paths.FILLED, row) for row in rows.to_dict("records"))
    truth = read_images(project / paths.TRUTH / name for name in rows["filename"])
    hole = hole_mask(boxes_of(rows))
    assert np.abs(filled[hole].astype(float) - truth[hole]).mean() < 8
    share = table["filled"].sum() / table["hole"].sum()
    assert metrics(project)["filled_from_twins"]["test"] == pytest.approx(share)


@pytest.mark.slow
def test_without_twins_only_what_they_filled_changes(scratch, project):
    set_params(scratch, "match", twins=False)
    run_here(scratch, "match", "predict")
    table = pd.read_csv(project / paths.TWINS, keep_default_na=False)
    for row in table[table["split"] == "test"].itertuples():
        name = f"{row.filename}.png"
        same = sha256(scratch / paths.FILLED / name) == sha256(project / paths.FILLED / name)
        assert same == (row.twin == "")
    assert (pd.read_csv(scratch / paths.TWINS)["filled"] == 0).all()


def test_the_test_score_is_what_the_organisers_snippet_would_give(project, test_rows):
    """OpenCV reads blue first and scales each channel of the whole image from its least to its greatest value."""
    answers = []
    for row in test_rows.itertuples():
        channels = cv2.split(cv2.imread(str(project / paths.TRUTH / row.filename)))
        image = np.stack([cv2.normalize(c.astype(np.float64), None, 0, 1, cv2.NORM_MINMAX) for c in channels], axis=-1)
        for i, j in ((row.box1_row, row.box1_col), (row.box2_row, row.box2_col)):
            answers.append(image[i : i + BOX, j : j + BOX].ravel())
    values = pd.read_csv(project / paths.SUBMISSION)["value"].to_numpy()
    expected = np.sqrt(np.mean((values - np.concatenate(answers)) ** 2))
    assert read_scores(project)["test"]["submission"]["all"] == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("which", ["validation", "test"])
def test_the_scores_of_the_parts_add_up_to_the_whole(project, test_rows, which):
    index = read_index(project / paths.INDEX)
    rows = test_rows if which == "test" else validation_rows(project)
    train = index.loc[index["split"] == "train", "group"]
    others = np.array([(train.drop(i, errors="ignore") == group).sum() for i, group in rows["group"].items()])
    by_class, by_twin = rows["class"].value_counts(), {"with_twins": others > 0, "without_twins": others == 0}
    by_twin = {name: where.sum() for name, where in by_twin.items() if where.any()}
    for values in read_scores(project)[which].values():
        assert values.keys() == {"all", *by_class.keys(), *by_twin}
        for parts in (by_class, by_twin):
            whole = sum(count * values[name] ** 2 for name, count in parts.items()) / len(rows)
            assert values["all"] == pytest.approx(np.sqrt(whole), rel=1e-9)


def test_the_truth_as_a_submission_scores_zero(scratch, project, test_rows):
    names, boxes = test_rows["filename"].tolist(), boxes_of(test_rows)
    truth = read_images(scratch / paths.TRUTH / name for name in names)
    (scratch / paths.SUBMISSION).unlink()
    submission.write(scratch / paths.SUBMISSION, names, boxes, submission.encode(truth, boxes, "bgr", "minmax"))
    run_here(scratch, "evaluate")
    found = read_scores(scratch)
    assert set(found["test"]["submission"].values()) == {0.0}
    assert found["test"]["telea"] == read_scores(project)["test"]["telea"]


@pytest.mark.parametrize(
    ("system", "steps", "validated"),
    [("pix2pix", STEPS, [STEPS]), ("residual", RESIDUAL_STEPS, [6, RESIDUAL_STEPS])],
)
def test_the_curves_the_card_and_the_index_tell_of_one_training(project, system, steps, validated):
    card = json.loads((project / paths.MODELS / system / "card.json").read_text(encoding="utf-8"))
    settings = yaml.safe_load((project / paths.PARAMS).read_text(encoding="utf-8"))
    shared = {name: settings["train"][name] for name in ("precision", "threads", "seed")}
    assert card["model"] == system and card["settings"] == settings[system] | shared
    assert {"code", "libraries", "python", "input_version", "best", "last"} <= card.keys()
    assert card["split"] == sha256(project / paths.SPLIT)
    curve = pd.read_csv(project / paths.CURVES / system / "validation.csv")
    assert curve["step"].tolist() == validated
    assert card["best"]["rmse"] == pytest.approx(curve["rmse"].min())
    assert card["last"]["step"] == steps
    losses = pd.read_csv(project / paths.CURVES / system / "losses.csv")
    assert losses["step"].tolist() == list(range(1, steps + 1)) and np.isfinite(losses).all(axis=None)
    events = sorted((project / paths.TENSORBOARD / system).iterdir())
    assert [int(path.suffix[1:]) for path in events] == validated


def test_the_split_is_the_index_with_whole_twin_groups_held_out(project):
    index, split = (read_index(project / path) for path in (paths.INDEX, paths.SPLIT))
    validation_mask = split["split"] == "validation"
    assert validation_mask.sum() >= VALIDATION
    assert split.assign(split=split["split"].mask(validation_mask, "train")).equals(index)
    assert not set(split.loc[validation_mask, "group"]) & set(split.loc[split["split"] == "train", "group"])


def validation_fills(folder: Path) -> dict[str, np.ndarray]:
    return dict(np.load(folder / paths.VALIDATION))


def test_the_validation_scores_are_those_of_the_filled_pairs(project):
    """Filled in blue, green, red, each channel of the whole image scaled to 0..1, whatever evaluate calls."""
    fills, pairs = validation_fills(project), validation_rows(project)
    truth = [cv2.imread(str(target_path(project / paths.RAW, row))) for row in pairs.to_dict("records")]
    masked = [cv2.imread(str(masked_path(project / paths.RAW, row))) for row in pairs.to_dict("records")]
    assert fills.keys() == {"submission", "blend", *SYSTEMS}
    for name, values in fills.items():
        squares = []
        for known, target, boxes, value in zip(masked, truth, boxes_of(pairs), values, strict=True):
            filled = known.copy()
            for (i, j), box in zip(boxes, value, strict=True):
                filled[i : i + BOX, j : j + BOX] = box[..., ::-1]
            scaled = [
                cv2.merge([cv2.normalize(c.astype(float), None, 0, 1, cv2.NORM_MINMAX) for c in cv2.split(image)])
                for image in (filled, target)
            ]
            off = scaled[0] - scaled[1]
            squares += [off[i : i + BOX, j : j + BOX] ** 2 for i, j in boxes]
        assert read_scores(project)["validation"][name]["all"] == pytest.approx(np.sqrt(np.mean(squares)), abs=1e-5)


def test_the_validation_pairs_are_listed_with_their_twins_and_no_pair_is_its_own(project):
    fills, table = validation_fills(project), pd.read_csv(project / paths.TWINS, keep_default_na=False)
    pairs, table = validation_rows(project), table[table["split"] == "validation"]
    assert table[["class", "filename"]].to_numpy().tolist() == pairs[["class", "filename"]].to_numpy().tolist()
    assert (table["twin"] != table["class"] + "/" + table["filename"]).all()
    assert table["hole"].tolist() == hole_mask(boxes_of(pairs)).sum(axis=(1, 2)).tolist()
    unlike = (fills["submission"] != fills["blend"]).any(axis=(1, 2, 3, 4))
    assert (unlike <= (table["filled"] > 0).to_numpy()).all()
    share = table["filled"].sum() / table["hole"].sum()
    assert metrics(project)["filled_from_twins"]["validation"] == pytest.approx(share)


def share_of_least_error(fill: np.ndarray, other: np.ndarray, truth: np.ndarray) -> float:
    """The weight from 0 to 1 of the first of two fills in their mean, in closed form."""
    off = fill.astype(float) - other
    return np.clip((off * (truth.astype(float) - other)).sum() / max((off**2).sum(), 1), 0, 1)


def test_fitted_weights_are_those_of_least_error_and_no_pair_is_scored_with_its_own(project):
    fills, pairs = validation_fills(project), validation_rows(project)
    targets = read_images(target_path(project / paths.RAW, row) for row in pairs.to_dict("records"))
    one, other, truth = fills["pix2pix"], fills["residual"], cut(targets, boxes_of(pairs))
    weights = json.loads((project / paths.BLEND).read_text(encoding="utf-8"))
    assert list(weights) == SYSTEMS and sum(weights.values()) == pytest.approx(1)
    assert weights["pix2pix"] == pytest.approx(share_of_least_error(one, other, truth), abs=1e-9)
    for odd in (0, 1):
        here = (pairs["group"] % 2 == odd).to_numpy()
        share = share_of_least_error(one[~here], other[~here], truth[~here])
        expected = np.clip(share * one[here] + (1 - share) * other[here], 0, 255)
        assert np.abs(fills["blend"][here] - expected).max(initial=0) < 0.5 + 1e-6


def predicted(folder: Path, **settings) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What predict gives with these settings and without twins: the fills of the pairs, the filled test images."""
    set_params(folder, "match", twins=False)
    set_params(folder, "predict", **settings)
    run_here(folder, "match", "predict")
    return validation_fills(folder), read_images(sorted((folder / paths.FILLED).iterdir()))


@pytest.mark.slow
def test_given_weights_blend_the_systems(scratch):
    fills, images = predicted(scratch, blend={"residual": 0.75, "pix2pix": 0.25})
    assert (fills["blend"] == np.round(0.25 * fills["pix2pix"] + 0.75 * fills["residual"])).all()
    assert (fills["submission"] == fills["blend"]).all()
    alone = []
    for name, other in (SYSTEMS, SYSTEMS[::-1]):
        again, one = predicted(scratch, blend={name: 1, other: 0})
        assert (again["blend"] == fills[name]).all()
        alone.append(one)
    assert (images == np.round(0.25 * alone[0] + 0.75 * alone[1])).all()
    assert (fills["pix2pix"] != fills["residual"]).any() and (alone[0] != alone[1]).any()


def test_one_system_alone_is_the_submission(scratch, project):
    set_params(scratch, None, systems=["residual"])
    fills, _ = predicted(scratch)
    run_here(scratch, "write", "evaluate")
    assert (fills["submission"] == validation_fills(project)["residual"]).all()
    assert json.loads((scratch / paths.BLEND).read_text(encoding="utf-8")) == {"residual": 1}
    found = read_scores(scratch)["validation"]
    assert found["submission"] == found["residual"] and not found.keys() & {"pix2pix", "blend"}


def insert(path: Path, before: str, text: str) -> None:
    content = path.read_text(encoding="utf-8")
    assert content.count(before) == 1
    path.write_text(content.replace(before, text + before), encoding="utf-8")


@pytest.fixture
def with_toy(scratch) -> Path:
    """The repository with one more system, `toy`, and a recipe for it and residual."""
    copytree(TOY, scratch / "pipeline" / "systems" / "toy")
    (scratch / "pipeline" / "systems" / "toy" / "__init__.py").touch()
    insert(
        scratch / "pipeline" / "params.py",
        "class Predict(Section):",
        "class Toy(SystemSettings):\n    kernel: Count\n\n\n",
    )
    insert(scratch / "pipeline" / "params.py", "    predict: Predict\n", "    toy: Toy\n")
    settings = "".join(f"  {name}: {value}\n" for name, value in TOY_SETTINGS.items())
    insert(scratch / "recipes" / "defaults.yaml", "predict:\n", f"toy:\n{settings}\n")
    recipe = yaml.safe_load((scratch / paths.PARAMS).read_text(encoding="utf-8"))
    recipe |= {"recipe": "toy", "systems": ["toy", "residual"]}
    (scratch / "recipes" / "toy.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return scratch


@pytest.mark.slow
def test_an_added_system_is_trained_fills_is_scored_and_compared_and_one_that_is_left_out_goes(
    with_toy, project, tmp_path, run
):
    """Added as pipeline/systems/__init__.py says: a folder, a section, a recipe. The third is not trained again."""
    commit(with_toy, run)
    run(with_toy, "python", "-m", "pipeline.recipe", "toy")
    output = run(with_toy, "dvc", "repro").stdout
    assert "Running stage 'train@toy'" in output and stages_run(output) == ["predict", "write", "evaluate"]
    for folder in (paths.MODELS, paths.CURVES):
        assert {path.name for path in (with_toy / folder).iterdir()} == {"toy", "residual"}
    found, fills = read_scores(with_toy)["validation"], validation_fills(with_toy)
    assert 0 < found["toy"]["all"] < 1 and not found.keys() & {"pix2pix"}
    assert fills.keys() == {"submission", "blend", "toy", "residual"}
    assert (fills["residual"] == validation_fills(project)["residual"]).all()
    curve = pd.read_csv(with_toy / paths.CURVES / "toy" / "validation.csv")
    assert curve["step"].tolist() == [2, 4]
    assert "| toy " in run(with_toy, "python", "-m", "pipeline.compare").stdout

    commit(with_toy, run)
    clone = tmp_path / "clone"
    run(tmp_path, "git", "clone", "--quiet", str(with_toy), "clone")
    run(clone, "dvc", "cache", "dir", "--local", str(with_toy / ".dvc" / "cache"))
    run(clone, "dvc", "checkout")
    assert stages_run(run(clone, "dvc", "repro").stdout) == []
    assert "up to date" in run(clone, "dvc", "status").stdout
    assert not (clone / paths.MODELS / "pix2pix").exists() and not (clone / paths.CURVES / "pix2pix").exists()


@pytest.mark.slow
def test_an_experiment_overrides_single_settings(scratch, run):
    commit(scratch, run)
    output = run(scratch, "dvc", "exp", "run", "-S", "evaluate.samples=2", "-S", "cyclegan.learning_rate=1e-5").stdout
    assert stages_run(output) == ["evaluate"]


@pytest.mark.slow
def test_an_experiment_trains_again_and_its_settings_back_restore_the_first_results(scratch, project, run):
    """As the README has it; the workspace is left with what came of it."""
    commit(scratch, run)
    output = run(scratch, "dvc", "exp", "run", "-S", "systems=[residual]", "-S", "residual.steps=3").stdout
    assert stages_run(output) == ["train@residual", "predict", "write", "evaluate"]
    card = json.loads((scratch / paths.MODELS / "residual" / "card.json").read_text(encoding="utf-8"))
    assert card["last"]["step"] == 3 and validation_fills(scratch).keys() == {"residual", "blend", "submission"}
    # back to both: what was trained and filled with these settings before comes back
    run(scratch, "git", "checkout", "--quiet", "--", str(paths.PARAMS))
    assert set(stages_run(run(scratch, "dvc", "repro").stdout)) <= {"evaluate"}
    for name in (*(paths.MODELS / system / "best.weights.h5" for system in SYSTEMS), *CURVES, paths.BLEND):
        assert sha256(scratch / name) == sha256(project / name), name
    assert read_scores(scratch) == read_scores(project)


def test_another_setting_of_one_system_leaves_the_other_alone(scratch, run):
    set_params(scratch, "residual", steps=RESIDUAL_STEPS + 1)
    assert changed_stages(scratch, run) == {"train@residual"}


def test_the_page_has_the_scores_of_the_metrics(project):
    page = (project / paths.PAGE).read_text(encoding="utf-8")
    assert all(f"{value['all']:.4f}" in page for fills in read_scores(project).values() for value in fills.values())
    assert f'src="{paths.SHEET.name}"' in page and cv2.imread(str(project / paths.SHEET)).std() > 10


def test_the_top_of_the_page_has_the_recipe_the_devices_and_the_settings_that_differ(project):
    page = (project / paths.PAGE).read_text(encoding="utf-8")
    top = re.sub("<[^>]*>", "", page[page.index("<h1>") : page.index("<h2>")])
    assert "Recipe demo, trained on 1 x CPU." in top
    for line in ("residual.steps: 12 (3000)", "train.precision: float32 (mixed_bfloat16)", "augment.shards: 5 (8)"):
        assert line in top
    assert "fetch.demo.pairs_per_class: 4 (100)" in top and "submission" not in top and "vanilla_gan" not in top


def test_the_test_sheet_shows_every_class_and_the_number_that_is_asked_for(scratch, test_rows):
    """A sheet has two samples a row, each of three images of 144 pixels."""
    assert cv2.imread(str(scratch / paths.TEST_SHEET)).shape[0] > 2 * 144
    twins = pd.read_csv(scratch / paths.TWINS, keep_default_na=False).query("split == 'test'")
    assert (twins["twin"] != "").any()
    with chdir(scratch):
        filled = evaluate.load_test(read_index(paths.SPLIT), partial(submission.encode, channels="bgr", scale="minmax"))
        plain = evaluate.draw(filled, np.arange(TESTS), lambda _: "")
        sheet = evaluate.make_test_sheet(filled, 100)
    assert sheet.shape[1] == plain.shape[1] and sheet.shape[0] > plain.shape[0] > TESTS // 2 * 144


def test_a_real_browser_shows_the_page_whole_and_loads_nothing_from_the_network(project, tmp_path):
    if not browser.CHROMIUM:
        pytest.skip("no Chromium is installed; on Debian `apt-get install chromium`")
    desk = browser.look(project / paths.PAGE, tmp_path, 1300)
    phone = browser.look(project / paths.PAGE, tmp_path, 400, dark=True)
    fills = [len(fills) for fills in read_scores(project).values()]
    curves = sum(len(pd.read_csv(project / path).columns) - 1 for path in CURVES)
    for shown in (desk, phone):
        assert shown["tables"] == [*(count + 1 for count in fills), len(SYSTEMS) + 4]
        assert len(shown["pictures"]) == 2 and min(shown["pictures"]) > 0
        assert len(shown["curves"]) == curves and shown["right"] <= shown["width"]
        assert shown["loaded"] == []
    assert len(set(desk["curves"])) == 3 and len(set(phone["curves"])) == 1 and phone["width"] <= 400
    assert desk["ink"] != phone["ink"]


def test_the_submission_is_scored_against_a_truth_in_each_convention(project):
    found, score = read_conventions(project), read_scores(project)["validation"]["submission"]["all"]
    assert found.keys() == {"bgr minmax", "bgr unit", "rgb minmax", "rgb unit"}
    pairs = validation_rows(project)
    boxes, values = boxes_of(pairs), validation_fills(project)["submission"]
    truth = cut(read_images(target_path(project / paths.RAW, row) for row in pairs.to_dict("records")), boxes)
    masked = read_images(masked_path(project / paths.RAW, row) for row in pairs.to_dict("records"))
    sent = submission.encode(put(values, masked, boxes), boxes, "bgr", "minmax")
    assert found["bgr minmax"] == score
    assert found["rgb unit"] == pytest.approx(np.sqrt(np.mean((sent - truth / 255) ** 2)), abs=1e-5)


def test_a_second_run_runs_nothing(project, run):
    before = sha256(project / "dvc.lock")
    assert stages_run(run(project, "dvc", "repro").stdout) == []
    assert sha256(project / "dvc.lock") == before


@pytest.mark.parametrize("command", ["metrics show", "plots show --out {folder}", "dag"])
def test_dvc_shows_the_results(project, run, tmp_path, command):
    done = run(project, "dvc", *command.format(folder=tmp_path).split())
    if command == "metrics show":
        assert "metrics.json" in done.stdout and "validation.pix2pix" in done.stdout
    if command.startswith("plots"):
        assert "reports/curves/residual/validation.csv" in (tmp_path / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_another_scale_reruns_write_and_evaluate_alone(scratch, project, run):
    commit(scratch, run)
    set_params(scratch, "submission", scale="unit")
    assert changed_stages(scratch, run) == {"write", "evaluate"}
    run_here(scratch, "write", "evaluate")
    assert sha256(scratch / paths.SUBMISSION) != sha256(project / paths.SUBMISSION)
    difference = run(scratch, "dvc", "metrics", "diff").stdout
    assert "test.submission" in difference and "metrics.json" in difference
    assert read_scores(scratch) != read_scores(project)


@pytest.mark.slow
def test_a_training_done_before_is_not_done_again(scratch, project, run):
    """As when settings are changed and changed back: the earlier results come from DVC's cache of runs."""
    (scratch / "dvc.lock").unlink()
    output = run(scratch, "dvc", "repro", "train").stdout
    assert stages_run(output) == [] and all(f"Stage '{stage}' is cached" in output for stage in TRAINING)
    for name in (*(paths.MODELS / system / "best.weights.h5" for system in SYSTEMS), *CURVES):
        assert sha256(scratch / name) == sha256(project / name)


@pytest.mark.slow
def test_a_setting_that_there_is_not_ends_the_run_in_one_clear_line(scratch, run):
    set_params(scratch, "submission", chanels="rgb")
    done = run(scratch, "dvc", "repro", check=False)
    assert done.returncode != 0 and stages_run(done.stdout) == ["write"]
    ours = [line for line in done.stdout.splitlines() if line.startswith("write:")]
    assert ours == ["write: params.yaml: submission.chanels is not a setting (did you mean channels?)"]
    assert "Traceback" not in done.stdout


def train_process(folder: Path) -> int | None:
    """The id of the process that runs a train stage in this folder."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
            if command[1:3] == [b"-m", b"pipeline.train"] and (entry / "cwd").resolve() == folder.resolve():
                return int(entry.name)
        except OSError:  # gone, or another user's
            continue
    return None


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="finds the process to kill in /proc")
@pytest.mark.parametrize(("system", "steps"), [("pix2pix", STEPS), ("residual", RESIDUAL_STEPS)])
def test_killed_while_training_and_run_again_it_ends_in_the_same_bytes(
    tmp_path, project, new_project, run, environment, system, steps
):
    """In a repository of its own, so this is the second clean run as well."""
    folder = new_project(tmp_path, SETTINGS)
    command = ["dvc", "repro", f"train@{system}"]
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    ) as repro:
        wait_for_checkpoint(folder / paths.WORK, repro)
        os.kill(train_process(folder), signal.SIGKILL)
        assert repro.wait(60) != 0
    kept = [int(path.stem.removeprefix("step-")) for path in (folder / paths.WORK).rglob("step-*.npz")]
    assert kept and max(kept) < steps and not (folder / paths.MODELS / system).exists()

    output = run(folder, "dvc", "repro").stdout
    assert f"resuming after step {max(kept)}" in output
    assert stages_run(output) == STAGES[3:]
    for name in (paths.SUBMISSION, paths.METRICS, *CURVES, paths.PAGE, Path("dvc.lock")):
        assert sha256(folder / name) == sha256(project / name), name
    assert not left_in_work(folder)


@pytest.mark.slow
def test_all_of_it_run_once_more_gives_the_same_bytes(scratch, project, run):
    assert stages_run(run(scratch, "dvc", "repro", "--force").stdout) == STAGES
    for name in (paths.SUBMISSION, paths.METRICS, paths.SHEET, paths.PAGE, Path("dvc.lock")):
        assert sha256(scratch / name) == sha256(project / name), name


def test_compare_shows_the_systems_of_the_run_side_by_side(scratch, run, test_rows):
    done = run(scratch, "python", "-m", "pipeline.compare")
    page = (scratch / paths.COMPARISON).read_text(encoding="utf-8")
    found = metrics(scratch)["validation"]
    for system in SYSTEMS:
        (line,) = [line for line in page.splitlines() if line.startswith(f"| {system} ")]
        assert line in done.stdout and f"{found[system]:.4f}" in line and "1 x CPU" in line
    assert f"({paths.COMPARISON_SHEET.name})" in page
    picture = cv2.imread(str(scratch / paths.COMPARISON_SHEET))
    assert picture.shape[1] > 4 * 100 and len(np.unique(picture)) > 100


def edit(folder: Path, *modules: str) -> None:
    """Change these modules' bytes, but not what they do."""
    for module in modules:
        with (folder / "pipeline" / module).open("a", encoding="utf-8") as file:
            file.write("\n# another comment\n")


@pytest.mark.slow
def test_an_edit_reruns_the_stages_whose_outputs_it_can_change_and_no_other(scratch, run):
    commit(scratch, run)
    (scratch / "pipeline" / "systems" / "residual" / "__pycache__").mkdir(exist_ok=True)
    (scratch / "pipeline" / "systems" / "residual" / "__pycache__" / "network.pyc").write_bytes(b"compiled")
    edit(scratch, "base/progress.py", "params.py", "paths.py", "upload.py", "kaggle/ledger.py")
    assert changed_stages(scratch, run) == set()
    edit(scratch, "systems/cyclegan/savedmodel.py", "systems/__init__.py")
    assert changed_stages(scratch, run) == {"predict"}
    edit(scratch, "systems/residual/network.py")
    assert changed_stages(scratch, run) == {"train@residual", "predict"}


@pytest.mark.slow
def test_a_stopped_training_resumes_after_an_edit_that_cannot_change_it(scratch, environment):
    set_params(scratch, "residual", steps=200, validate_every=200)
    command = ["python", "-m", "pipeline.train", "residual"]
    process = start(command, scratch, environment)
    wait_for_checkpoint(scratch / paths.WORK, process, seconds=200)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 130, output
    kept = max(int(path.stem.removeprefix("step-")) for path in (scratch / paths.WORK).rglob("step-*.npz"))
    assert output.splitlines()[-1].startswith(f"train: interrupted after step {kept}, which was saved; ")
    edit(scratch, "base/progress.py", "params.py", "systems/cyclegan/training.py")
    process = start(command, scratch, environment)
    assert any(line.startswith(f"train: resuming after step {kept}") for line in process.stdout)
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_without_validation_pairs_everything_is_trained_on_and_the_last_weights_fill(scratch, run):
    commit(scratch, run)
    set_params(scratch, "split", validation_pairs=0)
    set_params(scratch, "predict", blend={"pix2pix": 0.25, "residual": 0.75})
    output = run(scratch, "dvc", "repro").stdout
    assert "no validation pairs were held out" in output and stages_run(output) == ["split", *STAGES[3:]]
    found = metrics(scratch)
    assert found.keys() == {"test", "filled_from_twins"} and found["filled_from_twins"].keys() == {"test"}
    assert not read_conventions(scratch)
    for system, steps in zip(SYSTEMS, (STEPS, RESIDUAL_STEPS), strict=True):
        card = json.loads((scratch / paths.MODELS / system / "card.json").read_text(encoding="utf-8"))
        assert card["best"] is None and card["last"] == {"step": steps} and list(card["weights"]) == ["last.weights.h5"]
        assert [path.name for path in (scratch / paths.CURVES / system).iterdir()] == ["losses.csv"]
    assert "up to date" in run(scratch, "dvc", "status").stdout and (scratch / paths.SHEET).exists()
    assert "there are no validation pairs" in run(scratch, "python", "-m", "pipeline.compare", check=False).stdout
