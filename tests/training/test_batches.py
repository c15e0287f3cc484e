"""Batches: what is in them, and that a run from step k on sees what a run from step 0 sees there."""

from contextlib import chdir
from itertools import islice, product
from pathlib import Path

import cv2
import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from pipeline import paths
from pipeline.base.errors import BadInput
from pipeline.competition.boxes import BOX, LAST, hole_mask
from pipeline.competition.images import SIZE, decode_image, encode_image
from pipeline.training.batches import JITTER, shard_batches
from pipeline.training.data import TrainingData
from pipeline.training.shards import Record, write_shards
from tests.helpers.settings import settings_of

PAIRS, SEED = 5, 7
RECORDS = 5 * PAIRS  # record i is one of the five of pair i % 5
TRAIN_MASK = np.arange(PAIRS) != 3
TRAINED_ON = np.flatnonzero(np.tile(TRAIN_MASK, 5)).tolist()  # records
EPOCH = len(TRAINED_ON)


def write(folder: Path, images: list[bytes], boxes: np.ndarray) -> Path:
    """The folder, with shards of these records."""
    (folder / paths.AUGMENTED).mkdir(parents=True)
    records = [Record(image, box, i % PAIRS) for i, (image, box) in enumerate(zip(images, boxes, strict=True))]
    write_shards(folder / paths.AUGMENTED, ((i % 3, record) for i, record in enumerate(records)), 3, 5)
    return folder


@pytest.fixture(scope="module")
def boxes() -> np.ndarray:
    return np.random.default_rng(0).integers(0, LAST + 1, (RECORDS, 2, 2))


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    """Photographs with detail, as the competition has them: most .jpeg, one in three .png."""
    coarse = np.random.default_rng(1).integers(0, 256, (RECORDS, 24, 24, 3), dtype=np.uint8)
    sharp = [cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC) for image in coarse]
    return [encode_image(image, ".png" if i % 3 == 0 else ".jpeg") for i, image in enumerate(sharp)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory, images, boxes) -> Path:
    return write(tmp_path_factory.mktemp("shards"), images, boxes)


@pytest.fixture(scope="module")
def flat(tmp_path_factory, boxes) -> Path:
    """Shards whose images are each of one grey level, ten times the record's number."""
    images = [encode_image(np.full((SIZE, SIZE, 3), 10 * i, np.uint8), ".png") for i in range(RECORDS)]
    return write(tmp_path_factory.mktemp("flat"), images, boxes)


def dataset(start=0, size=1, seed=SEED, train_mask=TRAIN_MASK, random=False) -> tf.data.Dataset:
    """Batches from the shards in the current folder."""
    index = pd.DataFrame(index=range(PAIRS))
    data = TrainingData(index[train_mask], index[~train_mask], seed)
    settings = settings_of("pix2pix", batch_size=size, shuffle_buffer=7)
    return shard_batches(settings, data, start, random_holes=random)


def batches(folder: Path, steps: int, *args, **changes) -> list[tuple]:
    with chdir(folder):
        return list(islice(dataset(*args, **changes).as_numpy_iterator(), steps))


def records_in(found: list[tuple]) -> list[int]:
    """The records' numbers, for batches of the fixture `flat`."""
    return [int(round((image[0, 0, 0] + 1) * 127.5 / 10)) for _, target, _ in found for image in target]


def same(a: list[tuple], b: list[tuple]) -> bool:
    return len(a) == len(b) and all(
        (x == y).all() for one, other in zip(a, b, strict=True) for x, y in zip(one, other, strict=True)
    )


def crop_of(part: np.ndarray, image: np.ndarray) -> tuple[int, int] | None:
    """The position of a part in an image; None if it is no part of it."""
    for top, left in product(range(JITTER - SIZE + 1), repeat=2):
        crop = image[top : top + SIZE, left : left + SIZE]
        if (crop[100:108, 100:108] == part[100:108, 100:108]).all() and (crop == part).all():
            return top, left
    return None


def enlarged(image: np.ndarray) -> np.ndarray:
    nearest = ((np.arange(JITTER) + 0.5) * SIZE / JITTER).astype(int)
    return image[nearest][:, nearest]


def test_a_batch_is_two_float_images_between_minus_one_and_one_and_the_holes(shards):
    for size in (1, 4):
        for masked, target, hole in batches(shards, 3, size=size):
            assert hole.shape == (size, SIZE, SIZE, 1) and hole.dtype == np.float32
            assert masked.shape == target.shape == (size, SIZE, SIZE, 3)
            assert masked.dtype == target.dtype == np.float32
            assert masked.min() == -1 and target.min() >= -1 and target.max() <= 1 and target.std() > 0.1


def test_an_example_is_pillows_decoding_enlarged_and_cropped_with_both_boxes_black(shards, images, boxes):
    """Exactly: every pixel is the one that Pillow decodes; masked is -1 in the boxes, elsewhere it is the target."""
    pictures = [enlarged(decode_image(data, "an image")) for data in images]
    holes = [enlarged(mask) for mask in hole_mask(boxes)]
    seen, places = [], set()
    for masked, target, hole in batches(shards, EPOCH):
        exact = (target[0] + 1) * 127.5
        levels = np.round(exact)
        assert np.abs(exact - levels).max() < 1e-4
        crops = {i: crop for i, picture in enumerate(pictures) if (crop := crop_of(levels, picture))}
        ((i, (top, left)),) = crops.items()
        black = holes[i][top : top + SIZE, left : left + SIZE]
        assert (masked[0][black] == -1).all() and (masked[0][~black] == target[0][~black]).all()
        assert (target[0][black] > -1).any() and (hole[0, ..., 0] == black).all()
        seen.append(i)
        places.add((top, left))
    assert sorted(seen) == TRAINED_ON
    assert len(places) > EPOCH / 2


