"""CycleGAN's networks: their sizes by hand, mirrored edges, losses by hand. Small ones but for the parameters."""

import keras
import numpy as np
import pytest

from pipeline.competition.boxes import LAST, hole_mask
from pipeline.competition.images import SIZE
from pipeline.systems.cyclegan import network as cyclegan
from pipeline.systems.shared import unet
from tests.helpers.keras2 import lively

GENERATORS = ("resnet", "unet")


def normed(size: int, given: int, filters: int) -> int:
    """The parameters of a convolution without a bias and of its normalisation, a gamma and a beta a channel."""
    return size * size * given * filters + 2 * filters


def photographs(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=GENERATORS)
def generator(request) -> keras.Model:
    """A small generator that answers its input."""
    model = cyclegan.build(request.param, 2)
    model.set_weights(lively(request.param, 2, 1))
    return model


def test_the_resnet_has_the_parameters_of_the_hubs_by_hand():
    """Its file of 45.6 MB holds 11.4 million numbers in float32."""
    down = normed(7, 3, 64) + normed(3, 64, 128) + normed(3, 128, 256)
    up = normed(3, 256, 128) + normed(3, 128, 64) + 7 * 7 * 64 * 3 + 3
    model = cyclegan.build()
    assert model.count_params() == down + 9 * 2 * normed(3, 256, 256) + up == 11_383_427
    assert len(model.trainable_variables) == len(model.variables) == 71
    assert model.input_shape == model.output_shape == (None, SIZE, SIZE, 3)


def test_the_unet_is_that_of_pix2pix_with_two_variables_a_normalisation():
    down = 4 * 4 * 3 * 64 + normed(4, 64, 128) + normed(4, 128, 256) + normed(4, 256, 512) + 4 * normed(4, 512, 512)
    up = normed(4, 512, 512) + 3 * normed(4, 1024, 512)
    up += normed(4, 1024, 256) + normed(4, 512, 128) + normed(4, 256, 64) + 4 * 4 * 128 * 3 + 3
    model = cyclegan.build("unet")
    assert model.count_params() == down + up == 54_414_979
    assert len(model.trainable_variables) == len(model.weights) == 45
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)


def test_the_discriminators_parameters_by_hand():
    first, last = 4 * 4 * 3 * 64 + 64, 4 * 4 * 512 + 1
    model = cyclegan.build_discriminator()
    assert model.count_params() == first + normed(4, 64, 128) + normed(4, 128, 256) + normed(4, 256, 512) + last
    assert model.count_params() == 2_765_633 and model.output_shape == (None, 32, 32, 1)


def test_a_judgement_is_of_70_by_70_pixels():
    layers = [layer for layer in cyclegan.build_discriminator(1).layers if isinstance(layer, keras.layers.Conv2D)]
    seen = 1
    for layer in reversed(layers):
        seen = (seen - 1) * layer.strides[0] + layer.kernel_size[0]
    assert seen == 70


@pytest.mark.parametrize("size", [1, 3])
def test_beyond_the_edges_lies_a_mirror_image(size):
    image = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype(np.float32)
    padded = cyclegan.ReflectionPadding(size, "float32")(image)
    assert (
        keras.ops.convert_to_numpy(padded) == np.pad(image, [(0, 0), (size,) * 2, (size,) * 2, (0, 0)], "reflect")
    ).all()


def test_an_images_output_depends_on_no_other_of_its_batch(generator):
    """In evaluation mode, the U-Net having dropout."""
    images = photographs(3).astype(np.float32) / 127.5 - 1
    together = keras.ops.convert_to_numpy(generator(images, training=False))
    assert together.shape == images.shape and together.dtype == np.float32
    assert np.abs(together).max() <= 1 and together.std() > 0.1
    alone = keras.ops.convert_to_numpy(generator(images[1:2], training=False))
    np.testing.assert_allclose(together[1:2], alone, atol=1e-4)


def test_known_pixels_stay_and_what_is_in_the_boxes_changes_nothing(generator):
    images, boxes = photographs(2), np.random.default_rng(1).integers(0, LAST + 1, (2, 2, 2))
    holes = hole_mask(boxes)
    black = np.where(holes[..., None], np.uint8(0), images)
    filled, again = cyclegan.fill(generator, images, boxes), cyclegan.fill(generator, black, boxes)
    assert filled.dtype == np.uint8 and (filled == again).all()
    assert (filled[~holes] == images[~holes]).all()
    raw = keras.ops.convert_to_numpy(generator(unet.normalise(images, boxes), training=False))
    assert np.abs(filled[holes] - (raw[holes] + 1) * 127.5).max() <= 0.5001 and filled[holes].std() > 5


def test_the_losses_by_hand():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 2, 5, 5, 3)).astype(np.float32)
    assert float(cyclegan.distance(one, other)) == pytest.approx(np.abs(one - other).mean(), rel=1e-5)
    for label in (0.0, 1.0):
        assert float(cyclegan.least_squares(one, label)) == pytest.approx(((one - label) ** 2).mean(), rel=1e-5)


@pytest.mark.parametrize("generator", [*GENERATORS, None])
def test_in_mixed_precision_the_layers_compute_in_bfloat16_and_the_output_is_float32(generator):
    if generator:
        model = cyclegan.build(generator, 2, "mixed_bfloat16")
    else:
        model = cyclegan.build_discriminator(2, "mixed_bfloat16")
    *inner, last = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    assert {layer.compute_dtype for layer in inner} == {"bfloat16"} and last.compute_dtype == "float32"
    assert {weight.dtype for weight in model.weights} == {"float32"}
