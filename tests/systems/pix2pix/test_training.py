"""How pix2pix is trained: what its settings do to a step, its losses by hand, its batches and its calibration."""

from copy import deepcopy
from itertools import islice
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.competition.images import SIZE
from pipeline.params import Pix2pix
from pipeline.systems.pix2pix import training as system
from pipeline.systems.shared import unet
from pipeline.training import loop
from pipeline.training.batches import training_batches
from tests.helpers.trainings import KEEP, NO_INDEX, drawn, same

SEED = 5


def settings(**changes) -> Pix2pix:
    values = {
        "steps": 4,
        "batch_size": 2,
        "validate_every": 4,
        "checkpoint_every": 4,
        "learning_rate": 3e-4,
        "beta_1": 0.5,
        "lambda_gan": 1.0,
        "lambda_l1": 100.0,
        "lambda_l2": 0.0,
        "loss": "image",
        "mask_channel": False,
        "random_holes": False,
        "shuffle_buffer": 4,
        "filters": 2,
    }
    return Pix2pix(**(values | changes))


def begin(chosen: Pix2pix, precision: str = "float32", seed: int = SEED) -> loop.TrainingState:
    return system.begin(chosen, precision, seed)


def step(chosen: Pix2pix, batch) -> tuple[dict[str, float], loop.TrainingState]:
    """The losses of a first step, and the training after it."""
    training = begin(chosen)
    losses = system.make_step(training, chosen)(*batch)
    return {name: float(loss) for name, loss in losses.items()}, training


def steps(chosen: Pix2pix, *batches) -> list[tuple[dict[str, float], list[np.ndarray]]]:
    """The losses and the generator after a first step on each of some batches, compiled but once."""
    training = begin(chosen)
    run, start, found = system.make_step(training, chosen), deepcopy(loop.dump(training)), []
    for batch in batches:
        loop.restore(training, *start)
        losses = run(*batch)
        found.append(({name: float(loss) for name, loss in losses.items()}, loop.snapshot(training.model)))
    return found


def test_a_seed_gives_its_weights_each_time():
    once, again, other = (loop.dump(begin(settings(), seed=seed))[0].values() for seed in (1, 1, 2))
    assert same(once, again) and not same(once, other)


def test_a_training_begins_with_its_generator_as_the_model_and_the_best():
    training = begin(settings())
    assert training.model is training.networks["generator"] and training.step == 0
    assert same(training.best, loop.snapshot(training.model))


@pytest.mark.parametrize(
    "changes",
    [
        {"lambda_gan": 3.0, "lambda_l1": 50.0, "lambda_l2": 20.0},
        {"lambda_gan": 0.5, "lambda_l1": 10.0, "lambda_l2": 40.0, "loss": "holes", "mask_channel": True},
    ],
)
def test_the_losses_of_a_step_by_hand(batch, changes):
    """By those of the networks as they begin: with the same seed, the dropout is the same too."""
    chosen = settings(**changes)
    found, _ = step(chosen, batch)
    masked, whole, missing = batch
    networks = begin(chosen).networks
    given = np.concatenate([masked, missing], axis=-1) if chosen.mask_channel else masked
    filled = networks["generator"](given, training=True)
    real, fake = (np.float64(networks["discriminator"]([masked, image], training=True)) for image in (whole, filled))
    off = np.float64(whole) - np.float64(filled)
    if chosen.loss == "holes":
        off = off[np.array(missing)[..., 0] == 1]
        assert off.shape == (2 * 75 * 75, 3)
    expected = {
        "generator_l1": np.abs(off).mean(),
        "generator_l2": np.square(off).mean(),
        "generator_gan": np.log1p(np.exp(-fake)).mean(),
        "discriminator": np.log1p(np.exp(-real)).mean() + np.log1p(np.exp(fake)).mean(),
    }
    names = {"generator_l1": "lambda_l1", "generator_l2": "lambda_l2", "generator_gan": "lambda_gan"}
    expected["generator"] = sum(getattr(chosen, weight) * expected[name] for name, weight in names.items())
    assert found == pytest.approx(expected, rel=1e-4)


