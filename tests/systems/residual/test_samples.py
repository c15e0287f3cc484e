"""What the residual networks learn from: photographs, parts of them, holes, known pixels, rims."""

import numpy as np
import pandas as pd

from pipeline import paths
from pipeline.competition.boxes import hole_mask
from pipeline.competition.images import SIZE, encode_image
from pipeline.competition.index import BOX_COLUMNS, boxes_of, masked_path
from pipeline.systems.residual import network as residual
from pipeline.systems.residual import samples
from pipeline.training.data import training_data
from tests.helpers.residual import SEED, draw, settings, with_known
from tests.helpers.trainings import same


def test_a_batch_has_the_photographs_and_their_mirror_images(small):
    seen = set()
    for inputs, target, weights, *_ in draw(small, settings(batch_size=4), 10):
        assert inputs.shape == (4, 64, 64, 4) and target.shape == (4, 64, 64, 3) and weights.shape == (4, 64, 64)
        for photograph in np.round((inputs[..., :3] + target + 1) * 127.5).astype(np.uint8):
            (name,) = [
                (i, mirrored)
                for i, image in enumerate(small)
                for mirrored, turned in ((False, image), (True, image[:, ::-1]))
                if (photograph == turned[::4, ::4, :3]).all()
            ]
            seen.add(name)
    assert len(seen) > 9


def test_only_known_pixels_of_a_masked_image_are_learned_from(small):
    """Part of each image is always a hole, and its pixels change no batch."""
    photographs = small.copy()
    photographs[:, 40:120, 20:100, 3] = 0
    other = np.where(photographs[..., 3:] == 255, photographs, 77)
    other[..., 3] = photographs[..., 3]
    drawn_from = [draw(some, settings(), 4) for some in (photographs, other, small)]
    for (inputs, target, weights, *rims), changed, (_, _, plain, *_) in zip(*drawn_from, strict=True):
        inside = np.zeros((64, 64), bool)
        inside[10:30, 5:25] = True
        sides = [inside[:, ::-1] if (inputs[i, 10:30, 39:59, 3] == 1).all() else inside for i in range(2)]
        for i, hole in enumerate(sides):
            assert (inputs[i, ..., 3] == (hole | (plain[i] > 0))).all()
            np.testing.assert_array_equal(weights[i], np.where(hole, 0, plain[i]))
        np.testing.assert_array_equal(inputs, changed[0])
        np.testing.assert_array_equal(weights, changed[2])
        np.testing.assert_array_equal(target[weights > 0], changed[1][weights > 0])
        assert same(rims[2:], changed[5:]) and (rims[0] == changed[3]).all()
        np.testing.assert_array_equal(rims[1][rims[2] > 0], changed[4][rims[2] > 0])


def test_masked_images_are_read_with_their_holes_but_not_two_of_one_photograph(project, photographs):
    """Rows 1 (validation) and 4 (test) have a masked image only; together in a group, both are left out."""
    split = pd.concat([project.pairs, project.masked_only]).sort_index()
    split.loc[1, BOX_COLUMNS] = [0, 10, 100, 120]
    split.loc[4, BOX_COLUMNS] = [180, 180, 40, 41]
    masked = [masked_path(paths.RAW, row) for row in split.loc[[1, 4]].to_dict("records")]
    for path, image in zip(masked, photographs[1:3], strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_image(image, ".png"))
    chosen = settings(masked_images=True)

    def read(groups: list[int]) -> np.ndarray:
        data = training_data(split.assign(group=groups), SEED)
        found = samples.read_photographs(chosen, data)
        assert samples.input_files(chosen, data)[3:] == masked[: len(found) - 3]
        return found

    found = read([0, 1, 2, 3, 4])
    assert found.shape == (5, SIZE, SIZE, 4) and (found[:3, ..., 3] == 255).all()
    np.testing.assert_array_equal(found[3:, ..., 3] == 0, hole_mask(boxes_of(split.loc[[1, 4]])))
    np.testing.assert_array_equal(found[3:, ..., :3], photographs[1:3])
    np.testing.assert_array_equal(read([0, 1, 2, 3, 1]), found[:3])
    assert len(read([0, 0, 1, 2, 2])) == 5  # a twin among the training pairs is no reason


