"""What the trainings of adversarial systems have in common: their start, their data, their calibration."""

from itertools import islice
from pathlib import Path

import keras
import numpy as np
import pytest

from pipeline.params import SystemSettings
from pipeline.systems import load_training
from pipeline.systems.pix2pix.network import generator_input
from pipeline.systems.shared import unet
from pipeline.training.batches import ONE_DEVICE, shard_batches
from tests.helpers.settings import settings_of
from tests.helpers.trainings import drawn, same, shard_data

DATA = shard_data(seed=5)
ALL = pytest.mark.parametrize("name", ["pix2pix", "vanilla_gan", "cyclegan"])


def small(name: str, **changes) -> SystemSettings:
    own = {"generator": "unet"} if name == "cyclegan" else {}
    return settings_of(name, **(own | {"batch_size": 2, "shuffle_buffer": 6, "filters": 1} | changes))


@ALL
def test_each_network_has_an_optimizer_with_the_settings(name):
    state = load_training(name).begin(small(name, learning_rate=0.25, beta_1=0.75), "float32", 1)
    assert state.model is state.networks["generator"]
    assert list(state.optimizers) == [f"{network}_optimizer" for network in state.networks]
    for optimizer in state.optimizers.values():
        assert float(optimizer.learning_rate) == 0.25 and optimizer.beta_1 == 0.75


@pytest.mark.parametrize(
    ("name", "random_holes"),
    [
        ("pix2pix", True),
        ("vanilla_gan", False),
        ("cyclegan", False),
        pytest.param("pix2pix", False, marks=pytest.mark.slow),
    ],
)
def test_the_batches_are_those_of_the_shards_from_any_step_on(shards, name, random_holes):
    """There are 15 records, so the eighth batch of two crosses the end of an epoch."""
    settings, batches = small(name, **({"random_holes": True} if random_holes else {})), load_training(name).batches
    found = drawn(batches(settings, DATA, 0), 10)
    assert same(found, drawn(shard_batches(settings, DATA, 0, ONE_DEVICE, random_holes), 10))
    assert same(found[3 * 6 :], drawn(batches(settings, DATA, 6), 4))


@ALL
def test_a_checkpoint_depends_on_the_shards_checksums(shards, name):
    (file,) = load_training(name).input_files(small(name), DATA)
    assert {Path(shard).name for shard in shards} <= set(file.read_text().split('"'))


@pytest.fixture
def calibrated_on_10(monkeypatch) -> None:
    """Calibration reads 10 images instead of 64."""
    monkeypatch.setattr(unet, "CALIBRATED_ON", 10)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("pix2pix", {"mask_channel": True, "random_holes": True}),
        pytest.param("vanilla_gan", {}, marks=pytest.mark.slow),
        pytest.param("pix2pix", {}, marks=pytest.mark.slow),
    ],
)
def test_the_generator_is_calibrated_on_the_first_images_of_the_training(
    shards, shallow, calibrated_on_10, name, changes
):
    training, settings = load_training(name), small(name, batch_size=3, **changes)  # 10 images: three batches and more
    expected, generator = (training.begin(settings, "float32", 5).model for _ in range(2))
    fresh = generator.get_weights()
    first = islice(training.batches(settings, DATA, 0), 4)
    unet.calibrate(expected, [generator_input(masked, hole, "mask_channel" in changes) for masked, _, hole in first])
    for _ in range(2):  # it can be done again, as it is at each validation
        training.before_validation(generator, settings, DATA)
        for found, value in zip(generator.get_weights(), expected.get_weights(), strict=True):
            np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-7)
    assert not same(generator.get_weights(), fresh)


def test_calibration_sees_the_hole_if_there_is_a_channel_for_it(shards, shallow, calibrated_on_10):
    settings, training = small("pix2pix", mask_channel=True, batch_size=10), load_training("pix2pix")
    found = []
    for weight in (0.0, 1.0):
        generator = training.begin(settings, "float32", 5).model
        kernel = generator.weights[0].numpy()
        kernel[:, :, 3] = weight
        generator.weights[0].assign(kernel)
        training.before_validation(generator, settings, DATA)
        norm = next(layer for layer in generator.layers if isinstance(layer, keras.layers.BatchNormalization))
        found.append(norm.moving_mean.numpy())
    assert np.abs(found[0] - found[1]).max() > 1e-3
