"""How the residual network is trained: its steps by hand, its average, its batches, resuming from a checkpoint."""

import dataclasses

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from pipeline import paths
from pipeline.competition.boxes import hole_mask
from pipeline.competition.images import SIZE, encode_image
from pipeline.competition.index import BOX_COLUMNS, boxes_of, masked_path
from pipeline.params import Residual
from pipeline.systems.residual import network as residual
from pipeline.systems.residual import training as system
from pipeline.training import loop
from pipeline.training.data import training_data
from tests.helpers.settings import settings_of
from tests.helpers.trainings import check_resumed, drawn, same

SEED = 3
SMALL = {
    "steps": 8,
    "batch_size": 2,
    "checkpoint_every": 1,
    "learning_rate": 1e-3,
    "average": 0.9,
    "filters": 2,
    "rim_filters": 2,
}


def settings(**changes) -> Residual:
    return settings_of("residual", **(SMALL | {"validate_every": 3, "zoom": 1.0} | changes))


def with_known(photographs: np.ndarray) -> np.ndarray:
    """Photographs [n, h, h, 3] as read_photographs returns them, known everywhere."""
    return np.concatenate([photographs, np.full((*photographs.shape[:3], 1), 255, np.uint8)], axis=-1)


@pytest.fixture(scope="module")
def small() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    return with_known(coarse.repeat(32, axis=1).repeat(32, axis=2))


def draw(photographs: np.ndarray, chosen: Residual, steps: int) -> list[tuple[np.ndarray, ...]]:
    """The first batches."""
    generators = [np.random.default_rng((SEED, step)) for step in range(steps)]
    size = chosen.batch_size
    return [system.draw_batch(photographs, chosen, rng, slice(0, size), size) for rng in generators]


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


def test_a_batch_has_the_photographs_and_their_mirror_images(small):
    seen = set()
    for inputs, target, weights, *_ in draw(small, settings(batch_size=4), 10):
        assert inputs.shape == (4, 64, 64, 4) and target.shape == (4, 64, 64, 3) and weights.shape == (4, 64, 64)
        for photograph in np.round((inputs[..., :3] + target + 1) * 127.5).astype(np.uint8):
            (name,) = [
                (i, mirrored)
                for i, image in enumerate(small)
                for mirrored, turned in ((False, image), (True, image[:, ::-1]))
                if (photograph == turned[::4, ::4, :3]).all()
            ]
            seen.add(name)
    assert len(seen) > 9


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


def test_a_checkpoint_depends_on_the_training_pairs_photographs(project):
    assert system.input_files(settings(), project) == [
        paths.RAW / "Training_Data" / name / "Unmasked_Train" / file
        for name, file in (("Cat", "a.png"), ("Dog", "a.png"), ("Dog", "b.png"))
    ]


def test_validation_leaves_the_model_unchanged(project):
    model = begin(settings()).model
    before = loop.snapshot(model)
    system.before_validation(model, settings(), project)
    assert same(before, model.get_weights())


def test_only_known_pixels_of_a_masked_image_are_learned_from(small):
    """Part of each image is always a hole, and its pixels change no batch."""
    photographs = small.copy()
    photographs[:, 40:120, 20:100, 3] = 0
    other = np.where(photographs[..., 3:] == 255, photographs, 77)
    other[..., 3] = photographs[..., 3]
    drawn_from = [draw(some, settings(), 4) for some in (photographs, other, small)]
    for (inputs, target, weights, *rims), changed, (_, _, plain, *_) in zip(*drawn_from, strict=True):
        inside = np.zeros((64, 64), bool)
        inside[10:30, 5:25] = True
        sides = [inside[:, ::-1] if (inputs[i, 10:30, 39:59, 3] == 1).all() else inside for i in range(2)]
        for i, hole in enumerate(sides):
            assert (inputs[i, ..., 3] == (hole | (plain[i] > 0))).all()
            np.testing.assert_array_equal(weights[i], np.where(hole, 0, plain[i]))
        np.testing.assert_array_equal(inputs, changed[0])
        np.testing.assert_array_equal(weights, changed[2])
        np.testing.assert_array_equal(target[weights > 0], changed[1][weights > 0])
        assert same(rims[2:], changed[5:]) and (rims[0] == changed[3]).all()
        np.testing.assert_array_equal(rims[1][rims[2] > 0], changed[4][rims[2] > 0])


