"""How the residual network is trained: its steps by hand, its average, its batches, and going on from a checkpoint."""

from itertools import islice

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline import paths
from pipeline.competition.images import SIZE, encode_image
from pipeline.competition.index import BOX_COLUMNS, boxes_of, masked_path
from pipeline.params import Residual
from pipeline.systems.residual import network as residual
from pipeline.systems.residual import training as system
from pipeline.training import loop
from tests.helpers.trainings import check_resumed, same

SEED = 3


def settings(**changes) -> Residual:
    values = {
        "steps": 8,
        "batch_size": 2,
        "validate_every": 3,
        "checkpoint_every": 1,
        "learning_rate": 1e-3,
        "weight_decay": 0.01,
        "average": 0.9,
        "filters": 2,
        "blocks": 1,
        "resolution": 64,
        "zoom": 1.0,
        "masked_images": False,
    }
    return Residual(**(values | changes))


@pytest.fixture(scope="module")
def small() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    return whole(coarse.repeat(8, axis=1).repeat(8, axis=2))


def whole(photographs: np.ndarray) -> np.ndarray:
    """Photographs [n, h, h, 3] with the fourth channel of those that are known everywhere."""
    return np.concatenate([photographs, np.full((*photographs.shape[:3], 1), 255, np.uint8)], axis=-1)


def begin(chosen: Residual, seed: int = SEED) -> loop.TrainingState:
    return system.begin(chosen, "float32", seed)


def test_a_training_begins_with_weights_of_the_seed_and_their_average_the_same():
    once, again, other = (loop.dump(begin(settings(), seed))[0].values() for seed in (1, 1, 2))
    assert same(once, again) and not same(once, other)
    training = begin(settings())
    network, average = (loop.snapshot(training.networks[name]) for name in ("network", "average"))
    assert same(network, average) and same(network, training.best)


@pytest.mark.parametrize("resolution", [64, 128])
def test_the_settings_make_the_network(resolution):
    model = begin(settings(filters=3, blocks=2, resolution=resolution)).model
    assert model.input_shape == (None, resolution, resolution, 4) and loop.snapshot(model)[0].shape[-1] == 3
    assert len(loop.snapshot(model)) > len(loop.snapshot(begin(settings(filters=3, resolution=resolution)).model))


def test_inference_uses_the_average_of_the_weights(small):
    chosen = settings(average=0.3)  # reached from the third step on; before it is (1 + step) / (10 + step)
    training = begin(chosen)
    assert training.model is training.networks["average"] and training.model is not training.networks["network"]
    step, expected = system.make_step(training, chosen), loop.snapshot(training.networks["network"])
    for number, batch in enumerate(system.draw_batches(small, settings(), SEED).take(5), 1):
        step(*batch)
        share = 1 - min(0.3, (1 + number) / (10 + number))
        now = loop.snapshot(training.networks["network"])
        expected = [mean + share * (weight - mean) for mean, weight in zip(expected, now, strict=True)]
    found = loop.snapshot(training.model)
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(found, expected, strict=True))
    assert not all(np.allclose(a, b, atol=1e-6) for a, b in zip(found, now, strict=True))


def test_the_best_weights_are_those_of_the_average(small):
    chosen = settings(steps=4, validate_every=1, learning_rate=0.01)
    training, better = begin(chosen), iter([0.4, 0.3, 0.2, 0.1])
    batches = system.draw_batches(small, settings(), SEED)
    loop.train(training, chosen, system.make_step(training, chosen), batches, lambda: next(better), lambda now: None)
    network, average = (loop.snapshot(training.networks[name]) for name in ("network", "average"))
    assert same(training.best, average) and not same(network, average)


