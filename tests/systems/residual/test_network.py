"""The residual U-Net: its input, its loss, and what filling promises."""

import cv2
import keras
import numpy as np
import pytest

from pipeline.competition.boxes import BOX, LAST, count_boxes, cut, hole_mask
from pipeline.competition.images import SIZE
from pipeline.fills import harmonic
from pipeline.systems.residual import network as residual
from tests.helpers.pictures import masked_photographs, photographs, some_boxes, unknown
from tests.helpers.settings import settings_of

SIDES = pytest.mark.parametrize("side", [64, 128])
CORNERS = np.array([[[0, 0], [LAST, LAST]], [[60, 100], [90, 120]], [[10, LAST], [LAST, 70]]])


def build(side: int = 64, filters: int = 2, **changes) -> keras.Model:
    return residual.build(settings_of("residual", resolution=side, filters=filters, **({"rim_filters": 2} | changes)))


def unet(side: int = 64, filters: int = 2, **changes) -> keras.Model:
    return build(side, filters, **changes).get_layer("unet")


def last_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Those that make the U-Net's output and the rim's."""
    networks = (model.get_layer(name) for name in ("unet", "rim"))
    return [next(layer for layer in network.layers[::-1] if layer.weights) for network in networks]


def fill(model: keras.Model, masked: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    return residual.fill(model, masked, boxes, unknown(len(masked)))


def small_photographs(n: int, seed: int = 0) -> np.ndarray:
    return photographs(n, seed)[:, :64, :64]


@pytest.fixture(scope="module", params=[64, 128])
def model(request):
    """A small network whose output depends on its input; a fresh one returns zero."""
    keras.utils.set_random_seed(1)
    network = build(request.param, 4, rim_filters=4)
    for layer in last_layers(network):
        layer.kernel.assign(np.random.default_rng(0).normal(0, 0.1, layer.kernel.shape))
        layer.bias.assign([0.1, 0.2, 0.3])
    return network


@pytest.mark.parametrize(("side", "parameters"), [(64, 3_483_715), (128, 3_494_467)])
def test_its_size(side, parameters):
    model = build(side, 32, rim_filters=32)
    network, rim = model.get_layer("unet"), model.get_layer("rim")
    assert network.count_params() == parameters and model.count_params() == parameters + 76_131
    assert network.input_shape == (None, side, side, 4) and network.output_shape == (None, side, side, 3)
    assert rim.input_shape == (None, 96, 96, 5) and rim.output_shape == (None, 96, 96, 3)


@SIDES
def test_each_block_is_two_more_convolutions_on_both_sides_of_each_level(side):
    counts = []
    for blocks in (1, 2, 3):
        network = unet(side, blocks=blocks)
        assert network.output_shape == (None, side, side, 3)
        counts.append(sum(layer.name.startswith("conv2d") and layer.kernel_size == (3, 3) for layer in network.layers))
    assert counts == [16, 32, 48]  # 32, 16 and 8 pixels a side on the way down and up; at 4 twice as many


@pytest.mark.parametrize(("filters", "widths"), [(32, {32, 64, 128, 256}), (96, {96, 192, 256})])
def test_no_layer_is_wider_than_the_widest(filters, widths):
    network = unet(filters=filters)
    assert {layer.filters for layer in network.layers if hasattr(layer, "filters")} == {3} | widths
    assert network.output_shape == (None, 64, 64, 3)


@SIDES
def test_a_residual_of_zero_gives_the_harmonic_fill(side):
    masked, boxes = masked_photographs(3), some_boxes(3)
    np.testing.assert_array_equal(fill(build(side), masked, boxes), harmonic.fill(masked, boxes))


@pytest.mark.parametrize("number", [0, 1])
@SIDES
def test_both_networks_outputs_are_added_inside_the_holes(side, number):
    network = build(side)
    last_layers(network)[number].bias.assign([0.1, 0.0, -0.1])  # of [-1, 1], that is 12.75 grey levels
    boxes = np.array([[[20, 20], [150, 160]]])
    masked = np.where(hole_mask(boxes)[..., None], 0, np.full((1, SIZE, SIZE, 3), 100)).astype(np.uint8)
    filled = fill(network, masked, boxes)
    assert (cut(filled, boxes)[:, :, 10:-10, 10:-10] == [113, 100, 87]).all()
    assert (filled[~hole_mask(boxes)] == 100).all()


def test_the_mirror_image_is_filled_with_the_mirrored_fill(model):
    masked, boxes = masked_photographs(2), some_boxes(2)
    masked[hole_mask(boxes)] = 0
    mirrored = boxes.copy()
    mirrored[..., 1] = LAST - boxes[..., 1]
    found = fill(model, masked[:, :, ::-1], mirrored)[:, :, ::-1]
    assert np.abs(fill(model, masked, boxes).astype(int) - found).max() <= 1


def cells(boxes: np.ndarray, side: int) -> np.ndarray:
    """The pixels of the reduced photographs that a box touches: bool [n, side, side]."""
    cell = SIZE // side
    return hole_mask(boxes).reshape(-1, side, cell, side, cell).any(axis=(2, 4))


@SIDES
def test_a_reduced_pixel_weighs_as_many_boxes_as_touch_it(side):
    boxes = some_boxes(50)
    weights = residual.weigh(boxes, side)
    assert weights.dtype == np.float32 and set(np.unique(weights)) == {0, 1, 2}
    np.testing.assert_array_equal(weights, sum(cells(boxes[:, [b, b]], side).astype(int) for b in (0, 1)))


def test_a_cell_is_in_the_hole_if_a_box_touches_it():
    rows, columns = np.nonzero(residual.weigh(np.array([[[3, 8], [3, 8]]]), 64)[0])  # pixels 3 to 77 and 8 to 82
    assert (rows.min(), rows.max(), columns.min(), columns.max(), len(rows)) == (0, 19, 2, 20, 20 * 19)


def test_fill_and_residual_add_up_to_the_photograph():
    small, weights = small_photographs(4), residual.weigh(some_boxes(4), 64)
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
    found = residual.predict(keras.Model(seen, seen[..., :3]), residual.scale(smooth), CORNERS)
    # At the rim it blends with the outside, which is 0.
    inner = [cv2.erode(hole.astype(np.uint8), np.ones((17, 17), np.uint8)) > 0 for hole in hole_mask(CORNERS)]
    wrong = np.abs(127.5 * (found + 1) - smooth)[np.stack(inner)]
    assert wrong.max() < length / side / 2  # flat beyond the centre of the outermost pixel
    assert np.median(wrong) < 0.1
    assert (found[~hole_mask(CORNERS)] == 0).all()


def test_the_residual_is_the_mean_over_the_views(monkeypatch, model):
    smooth, boxes, network = residual.scale(photographs(2)), some_boxes(2), model.get_layer("unet")
    together = residual.predict(network, smooth, boxes)
    alone = []
    for length in residual.VIEWS:
        monkeypatch.setattr(residual, "VIEWS", (length,))
        alone.append(residual.predict(network, smooth, boxes))
    np.testing.assert_allclose(together, np.mean(alone, axis=0), atol=1e-5)
    assert np.abs(alone[0] - alone[1]).max() > 0.01


def test_an_image_is_reduced_to_the_means_of_its_cells():
    small = residual.shrink(np.arange(72).reshape(6, 6, 2), 3)
    assert small.dtype == np.float32
    np.testing.assert_allclose(small[..., 0], [[7, 11, 15], [31, 35, 39], [55, 59, 63]])
    np.testing.assert_allclose(small[..., 1], small[..., 0] + 1)


def test_a_constant_residual_stays_constant_up_to_the_edge(model):
    network = model.get_layer("unet")
    weights = network.get_weights()
    network.set_weights([*weights[:-2], np.zeros_like(weights[-2]), np.full_like(weights[-1], 0.25)])
    found = residual.predict(network, residual.scale(photographs(1)), np.zeros((1, 2, 2), int))  # boxes in a corner
    network.set_weights(weights)
    np.testing.assert_allclose(found[0, :70, :70], 0.25, rtol=1e-6)


def coordinates(n: int) -> np.ndarray:
    """Photographs whose pixels are their own row and column, float32 [n, 256, 256, 5]."""
    row, column = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    return np.stack([row, column, row, np.zeros_like(row), np.ones_like(row)], axis=-1)[None].repeat(n, axis=0)


def test_what_is_near_a_box_has_the_box_in_its_middle_and_zeros_outside_the_image():
    near = residual.look(coordinates(3), CORNERS)
    assert near.shape == (6, 96, 96, 5) and near.dtype == np.float32
    for image, corner in zip(near, CORNERS.reshape(-1, 2), strict=True):
        rows, columns = (start - 10 + np.arange(96) for start in corner)
        inside = np.logical_and.outer((rows >= 0) & (rows < SIZE), (columns >= 0) & (columns < SIZE))
        np.testing.assert_array_equal(image[..., 4], inside)
        np.testing.assert_array_equal(image[..., 0], np.where(inside, rows[:, None], 0))
        np.testing.assert_array_equal(image[..., 1], np.where(inside, columns, 0))


def test_each_box_is_mended_by_what_its_own_pixels_give():
    """A network that returns its input."""
    near, seen, hole = keras.Input((96, 96, 5)), coordinates(3), hole_mask(CORNERS)
    seen[..., 1] = np.abs(seen[..., 1] - 127.5)  # the same in the mirror image
    found = residual.mend(keras.Model(near, near[..., :3]), seen, CORNERS)
    np.testing.assert_array_equal(found[hole], seen[..., :3][hole])
    assert (found[~hole] == 0).all()


def test_where_boxes_overlap_the_rim_is_the_mean_of_both(model):
    boxes, rim = CORNERS[1:2], model.get_layer("rim")
    seen = residual.present(residual.scale(photographs(1)), hole_mask(boxes))
    found = residual.mend(rim, seen, boxes)
    alone = [residual.mend(rim, seen, boxes[:, [box, box]]) for box in (0, 1)]
    first, second = (hole_mask(boxes[:, [box, box]]) for box in (0, 1))
    np.testing.assert_allclose(found[first & ~second], alone[0][first & ~second], atol=1e-5)
    np.testing.assert_allclose(found[first & second], (alone[0] + alone[1])[first & second] / 2, atol=1e-5)
    assert np.abs((alone[0] - alone[1])[first & second]).max() > 0.01


@SIDES
def test_sampling_enlarges_as_opencv_does(side):
    """Also where a box's surroundings lie outside the image."""
    small = np.random.default_rng(0).normal(size=(3, side, side, 3)).astype(np.float32)
    near = np.ones((6, 96, 96, 5), np.float32)
    rows, columns = (residual.sampling(CORNERS[..., axis].ravel(), side) for axis in (0, 1))
    found = keras.ops.convert_to_numpy(residual.add_residual(near, small, rows, columns))
    large = np.stack([cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR) for image in small])
    expected, inside = residual.look(large, CORNERS), residual.look(coordinates(3), CORNERS)[..., 4] == 1
    np.testing.assert_allclose((found[..., :3] - 1)[inside], expected[inside], atol=1e-5)
    assert (found[..., 3:] == 1).all()
    outside = residual.add_residual(near * [1, 1, 1, 0, 1], small, rows, columns)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(outside)[..., :3], near[..., :3])