@pytest.mark.parametrize(
    ("size", "steps", "starts"),
    [(3, 15, (1, 6, 7, 13)), pytest.param(1, 43, (1, 3, 20, 21, 41), marks=pytest.mark.slow)],
)
def test_a_run_from_a_later_step_sees_what_one_from_the_first_step_sees_there(shards, size, steps, starts):
    assert EPOCH % 3 and 2 * EPOCH == 40  # batches of three cross the end of an epoch
    every = batches(shards, steps, size=size)
    for start in starts:
        assert same(batches(shards, steps - start, start, size), every[start:])


def test_every_epoch_has_each_record_of_the_training_pairs_once_and_no_other_in_its_own_order(flat):
    seen = np.reshape(records_in(batches(flat, 6 * EPOCH)), (6, EPOCH)).tolist()
    assert all(sorted(epoch) == TRAINED_ON for epoch in seen)
    assert len(set(map(tuple, seen))) == 6


def test_batches_of_several_images_are_full_and_cross_the_end_of_an_epoch(flat):
    one, three = (records_in(batches(flat, steps, size=size)) for steps, size in ((60, 1), (20, 3)))
    assert one == three


def test_epochs_differ_in_their_crops(shards):
    found = batches(shards, 30, train_mask=np.arange(PAIRS) == 0)  # six epochs of five records
    assert len({target.tobytes() for _, target, _ in found}) > 20


def test_random_holes_are_drawn_anew_by_seed_and_position_and_the_photographs_stay(shards):
    found, again, own = batches(shards, 60, random=True), batches(shards, 50, 10, random=True), batches(shards, 60)
    assert same(found[10:], again)
    assert len({hole.tobytes() for _, _, hole in found}) == 60
    for (masked, target, hole), (_, own_target, _) in zip(found, own, strict=True):
        assert (target == own_target).all()
        assert (masked == np.where(hole > 0, -1, target)).all()


@pytest.mark.slow
def test_random_holes_are_boxes_of_75_pixels_a_side_from_the_first_corner_to_the_last(tmp_path):
    """The picture's red is the row and its green the column, so each pixel shows where it comes from."""
    row, column = np.mgrid[:SIZE, :SIZE]
    picture = encode_image(np.stack([row, column, 0 * row], axis=-1).astype(np.uint8), ".png")
    shards = write(tmp_path, [picture] * RECORDS, np.zeros((RECORDS, 2, 2), int))
    corners = []
    for _, target, hole in batches(shards, 800, random=True):
        lines = (np.round((values + 1) * 127.5).astype(int) for values in (target[0, :, 0, 0], target[0, 0, :, 1]))
        (rows, i), (columns, j) = (np.unique(levels, return_index=True) for levels in lines)
        cropped = hole[0, i][:, j, 0].astype(np.uint8)  # in pixels of the picture, before it was enlarged
        _, _, (_, *found), _ = cv2.connectedComponentsWithStats(cropped, connectivity=4)
        assert 1 <= len(found) <= 2
        for left, top, width, height, area in found:
            if area != width * height or max(width, height) > BOX:
                continue  # two that meet
            corner = []
            for lines, start, length in ((rows, top, height), (columns, left, width)):
                first, last = lines[start], lines[start + length - 1]
                corner.append(first if first > lines[0] else last + 1 - BOX)  # by the side that is not cropped
                assert length == BOX or first == lines[0] or last == lines[-1]
            corners.append(corner)
    corners = np.array(corners)
    assert len(corners) > 900
    assert corners.min(axis=0).tolist() == [0, 0] and corners.max(axis=0).tolist() == [LAST, LAST]
    assert all(len(np.unique(corners[:, axis])) > 170 for axis in (0, 1))
    assert abs(np.corrcoef(corners.T)[0, 1]) < 0.1


def test_batches_depend_on_their_own_seed_not_on_tensorflows(shards):
    tf.random.set_seed(1)
    once, other = (batches(shards, 12, size=2, seed=seed) for seed in (1, 2))
    tf.random.set_seed(2)
    assert same(once, batches(shards, 12, size=2, seed=1))
    assert not any(same([a], [b]) for a, b in zip(once, other, strict=True))


@pytest.mark.parametrize("seed", [0, 2**31 - 1])
def test_the_least_and_the_greatest_seed_are_as_any_other(flat, seed):
    keras.utils.set_random_seed(seed)  # as the training does with its seed
    try:
        assert sorted(records_in(batches(flat, EPOCH, seed=seed))) == TRAINED_ON
    finally:
        keras.utils.set_random_seed(1)


def test_a_shard_damaged_before_or_while_it_is_read_ends_the_batches(tmp_path, images, boxes, monkeypatch):
    monkeypatch.chdir(write(tmp_path, images, boxes))
    found, path = dataset(), paths.AUGMENTED / "001-of-003.tfrecord"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(tf.errors.DataLossError):
        list(islice(found, EPOCH))
    with pytest.raises(BadInput, match="is damaged"):
        dataset()
