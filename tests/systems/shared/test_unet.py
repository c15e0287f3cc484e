"""The U-Net: its input, its loss, calibration, and what filling promises. Small networks."""

import keras
import numpy as np
import pytest

from pipeline.competition.boxes import BOX, hole_mask
from pipeline.competition.images import SIZE
from pipeline.systems import load_network
from pipeline.systems.shared import unet
from tests.helpers.pictures import masked_photographs, photographs, some_boxes, unknown
from tests.helpers.trainings import lively


@pytest.fixture(scope="module")
def generator():
    """A small generator whose output depends on its input; that of a fresh one is always the same grey."""
    return lively(unet.generator(3, 2, "float32"), 3)


def test_normalised_pixels_lie_between_minus_one_and_one_and_the_boxes_at_minus_one():
    images, boxes = masked_photographs(3), some_boxes(3)
    images[:, 0, 0], images[:, -1, -1] = 0, 255
    boxes[0] = 40
    images[0, 40:115, 40:115] = 0
    normal = unet.normalise(images, boxes)
    assert normal.dtype == np.float32 and normal.min() == -1 and normal[0, -1, -1].tolist() == [1, 1, 1]
    holes = np.zeros((3, SIZE, SIZE), bool)
    for image, pair in zip(holes, boxes, strict=True):
        for row, column in pair:
            image[row : row + BOX, column : column + BOX] = True
    assert (normal[holes] == -1).all()
    np.testing.assert_allclose(normal[~holes], images[~holes] / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("name", ["pix2pix", "vanilla_gan", "cyclegan"])
def test_the_boxes_hold_the_generators_output_in_evaluation_mode(generator, name):
    images, boxes = masked_photographs(2), some_boxes(2)
    raw = keras.ops.convert_to_numpy(generator(unet.normalise(images, boxes), training=False))
    filled, hole = load_network(name).fill(generator, images, boxes, unknown(2)), hole_mask(boxes)
    assert np.abs(filled[hole] - (raw[hole] + 1) * 127.5).max() <= 0.5001 and filled[hole].std() > 5


def test_the_cross_entropy_by_hand_and_finite_for_logits_of_any_size():
    logits = np.random.default_rng(0).normal(0, 3, (2, 30, 30, 1)).astype(np.float32)
    for label in (0.0, 1.0):
        expected = np.log1p(np.exp((1 - 2 * label) * logits.astype(np.float64))).mean()
        assert float(unet.cross_entropy(logits, label)) == pytest.approx(expected, rel=1e-5)
        for size in (-300, 300):
            assert np.isfinite(float(unet.cross_entropy(np.full((1, 30, 30, 1), size, np.float32), label)))


def calibration(n: int, batches: int) -> list[np.ndarray]:
    images = photographs(n * batches, 9).astype(np.float32) / 127.5 - 1
    return np.split(images * np.linspace(0.2, 1, n * batches, dtype=np.float32)[:, None, None, None], batches)


def copy_of(generator: keras.Model) -> keras.Model:
    copy = keras.models.clone_model(generator)
    copy.set_weights(generator.get_weights())
    return copy


@pytest.fixture
def uncalibrated(generator):
    """A generator that the test may change."""
    return copy_of(generator)


def without_dropout(generator: keras.Model, batch: np.ndarray) -> np.ndarray:
    """The generator's output in training mode, without dropout."""
    copy = copy_of(generator)
    for layer in copy.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0
    return keras.ops.convert_to_numpy(copy(batch, training=True))


@pytest.mark.parametrize("n", [1, 4])
def test_calibrated_on_a_batch_evaluation_is_training_without_dropout(uncalibrated, n):
    (batch,) = calibration(n, 1)
    expected = without_dropout(uncalibrated, batch)
    before = keras.ops.convert_to_numpy(uncalibrated(batch, training=False))
    unet.calibrate(uncalibrated, [batch])
    found = keras.ops.convert_to_numpy(uncalibrated(batch, training=False))
    assert np.abs(found - expected).max() < 0.02 < np.abs(before - expected).max()


def test_calibration_takes_the_mean_over_batches_in_any_order(uncalibrated):
    batches = calibration(2, 3)
    found = []
    for part in ([batches[0]], [batches[1]], [batches[2]], batches, batches[::-1]):
        unet.calibrate(uncalibrated, part)
        norm = next(layer for layer in uncalibrated.layers if isinstance(layer, keras.layers.BatchNormalization))
        found.append(np.stack([norm.moving_mean.numpy(), norm.moving_variance.numpy()]))
    np.testing.assert_allclose(found[3], np.mean(found[:3], axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[4], found[3], rtol=1e-5, atol=1e-7)


def test_calibration_changes_the_moving_statistics_alone_and_leaves_the_dropout_on(uncalibrated):
    before = [variable.numpy() for variable in uncalibrated.variables]
    unet.calibrate(uncalibrated, calibration(2, 2))
    moved = {
        variable.path.rsplit("/", 1)[1]
        for old, variable in zip(before, uncalibrated.variables, strict=True)
        if (old != variable.numpy()).any()
    }
    assert moved == {"moving_mean", "moving_variance"}
    (batch,) = calibration(2, 1)
    once, again = (keras.ops.convert_to_numpy(uncalibrated(batch, training=True)) for _ in range(2))
    assert np.abs(once - again).max() > 0.01


@pytest.mark.parametrize(("n", "batches"), [(20, 4), (32, 2)])
def test_calibration_reads_batches_up_to_64_images(uncalibrated, n, batches):
    (batch,) = calibration(n, 1)
    remaining = iter([batch] * 9)
    unet.calibrate(uncalibrated, remaining)
    assert len(list(remaining)) == 9 - batches
