"""CycleGAN's networks: sizes and losses by hand, mirrored edges. Small networks but for the parameter counts."""

import keras
import numpy as np
import pytest

from pipeline.competition.images import SIZE
from pipeline.systems.cyclegan import network as cyclegan
from tests.helpers.settings import settings_of


def normed(size: int, inputs: int, filters: int) -> int:
    """The parameters of a convolution without a bias and of its normalisation, gamma and beta of each channel."""
    return size * size * inputs * filters + 2 * filters


def test_the_resnet_has_the_parameters_of_the_hubs_by_hand():
    """Its file of 45.6 MB holds 11.4 million numbers in float32."""
    down = normed(7, 3, 64) + normed(3, 64, 128) + normed(3, 128, 256)
    up = normed(3, 256, 128) + normed(3, 128, 64) + 7 * 7 * 64 * 3 + 3
    model = cyclegan.build(settings_of("cyclegan"))
    assert model.count_params() == down + 9 * 2 * normed(3, 256, 256) + up == 11_383_427
    assert len(model.trainable_variables) == len(model.variables) == 71
    assert model.input_shape == model.output_shape == (None, SIZE, SIZE, 3)


def test_the_unet_is_that_of_pix2pix_with_two_variables_a_normalisation():
    down = 4 * 4 * 3 * 64 + normed(4, 64, 128) + normed(4, 128, 256) + normed(4, 256, 512) + 4 * normed(4, 512, 512)
    up = normed(4, 512, 512) + 3 * normed(4, 1024, 512)
    up += normed(4, 1024, 256) + normed(4, 512, 128) + normed(4, 256, 64) + 4 * 4 * 128 * 3 + 3
    model = cyclegan.build(settings_of("cyclegan", generator="unet"))
    assert model.count_params() == down + up == 54_414_979
    assert len(model.trainable_variables) == len(model.weights) == 45
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)


def test_the_discriminators_parameters_by_hand():
    first, last = 4 * 4 * 3 * 64 + 64, 4 * 4 * 512 + 1
    model = cyclegan.build_discriminator(settings_of("cyclegan"))
    assert model.count_params() == first + normed(4, 64, 128) + normed(4, 128, 256) + normed(4, 256, 512) + last
    assert model.count_params() == 2_765_633 and model.output_shape == (None, 32, 32, 1)


def test_a_score_is_of_70_by_70_pixels():
    layers = [
        layer
        for layer in cyclegan.build_discriminator(settings_of("cyclegan")).layers
        if isinstance(layer, keras.layers.Conv2D)
    ]
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


def test_the_losses_by_hand():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 2, 5, 5, 3)).astype(np.float32)
    assert float(cyclegan.distance(one, other)) == pytest.approx(np.abs(one - other).mean(), rel=1e-5)
    for label in (0.0, 1.0):
        assert float(cyclegan.least_squares(one, label)) == pytest.approx(((one - label) ** 2).mean(), rel=1e-5)
