"""pix2pix: its sizes and its losses by hand. Small networks but for the parameter counts."""

import keras
import numpy as np
import pytest

from pipeline.competition.boxes import LAST, hole_mask
from pipeline.competition.images import SIZE
from pipeline.systems.pix2pix import network as pix2pix
from pipeline.systems.shared import unet


def count(variables) -> int:
    return sum(int(np.prod(variable.shape)) for variable in variables)


def photographs(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8)


def some_boxes(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, LAST + 1, (n, 2, 2), dtype=np.int32)


def test_the_generator_has_the_papers_size():
    model = pix2pix.build()
    assert model.count_params() == 54_425_859
    assert count(model.trainable_variables) == 54_414_979
    assert count(model.non_trainable_weights) == 10_880
    assert model.input_shape == model.output_shape == (None, SIZE, SIZE, 3)


def test_the_discriminator_judges_30_by_30_patches():
    model = pix2pix.build_discriminator()
    image = np.zeros((1, SIZE, SIZE, 3), np.float32)
    assert model([image, image], training=False).shape == (1, 30, 30, 1)


def test_two_images_give_two_results():
    images = photographs(2).astype(np.float32) / 127.5 - 1
    filled = keras.ops.convert_to_numpy(pix2pix.build(2)(images, training=True))
    assert filled.shape == (2, SIZE, SIZE, 3) and filled.dtype == np.float32
    assert np.abs(filled).max() <= 1
    logits = pix2pix.build_discriminator(2)([images, filled], training=True)
    assert logits.shape == (2, 30, 30, 1)


def test_precision_of_one_model_is_not_that_of_the_next():
    pix2pix.build(2, dtype="mixed_bfloat16")
    assert {layer.compute_dtype for layer in pix2pix.build(2).layers} == {"float32"}


def test_the_differences_count_what_the_weights_say_by_hand():
    rng = np.random.default_rng(0)
    whole, filled = (rng.uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32) for _ in range(2))
    off = whole.astype(np.float64) - filled
    everywhere = pix2pix.differences(whole, filled, np.ones((2, 8, 8, 1), np.float32))
    assert float(everywhere["generator_l1"]) == pytest.approx(np.abs(off).mean(), rel=1e-5)
    assert float(everywhere["generator_l2"]) == pytest.approx((off**2).mean(), rel=1e-5)
    holes = np.zeros((2, 8, 8, 1), np.float32)
    holes[0, 2:4, 2:4], holes[1, :, 0] = 1, 1
    inside = off[holes[..., 0] == 1]
    found = pix2pix.differences(whole, filled, holes)
    assert float(found["generator_l1"]) == pytest.approx(np.abs(inside).mean(), rel=1e-5)
    assert float(found["generator_l2"]) == pytest.approx((inside**2).mean(), rel=1e-5)


def test_with_a_mask_channel_the_generator_is_told_which_pixels_are_missing():
    keras.utils.set_random_seed(1)
    network = pix2pix.build(2, mask_channel=True)
    assert network.input_shape == (None, SIZE, SIZE, 4)
    first = next(layer for layer in network.layers if layer.weights)
    images, boxes = photographs(1), some_boxes(1)
    seen = {}
    call = first.call
    first.call = lambda x: seen.setdefault("input", keras.ops.convert_to_numpy(x)) is None or call(x)
    pix2pix.fill(network, images, boxes)
    assert (seen["input"][..., 3] == hole_mask(boxes)).all()
    assert (seen["input"][..., :3] == unet.normalise(images, boxes)).all()