def test_masked_images_are_read_with_their_holes_but_not_two_of_one_photograph(project, photographs):
    """Rows 1 (validation) and 4 (test) have a masked image only; together in a group, both are left out."""
    split = pd.concat([project.pairs, project.masked_only]).sort_index()
    split.loc[1, BOX_COLUMNS] = [0, 10, 100, 120]
    split.loc[4, BOX_COLUMNS] = [180, 180, 40, 41]
    masked = [masked_path(paths.RAW, row) for row in split.loc[[1, 4]].to_dict("records")]
    for path, image in zip(masked, photographs[1:3], strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_image(image, ".png"))
    chosen = settings(masked_images=True)

    def read(groups: list[int]) -> np.ndarray:
        data = training_data(split.assign(group=groups), SEED)
        found = system.read_photographs(chosen, data)
        assert system.input_files(chosen, data)[3:] == masked[: len(found) - 3]
        return found

    found = read([0, 1, 2, 3, 4])
    assert found.shape == (5, SIZE, SIZE, 4) and (found[:3, ..., 3] == 255).all()
    np.testing.assert_array_equal(found[3:, ..., 3] == 0, hole_mask(boxes_of(split.loc[[1, 4]])))
    np.testing.assert_array_equal(found[3:, ..., :3], photographs[1:3])
    np.testing.assert_array_equal(read([0, 1, 2, 3, 1]), found[:3])
    assert len(read([0, 0, 1, 2, 2])) == 5  # a twin among the training pairs is no reason


def test_half_of_the_parts_are_whole_photographs_and_the_others_no_smaller_than_the_zoom():
    start, length = system.draw_parts(np.random.default_rng(0), 400, 1.5)
    whole = (length == SIZE).all(axis=1)
    assert 0.4 < whole.mean() < 0.6
    assert (start >= 0).all() and (start + length <= SIZE).all()
    height, width = length[~whole].T
    assert 250 / 1.5 / 1.12 < height.min() < 165 and 250 / 1.5 < width.min() < 175
    ratio = height / width
    assert 0.88 < ratio.min() < 0.93 and 1.06 < ratio.max() < 1.13
    assert len(np.unique(start[~whole], axis=0)) > 150


def test_without_zoom_every_part_is_the_whole_photograph():
    start, length = system.draw_parts(np.random.default_rng(0), 50, 1.0)
    assert (start == 0).all() and (length == SIZE).all()


def test_a_part_is_cut_and_resized():
    """A photograph of its own coordinates shows which part it is."""
    row, column = np.mgrid[:SIZE, :SIZE].astype(np.uint8)
    photographs = np.stack([row, column, row, np.full_like(row, 255)], axis=-1)[None].repeat(2, axis=0)
    start, length = np.array([[0, 0], [40, 60]]), np.array([[SIZE, SIZE], [64, 192]])
    whole, part = system.cut_parts(photographs, start, length, 64)
    assert whole.shape == part.shape == (64, 64, 4) and whole.dtype == np.uint8
    assert np.abs(whole - residual.shrink(photographs[0], 64)).max() <= 1
    np.testing.assert_array_equal(part[:, 0, 0], np.arange(64) + 40)
    np.testing.assert_array_equal(part[0, :, 1], np.arange(64) * 3 + 61)
    assert (part[..., 3] == 255).all()


def test_a_zoomed_batch_has_parts_and_their_known_pixels(photographs):
    some = with_known(photographs)
    some[:, 100:, :, 3] = 0
    ((inputs, _, weights, *_),) = draw(some, settings(batch_size=8, zoom=1.5), 1)
    assert inputs.shape == (8, 64, 64, 4) and weights.shape == (8, 64, 64)
    assert (inputs[weights > 0][:, 3] == 1).all()
    lowest = [64 - (image[..., 3] == 1).all(axis=1)[::-1].argmin() for image in inputs]  # below it nothing is known
    assert len(set(lowest)) > 2
    assert all((weights[i, row:] == 0).all() for i, row in enumerate(lowest))


def test_each_of_two_workers_draws_its_part_of_the_batch(photographs):
    chosen, some = settings(batch_size=4, zoom=1.5), with_known(photographs)
    ((*whole,),) = draw(some, chosen, 1)
    for local in (slice(0, 2), slice(2, 4)):
        part = system.draw_batch(some, chosen, np.random.default_rng((SEED, 0)), local, 2)
        assert same(part[:3], [values[local] for values in whole[:3]])
        # Each device sees a photograph of its own at full resolution, two boxes of it.
        assert [len(values) for values in part[3:]] == [2] * 5
        assert same(part[3:], whole[3:]) == (local.start == 0)


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


def test_the_rims_of_the_first_photographs_are_seen_at_full_resolution(small):
    """What the U-Net sees reduced, the rim's network sees whole: both boxes of one photograph in eight."""
    chosen = settings(batch_size=16)
    ((inputs, _, _, near, lacking, weights, rows, columns),) = draw(small, chosen, 1)
    assert inputs.shape == (16, 64, 64, 4) and near.shape == (4, 96, 96, 5) and rows.shape == (4, 96, 64)
    assert lacking.shape == (4, 96, 96, 3) and weights.shape == (4, 96, 96) and columns.shape == rows.shape
    for number in range(4):
        reduced = np.einsum("ih,hwc,jw->ijc", rows[number], inputs[number // 2, ..., :3], columns[number])
        known = (near[number, ..., 3] == 0) & (near[number, ..., 4] == 1)
        assert np.corrcoef(reduced[known].ravel(), near[number, ..., :3][known].ravel())[0, 1] > 0.8