def test_half_of_the_parts_are_whole_photographs_and_the_others_no_smaller_than_the_zoom():
    start, length = samples.draw_parts(np.random.default_rng(0), 400, 1.5)
    whole = (length == SIZE).all(axis=1)
    assert 0.4 < whole.mean() < 0.6
    assert (start >= 0).all() and (start + length <= SIZE).all()
    height, width = length[~whole].T
    assert 250 / 1.5 / 1.12 < height.min() < 165 and 250 / 1.5 < width.min() < 175
    ratio = height / width
    assert 0.88 < ratio.min() < 0.93 and 1.06 < ratio.max() < 1.13
    assert len(np.unique(start[~whole], axis=0)) > 150


def test_without_zoom_every_part_is_the_whole_photograph():
    start, length = samples.draw_parts(np.random.default_rng(0), 50, 1.0)
    assert (start == 0).all() and (length == SIZE).all()


def test_a_part_is_cut_and_resized():
    """A photograph of its own coordinates shows which part it is."""
    row, column = np.mgrid[:SIZE, :SIZE].astype(np.uint8)
    photographs = np.stack([row, column, row, np.full_like(row, 255)], axis=-1)[None].repeat(2, axis=0)
    start, length = np.array([[0, 0], [40, 60]]), np.array([[SIZE, SIZE], [64, 192]])
    whole, part = samples.cut_parts(photographs, start, length, 64)
    assert whole.shape == part.shape == (64, 64, 4) and whole.dtype == np.uint8
    assert np.abs(whole - residual.shrink(photographs[0], 64)).max() <= 1
    np.testing.assert_array_equal(part[:, 0, 0], np.arange(64) + 40)
    np.testing.assert_array_equal(part[0, :, 1], np.arange(64) * 3 + 61)
    assert (part[..., 3] == 255).all()


def test_a_zoomed_batch_has_parts_and_their_known_pixels(photographs):
    some = with_known(photographs)
    some[:, 100:, :, 3] = 0
    ((inputs, _, weights, *_),) = draw(some, settings(batch_size=8, zoom=1.5), 1)
    assert inputs.shape == (8, 64, 64, 4) and weights.shape == (8, 64, 64)
    assert (inputs[weights > 0][:, 3] == 1).all()
    lowest = [64 - (image[..., 3] == 1).all(axis=1)[::-1].argmin() for image in inputs]  # below it nothing is known
    assert len(set(lowest)) > 2
    assert all((weights[i, row:] == 0).all() for i, row in enumerate(lowest))


def test_each_of_two_workers_draws_its_part_of_the_batch(photographs):
    chosen, some = settings(batch_size=4, zoom=1.5), with_known(photographs)
    ((*whole,),) = draw(some, chosen, 1)
    for local in (slice(0, 2), slice(2, 4)):
        part = samples.draw_batch(some, chosen, np.random.default_rng((SEED, 0)), local, 2)
        assert same(part[:3], [values[local] for values in whole[:3]])
        # Each device sees a photograph of its own at full resolution, two boxes of it.
        assert [len(values) for values in part[3:]] == [2] * 5
        assert same(part[3:], whole[3:]) == (local.start == 0)


def test_one_photograph_in_eight_is_also_seen_at_full_resolution(small):
    """What the U-Net sees reduced, the rim's network sees whole: both boxes."""
    chosen = settings(batch_size=16)
    ((inputs, _, _, near, lacking, weights, rows, columns),) = draw(small, chosen, 1)
    assert inputs.shape == (16, 64, 64, 4) and near.shape == (4, 96, 96, 5) and rows.shape == (4, 96, 64)
    assert lacking.shape == (4, 96, 96, 3) and weights.shape == (4, 96, 96) and columns.shape == rows.shape
    for number in range(4):
        reduced = np.einsum("ih,hwc,jw->ijc", rows[number], inputs[number // 2 * 8, ..., :3], columns[number])
        known = (near[number, ..., 3] == 0) & (near[number, ..., 4] == 1)
        assert np.corrcoef(reduced[known].ravel(), near[number, ..., :3][known].ravel())[0, 1] > 0.8


def test_a_checkpoint_depends_on_the_training_pairs_photographs(project):
    assert samples.input_files(settings(), project) == [
        paths.RAW / "Training_Data" / name / "Unmasked_Train" / file
        for name, file in (("Cat", "a.png"), ("Dog", "a.png"), ("Dog", "b.png"))
    ]
