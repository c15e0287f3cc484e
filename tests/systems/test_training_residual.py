"""How the residual network is trained: its steps by hand, its average, its batches, and going on from a checkpoint."""

from itertools import islice

import keras
import numpy as np
import pytest
import tensorflow as tf
from trainings import check_resumed, same

from pipeline import paths
from pipeline.competition.images import SIZE
from pipeline.models import residual
from pipeline.params import Residual
from pipeline.systems import residual as system
from pipeline.training import loop

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
    }
    return Residual(**(values | changes))


@pytest.fixture(scope="module")
def small() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def begin(chosen: Residual, seed: int = SEED) -> loop.Training:
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
    for number, batch in enumerate(system.draw_batches(small, 2, SEED).take(5), 1):
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
    batches = system.draw_batches(small, 2, SEED)
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
    for number, (given, wanted, counted) in enumerate(system.draw_batches(small, 2, SEED).take(8)):
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
    given, wanted, counted = next(iter(system.draw_batches(small, 2, SEED)))
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
        return [np.array(x) for batch in system.draw_batches(small, 3, seed, start).take(steps) for x in batch]

    whole, later, other = drawn(1, 0, 6), drawn(1, 4, 2), drawn(2, 0, 6)
    assert same(whole[12:], later)
    assert not any((a == b).all() for a, b in zip(whole, other, strict=True))
    assert not (whole[2] == whole[5]).all()  # other holes at each step


def test_a_batch_is_of_the_photographs_and_their_mirror_images(small):
    seen = set()
    for given, wanted, counted in system.draw_batches(small, 4, SEED).take(10):
        assert given.shape == (4, 64, 64, 4) and wanted.shape == (4, 64, 64, 3) and counted.shape == (4, 64, 64)
        for photograph in np.round((np.array(given[..., :3] + wanted) + 1) * 127.5).astype(np.uint8):
            names = [
                (i, mirrored)
                for i, whole in enumerate(small)
                for mirrored, turned in ((False, whole), (True, whole[:, ::-1]))
                if (photograph == turned).all()
            ]
            assert len(names) == 1
            seen |= set(names)
    assert len(seen) > 9


@pytest.mark.parametrize("resolution", [64, 128])
def test_the_photographs_that_are_trained_on_are_read_and_reduced_to_the_resolution(project, photographs, resolution):
    index, keep = project
    cell = SIZE // resolution
    means = photographs[[0, 2, 3]].reshape(3, resolution, cell, resolution, cell, 3).astype(float).mean(axis=(2, 4))
    expected = system.draw_batches(np.round(means).astype(np.uint8), 2, SEED)
    chosen = settings(resolution=resolution)
    found, later = (system.batches(chosen, index, keep, SEED, start) for start in (0, 3))
    whole = list(islice(found.as_numpy_iterator(), 5))
    assert whole[0][0].shape == (2, resolution, resolution, 4)
    for some, others in ((whole, expected), (whole[3:], later)):
        for one, other in zip(some, others.as_numpy_iterator(), strict=False):
            assert same(one, other)
    assert system.sources(chosen, index[keep]) == [
        paths.RAW / "Training_Data" / kind / "Unmasked_Train" / name
        for kind, name in (("Cat", "a.png"), ("Dog", "a.png"), ("Dog", "b.png"))
    ]
    model = residual.build(2)
    before = loop.snapshot(model)
    system.preparation(chosen, index, keep, SEED)(model)
    assert same(before, model.get_weights())


@pytest.mark.parametrize("at", [1, 5])
def test_interrupted_it_ends_with_the_same_bits(tmp_path, project, at):
    check_resumed(system, settings(), *project, tmp_path, at)


def test_it_learns(small):
    chosen = settings(steps=150, filters=8, learning_rate=3e-3)
    training = begin(chosen)
    step = system.make_step(training, chosen)
    losses = [float(step(*batch)["loss"]) for batch in system.draw_batches(small, 4, SEED).take(150)]
    assert np.mean(losses[-20:]) < 0.8 * np.mean(losses[:20])
