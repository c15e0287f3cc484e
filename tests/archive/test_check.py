"""The images of an archive."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.archive.check import BOXES, PHOTOGRAPHS, check_images, mismatch
from pipeline.archive.tables import list_images
from pipeline.base.errors import BadInput
from pipeline.competition.boxes import BOX
from pipeline.competition.images import read_image
from pipeline.competition.index import boxes_of, masked_path, target_path


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
    elif fault == "WebP":
        Image.open(path).save(path, "WEBP")


FAULTS = {
    "missing": "is missing",
    "truncated": "does not decode as an image",
    "empty": "is empty, expected a JPEG or PNG image",
    "text": "is a text file, expected a JPEG or PNG image",
    "255 x 256": "is 255 x 256 pixels, expected 256 x 256",
    "WebP": "is a WebP image, expected a JPEG or PNG image",
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    "folder", ["Training_Data/Dog/Unmasked_Train", "Training_Data/Dog/Masked_Train", "Testing_Data"]
)
def test_a_bad_image_is_named_by_its_path_in_the_archive(raw, folder, fault):
    name, _ = first(raw, folder.replace("Unmasked", "Masked"))
    spoil(fault, raw / folder / name)
    with pytest.raises(BadInput) as refusal:
        checked(raw)
    assert str(refusal.value).startswith(f"{folder}/{name} {FAULTS[fault]}")


def test_targets_and_masked_test_images_are_measured_in_the_rows_order(raw):
    rows = list_images(raw)
    images = check_images(raw, rows, np.copy)
    folders = [f"Training_Data/{row.get('class')}/Unmasked_Train" for row in rows.to_dict("records")[:24]]
    for folder, name, image in zip(folders + ["Testing_Data"] * 9, rows["filename"], images, strict=True):
        np.testing.assert_array_equal(image, np.asarray(Image.open(raw / folder / name).convert("RGB")))


def test_a_file_that_no_table_names_is_not_read(raw):
    (raw / "Testing_Data" / "notes.jpeg").write_text("not an image")
    assert len(checked(raw)) == 33


# What belongs together


def exchange(paths):
    """Exchange the bytes of two files."""
    a, b = (path.read_bytes() for path in paths)
    paths[0].write_bytes(b)
    paths[1].write_bytes(a)


def exchange_boxes(table, lines=(1, 2)):
    """Exchange the boxes of two lines of a table."""
    rows = [line.split(",") for line in table.read_text().splitlines()]
    a, b = lines
    rows[a][2:], rows[b][2:] = rows[b][2:], rows[a][2:]
    table.write_text("".join(",".join(row) + "\n" for row in rows))


def exchanged_targets(raw, rows):
    exchange([target_path(raw, row) for row in rows[:2]])
    return PHOTOGRAPHS, rows[:2]


def exchanged_masked(raw, rows):
    exchange([masked_path(raw, row) for row in rows[:2]])
    return PHOTOGRAPHS, rows[:2]


def exchanged_boxes(raw, rows):
    exchange_boxes(raw / "Training_Data" / "Cat" / "Masked_Train" / "masked_info.csv")
    return BOXES, rows[:2]


def exchanged_test_images(raw, rows):
    exchange([masked_path(raw, row) for row in rows[-9:-7]])
    return BOXES, rows[-9:-7]


def exchanged_test_boxes(raw, rows):
    exchange_boxes(raw / "Testing_Data" / "masked_info.csv")
    return BOXES, rows[-9:-7]


def no_hole(raw, rows):
    shutil.copy(target_path(raw, rows[0]), masked_path(raw, rows[0]))
    return BOXES, rows[:1]


def turned(raw, rows):
    path = target_path(raw, rows[0])
    Image.open(path).rotate(180).save(path)
    return PHOTOGRAPHS, rows[:1]


@pytest.mark.parametrize(
    "fault",
    [
        exchanged_targets,
        exchanged_masked,
        exchanged_boxes,
        exchanged_test_images,
        exchanged_test_boxes,
        no_hole,
        turned,
    ],
)
def test_rows_that_do_not_belong_together_are_named(raw, fault):
    kind, rows = fault(raw, list_images(raw).to_dict("records"))
    with pytest.raises(BadInput) as refusal:
        checked(raw)
    names = ", ".join(masked_path(Path(), row).as_posix() for row in rows)
    count = f"{len(rows)} row{'s' if len(rows) > 1 else ''}"
    assert str(refusal.value) == f"{kind} in {count}: {names}; correct these rows or get the archive again"


def test_all_rows_are_counted_and_the_first_are_named(raw):
    rows = list_images(raw).to_dict("records")
    exchange([target_path(raw, row) for row in rows[:2]])
    exchange([target_path(raw, row) for row in rows[6:8]])
    exchange_boxes(raw / "Testing_Data" / "masked_info.csv")
    with pytest.raises(BadInput) as refusal:
        checked(raw)
    names = [masked_path(Path(), row).as_posix() for row in rows]
    assert str(refusal.value).startswith(
        f"{PHOTOGRAPHS} in 4 rows: {names[0]}, {names[1]}, {names[6]} and 1 more; "
        f"{BOXES} in 2 rows: {names[-9]}, {names[-8]}; "
    )


def test_pairs_of_the_same_bytes_are_fine(raw):
    rows = list_images(raw).to_dict("records")
    table = raw / "Training_Data" / "Cat" / "Masked_Train" / "masked_info.csv"
    lines = table.read_text().splitlines()
    copied = lines[2].split(",")[:2] + lines[1].split(",")[2:]
    table.write_text("\n".join([*lines[:2], ",".join(copied), *lines[3:]]) + "\n")
    for path in (masked_path, target_path):
        shutil.copy(path(raw, rows[0]), path(raw, rows[1]))
    assert len(checked(raw)) == 33


def test_a_target_with_exif_orientation_belongs_to_the_image_as_opencv_turns_it(raw):
    row = next(row for row in list_images(raw).to_dict("records") if row["filename"].endswith(".jpeg"))
    path, exif = target_path(raw, row), Image.Exif()
    upright = read_image(path)
    exif[0x0112] = 6  # turned clockwise when it is shown
    Image.fromarray(np.rot90(upright)).save(path, quality=95, exif=exif)
    assert len(checked(raw)) == 33
    Image.fromarray(np.rot90(upright)).save(path, quality=95)
    with pytest.raises(BadInput, match=PHOTOGRAPHS):
        checked(raw)


@pytest.fixture
def pair(demo_competition):
    """The first pair's target and boxes, int32 [2, 2]."""
    rows = list_images(demo_competition.raw)
    return read_image(target_path(demo_competition.raw, rows.to_dict("records")[0])), boxes_of(rows)[0]


