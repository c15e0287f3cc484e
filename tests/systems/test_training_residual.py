"""How the residual network is trained: its steps by hand, its average, its batches, and going on from a checkpoint."""

from itertools import islice

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from pipeline import paths
from pipeline.competition.images import SIZE, encode_image
from pipeline.models import residual
from pipeline.params import Residual
from pipeline.systems import residual as system
from pipeline.training import loop
from pipeline.training.checkpoints import load_checkpoint, save_checkpoint

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


def weights(model: keras.Model) -> list[np.ndarray]:
    return [np.array(weight) for weight in model.get_weights()]


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a)


def test_a_training_begins_with_weights_of_the_seed_and_their_average_the_same():
    once, again, other = (loop.dump(begin(settings(), seed))[0] for seed in (1, 1, 2))
    assert same(once, again) and not same(once, other)
    training = begin(settings())
    network, average = (weights(training.networks[name]) for name in ("network", "average"))
    assert all((a == b).all() and (a == c).all() for a, b, c in zip(network, average, training.best, strict=True))


@pytest.mark.parametrize("resolution", [64, 128])
def test_the_settings_make_the_network(resolution):
    model = begin(settings(filters=3, blocks=2, resolution=resolution)).model
    assert model.input_shape == (None, resolution, resolution, 4) and weights(model)[0].shape[-1] == 3
    assert len(weights(model)) > len(weights(begin(settings(filters=3, resolution=resolution)).model))


def test_inference_uses_the_average_of_the_weights(small):
    chosen = settings(average=0.3)  # reached from the third step on; before it is (1 + step) / (10 + step)
    training = begin(chosen)
    assert training.model is training.networks["average"] and training.model is not training.networks["network"]
    step, expected = system.make_step(training, chosen), weights(training.networks["network"])
    for number, batch in enumerate(system.draw_batches(small, 2, SEED).take(5), 1):
        step(*batch)
        share = 1 - min(0.3, (1 + number) / (10 + number))
        now = weights(training.networks["network"])
        expected = [mean + share * (weight - mean) for mean, weight in zip(expected, now, strict=True)]
    found = weights(training.model)
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(found, expected, strict=True))
    assert not all(np.allclose(a, b, atol=1e-6) for a, b in zip(found, now, strict=True))


def test_the_best_weights_are_those_of_the_average(small):
    chosen = settings(steps=4, validate_every=1, learning_rate=0.01)
    training, better = begin(chosen), iter([0.4, 0.3, 0.2, 0.1])
    batches = system.draw_batches(small, 2, SEED)
    loop.train(training, chosen, system.make_step(training, chosen), batches, lambda: next(better), lambda now: None)
    network, average = (weights(training.networks[name]) for name in ("network", "average"))
    assert all((a == b).all() for a, b in zip(training.best, average, strict=True))
    assert any((a != b).any() for a, b in zip(network, average, strict=True))


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
    for a, b in zip(weights(training.networks["network"]), weights(network), strict=True):
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
    before = weights(network)
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
    assert all((a == b).all() for a, b in zip(whole[12:], later, strict=True))
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


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    rng = np.random.default_rng(5)
    return rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2) // 2 + (
        rng.integers(0, 128, (4, SIZE, SIZE, 3), dtype=np.uint8)
    )


@pytest.fixture
def project(tmp_path, monkeypatch, photographs) -> tuple[pd.DataFrame, np.ndarray]:
    """An index of which rows 0, 2 and 3 are trained on. Of the pair held out and the test image there is no file."""
    monkeypatch.chdir(tmp_path)
    index = pd.DataFrame(
        {
            "split": ["train"] * 4 + ["test"],
            "class": ["Cat", "Cat", "Dog", "Dog", ""],
            "filename": ["a.png", "held.png", "a.png", "b.png", "test.png"],
        }
    )
    for row, image in zip(index[:4].to_dict("records"), photographs, strict=True):
        if row["filename"] != "held.png":
            path = paths.RAW / "Training_Data" / row["class"] / "Unmasked_Train" / row["filename"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_image(image, ".png"))
    return index, np.array([True, False, True, True, False])


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
            assert all((a == b).all() for a, b in zip(one, other, strict=True))
    assert system.sources(chosen, index[keep]) == [
        paths.RAW / "Training_Data" / kind / "Unmasked_Train" / name
        for kind, name in (("Cat", "a.png"), ("Dog", "a.png"), ("Dog", "b.png"))
    ]
    model = residual.build(2)
    before = weights(model)
    system.prepare(model, chosen, index, keep, SEED)
    assert all((a == b).all() for a, b in zip(before, weights(model), strict=True))


@pytest.mark.parametrize("at", [1, 5])
def test_interrupted_it_ends_with_the_same_bits(tmp_path, small, at):
    chosen = settings()

    def go_on(training: loop.Training, keep: bool) -> None:
        def checkpoint(now: loop.Training) -> None:
            if keep:
                save_checkpoint(tmp_path / str(now.step), now.step, *loop.dump(now))

        def validate() -> float:
            return float(np.abs(training.model.get_weights()[0]).mean())

        batches = system.draw_batches(small, chosen.batch_size, SEED, training.step)
        loop.train(training, chosen, system.make_step(training, chosen), batches, validate, checkpoint)

    whole, resumed = begin(chosen), begin(chosen)
    go_on(whole, True)
    loop.restore(resumed, *load_checkpoint(tmp_path / str(at)))
    assert resumed.step == at
    go_on(resumed, False)
    (arrays, state), (expected, expected_state) = loop.dump(resumed), loop.dump(whole)
    del state["seconds"], expected_state["seconds"]
    assert same(arrays, expected) and state == expected_state
    assert not same(arrays, loop.dump(begin(chosen))[0])


def test_it_learns(small):
    chosen = settings(steps=150, filters=8, learning_rate=3e-3)
    training = begin(chosen)
    step = system.make_step(training, chosen)
    losses = [float(step(*batch)["loss"]) for batch in system.draw_batches(small, 4, SEED).take(150)]
    assert np.mean(losses[-20:]) < 0.8 * np.mean(losses[:20])