def test_without_an_adversary_no_discriminator_is_trained(batch):
    found, training = step(settings(lambda_gan=0.0, lambda_l2=7.0), batch)
    assert found.keys() == {"generator", "generator_l1", "generator_l2"}
    assert found["generator"] == pytest.approx(100 * found["generator_l1"] + 7 * found["generator_l2"], rel=1e-5)
    fresh = begin(settings())
    assert same(*(loop.snapshot(each.networks["discriminator"]) for each in (training, fresh)))
    assert not same(*(loop.snapshot(each.model) for each in (training, fresh)))
    counts = {name: int(optimizer.iterations.numpy()) for name, optimizer in training.optimizers.items()}
    assert counts == {"generator_optimizer": 1, "discriminator_optimizer": 0}


def test_the_loss_of_the_holes_does_not_look_at_the_known_pixels(batch):
    masked, whole, missing = batch
    other = tf.where(missing > 0, whole, -whole)  # another truth where the pixels are known
    for where, alike in (("holes", True), ("image", False)):
        chosen = settings(loss=where, lambda_gan=0.0)
        (once, model), (again, other_model) = steps(chosen, (masked, whole, missing), (masked, other, missing))
        assert (once["generator_l1"] == pytest.approx(again["generator_l1"], rel=1e-6)) == alike
        assert same(model, other_model) == alike


def test_what_the_generator_is_given_ends_with_the_mask_where_asked(batch):
    masked, _, missing = batch
    assert system.given(masked, missing, False) is masked
    given = system.given(masked, missing, True)
    assert given.shape == (2, SIZE, SIZE, 4)
    assert (given[..., :3].numpy() == masked.numpy()).all() and (given[..., 3:].numpy() == missing.numpy()).all()


@pytest.mark.parametrize("mask_channel", [True, False])
def test_in_training_the_generator_sees_the_mask_where_asked(batch, mask_channel):
    """The loss over the whole image has no other use for it."""
    masked, whole, missing = batch
    chosen = settings(mask_channel=mask_channel, lambda_gan=0.0, learning_rate=0.01)
    assert begin(chosen).model.input_shape[-1] == 3 + mask_channel
    found = steps(chosen, (masked, whole, missing), (masked, whole, tf.zeros_like(missing)))
    kernels = [model[0] for _, model in found]
    assert kernels[0].shape[2] == 3 + mask_channel
    assert (np.abs(kernels[0] - kernels[1]).max() > 1e-3) == mask_channel
    if mask_channel:  # where nothing is missing the fourth channel is 0, and its weights have no gradient
        before = loop.snapshot(begin(chosen).model)[0]
        assert (kernels[1][:, :, 3] == before[:, :, 3]).all() and (kernels[0][:, :, 3] != before[:, :, 3]).all()


def test_a_training_with_all_settings_changed_learns(batch):
    chosen = settings(
        mask_channel=True, loss="holes", lambda_gan=0.0, lambda_l1=0.0, lambda_l2=1.0, filters=4, learning_rate=2e-3
    )
    training = begin(chosen)
    run = system.make_step(training, chosen)
    found = [float(run(*batch)["generator_l2"]) for _ in range(30)]
    assert found[-1] < 0.9 * found[0]


def test_steps_on_one_batch_lower_its_loss(batch):
    chosen = settings(filters=4, learning_rate=2e-3, lambda_l1=1000.0)
    training = begin(chosen)
    run = system.make_step(training, chosen)
    found = [float(run(*(part[:1] for part in batch))["generator_l1"]) for _ in range(40)]
    assert np.mean(found[-5:]) < 0.6 * found[0]


def test_a_step_moves_both_networks(batch):
    """At batch 2: the innermost kernel has no gradient where normalisation sees one value."""
    before = begin(settings())
    _, training = step(settings(), batch)
    for name, model in training.networks.items():
        pairs = list(zip(model.variables, before.networks[name].variables, strict=True))
        moved = {now.path.rsplit("/", 1)[1] for now, then in pairs if (now.numpy() != then.numpy()).any()}
        kernels = [(now.numpy(), then.numpy()) for now, then in pairs if now.path.endswith("kernel")]
        assert len(kernels) >= 5 and all((now != then).any() for now, then in kernels)
        assert {"kernel", "moving_mean", "moving_variance"} <= moved


