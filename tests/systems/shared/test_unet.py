"""The U-Net and what goes with it: what is given, the loss, calibration, and what filling promises. Small networks."""

import keras
import numpy as np
import pytest

from pipeline.competition.boxes import BOX, LAST, hole_mask
from pipeline.competition.images import SIZE
from pipeline.systems.pix2pix import network as pix2pix
from pipeline.systems.shared import unet
from pipeline.systems.vanilla_gan import network as vanilla_gan

FILLS = pytest.mark.parametrize("fill", [pix2pix.fill, vanilla_gan.fill], ids=["pix2pix", "vanilla_gan"])


def photographs(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8)


def some_boxes(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, LAST + 1, (n, 2, 2), dtype=np.int32)


@pytest.fixture(scope="module")
def generator():
    """A small generator that answers its input: fresh weights are so small that every output is the same grey."""
    model = unet.generator(3, 4, "float32")
    rng = np.random.default_rng(3)
    for layer in model.layers:
        for weight in layer.weights:
            if weight.path.endswith("kernel"):
                weight.assign(rng.normal(0, 1.5 / np.sqrt(16 * 4), weight.shape))
            elif weight.path.endswith("moving_mean"):
                weight.assign(rng.normal(0, 0.1, weight.shape))
    filled = pix2pix.fill(model, photographs(1), some_boxes(1))
    assert filled[hole_mask(some_boxes(1))].std() > 5
    return model


def test_normalised_pixels_lie_between_minus_one_and_one_and_the_boxes_at_minus_one():
    images, boxes = photographs(3), some_boxes(3)
    images[:, 0, 0], images[:, -1, -1] = 0, 255
    boxes[0] = 40
    normal = unet.normalise(images, boxes)
    assert normal.dtype == np.float32 and normal.min() == -1 and normal[0, -1, -1].tolist() == [1, 1, 1]
    holes = np.zeros((3, SIZE, SIZE), bool)
    for image, pair in zip(holes, boxes, strict=True):
        for row, column in pair:
            image[row : row + BOX, column : column + BOX] = True
    assert (normal[holes] == -1).all()
    np.testing.assert_allclose(normal[~holes], images[~holes] / 127.5 - 1, atol=1e-6)


@FILLS
def test_known_pixels_stay_byte_for_byte(generator, fill):
    images, boxes = photographs(3), some_boxes(3)
    before = images.copy()
    filled = fill(generator, images, boxes)
    assert filled.shape == images.shape and filled.dtype == np.uint8
    holes = hole_mask(boxes)
    assert (filled[~holes] == images[~holes]).all()
    assert (filled[holes] != images[holes]).mean() > 0.9
    assert (images == before).all()


@FILLS
def test_the_boxes_hold_what_the_generator_gives_in_evaluation_mode(generator, fill):
    images, boxes = photographs(2), some_boxes(2)
    raw = keras.ops.convert_to_numpy(generator(unet.normalise(images, boxes), training=False))
    holes = hole_mask(boxes)
    assert np.abs(fill(generator, images, boxes)[holes] - (raw[holes] + 1) * 127.5).max() <= 0.5001


@FILLS
def test_filling_twice_gives_the_same_bytes_and_leaves_the_model_as_it_was(generator, fill):
    images, boxes = photographs(2), some_boxes(2)
    before = [variable.numpy() for variable in generator.variables]
    first, second = (fill(generator, images, boxes) for _ in range(2))
    assert (first == second).all()
    assert all((old == new.numpy()).all() for old, new in zip(before, generator.variables, strict=True))


@FILLS
def test_an_image_is_filled_alike_whatever_others_are_in_its_batch(generator, fill):
    images, boxes = photographs(5), some_boxes(5)
    images[3] = 255
    together = fill(generator, images, boxes).astype(int)
    for i in range(5):
        alone = fill(generator, images[i : i + 1], boxes[i : i + 1])[0]
        assert np.abs(together[i] - alone).max() <= 1


@FILLS
def test_what_is_in_the_holes_changes_nothing(generator, fill):
    images, boxes = photographs(2), some_boxes(2)
    holes = hole_mask(boxes)
    black, noisy = images.copy(), images.copy()
    black[holes] = 0
    noisy[holes] = np.random.default_rng(1).integers(0, 12, (holes.sum(), 3))
    assert (fill(generator, black, boxes) == fill(generator, noisy, boxes)).all()


@FILLS
def test_known_pixels_do_change_the_fill(generator, fill):
    images, boxes = photographs(1), some_boxes(1)
    holes = hole_mask(boxes)
    other = np.where(holes[..., None], images, 255 - images)
    filled, changed = (fill(generator, image, boxes)[holes].astype(int) for image in (images, other))
    assert np.abs(filled - changed).mean() > 1


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
    """A generator of the test's own."""
    return copy_of(generator)


def without_dropout(generator: keras.Model, batch: np.ndarray) -> np.ndarray:
    """What the generator gives in training, but for the dropout."""
    copy = copy_of(generator)
    for layer in copy.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0
    return keras.ops.convert_to_numpy(copy(batch, training=True))


@pytest.mark.parametrize("n", [1, 4])
def test_calibrated_on_a_batch_evaluation_gives_what_training_gives_without_dropout(uncalibrated, n):
    (batch,) = calibration(n, 1)
    expected = without_dropout(uncalibrated, batch)
    before = keras.ops.convert_to_numpy(uncalibrated(batch, training=False))
    unet.calibrate(uncalibrated, [batch])
    found = keras.ops.convert_to_numpy(uncalibrated(batch, training=False))
    assert np.abs(found - expected).max() < 0.02 < np.abs(before - expected).max()


def test_calibration_takes_the_mean_over_batches_and_their_order_is_all_one(uncalibrated):
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
def test_calibration_looks_at_64_images_and_no_more_batches_than_hold_them(uncalibrated, n, batches):
    (batch,) = calibration(n, 1)
    looked_at = []
    unet.calibrate(uncalibrated, (looked_at.append(n) or batch for _ in range(9)))
    assert looked_at == [n] * batches


@pytest.mark.parametrize(
    "build", [pix2pix.build, pix2pix.build_discriminator, vanilla_gan.build, vanilla_gan.build_discriminator]
)
def test_in_mixed_precision_the_layers_compute_in_bfloat16_and_the_output_is_float32(build):
    model = build(2, dtype="mixed_bfloat16")
    convolutions = [layer for layer in model.layers if "conv" in layer.name]
    assert {layer.compute_dtype for layer in convolutions} == {"bfloat16"}
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert model.outputs[0].dtype == "float32"
