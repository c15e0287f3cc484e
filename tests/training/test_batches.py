"""Batches: what is in them, and that a run that begins at step k sees what one from 0 sees there."""

from itertools import islice

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.competition.boxes import BOX, LAST, hole_mask
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


def batches(shards, steps, start=0, size=1, seed=SEED, buffer=5, keep=KEEP, random=False) -> list[tuple]:
    found = training_batches(shards, keep, int(keep.sum()), size, buffer, seed, start, random)
    return list(islice(found.as_numpy_iterator(), steps))


def pairs_in(found) -> list[int]:
    """Whose images these are, for those of the fixture `flat`."""
    return [int(round((image[0, 0, 0] + 1) * 127.5 / 10)) for _, whole, _ in found for image in whole]


def same(a, b) -> bool:
    return len(a) == len(b) and all(
        (x == y).all() for one, other in zip(a, b, strict=True) for x, y in zip(one, other, strict=True)
    )


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


def test_a_batch_is_two_float_images_between_minus_one_and_one_and_the_holes(shards):
    for size in (1, 4):
        for masked, whole, missing in batches(shards, 3, size=size):
            assert missing.shape == (size, SIZE, SIZE, 1) and missing.dtype == np.float32
            assert masked.shape == whole.shape == (size, SIZE, SIZE, 3)
            assert masked.dtype == whole.dtype == np.float32
            assert masked.min() == -1 and whole.min() >= -1 and whole.max() <= 1 and whole.std() > 0.1


def test_an_example_is_pillows_decoding_enlarged_and_cropped_with_both_boxes_black(shards, images, boxes):
    """Exactly: every pixel is one that Pillow gives; -1 where a box is, the same in both elsewhere."""
    pictures = [enlarged(decode_image(data, "an image")) for data in images]
    holes = [enlarged(mask) for mask in hole_mask(boxes)]
    seen, places = set(), set()
    for masked, whole, missing in batches(shards, KEPT):
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
            assert (whole[0][black] > -1).any() and (missing[0, ..., 0] == black).all()
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
    crops = {whole.tobytes() for _, whole, _ in batches(shards, 6, keep=keep)}
    assert len(crops) > 3


def test_random_holes_are_drawn_anew_by_seed_and_position_and_the_photographs_stay(shards):
    found, again, own = batches(shards, 60, random=True), batches(shards, 50, 10, random=True), batches(shards, 60)
    assert same(found[10:], again)
    assert len({missing.tobytes() for _, _, missing in found}) == 60
    for (masked, whole, missing), (_, as_own, _) in zip(found, own, strict=True):
        assert (whole == as_own).all()
        assert (masked == np.where(missing > 0, -1, whole)).all()


def test_random_holes_are_boxes_of_75_pixels_a_side_from_the_first_corner_to_the_last(tmp_path):
    """On a picture whose red is the row and whose green is the column, so that each pixel tells where it is from."""
    row, column = np.mgrid[:SIZE, :SIZE]
    picture = encode_image(np.stack([row, column, 0 * row], axis=-1).astype(np.uint8), ".png")
    shards = write(tmp_path, [picture] * PAIRS, np.zeros((PAIRS, 2, 2), int))
    corners = []
    for _, whole, missing in batches(shards, 800, random=True):
        levels = np.round((whole[0] + 1) * 127.5).astype(int)
        rows, i = np.unique(levels[:, 0, 0], return_index=True)
        columns, j = np.unique(levels[0, :, 1], return_index=True)
        shown = missing[0, i][:, j, 0].astype(np.uint8)  # of the picture, what the crop shows
        _, _, (_, *found), _ = cv2.connectedComponentsWithStats(shown, connectivity=4)
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
