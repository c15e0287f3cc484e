"""How the vanilla GAN is trained: its losses by hand, what each network learns from. shared/ tests its batches."""

from copy import deepcopy

import keras
import numpy as np
import pytest

from pipeline.systems.vanilla_gan import training as system
from pipeline.training import loop
from tests.helpers.settings import settings_of
from tests.helpers.trainings import check_resumed, same, shard_data, uncompiled

pytestmark = pytest.mark.slow
SETTINGS = settings_of("vanilla_gan", steps=4, batch_size=2, checkpoint_every=3, learning_rate=3e-4, filters=2)


def begin() -> loop.TrainingState:
    return system.begin(SETTINGS, "float32", 5)


@pytest.fixture(scope="module")
def first_steps(batch) -> list[tuple[dict[str, float], dict[str, list[np.ndarray]]]]:
    """The losses of a first step and both networks after it: on the batch, and on one of another target."""
    masked, target, hole = batch
    state = begin()
    run, start, found = system.make_step(state, SETTINGS), deepcopy(loop.dump(state)), []
    for other in (target, -target):
        loop.restore(state, *start)
        with uncompiled():
            losses = run(masked, other, hole)
        weights = {name: loop.snapshot(network) for name, network in state.networks.items()}
        found.append(({name: float(loss) for name, loss in losses.items()}, weights))
    return found


def losses_by_hand(networks: dict[str, keras.Model], batch) -> dict[str, float]:
    """Of fresh networks, so that their dropout is that of a first step."""
    masked, target, _ = batch
    filled = networks["generator"](masked, training=True)
    real, fake = (np.float64(networks["discriminator"]([masked, image], training=True)) for image in (target, filled))
    return {
        "generator_gan": np.log1p(np.exp(-fake)).mean(),
        "discriminator": np.log1p(np.exp(-real)).mean() + np.log1p(np.exp(fake)).mean(),
    }


def test_the_losses_of_a_step_by_hand(first_steps, batch):
    assert first_steps[0][0] == pytest.approx(losses_by_hand(begin().networks, batch), rel=1e-4)


@pytest.mark.parametrize(("name", "loss"), [("generator", "generator_gan"), ("discriminator", "discriminator")])
def test_a_step_lowers_the_loss_of_each_network_against_the_other_as_it_was(first_steps, batch, name, loss):
    before, weights = first_steps[0]
    networks = begin().networks
    networks[name].set_weights(weights[name])
    assert losses_by_hand(networks, batch)[loss] < before[loss]


def test_the_generator_learns_from_the_discriminator_alone(first_steps):
    """Another target changes the discriminator, not the generator."""
    (_, once), (_, other) = first_steps
    assert same(once["generator"], other["generator"]) and not same(once["discriminator"], other["discriminator"])


def test_a_step_moves_every_kernel(first_steps):
    """At batch 2: the innermost has no gradient where normalisation sees one value."""
    for name, network in begin().networks.items():
        pairs = zip(network.weights, first_steps[0][1][name], strict=True)
        moved = [(before.numpy() != after).any() for before, after in pairs if before.path.endswith("kernel")]
        assert len(moved) >= 6 and all(moved)


def test_a_resumed_training_ends_with_the_same_weights_bit_for_bit(shards, shallow, tmp_path):
    check_resumed(system, SETTINGS, shard_data(seed=5), tmp_path, 3)