def test_fill_and_what_is_lacking_near_a_box_add_up_to_the_photograph():
    images, known = photographs(3), np.ones((3, SIZE, SIZE), bool)
    near, lacking, weights, rows, columns = residual.rim_examples(images, known, CORNERS, 64)
    assert {part.dtype for part in (near, lacking, weights, rows, columns)} == {np.dtype(np.float32)}
    assert rows.shape == columns.shape == (6, 96, 64)
    target, hole, inside = residual.look(residual.scale(images), CORNERS), near[..., 3] == 1, near[..., 4] == 1
    np.testing.assert_allclose((near[..., :3] + lacking)[inside], target[inside], atol=1e-6)
    assert (near[~inside] == 0).all() and (lacking[~hole] == 0).all() and (lacking[hole] != 0).mean() > 0.9
    count = residual.look(np.pad(count_boxes(CORNERS)[..., None], [(0, 0)] * 3 + [(0, 2)]).astype(np.float32), CORNERS)
    np.testing.assert_array_equal(weights, count[..., 0])
    assert (weights[2, 10:85, 10:85] >= 1).all() and weights[2, 10:85, 10:85].sum() > BOX * BOX
    changed = np.where(hole_mask(CORNERS)[..., None], photographs(3, seed=1), images)
    np.testing.assert_array_equal(residual.rim_examples(changed, known, CORNERS, 64)[0], near)


def test_an_unknown_pixel_near_a_box_is_a_hole_without_weight():
    images, known = photographs(1), np.ones((1, SIZE, SIZE), bool)
    known[:, 80:] = False
    near, _, weights, *_ = residual.rim_examples(images, known, CORNERS[1:2], 64)
    assert (near[0, 30:, :, 3] == 1).all() and (weights[0, 30:] == 0).all() and (weights[0, 10:30, 10:85] == 1).all()