def test_the_optimizers_have_the_settings():
    training = begin(settings(learning_rate=0.25, beta_1=0.75))
    assert training.optimizers.keys() == {"generator_optimizer", "discriminator_optimizer"}
    for optimizer in training.optimizers.values():
        assert float(optimizer.learning_rate) == 0.25 and optimizer.beta_1 == 0.75


def has_avx512() -> bool:
    path = Path("/proc/cpuinfo")
    return path.exists() and "avx512bw" in path.read_text(encoding="utf-8")


@pytest.mark.skipif(not has_avx512(), reason="bfloat16 convolutions need AVX-512 here")
def test_mixed_precision_trains_float32_weights(batch):
    training = begin(settings(), "mixed_bfloat16")
    run = system.make_step(training, settings())
    for _ in range(2):
        assert all(np.isfinite(float(loss)) for loss in run(*batch).values())
    assert all(np.isfinite(value).all() for value in loop.dump(training)[0].values())
    assert {variable.dtype for variable in training.model.trainable_variables} == {"float32"}
    convolutions = [layer for layer in training.model.layers if "conv" in layer.name]
    assert {layer.compute_dtype for layer in convolutions} == {"bfloat16"}


@pytest.mark.parametrize("random_holes", [False, True])
def test_the_batches_are_those_of_the_shards_pairs_that_are_trained_on(shards, random_holes):
    """Of 15 records, so that batches of two cross the end of an epoch; begun late, they are those of that step."""
    chosen = settings(random_holes=random_holes, shuffle_buffer=6)
    expected = training_batches(
        shards, keep=KEEP, records=15, batch_size=2, buffer=6, seed=SEED, start=0, random_holes=random_holes
    )
    whole = drawn(system.batches(chosen, NO_INDEX, KEEP, SEED, 0), 20)
    assert same(whole, drawn(expected, 20))
    later = drawn(system.batches(chosen, NO_INDEX, KEEP, SEED, 11), 9)
    assert same(whole[3 * 11 :], later)


@pytest.mark.parametrize("changes", [{}, {"mask_channel": True, "random_holes": True}])
def test_the_generator_is_calibrated_on_the_first_64_images_of_the_training(shards, changes):
    chosen = settings(batch_size=20, filters=1, **changes)  # 64 images are three batches and a part of one
    given = training_batches(shards, KEEP, 15, 20, chosen.shuffle_buffer, SEED, 0, chosen.random_holes)
    seen = [
        np.concatenate([masked, missing], axis=-1) if chosen.mask_channel else masked
        for masked, _, missing in islice(given.as_numpy_iterator(), 4)
    ]
    expected = begin(chosen).model
    unet.calibrate(expected, seen)
    generator = begin(chosen).model
    for _ in range(2):  # it can be done again, as it is at each validation
        system.before_validation(chosen, NO_INDEX, KEEP, SEED)(generator)
        for found, wanted in zip(loop.snapshot(generator), loop.snapshot(expected), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)
    assert not same(loop.snapshot(generator), loop.snapshot(begin(chosen).model))


def test_calibration_sees_the_mask_where_there_is_a_channel_for_it(shards):
    chosen = settings(mask_channel=True, batch_size=64, filters=1)
    found = []
    for weight in (0.0, 1.0):
        generator = begin(chosen).model
        first_kernel = generator.weights[0]
        kernel = first_kernel.numpy()
        kernel[:, :, 3] = weight
        first_kernel.assign(kernel)
        system.before_validation(chosen, NO_INDEX, KEEP, SEED)(generator)
        norm = next(layer for layer in generator.layers if isinstance(layer, keras.layers.BatchNormalization))
        found.append(norm.moving_mean.numpy())
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_a_checkpoint_depends_on_the_shards_checksums(shards):
    (source,) = system.sources(settings(), NO_INDEX, KEEP)
    assert source.exists() and {Path(name).name for name in shards} <= set(source.read_text().split('"'))