def test_a_step_is_that_of_keras_adam_with_decoupled_decay_and_a_clipped_norm(small):
    """The gradients of the first batches are beyond the norm, the others within it."""
    chosen, norms = settings(weight_decay=0.5, steps=20), []
    training = begin(chosen)
    network = keras.models.clone_model(training.networks["network"])
    network.set_weights(training.networks["network"].get_weights())
    schedule = keras.optimizers.schedules.CosineDecay(0.0, 18, warmup_target=1e-3, warmup_steps=2)
    optimizer = keras.optimizers.AdamW(schedule, beta_2=0.99, weight_decay=0.5, global_clipnorm=1.0)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build(network.trainable_variables)
    step = system.make_step(training, chosen)
    for number, (given, wanted, counted) in enumerate(system.draw_batches(small, settings(), SEED).take(8)):
        wanted = wanted * (300 if number < 3 else 0.1)
        with tf.GradientTape() as tape:
            loss = residual.loss(wanted, network(given, training=True), counted)
        gradients = tape.gradient(loss, network.trainable_variables)
        norms.append(float(tf.linalg.global_norm(gradients)))
        optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))
        assert float(step(given, wanted, counted)["loss"]) == pytest.approx(float(loss), rel=1e-4)
    assert min(norms[:3]) > 3 and max(norms[3:]) < 1
    for a, b in zip(loop.snapshot(training.networks["network"]), loop.snapshot(network), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_weights_decay_by_themselves_and_biases_do_not(small):
    """Where the prediction is what is wanted there is no gradient, and Adam moves nothing."""
    chosen = settings(steps=1000, weight_decay=0.25, learning_rate=0.1)
    training = begin(chosen)
    network = training.networks["network"]
    for variable in network.weights[:-2]:  # the last layer is left at zero, so that it predicts zero
        if variable.path.endswith("bias"):
            variable.assign(np.linspace(0.5, 1, variable.shape[0]))
    training.optimizers["optimizer"].iterations.assign(100)  # at the peak of the learning rate
    before = loop.snapshot(network)
    given, wanted, counted = next(iter(system.draw_batches(small, settings(), SEED)))
    losses = system.make_step(training, chosen)(given, tf.zeros_like(wanted), counted)
    assert float(losses["loss"]) == 0
    for variable, old in zip(network.weights, before, strict=True):
        shrunk = 1.0 if variable.path.endswith("bias") else 1 - 0.1 * 0.25
        np.testing.assert_allclose(variable.numpy(), shrunk * old, rtol=1e-6)


def test_the_learning_rate_rises_to_its_peak_and_ends_at_zero():
    (optimizer,) = begin(settings(steps=2000, learning_rate=0.004)).optimizers.values()
    rates = []
    for step in (1, 50, 100, 1050, 2000):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    assert rates == pytest.approx([0.00004, 0.002, 0.004, 0.002, 0], abs=1e-7)


@pytest.mark.parametrize("steps", [1, 5, 30, 1000])
def test_a_short_training_warms_up_for_a_tenth_of_it_at_most_and_ends_at_zero_too(steps):
    (optimizer,) = begin(settings(steps=steps, learning_rate=0.004)).optimizers.values()
    rates = []
    for step in range(steps + 1):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    assert rates[-1] == pytest.approx(0, abs=1e-9) and max(rates) == pytest.approx(0.004)
    assert rates.index(max(rates)) == steps // 10


def test_batches_are_a_function_of_the_seed_and_the_step(small):
    def drawn(seed: int, start: int, steps: int) -> list[np.ndarray]:
        batches = system.draw_batches(small, settings(batch_size=3), seed, start)
        return [np.array(x) for batch in batches.take(steps) for x in batch]

    whole, later, other = drawn(1, 0, 6), drawn(1, 4, 2), drawn(2, 0, 6)
    assert same(whole[12:], later)
    assert not any((a == b).all() for a, b in zip(whole, other, strict=True))
    assert not (whole[2] == whole[5]).all()  # other holes at each step


def test_a_batch_is_of_the_photographs_and_their_mirror_images(small):
    seen = set()
    for given, wanted, counted in system.draw_batches(small, settings(batch_size=4), SEED).take(10):
        assert given.shape == (4, 64, 64, 4) and wanted.shape == (4, 64, 64, 3) and counted.shape == (4, 64, 64)
        for photograph in np.round((np.array(given[..., :3] + wanted) + 1) * 127.5).astype(np.uint8):
            names = [
                (i, mirrored)
                for i, whole in enumerate(small)
                for mirrored, turned in ((False, whole), (True, whole[:, ::-1]))
                if (photograph == turned[..., :3]).all()
            ]
            assert len(names) == 1
            seen |= set(names)
    assert len(seen) > 9


@pytest.mark.parametrize("resolution", [64, 128])
def test_the_photographs_that_are_trained_on_are_read_and_reduced_to_the_resolution(project, photographs, resolution):
    index, keep = project
    cell = SIZE // resolution
    means = photographs[[0, 2, 3]].reshape(3, resolution, cell, resolution, cell, 3).astype(float).mean(axis=(2, 4))
    chosen = settings(resolution=resolution)
    expected = system.draw_batches(whole(np.round(means).astype(np.uint8)), chosen, SEED)
    found, later = (system.batches(chosen, index, keep, SEED, start) for start in (0, 3))
    first = list(islice(found.as_numpy_iterator(), 5))
    assert first[0][0].shape == (2, resolution, resolution, 4)
    for some, others in ((first, expected), (first[3:], later)):
        for one, other in zip(some, others.as_numpy_iterator(), strict=False):
            assert same(one, other)
    assert system.sources(chosen, index, keep) == [
        paths.RAW / "Training_Data" / kind / "Unmasked_Train" / name
        for kind, name in (("Cat", "a.png"), ("Dog", "a.png"), ("Dog", "b.png"))
    ]
    model = residual.build(2)
    before = loop.snapshot(model)
    system.before_validation(chosen, index, keep, SEED)(model)
    assert same(before, model.get_weights())


def test_of_a_masked_image_only_known_pixels_are_learned_from(small):
    """Two boxes of it are missing whatever is drawn, and what lies in them is in no batch."""
    photographs = small.copy()
    photographs[:, 10:30, 5:25, 3] = 0
    other = np.where(photographs[..., 3:] == 255, photographs, 77)
    other[..., 3] = photographs[..., 3]
    for batch, changed, plain in zip(
        *(system.draw_batches(some, settings(), SEED).take(4) for some in (photographs, other, small)), strict=True
    ):
        (given, wanted, counted), plain_weights = map(np.array, batch), np.array(plain[2])
        inside = np.zeros((64, 64), bool)
        inside[10:30, 5:25] = True
        sides = [inside[:, ::-1] if (given[i, 10:30, 39:59, 3] == 1).all() else inside for i in range(2)]
        for i, unknown in enumerate(sides):
            assert (given[i, ..., 3] == (unknown | (plain_weights[i] > 0))).all()
            np.testing.assert_array_equal(counted[i], np.where(unknown, 0, plain_weights[i]))
        np.testing.assert_array_equal(given, changed[0])
        np.testing.assert_array_equal(counted, changed[2])
        known = counted > 0
        np.testing.assert_array_equal(wanted[known], np.array(changed[1])[known])


def test_masked_images_are_read_with_their_holes_but_not_two_of_one_photograph(project, photographs):
    """Of rows 1 (held out) and 4 (test) there is only the masked image; together in a group, both are left out."""
    index, keep = project
    index.loc[1, BOX_COLUMNS] = [0, 10, 100, 120]
    index.loc[4, BOX_COLUMNS] = [180, 180, 40, 41]
    masked = [masked_path(paths.RAW, row) for row in index.loc[[1, 4]].to_dict("records")]
    for path, image in zip(masked, photographs[1:3], strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_image(image, ".png"))
    chosen = settings(masked_images=True)
    assert system.sources(chosen, index, keep)[3:] == masked
    found = system.read_photographs(chosen, index, keep)
    assert found.shape == (5, 64, 64, 4) and (found[:3, ..., 3] == 255).all()
    missing = residual.missing_cells(boxes_of(index.loc[[1, 4]]), 64)
    np.testing.assert_array_equal(found[3:, ..., 3] == 0, missing)
    np.testing.assert_array_equal(found[3:, ..., :3], np.round(residual.shrink(photographs[1:3], 64)))
    index.loc[4, "group"] = 1
    assert len(system.sources(chosen, index, keep)) == 3
    np.testing.assert_array_equal(system.read_photographs(chosen, index, keep), found[:3])
    index["group"] = [0, 0, 1, 2, 0]  # a twin among what is trained on is no reason
    index.loc[4, "group"] = 2
    assert system.sources(chosen, index, keep)[3:] == masked


def test_zoomed_half_are_whole_and_the_others_are_parts_no_smaller_than_asked():
    """A photograph of its own coordinates says where a part of it was."""
    row, column = np.mgrid[:256, :256].astype(np.uint8)
    photograph = np.stack([row, column, row, np.full_like(row, 255)], axis=-1)[None].repeat(400, axis=0)
    found = system.zoom(np.random.default_rng(0), photograph, 1.5, 64)
    assert found.shape == (400, 64, 64, 4) and found.dtype == np.uint8 and (found[..., 3] == 255).all()
    height = found[:, -1, 0, 0].astype(int) - found[:, 0, 0, 0]
    width = found[:, 0, -1, 1].astype(int) - found[:, 0, 0, 1]
    full = (height >= 251) & (width >= 251)
    assert 0.4 < full.mean() < 0.6
    assert 250 / 1.5 / 1.12 < height.min() < 165 and 250 / 1.5 - 3 < width.min() < 175
    ratio = height[~full] / width[~full]
    assert 0.88 < ratio.min() < 0.93 and 1.06 < ratio.max() < 1.13
    assert len(np.unique(found[~full, 0, 0, :2], axis=0)) > 150
    assert np.abs(found[full][..., :3] - residual.shrink(photograph[:1, ..., :3], 64)).max() <= 1


def test_a_zoomed_batch_is_of_parts_with_what_is_known_of_them(photographs):
    some = whole(photographs)
    some[:, 100:, :, 3] = 0
    chosen = settings(batch_size=8, zoom=1.5)
    batches = [system.draw_batches(some, chosen, SEED, start).take(6 - start) for start in (0, 2)]
    first, later = ([tuple(map(np.array, batch)) for batch in drawn] for drawn in batches)
    assert all(same(a, b) for a, b in zip(first[2:], later, strict=True))
    given, _, counted = first[0]
    assert given.shape == (8, 64, 64, 4) and counted.shape == (8, 64, 64)
    assert (given[counted > 0][:, 3] == 1).all()
    lowest = [64 - (image[..., 3] == 1).all(axis=1)[::-1].argmin() for image in given]  # below it nothing is known
    assert len(set(lowest)) > 2
    assert all((counted[i, row:] == 0).all() for i, row in enumerate(lowest))


@pytest.mark.parametrize("at", [1, 5])
def test_interrupted_it_ends_with_the_same_bits(tmp_path, project, at):
    check_resumed(system, settings(), *project, tmp_path, at)


def test_it_learns(small):
    chosen = settings(steps=150, filters=8, learning_rate=3e-3)
    training = begin(chosen)
    step = system.make_step(training, chosen)
    batches = system.draw_batches(small, settings(batch_size=4), SEED).take(150)
    losses = [float(step(*batch)["loss"]) for batch in batches]
    assert np.mean(losses[-20:]) < 0.8 * np.mean(losses[:20])
