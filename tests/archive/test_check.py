"""The images of an archive."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.archive.check import check_images
from pipeline.archive.tables import list_images
from pipeline.base.errors import BadInput


@pytest.fixture
def raw(tmp_path, demo_competition):
    """A copy of the drawn competition to change."""
    return Path(shutil.copytree(demo_competition.raw, tmp_path / "raw"))


def checked(raw):
    return check_images(raw, list_images(raw), np.copy)


def first(raw, folder="Training_Data/Cat/Masked_Train"):
    """The first image of a table, and the table's path."""
    path = raw / folder / "masked_info.csv"
    return pd.read_csv(path)["filename"][0], path


# The images


def spoil(fault, path):
    if fault == "missing":
        path.unlink()
    elif fault == "truncated":
        path.write_bytes(path.read_bytes()[:-500])
    elif fault == "empty":
        path.write_bytes(b"")
    elif fault == "text":
        path.write_text("not an image")
    elif fault == "255 x 256":
        Image.new("RGB", (255, 256)).save(path)


FAULTS = {
    "missing": "is missing",
    "truncated": "does not decode",
    "empty": "does not decode",
    "text": "does not decode",
    "255 x 256": "is 255 x 256 pixels, expected 256 x 256",
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    "folder", ["Training_Data/Dog/Unmasked_Train", "Training_Data/Dog/Masked_Train", "Testing_Data"]
)
def test_a_bad_image_is_named(raw, folder, fault):
    name, _ = first(raw, folder.replace("Unmasked", "Masked"))
    spoil(fault, raw / folder / name)
    with pytest.raises(BadInput) as refusal:
        checked(raw)
    assert f"{folder}/{name} {FAULTS[fault]}" in str(refusal.value)


def test_targets_and_masked_test_images_are_measured_in_the_rows_order(raw):
    rows = list_images(raw)
    images = check_images(raw, rows, np.copy)
    folders = [f"Training_Data/{row.get('class')}/Unmasked_Train" for row in rows.to_dict("records")[:24]]
    for folder, name, image in zip(folders + ["Testing_Data"] * 9, rows["filename"], images, strict=True):
        np.testing.assert_array_equal(image, np.asarray(Image.open(raw / folder / name).convert("RGB")))


def test_a_file_that_no_table_names_is_not_read(raw):
    (raw / "Testing_Data" / "notes.jpeg").write_text("not an image")
    assert len(checked(raw)) == 33


# As the user sees it


def far_box(raw):
    name, path = first(raw)
    lines = path.read_text().splitlines()
    lines[1] = ",".join([*lines[1].split(",")[:2], "182", "0", "0", "0"])
    path.write_text("\n".join(lines) + "\n")
    return name


def small_image(raw):
    name, _ = first(raw, "Testing_Data")
    spoil("255 x 256", raw / "Testing_Data" / name)
    return name


def long_name(raw):
    name, path = first(raw, "Testing_Data")
    path.write_text(path.read_text().replace(name, "n" * 300 + ".jpeg"))
    return "n" * 300


@pytest.mark.parametrize("fault", [far_box, small_image, long_name])
def test_fetch_ends_with_one_line_and_leaves_nothing(tmp_path, raw, run_stage, params_file, fault):
    culprit = fault(raw)
    work = tmp_path / "work"
    work.mkdir()
    params_file(work, **{"fetch.source": "archive", "fetch.archive": str(raw)})
    done = run_stage("fetch", work)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("fetch: "), done.stderr
    assert culprit[:80] in done.stderr  # a name of any length is quoted no further
    assert list((work / "data").iterdir()) == []
