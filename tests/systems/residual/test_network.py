"""The residual U-Net: its input, its loss, and what filling promises."""

import cv2
import keras
import numpy as np
import pytest

from pipeline.competition.boxes import LAST, cut, hole_mask
from pipeline.competition.images import SIZE
from pipeline.fills import harmonic
from pipeline.systems.residual import network as residual
from tests.helpers.pictures import photographs, some_boxes, unknown
from tests.helpers.settings import settings_of

SIDES = pytest.mark.parametrize("side", [64, 128])


def build(side: int = 64, filters: int = 2, **changes) -> keras.Model:
    return residual.build(settings_of("residual", resolution=side, filters=filters, **changes))


def fill(model: keras.Model, masked: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    return residual.fill(model, masked, boxes, unknown(len(masked)))


def small_photographs(n: int, seed: int = 0) -> np.ndarray:
    return photographs(n, seed)[:, :64, :64]


@pytest.fixture(scope="module", params=[64, 128])
def model(request):
    """A small network whose output depends on its input; a fresh one returns zero."""
    keras.utils.set_random_seed(1)
    network = build(request.param, 4)
    last = next(layer for layer in network.layers[::-1] if layer.weights)
    kernel, bias = last.weights
    kernel.assign(np.random.default_rng(0).normal(0, 0.1, kernel.shape))
    bias.assign([0.1, 0.2, 0.3])
    return network


@pytest.mark.parametrize(("side", "parameters"), [(64, 3_483_715), (128, 3_494_467)])
def test_its_size(side, parameters):
    network = build(side, 32)
    assert network.count_params() == parameters
    assert network.input_shape == (None, side, side, 4) and network.output_shape == (None, side, side, 3)


@SIDES
def test_each_block_is_two_more_convolutions_on_both_sides_of_each_level(side):
    counts = []
    for blocks in (1, 2, 3):
        network = build(side, blocks=blocks)
        assert network.output_shape == (None, side, side, 3)
        counts.append(sum(layer.name.startswith("conv2d") and layer.kernel_size == (3, 3) for layer in network.layers))
    assert counts == [16, 32, 48]  # 32, 16 and 8 pixels a side on the way down and up; at 4 twice as many


@pytest.mark.parametrize(("filters", "widths"), [(32, {32, 64, 128, 256}), (96, {96, 192, 256})])
def test_no_layer_is_wider_than_the_widest(filters, widths):
    network = build(filters=filters)
    assert {layer.filters for layer in network.layers if hasattr(layer, "filters")} == {3} | widths
    assert network.output_shape == (None, 64, 64, 3)


@SIDES
def test_a_residual_of_zero_gives_the_harmonic_fill(side):
    masked, boxes = photographs(3), some_boxes(3)
    np.testing.assert_array_equal(fill(build(side), masked, boxes), harmonic.fill(masked, boxes))


def test_a_constant_residual_is_added_inside_the_holes():
    network = build()
    network.weights[-1].assign([0.1, 0.0, -0.1])  # of [-1, 1], that is 12.75 grey levels
    masked, boxes = np.full((1, SIZE, SIZE, 3), 100, np.uint8), np.array([[[20, 20], [150, 160]]])
    filled = fill(network, masked, boxes)
    middle = cut(filled, boxes)[:, :, 10:-10, 10:-10].reshape(-1, 3)
    assert (middle == [113, 100, 87]).all()
    assert (filled[~hole_mask(boxes)] == 100).all()


def test_the_mirror_image_is_filled_with_the_mirrored_fill(model):
    masked, boxes = photographs(2), some_boxes(2)
    mirrored = boxes.copy()
    mirrored[..., 1] = LAST - boxes[..., 1]
    found = fill(model, masked[:, :, ::-1], mirrored)[:, :, ::-1]
    assert np.abs(fill(model, masked, boxes).astype(int) - found).max() <= 1


@SIDES
def test_drawn_holes_are_boxes_reduced_as_in_filling_and_counted_twice_where_they_overlap(side):
    weights = residual.draw_weights(np.random.default_rng(3), 50, side)
    boxes = np.random.default_rng(3).integers(0, LAST + 1, (50, 2, 2))
    assert weights.dtype == np.float32 and set(np.unique(weights)) == {0, 1, 2}
    np.testing.assert_array_equal(weights > 0, residual.hole_cells(boxes, side))
    both = sum(residual.hole_cells(boxes[:, [b, b]], side).astype(int) for b in (0, 1))
    np.testing.assert_array_equal(weights, both)


def test_a_cell_is_in_the_hole_if_a_box_touches_it():
    rows, columns = np.nonzero(residual.hole_cells(np.array([[[3, 8], [3, 8]]]), 64)[0])  # pixels 3 to 77 and 8 to 82
    assert (rows.min(), rows.max(), columns.min(), columns.max(), len(rows)) == (0, 19, 2, 20, 20 * 19)


def test_fill_and_residual_add_up_to_the_photograph():
    small, weights = small_photographs(4), residual.draw_weights(np.random.default_rng(0), 4, 64)
    inputs, target = residual.examples(small, weights > 0)
    assert inputs.shape == (4, 64, 64, 4) and inputs.dtype == target.dtype == np.float32
    np.testing.assert_allclose(inputs[..., :3] + target, small / 127.5 - 1, atol=1e-6)
    np.testing.assert_array_equal(inputs[..., 3], weights > 0)
    assert (target[weights == 0] == 0).all() and (target[weights > 0] != 0).mean() > 0.9
    changed = np.where((weights > 0)[..., None], small_photographs(4, seed=1), small)
    np.testing.assert_array_equal(residual.examples(changed, weights > 0)[0], inputs)


def test_the_loss_by_hand():
    target, predicted = np.zeros((1, 2, 2, 3), np.float32), np.zeros((1, 2, 2, 3), np.float32)
    target[0, 0, 0], predicted[0, 0, 1], predicted[0, 1, 1] = 1, (0, 0, 3), 100
    weights = np.array([[[1, 2], [0, 0]]], np.float32)
    assert float(residual.loss(target, predicted, weights)) == pytest.approx((1 * 1 + 2 * 9 / 3) / 3)


@pytest.mark.parametrize("length", residual.VIEWS)
@SIDES
def test_each_view_puts_the_networks_output_where_its_input_was(monkeypatch, side, length):
    """A network that returns its input, on a photograph whose pixels are their own coordinates."""
    monkeypatch.setattr(residual, "VIEWS", (length,))
    seen = keras.Input((side, side, 4))
    row, column = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    smooth = np.stack([row, column, 255 - row], axis=-1)[None].repeat(3, axis=0)
    boxes = np.array([[[0, 0], [LAST, LAST]], [[60, 100], [90, 120]], [[10, LAST], [LAST, 70]]])
    found = residual.predict(keras.Model(seen, seen[..., :3]), smooth, boxes)
    # At the rim it blends with the outside, which is 0.
    inner = [cv2.erode(hole.astype(np.uint8), np.ones((17, 17), np.uint8)) > 0 for hole in hole_mask(boxes)]
    wrong = np.abs(127.5 * (found + 1) - smooth)[np.stack(inner)]
    assert wrong.max() < length / side / 2  # flat beyond the centre of the outermost pixel
    assert np.median(wrong) < 0.1
    assert (found[~hole_mask(boxes)] == 0).all()


def test_the_residual_is_the_mean_over_the_views(monkeypatch, model):
    smooth, boxes = photographs(2).astype(np.float32), some_boxes(2)
    together = residual.predict(model, smooth, boxes)
    alone = []
    for length in residual.VIEWS:
        monkeypatch.setattr(residual, "VIEWS", (length,))
        alone.append(residual.predict(model, smooth, boxes))
    np.testing.assert_allclose(together, np.mean(alone, axis=0), atol=1e-5)
    assert np.abs(alone[0] - alone[1]).max() > 0.01


def test_an_image_is_reduced_to_the_means_of_its_cells():
    small = residual.shrink(np.arange(72).reshape(6, 6, 2), 3)
    assert small.dtype == np.float32
    np.testing.assert_allclose(small[..., 0], [[7, 11, 15], [31, 35, 39], [55, 59, 63]])
    np.testing.assert_allclose(small[..., 1], small[..., 0] + 1)


def test_a_constant_residual_stays_constant_up_to_the_edge(model):
    weights = model.get_weights()
    model.set_weights([*weights[:-2], np.zeros_like(weights[-2]), np.full_like(weights[-1], 0.25)])
    found = residual.predict(model, photographs(1).astype(np.float32), np.zeros((1, 2, 2), int))  # boxes in a corner
    model.set_weights(weights)
    np.testing.assert_allclose(found[0, :70, :70], 0.25, rtol=1e-6)
