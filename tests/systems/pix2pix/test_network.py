"""pix2pix: its sizes and its losses by hand. Small networks but for the parameter counts; test_unet.py has its fill."""

import keras
import numpy as np
import pytest

from pipeline.competition.boxes import hole_mask
from pipeline.competition.images import SIZE
from pipeline.systems.pix2pix import network as pix2pix
from pipeline.systems.shared import unet
from tests.helpers.pictures import masked_photographs, photographs, some_boxes, unknown
from tests.helpers.settings import settings_of

FULL, SMALL = settings_of("pix2pix"), settings_of("pix2pix", filters=2)


def count(variables) -> int:
    return sum(int(np.prod(variable.shape)) for variable in variables)


def test_the_generator_has_the_papers_size():
    model = pix2pix.build(FULL)
    assert model.count_params() == 54_425_859
    assert count(model.trainable_variables) == 54_414_979
    assert count(model.non_trainable_weights) == 10_880
    assert model.input_shape == model.output_shape == (None, SIZE, SIZE, 3)


def test_two_images_give_two_fills_and_their_judgements_of_30_by_30_patches():
    images = photographs(2).astype(np.float32) / 127.5 - 1
    filled = keras.ops.convert_to_numpy(pix2pix.build(SMALL)(images, training=True))
    assert filled.shape == (2, SIZE, SIZE, 3) and filled.dtype == np.float32
    assert np.abs(filled).max() <= 1
    for settings in (FULL, SMALL):
        assert pix2pix.build_discriminator(settings)([images, filled], training=True).shape == (2, 30, 30, 1)


def test_precision_of_one_model_is_not_that_of_the_next():
    pix2pix.build(SMALL, "mixed_bfloat16")
    assert {layer.compute_dtype for layer in pix2pix.build(SMALL).layers} == {"float32"}


def test_the_differences_by_hand_over_the_image_and_over_the_holes():
    rng = np.random.default_rng(0)
    target, filled = (rng.uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32) for _ in range(2))
    off = target.astype(np.float64) - filled
    holes = np.zeros((2, 8, 8, 1), np.float32)
    holes[0, 2:4, 2:4], holes[1, :, 0] = 1, 1
    for weights, counted in ((np.ones_like(holes), off), (holes, off[holes[..., 0] == 1])):
        found = pix2pix.differences(target, filled, weights)
        assert float(found["generator_l1"]) == pytest.approx(np.abs(counted).mean(), rel=1e-5)
        assert float(found["generator_l2"]) == pytest.approx((counted**2).mean(), rel=1e-5)


def test_with_a_mask_channel_the_generator_sees_the_holes():
    network = pix2pix.build(settings_of("pix2pix", filters=2, mask_channel=True))
    assert network.input_shape == (None, SIZE, SIZE, 4)
    first = next(layer for layer in network.layers if layer.weights)
    images, boxes = masked_photographs(1), some_boxes(1)
    seen = {}
    call = first.call
    first.call = lambda x: seen.setdefault("input", keras.ops.convert_to_numpy(x)) is None or call(x)
    pix2pix.fill(network, images, boxes, unknown(1))
    assert (seen["input"][..., 3] == hole_mask(boxes)).all()
    assert (seen["input"][..., :3] == unet.normalise(images, boxes)).all()
