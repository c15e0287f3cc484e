"""Facts about the real competition, whose archive PHOTO_RECONSTRUCTION_ARCHIVE names."""

from collections import Counter
from itertools import product

import numpy as np
import pytest

from pipeline.archive.check import check_images
from pipeline.archive.tables import list_images
from pipeline.archive.unpack import contents, unpack
from pipeline.competition.boxes import hole_mask
from pipeline.competition.images import read_images
from pipeline.competition.index import COLUMNS, boxes_of, masked_path, read_index, read_pairs
from pipeline.split import choose_pairs
from pipeline.twins.groups import group_twins, thumbnail

CLASSES = ["Cat", "Dog", "Elephant", "Tiger"]


@pytest.fixture(scope="module")
def raw(real_archive, tmp_path_factory):
    folder = tmp_path_factory.mktemp("real") / "raw"
    folder.mkdir()
    unpack(real_archive, contents(real_archive), folder)
    return folder


@pytest.fixture(scope="module")
def index(raw):
    rows = list_images(raw)
    thumbnails = np.stack(check_images(raw, rows, thumbnail))
    return rows.assign(group=group_twins(rows, thumbnails))[COLUMNS]


@pytest.fixture(scope="module")
def tests(raw, index):
    """The test images, uint8 [200, 256, 256, 3], and their boxes, int32 [200, 2, 2]."""
    part = index[index["split"] == "test"]
    return read_images(masked_path(raw, row) for row in part.to_dict("records")), boxes_of(part)


def test_each_class_has_its_pairs(raw, index):
    train = index[index["split"] == "train"]
    counts = train["class"].value_counts().to_dict()
    assert sorted(counts) == CLASSES
    for name, half in product(CLASSES, ("Unmasked_Train", "Masked_Train")):
        files = (raw / "Training_Data" / name / half).iterdir()
        assert counts[name] == sum(path.suffix != ".csv" for path in files)
    if len(train) == 7000:
        assert set(counts.values()) == {1750}


def test_there_are_200_test_images_50_a_class(index):
    tests = index[index["split"] == "test"]
    assert len(tests) == 200
    assert tests["class"].value_counts().to_dict() == dict.fromkeys(CLASSES, 50)
    assert tests["filename"].is_unique


def test_the_test_images_are_not_sorted_by_name(index):
    names = index["filename"][index["split"] == "test"].tolist()
    assert names != sorted(names)


def test_boxes_overlap_in_some_images(index):
    apart = np.abs(np.diff(boxes_of(index), axis=1)[:, 0])
    share = (apart < 75).all(axis=1).mean()
    assert 0.35 < share < 0.5


def test_a_test_images_holes_are_dark_but_not_black(tests):
    images, boxes = tests
    inside = images[hole_mask(boxes)]
    assert 1 < inside.mean() < 8 and inside.max() > 20
    assert images[~hole_mask(boxes)].mean() > 60


def test_a_masked_image_nearly_equals_its_target_outside_the_boxes(raw, index):
    masked, target, boxes = read_pairs(raw, index[index["split"] == "train"][:40])
    known = ~hole_mask(boxes)
    error = np.abs(masked.astype(int) - target)
    assert 0 < error[known].mean() < 2 and error[~known].mean() > 50


def test_twins_are_few_and_groups_small(index):
    sizes = Counter(index["group"])
    assert len(sizes) < len(index)  # there are some
    assert max(sizes.values()) < 40 and len(sizes) > 0.8 * len(index)


def test_a_split_keeps_twins_together(index):
    held_out = choose_pairs(index, 40, 7)
    train = (index["split"] == "train").to_numpy()
    assert 40 <= held_out.sum() < 80
    assert not set(index["group"][held_out]) & set(index["group"][train & ~held_out])


def test_fetch_makes_the_same(tmp_path, real_archive, raw, index, run_stage, params_file):
    params_file(tmp_path, **{"fetch.source": "archive", "fetch.archive": str(real_archive)})
    done = run_stage("fetch", tmp_path)
    assert done.returncode == 0, done.stderr
    counts = index["split"].value_counts()
    assert f"fetch: {counts['train']} training pairs and {counts['test']} test images" in done.stderr
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    assert {p.name for p in (tmp_path / "data").iterdir()} == {"raw", "truth", "index.csv"}
    assert read_index(tmp_path / "data" / "index.csv").to_dict("list") == index.to_dict("list")
    files = {p.relative_to(raw) for p in raw.rglob("*")}
    assert {p.relative_to(tmp_path / "data" / "raw") for p in (tmp_path / "data" / "raw").rglob("*")} == files
