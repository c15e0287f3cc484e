"""The residual U-Net: what it is given, what its loss counts, and what filling promises."""

import cv2
import keras
import numpy as np
import pytest

from pipeline.competition.boxes import LAST, cut, hole_mask
from pipeline.competition.images import SIZE
from pipeline.fills import harmonic
from pipeline.systems.residual import network as residual


def photographs(n: int, size: int = SIZE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def some_boxes(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, LAST + 1, (n, 2, 2), dtype=np.int32)


@pytest.fixture(scope="module", params=[64, 128])
def model(request):
    """A small network that answers its input; a fresh one gives zero."""
    keras.utils.set_random_seed(1)
    network = residual.build(4, resolution=request.param)
    last = next(layer for layer in network.layers[::-1] if layer.weights)
    kernel, bias = last.weights
    kernel.assign(np.random.default_rng(0).normal(0, 0.1, kernel.shape))
    bias.assign([0.1, 0.2, 0.3])
    return network


@pytest.mark.parametrize(("side", "parameters"), [(64, 3_483_715), (128, 3_494_467)])
def test_its_size(side, parameters):
    network = residual.build(resolution=side)
    assert network.count_params() == parameters
    assert network.input_shape == (None, side, side, 4) and network.output_shape == (None, side, side, 3)


@pytest.mark.parametrize("side", [64, 128])
def test_each_block_is_two_more_convolutions_on_both_sides_of_each_level(side):
    counts = []
    for blocks in (1, 2, 3):
        network = residual.build(2, blocks, side)
        assert network.output_shape == (None, side, side, 3)
        counts.append(sum(layer.name.startswith("conv2d") and layer.kernel_size == (3, 3) for layer in network.layers))
    assert counts == [16, 32, 48]  # 32, 16 and 8 pixels a side on the way down and up; at 4 twice as many


@pytest.mark.parametrize(("filters", "widths"), [(32, {32, 64, 128, 256}), (96, {96, 192, 256})])
def test_no_layer_is_wider_than_the_widest(filters, widths):
    network = residual.build(filters)
    assert {layer.filters for layer in network.layers if hasattr(layer, "filters")} == {3} | widths
    assert network.output_shape == (None, 64, 64, 3)


def test_in_mixed_precision_the_layers_compute_in_bfloat16_and_the_output_is_float32():
    network = residual.build(2, dtype="mixed_bfloat16")
    convolutions = [layer for layer in network.layers if "conv" in layer.name]
    assert {layer.compute_dtype for layer in convolutions} == {"bfloat16"}
    assert {weight.dtype for weight in network.weights} == {"float32"}
    assert network.outputs[0].dtype == "float32"


@pytest.mark.parametrize("side", [64, 128])
def test_a_residual_of_zero_gives_the_harmonic_fill(side):
    masked, boxes = photographs(3), some_boxes(3)
    network = residual.build(2, resolution=side)
    np.testing.assert_array_equal(residual.fill(network, masked, boxes), harmonic.fill(masked, boxes))


def test_a_constant_residual_is_added_inside_the_holes():
    network = residual.build(2)
    network.weights[-1].assign([0.1, 0.0, -0.1])  # of [-1, 1], that is 12.75 grey levels
    masked, boxes = np.full((1, SIZE, SIZE, 3), 100, np.uint8), np.array([[[20, 20], [150, 160]]])
    filled = residual.fill(network, masked, boxes)
    middle = cut(filled, boxes)[:, :, 10:-10, 10:-10].reshape(-1, 3)
    assert (middle == [113, 100, 87]).all()
    assert (filled[~hole_mask(boxes)] == 100).all()


def test_known_pixels_stay_byte_for_byte(model):
    masked, boxes = photographs(harmonic.IMAGES_AT_ONCE + 1), some_boxes(harmonic.IMAGES_AT_ONCE + 1)
    before = masked.copy()
    filled, missing = residual.fill(model, masked, boxes), hole_mask(boxes)
    assert filled.shape == masked.shape and filled.dtype == np.uint8
    np.testing.assert_array_equal(filled[~missing], masked[~missing])
    np.testing.assert_array_equal(masked, before)
    assert (filled != harmonic.fill(masked, boxes))[missing].mean() > 0.5


def test_what_is_in_the_holes_changes_nothing(model):
    masked, boxes = photographs(2), some_boxes(2)
    other = np.where(hole_mask(boxes)[..., None], photographs(2, seed=1), masked)
    np.testing.assert_array_equal(residual.fill(model, masked, boxes), residual.fill(model, other, boxes))


def test_an_image_is_filled_alike_whatever_others_are_in_its_batch(model):
    masked, boxes = photographs(3), some_boxes(3)
    together = residual.fill(model, masked, boxes).astype(int)
    for i in range(3):
        assert np.abs(together[i] - residual.fill(model, masked[i : i + 1], boxes[i : i + 1])[0]).max() <= 1


def test_the_mirror_image_is_filled_with_the_mirrored_fill(model):
    masked, boxes = photographs(2), some_boxes(2)
    mirrored = boxes.copy()
    mirrored[..., 1] = LAST - boxes[..., 1]
    filled = residual.fill(model, masked, boxes).astype(int)
    found = residual.fill(model, masked[:, :, ::-1], mirrored)[:, :, ::-1]
    assert np.abs(filled - found).max() <= 1


@pytest.mark.parametrize("side", [64, 128])
def test_drawn_holes_are_boxes_as_training_and_filling_see_them(side):
    """Boxes drawn at 256 and reduced as filling reduces them; counted twice where both are."""
    weights = residual.draw_weights(np.random.default_rng(3), 50, side)
    boxes = np.random.default_rng(3).integers(0, LAST + 1, (50, 2, 2))
    expected = hole_mask(boxes).reshape(50, side, SIZE // side, side, SIZE // side).any(axis=(2, 4))
    assert weights.dtype == np.float32 and set(np.unique(weights)) == {0, 1, 2}
    np.testing.assert_array_equal(weights > 0, expected)
    both = sum(
        hole_mask(boxes[:, [b, b]]).reshape(50, side, SIZE // side, side, SIZE // side).any(axis=(2, 4)).astype(int)
        for b in (0, 1)
    )
    np.testing.assert_array_equal(weights, both)


def test_fill_and_residual_make_the_photograph():
    small, weights = photographs(4, 64), residual.draw_weights(np.random.default_rng(0), 4, 64)
    given, wanted = residual.examples(small, weights > 0)
    assert given.shape == (4, 64, 64, 4) and given.dtype == wanted.dtype == np.float32
    np.testing.assert_allclose(given[..., :3] + wanted, small / 127.5 - 1, atol=1e-6)
    np.testing.assert_array_equal(given[..., 3], weights > 0)
    assert (wanted[weights == 0] == 0).all() and (wanted[weights > 0] != 0).mean() > 0.9
    changed = np.where((weights > 0)[..., None], photographs(4, 64, seed=1), small)
    np.testing.assert_array_equal(residual.examples(changed, weights > 0)[0], given)


def test_the_loss_by_hand():
    wanted, predicted = np.zeros((1, 2, 2, 3), np.float32), np.zeros((1, 2, 2, 3), np.float32)
    wanted[0, 0, 0], predicted[0, 0, 1], predicted[0, 1, 1] = 1, (0, 0, 3), 100
    weights = np.array([[[1, 2], [0, 0]]], np.float32)
    assert float(residual.loss(wanted, predicted, weights)) == pytest.approx((1 * 1 + 2 * 9 / 3) / 3)


def test_training_starts_at_the_harmonic_fill_and_goes_below_it():
    keras.utils.set_random_seed(0)
    network, rng = residual.build(8), np.random.default_rng(0)
    blocks = rng.integers(0, 256, (4, 4, 4, 3)).repeat(16, axis=1).repeat(16, axis=2)
    weights = residual.draw_weights(rng, 4, 64)
    given, wanted = residual.examples(blocks, weights > 0)
    network.compile(
        keras.optimizers.AdamW(2e-3),
        loss=lambda target, predicted: residual.loss(target[..., :3], predicted, target[..., 3]),
    )
    target = np.concatenate([wanted, weights[..., None]], axis=-1)
    losses = network.fit(given, target, batch_size=4, epochs=60, verbose=0).history["loss"]
    assert losses[0] == pytest.approx(np.average((wanted**2).mean(-1), weights=weights), rel=1e-4)
    assert losses[-1] < losses[0] / 3


@pytest.mark.parametrize("length", residual.VIEWS)
@pytest.mark.parametrize("side", [64, 128])
def test_each_view_puts_what_the_network_gives_where_it_was_seen(monkeypatch, side, length):
    """A network that gives back what it sees, of a photograph whose pixels say where they are."""
    monkeypatch.setattr(residual, "VIEWS", (length,))
    seen = keras.Input((side, side, 4))
    row, column = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    smooth = np.stack([row, column, 255 - row], axis=-1)[None].repeat(3, axis=0)
    boxes = np.array([[[0, 0], [LAST, LAST]], [[60, 100], [90, 120]], [[10, LAST], [LAST, 70]]])
    found = residual.predict(keras.Model(seen, seen[..., :3]), smooth, boxes)
    # Near the rim it goes to what lies outside, which is 0.
    inner = [cv2.erode(missing.astype(np.uint8), np.ones((17, 17), np.uint8)) > 0 for missing in hole_mask(boxes)]
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


def test_a_part_is_reduced_to_its_means_and_missing_where_a_hole_touches_it():
    part = np.zeros((6, 6, 4), np.float32)
    part[..., 0] = np.arange(36).reshape(6, 6)
    part[1, 5, 3] = 1
    small = residual.reduce(part, 3)
    np.testing.assert_allclose(small[..., 0], [[3.5, 5.5, 7.5], [15.5, 17.5, 19.5], [27.5, 29.5, 31.5]])
    np.testing.assert_array_equal(small[..., 3], [[0, 0, 1], [0, 0, 0], [0, 0, 0]])


def test_the_same_residual_everywhere_stays_that_up_to_the_edge(model):
    kept = model.get_weights()
    model.set_weights([*kept[:-2], np.zeros_like(kept[-2]), np.full_like(kept[-1], 0.25)])
    found = residual.predict(model, photographs(1).astype(np.float32), np.zeros((1, 2, 2), int))  # boxes in a corner
    model.set_weights(kept)
    np.testing.assert_allclose(found[0, :70, :70], 0.25, rtol=1e-6)
