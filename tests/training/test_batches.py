"""Batches: what is in them, and that a run that begins at step k sees what one from 0 sees there."""

from itertools import islice

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.competition.boxes import LAST, hole
from pipeline.competition.images import SIZE, decode_image, encode_image
from pipeline.training.batches import JITTER, training_batches
from pipeline.training.shards import Record, list_shards, write_shards

PAIRS, HELD, SEED = 12, (3, 8), 7
KEPT = PAIRS - len(HELD)
KEEP = np.array([pair not in HELD for pair in range(PAIRS)])


def write(folder, images: list[bytes], boxes: np.ndarray) -> list[str]:
    records = [Record(image, box, pair) for pair, (image, box) in enumerate(zip(images, boxes, strict=True))]
    assert len(list(write_shards(folder, ((pair % 3, record) for pair, record in enumerate(records)), 3))) == PAIRS
    return list_shards(folder)


@pytest.fixture(scope="module")
def boxes() -> np.ndarray:
    return np.random.default_rng(0).integers(0, LAST + 1, (PAIRS, 2, 2))


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    """Photographs with detail, as the competition has them: most .jpeg, one in three .png."""
    rng = np.random.default_rng(1)
    coarse = [rng.integers(0, 256, (24, 24, 3), dtype=np.uint8) for _ in range(PAIRS)]
    sharp = [cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC) for image in coarse]
    return [encode_image(image, ".png" if pair % 3 == 0 else ".jpeg") for pair, image in enumerate(sharp)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory, images, boxes) -> list[str]:
    return write(tmp_path_factory.mktemp("shards"), images, boxes)


@pytest.fixture(scope="module")
def flat(tmp_path_factory, boxes) -> list[str]:
    """Shards whose images are each of one grey level, ten times the pair's number: a batch tells whose it is."""
    images = [encode_image(np.full((SIZE, SIZE, 3), 10 * pair, np.uint8), ".png") for pair in range(PAIRS)]
    return write(tmp_path_factory.mktemp("flat"), images, boxes)


def batches(shards, steps, start=0, size=1, seed=SEED, buffer=5, keep=KEEP) -> list[tuple[np.ndarray, np.ndarray]]:
    found = training_batches(shards, keep, int(keep.sum()), size, buffer, seed, start)
    return list(islice(found.as_numpy_iterator(), steps))


def pairs_in(found) -> list[int]:
    """Whose images these are, for those of the fixture `flat`."""
    return [int(round((image[0, 0, 0] + 1) * 127.5 / 10)) for _, whole in found for image in whole]


def same(a, b) -> bool:
    return np.array_equal(np.array(a), np.array(b))


def crop_of(part: np.ndarray, image: np.ndarray) -> tuple[int, int]:
    """Where in an image a part of it begins; fails where it is no part of it."""
    spot = part[100:108, 100:108]
    for top in range(len(image) - len(part) + 1):
        for left in range(len(image) - len(part) + 1):
            if (image[top + 100 : top + 108, left + 100 : left + 108] == spot).all() and (
                image[top : top + len(part), left : left + len(part)] == part
            ).all():
                return top, left
    raise AssertionError("no crop of the image")


def enlarged(image: np.ndarray) -> np.ndarray:
    nearest = ((np.arange(JITTER) + 0.5) * SIZE / JITTER).astype(int)
    return image[nearest][:, nearest]


def test_a_batch_is_two_float_images_between_minus_one_and_one(shards):
    for size in (1, 4):
        for masked, whole in batches(shards, 3, size=size):
            assert masked.shape == whole.shape == (size, SIZE, SIZE, 3)
            assert masked.dtype == whole.dtype == np.float32
            assert masked.min() == -1 and whole.min() >= -1 and whole.max() <= 1 and whole.std() > 0.1


def test_an_example_is_pillows_decoding_enlarged_and_cropped_with_both_boxes_black(shards, images, boxes):
    """Exactly: every pixel is one that Pillow gives; -1 where a box is, the same in both elsewhere."""
    pictures = [enlarged(decode_image(data, "an image")) for data in images]
    holes = [enlarged(mask) for mask in hole(boxes)]
    seen, places = set(), set()
    for masked, whole in batches(shards, KEPT):
        levels = (whole[0] + 1) * 127.5
        assert np.abs(levels - np.round(levels)).max() < 1e-4
        levels = np.round(levels).astype(np.uint8)
        for pair, picture in enumerate(pictures):
            try:
                top, left = crop_of(levels, picture)
            except AssertionError:
                continue
            black = holes[pair][top : top + SIZE, left : left + SIZE]
            assert (masked[0][black] == -1).all() and (masked[0][~black] == whole[0][~black]).all()
            assert (whole[0][black] > -1).any()
            seen.add(pair)
            places.add((top, left))
    assert seen == set(np.flatnonzero(KEEP))
    assert len(places) > KEPT / 2


@pytest.mark.parametrize("size", [1, 3])
def test_a_run_from_a_later_step_sees_what_one_from_the_first_step_sees_there(shards, size):
    assert KEPT % 3 and 2 * KEPT == 20  # batches of three cross the end of an epoch
    whole = batches(shards, 26, size=size)
    for start in (1, 3, 4, 10, 11, 23):
        assert same(batches(shards, 26 - start, start, size), whole[start:])


def test_every_epoch_has_every_kept_pair_once_and_no_held_out_pair(flat):
    seen = pairs_in(batches(flat, 5 * KEPT))
    for epoch in range(5):
        assert sorted(seen[epoch * KEPT : (epoch + 1) * KEPT]) == list(np.flatnonzero(KEEP))


def test_batches_of_several_images_are_full_and_cross_the_end_of_an_epoch(flat):
    one, three = (pairs_in(batches(flat, steps, size=size)) for steps, size in ((30, 1), (10, 3)))
    assert one == three


def test_epochs_differ_in_order(flat):
    seen = pairs_in(batches(flat, 6 * KEPT))
    orders = {tuple(seen[epoch * KEPT : (epoch + 1) * KEPT]) for epoch in range(6)}
    assert len(orders) == 6


def test_epochs_differ_in_their_crops(shards):
    keep = np.zeros(PAIRS, bool)
    keep[0] = True
    crops = {whole.tobytes() for _, whole in batches(shards, 6, keep=keep)}
    assert len(crops) > 3


def test_a_seed_gives_its_batches_each_time(shards):
    once, again, other = (batches(shards, 12, size=2, seed=seed) for seed in (1, 1, 2))
    assert same(once, again) and not any(same([a], [b]) for a, b in zip(once, other, strict=True))


def test_nothing_but_the_arguments_decides_the_batches(shards):
    """The module's promise: functions of the seed and the position alone, so not of TensorFlow's own seed."""
    found = []
    for seed in (1, 2):
        tf.random.set_seed(seed)
        found.append(batches(shards, KEPT))
    assert same(*found)


@pytest.mark.parametrize("seed", [0, 2**31 - 1])
def test_the_least_and_the_greatest_seed_are_as_any_other(flat, seed):
    keras.utils.set_random_seed(seed)  # as the training does with its seed
    try:
        assert sorted(pairs_in(batches(flat, KEPT, seed=seed))) == list(np.flatnonzero(KEEP))
    finally:
        keras.utils.set_random_seed(1)


def test_a_damaged_shard_ends_the_batches(tmp_path, images, boxes):
    shards = write(tmp_path, images, boxes)
    path = tmp_path / "001-of-003.tfrecord"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(tf.errors.DataLossError):
        batches(shards, KEPT)