def mask(image, boxes, side=BOX, quality=95):
    """The image with black boxes, after JPEG."""
    image = image.copy()
    for row, column in boxes:
        image[row : row + side, column : column + side] = 0
    return cv2.imdecode(cv2.imencode(".jpeg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


@pytest.mark.parametrize("quality", [60, 75, 95, 100])
@pytest.mark.parametrize("side", [BOX - 1, BOX, BOX + 1])  # the real test images' holes have 74 pixels
def test_jpeg_and_a_pixel_of_a_holes_border_are_no_fault(pair, side, quality):
    target, boxes = pair
    masked = mask(target, boxes, side, quality)
    assert mismatch(masked, target, boxes) == "" and mismatch(masked, None, boxes) == ""


@pytest.mark.parametrize("shift", [(20, 0), (0, -20), (-20, 20)])
def test_a_hole_beside_its_box_is_a_fault(pair, shift):
    target = np.maximum(pair[0], 90)
    boxes = np.array([[40, 60], [120, 130]])
    for masked in (mask(target, boxes + shift), mask(target, boxes + [[0, 0], shift])):
        assert mismatch(masked, target, boxes) == BOXES and mismatch(masked, None, boxes) == BOXES


def test_a_black_photograph_hides_a_wrong_box_of_a_test_image_only(pair):
    """Its box lies where the photograph is black; of a pair the target shows that the hole is elsewhere."""
    target, boxes = np.maximum(pair[0], 90), np.array([[0, 0], [0, 100]])
    target[:BOX] = 0
    masked = mask(target, boxes + [[0, 0], [100, 0]])
    assert mismatch(masked, None, boxes) == "" and mismatch(masked, target, boxes) == BOXES
    black = np.zeros_like(target)
    assert mismatch(black, black, boxes) == ""


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
