"""The vanilla GAN's networks: their sizes by hand. Small ones but for the parameters; test_unet.py has its fill."""

import keras
import numpy as np
import pytest

from pipeline.competition.images import SIZE
from pipeline.systems.vanilla_gan import network as vanilla_gan
from tests.helpers.settings import settings_of

FULL, SMALL = settings_of("vanilla_gan"), settings_of("vanilla_gan", filters=2)


def kernel(inputs: int, filters: int) -> int:
    """The weights of a 4 x 4 convolution, without a bias."""
    return 4 * 4 * inputs * filters


def normed(inputs: int, filters: int) -> int:
    """Those of one with batch normalisation: gamma, beta, mean and variance of each channel."""
    return kernel(inputs, filters) + 4 * filters


def photographs(n: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (n, SIZE, SIZE, 3)).astype(np.float32)


def test_the_generators_parameters_by_hand():
    """On the way up half of a layer's input comes over the skip, except for the first."""
    down = kernel(3, 64) + normed(64, 128) + normed(128, 256) + normed(256, 512) + 4 * normed(512, 512)
    up = normed(512, 512) + 3 * normed(1024, 512) + normed(1024, 256) + normed(512, 128) + normed(256, 64)
    last = kernel(128, 3) + 3
    model = vanilla_gan.build(FULL)
    assert model.count_params() == down + up + last == 54_425_859
    assert model.input_shape == model.output_shape == (None, SIZE, SIZE, 3)
    assert [layer for layer in model.layers if layer.weights][-1].__class__ is keras.layers.Conv2DTranspose


def test_the_discriminators_parameters_by_hand():
    blocks = kernel(6, 64) + normed(64, 128) + normed(128, 256) + normed(256, 512)
    convolutions = normed(512, 512) + kernel(512, 1) + 1
    assert vanilla_gan.build_discriminator(FULL).count_params() == blocks + convolutions == 6_966_785


def test_the_discriminator_has_four_blocks_and_two_convolutions_that_end_at_30_by_30():
    convolutions = [
        layer for layer in vanilla_gan.build_discriminator(SMALL).layers if isinstance(layer, keras.layers.Conv2D)
    ]
    assert [layer.output.shape[1:] for layer in convolutions] == [
        (128, 128, 2),
        (64, 64, 4),
        (32, 32, 8),
        (32, 32, 16),
        (31, 31, 16),
        (30, 30, 1),
    ]


def test_two_images_give_two_results():
    images = photographs(2)
    filled = keras.ops.convert_to_numpy(vanilla_gan.build(SMALL)(images, training=True))
    assert filled.shape == images.shape and filled.dtype == np.float32 and np.abs(filled).max() <= 1
    assert vanilla_gan.build_discriminator(SMALL)([images, filled], training=True).shape == (2, 30, 30, 1)


@pytest.mark.parametrize("changed", [0, 1])
def test_the_discriminator_sees_both_of_the_pair(changed):
    discriminator, pair = vanilla_gan.build_discriminator(SMALL), list(photographs(2)[:, None])
    before = keras.ops.convert_to_numpy(discriminator(pair, training=True))
    pair[changed] = -pair[changed]
    assert (keras.ops.convert_to_numpy(discriminator(pair, training=True)) != before).any()
