"""How the vanilla GAN is trained: its losses by hand, what each network learns from, its batches, what is kept."""

from copy import deepcopy
from pathlib import Path

import keras
import numpy as np
import pytest

from pipeline.competition.boxes import hole_mask
from pipeline.params import VanillaGan
from pipeline.systems.shared import unet
from pipeline.systems.trained import load_fill
from pipeline.systems.vanilla_gan import network as vanilla_gan
from pipeline.systems.vanilla_gan import training as system
from pipeline.training import loop
from pipeline.training.batches import training_batches
from tests.helpers.trainings import KEEP, NO_INDEX, check_resumed, drawn, same, save

SEED = 5


def settings(**changes) -> VanillaGan:
    values = {
        "steps": 4,
        "batch_size": 2,
        "validate_every": 2,
        "checkpoint_every": 3,
        "learning_rate": 3e-4,
        "beta_1": 0.5,
        "shuffle_buffer": 4,
        "filters": 2,
    }
    return VanillaGan(**(values | changes))


def begin(seed: int = SEED) -> loop.TrainingState:
    return system.begin(settings(), "float32", seed)


@pytest.fixture(scope="module")
def first_steps(batch) -> list[tuple[dict[str, float], dict[str, list[np.ndarray]]]]:
    """The losses of a first step and both networks after it: on the batch, and on one of another truth."""
    masked, whole, missing = batch
    training = begin()
    run, start, found = system.make_step(training, settings()), deepcopy(loop.dump(training)), []
    for truth in (whole, -whole):
        loop.restore(training, *start)
        losses = run(masked, truth, missing)
        weights = {name: loop.snapshot(network) for name, network in training.networks.items()}
        found.append(({name: float(loss) for name, loss in losses.items()}, weights))
    return found


def losses_by_hand(networks: dict[str, keras.Model], batch) -> dict[str, float]:
    """Those of networks that have not been used yet: their dropout is then that of a first step."""
    masked, whole, _ = batch
    filled = networks["generator"](masked, training=True)
    real, fake = (np.float64(networks["discriminator"]([masked, image], training=True)) for image in (whole, filled))
    return {
        "generator_gan": np.log1p(np.exp(-fake)).mean(),
        "discriminator": np.log1p(np.exp(-real)).mean() + np.log1p(np.exp(fake)).mean(),
    }


def test_a_seed_gives_its_weights_each_time():
    once, again, other = (loop.dump(begin(seed))[0].values() for seed in (1, 1, 2))
    assert same(once, again) and not same(once, other)


def test_a_training_begins_with_its_generator_as_the_model_and_the_best():
    training = begin()
    assert training.model is training.networks["generator"] and training.step == 0
    assert same(training.best, training.model.get_weights())


def test_the_optimizers_have_the_settings():
    training = system.begin(settings(learning_rate=0.25, beta_1=0.75), "float32", SEED)
    assert training.optimizers.keys() == {"generator_optimizer", "discriminator_optimizer"}
    for optimizer in training.optimizers.values():
        assert float(optimizer.learning_rate) == 0.25 and optimizer.beta_1 == 0.75


def test_the_losses_of_a_step_by_hand(first_steps, batch):
    assert first_steps[0][0] == pytest.approx(losses_by_hand(begin().networks, batch), rel=1e-4)


@pytest.mark.parametrize(("name", "loss"), [("generator", "generator_gan"), ("discriminator", "discriminator")])
def test_a_step_lowers_the_loss_of_each_network_against_the_other_as_it_was(first_steps, batch, name, loss):
    before, weights = first_steps[0]
    networks = begin().networks
    networks[name].set_weights(weights[name])
    assert losses_by_hand(networks, batch)[loss] < before[loss]


def test_the_generator_learns_from_the_discriminator_alone(first_steps):
    """Another truth changes what the discriminator learns, and nothing of the generator."""
    (_, once), (_, other) = first_steps
    assert same(once["generator"], other["generator"]) and not same(once["discriminator"], other["discriminator"])


def test_a_step_moves_every_kernel(first_steps):
    """At batch 2: the innermost has no gradient where normalisation sees one value."""
    for name, network in begin().networks.items():
        pairs = zip(network.weights, first_steps[0][1][name], strict=True)
        moved = [(before.numpy() != after).any() for before, after in pairs if before.path.endswith("kernel")]
        assert len(moved) >= 6 and all(moved)


def test_the_batches_are_those_of_the_shards_pairs_that_are_trained_on(shards):
    """Of 15 records, so that batches of two cross the end of an epoch; begun late, they are those of that step."""
    found = drawn(system.batches(settings(), NO_INDEX, KEEP, SEED, 0), 12)
    assert same(found, drawn(training_batches(shards, KEEP, 15, batch_size=2, buffer=4, seed=SEED), 12))
    assert same(found[3 * 9 :], drawn(system.batches(settings(), NO_INDEX, KEEP, SEED, 9), 3))
    assert not same(found, drawn(system.batches(settings(), NO_INDEX, KEEP, SEED + 1, 0), 12))


def test_a_checkpoint_depends_on_the_shards_checksums(shards):
    (source,) = system.sources(settings(), NO_INDEX, KEEP)
    assert source.exists() and {Path(name).name for name in shards} <= set(source.read_text().split('"'))


def test_the_generator_is_calibrated_on_the_first_64_images_of_the_training(shards):
    chosen = settings(batch_size=40, filters=1)  # 64 images are a batch and a part of one
    found, expected = (system.begin(chosen, "float32", SEED).model for _ in range(2))
    fresh = loop.snapshot(found)
    system.before_validation(chosen, NO_INDEX, KEEP, SEED)(found)
    first = training_batches(shards, KEEP, 15, batch_size=40, buffer=4, seed=SEED).take(2)
    unet.calibrate(expected, [masked for masked, _, _ in first])
    for value, wanted in zip(found.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-7)
    assert not same(found.get_weights(), fresh)


def test_a_resumed_training_ends_with_the_same_weights_bit_for_bit(shards, tmp_path):
    check_resumed(system, settings(), NO_INDEX, KEEP, tmp_path, 3)


def test_a_generator_loaded_by_its_card_fills_as_it_did_before(batch, tmp_path):
    generator = begin().model
    unet.calibrate(generator, [batch[0]])
    save(tmp_path, vanilla_gan, generator, settings(), SEED)
    images = np.uint8((batch[1] + 1) * 127.5)
    boxes = np.array([[[20, 30], [150, 100]], [[100, 0], [10, 160]]])
    filled = load_fill(tmp_path, "best")(images, boxes, np.array(["cat", "dog"]))
    assert (filled == vanilla_gan.fill(generator, images, boxes)).all()
    holes = hole_mask(boxes)
    assert (filled[~holes] == images[~holes]).all() and filled[holes].std() > 1
