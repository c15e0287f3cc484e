"""How the residual network is trained: its steps by hand, its average, its batches, resuming from a checkpoint."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.params import Residual
from pipeline.systems.residual import network as residual
from pipeline.systems.residual import training as system
from pipeline.training import loop
from tests.helpers.residual import SEED, draw, settings, with_known
from tests.helpers.trainings import check_resumed, drawn, same


def begin(chosen: Residual) -> loop.TrainingState:
    return system.begin(chosen, "float32", SEED)


def rates(state: loop.TrainingState, steps: list[int]) -> list[float]:
    """The learning rate at these steps."""
    optimizer, found = state.optimizers["unet"], []
    for step in steps:
        optimizer.iterations.assign(step)
        found.append(float(optimizer.learning_rate))
    return found


def test_the_model_is_the_average_of_the_weights(small, uncompiled):
    chosen = settings(average=0.3)  # reached from the third step on; before it is (1 + step) / (10 + step)
    state = begin(chosen)
    assert state.model is state.networks["average"] and state.model is not state.networks["network"]
    step, expected = system.make_step(state, chosen), loop.snapshot(state.networks["network"])
    assert same(expected, loop.snapshot(state.model))
    for number, batch in enumerate(draw(small, settings(), 5), 1):
        step(*batch)
        share = 1 - min(0.3, (1 + number) / (10 + number))
        now = loop.snapshot(state.networks["network"])
        expected = [mean + share * (weight - mean) for mean, weight in zip(expected, now, strict=True)]
    found = loop.snapshot(state.model)
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(found, expected, strict=True))
    assert not all(np.allclose(a, b, atol=1e-6) for a, b in zip(found, now, strict=True))


@pytest.mark.slow
def test_the_best_weights_are_those_of_the_average(small, uncompiled):
    chosen = settings(steps=4, validate_every=1, learning_rate=0.01)
    state, better = begin(chosen), iter([0.4, 0.3, 0.2, 0.1])
    batches = draw(small, chosen, 4)
    loop.train(state, chosen, system.make_step(state, chosen), batches, lambda: next(better), lambda now: None)
    network, average = (loop.snapshot(state.networks[name]) for name in ("network", "average"))
    assert same(state.best, average) and not same(network, average)


def test_a_step_is_that_of_keras_adam_with_decoupled_decay_and_a_clipped_norm(small, uncompiled):
    """The gradients of the first batches are beyond the norm, the others within it."""
    chosen, norms = settings(weight_decay=0.5, steps=20), []
    state = begin(chosen)
    network = keras.models.clone_model(state.networks["network"])
    network.set_weights(state.networks["network"].get_weights())
    schedule = keras.optimizers.schedules.CosineDecay(0.0, 18, warmup_target=1e-3, warmup_steps=2)
    unet, rim = parts = network.get_layer("unet"), network.get_layer("rim")
    optimizers = [keras.optimizers.AdamW(schedule, beta_2=0.99, weight_decay=0.5, global_clipnorm=1.0) for _ in parts]
    for optimizer, part in zip(optimizers, parts, strict=True):
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        optimizer.build(part.trainable_variables)
    step = system.make_step(state, chosen)
    for number, (inputs, target, weights, near, lacking, rim_weights, *sampled) in enumerate(draw(small, chosen, 4)):
        target, lacking = (part * np.float32(300 if number < 2 else 0.1) for part in (target, lacking))
        with tf.GradientTape() as tape:
            predicted = unet(inputs, training=True)
            loss = residual.loss(target, predicted, weights)
            seen = residual.add_residual(near, tf.stop_gradient(predicted[:1]), *sampled)
            left = lacking - (seen - near)[..., :3]
            rim_loss = residual.loss(left, rim(seen, training=True), rim_weights)
            total = loss + rim_loss
        variables = [part.trainable_variables for part in parts]
        gradients = tape.gradient(total, variables)
        norms.append([float(tf.linalg.global_norm(own)) for own in gradients])
        for optimizer, own, changed in zip(optimizers, gradients, variables, strict=True):
            optimizer.apply_gradients(zip(own, changed, strict=True))
        found = step(inputs, target, weights, near, lacking, rim_weights, *sampled)
        assert [float(found[name]) for name in ("loss", "rim")] == pytest.approx(
            [float(loss), float(rim_loss)], rel=1e-4
        )
    assert np.min(norms[:2]) > 3 and np.max(norms[2:]) < 1
    for a, b in zip(loop.snapshot(state.networks["network"]), loop.snapshot(network), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_weights_decay_by_themselves_and_biases_do_not(small, uncompiled):
    """If the prediction is right there is no gradient, and Adam moves nothing."""
    chosen = settings(steps=1000, weight_decay=0.25, learning_rate=0.1)
    state = begin(chosen)
    network = state.networks["network"]
    for variable in network.weights:  # the last layers are left at zero, so that they predict zero
        if variable.path.endswith("bias") and variable.shape != (3,):
            variable.assign(np.linspace(0.5, 1, variable.shape[0]))
    for optimizer in state.optimizers.values():
        optimizer.iterations.assign(100)  # at the peak of the learning rate
    before = loop.snapshot(network)
    ((inputs, target, weights, near, lacking, *rest),) = draw(small, chosen, 1)
    step = system.make_step(state, chosen)
    losses = step(inputs, np.zeros_like(target), weights, near, np.zeros_like(lacking), *rest)
    assert {name: float(value) for name, value in losses.items()} == {"loss": 0, "rim": 0}
    for variable, old in zip(network.weights, before, strict=True):
        shrunk = 1.0 if variable.path.endswith("bias") else 1 - 0.1 * 0.25
        np.testing.assert_allclose(variable.numpy(), shrunk * old, rtol=1e-6)


def test_the_learning_rate_rises_to_its_peak_and_ends_at_zero():
    found = rates(begin(settings(steps=2000, learning_rate=0.004)), [1, 50, 100, 1050, 2000])
    assert found == pytest.approx([0.00004, 0.002, 0.004, 0.002, 0], abs=1e-7)


@pytest.mark.parametrize("steps", [1, 5, 30, 1000])
def test_a_short_training_warms_up_for_at_most_a_tenth_of_it_and_ends_at_zero_too(steps):
    every = max(1, steps // 50)
    found = rates(begin(settings(steps=steps, learning_rate=0.004)), range(0, steps + 1, every))
    assert found[-1] == pytest.approx(0, abs=1e-9) and max(found) == pytest.approx(0.004)
    assert every * found.index(max(found)) == steps // 10


@pytest.mark.parametrize("resolution", [64, 128])
def test_batches_are_drawn_from_the_training_pairs_by_seed_and_step_alone(project, photographs, resolution):
    chosen = settings(resolution=resolution)
    expected = [part for batch in draw(with_known(photographs[[0, 2, 3]]), chosen, 5) for part in batch]
    assert expected[0].shape == (2, resolution, resolution, 4) and expected[3].shape == (2, 96, 96, 5)
    assert not (expected[2] == expected[10]).all()  # other holes at each step
    assert same(drawn(system.batches(chosen, project, 0), 5), expected)
    assert same(drawn(system.batches(chosen, project, 3), 2), expected[3 * 8 :])
    other = drawn(system.batches(chosen, dataclasses.replace(project, seed=1), 0), 5)
    assert not any((a == b).all() for i, (a, b) in enumerate(zip(expected, other, strict=True)) if i % 8 < 5)


def test_validation_leaves_the_model_unchanged(project):
    model = begin(settings()).model
    before = loop.snapshot(model)
    system.before_validation(model, settings(), project)
    assert same(before, model.get_weights())


@pytest.mark.slow
def test_interrupted_it_ends_with_the_same_bits(tmp_path, project):
    check_resumed(system, settings(zoom=1.5), project, tmp_path, 1, 5)


@pytest.mark.slow
def test_training_starts_at_the_harmonic_fill_and_goes_below_it(small):
    chosen = settings(steps=150, filters=8, learning_rate=3e-3, batch_size=4)
    state = begin(chosen)
    step = system.make_step(state, chosen)
    batches = draw(small, chosen, 150)
    losses = [float(step(*batch)["loss"]) for batch in batches]
    _, target, weights, *_ = batches[0]
    assert losses[0] == pytest.approx(np.average((target**2).mean(-1), weights=weights), rel=1e-4)
    assert np.mean(losses[-20:]) < 0.8 * np.mean(losses[:20])
