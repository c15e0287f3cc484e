"""How the vanilla GAN is trained: its losses by hand, what each network learns from, its batches, what is kept."""

from copy import deepcopy
from itertools import islice
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from pipeline import paths
from pipeline.competition.boxes import LAST, TURNS, hole
from pipeline.competition.images import SIZE, encode_image
from pipeline.models import unet, vanilla_gan
from pipeline.params import VanillaGan
from pipeline.systems import vanilla_gan as system
from pipeline.training import loop
from pipeline.training.batches import training_batches
from pipeline.training.card import write_card
from pipeline.training.checkpoints import load_checkpoint, save_checkpoint
from pipeline.training.shards import Record, list_shards, write_shards
from pipeline.training.trained import load_fill

SEED, THREADS = 5, 2
PAIRS, HELD = 4, 2
KEEP = np.arange(PAIRS) != HELD
NO_INDEX = pd.DataFrame()  # the shards have all that is needed
# Only settable before TensorFlow is first used, so here, while tests are collected.
tf.config.threading.set_intra_op_parallelism_threads(THREADS)


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


@pytest.fixture(scope="module")
def batch() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    rng = np.random.default_rng(0)
    whole = rng.uniform(-1, 1, (2, 4, 4, 3)).repeat(SIZE // 4, axis=1).repeat(SIZE // 4, axis=2).astype(np.float32)
    missing = np.zeros((2, SIZE, SIZE, 1), np.float32)
    missing[0, 20:95, 30:105], missing[1, 100:175, 0:75] = 1, 1
    return tuple(map(tf.constant, (np.where(missing > 0, -1, whole).astype(np.float32), whole, missing)))


def begin(seed: int = SEED) -> loop.Training:
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


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return len(a) == len(b) and all((x == y).all() for x, y in zip(a, b, strict=True))


def test_a_seed_gives_its_weights_each_time():
    once, again, other = (list(loop.dump(begin(seed))[0].values()) for seed in (1, 1, 2))
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


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A folder with the shards of four pairs, each image in five turns."""
    folder = tmp_path_factory.mktemp("project")
    (folder / paths.AUGMENTED).mkdir(parents=True)
    rng = np.random.default_rng(1)
    records = [
        Record(
            encode_image(np.full((SIZE, SIZE, 3), level, np.uint8), ".jpeg"), rng.integers(0, LAST + 1, (2, 2)), pair
        )
        for level in range(0, 250, 50)
        for pair in range(PAIRS)
    ]
    assert len(records) == PAIRS * len(TURNS)
    list(write_shards(folder / paths.AUGMENTED, ((i % 2, record) for i, record in enumerate(records)), 2))
    return folder


@pytest.fixture
def here(project, monkeypatch) -> list[str]:
    """The shards, in this folder."""
    monkeypatch.chdir(project)
    return list_shards(paths.AUGMENTED)


def drawn(batches: tf.data.Dataset, steps: int) -> list[np.ndarray]:
    return [part for batch in islice(batches.as_numpy_iterator(), steps) for part in batch]


def test_the_batches_are_those_of_the_shards_pairs_that_are_trained_on(here):
    """Of 15 records, so that batches of two cross the end of an epoch; begun late, they are those of that step."""
    found = drawn(system.batches(settings(), NO_INDEX, KEEP, SEED, 0), 12)
    assert same(found, drawn(training_batches(here, KEEP, 15, batch_size=2, buffer=4, seed=SEED), 12))
    assert same(found[3 * 9 :], drawn(system.batches(settings(), NO_INDEX, KEEP, SEED, 9), 3))
    assert not same(found, drawn(system.batches(settings(), NO_INDEX, KEEP, SEED + 1, 0), 12))


def test_a_checkpoint_depends_on_the_shards_checksums(here):
    (source,) = system.sources(settings(), NO_INDEX)
    assert source.exists() and {Path(name).name for name in here} <= set(source.read_text().split('"'))


def test_the_generator_is_calibrated_on_the_first_64_images_of_the_training(here):
    chosen = settings(batch_size=40, filters=1)  # 64 images are a batch and a part of one
    found, expected = (system.begin(chosen, "float32", SEED).model for _ in range(2))
    fresh = loop.snapshot(found)
    system.prepare(found, chosen, NO_INDEX, KEEP, SEED)
    first = training_batches(here, KEEP, 15, batch_size=40, buffer=4, seed=SEED).take(2)
    unet.calibrate(expected, [masked for masked, _, _ in first])
    for value, wanted in zip(found.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-7)
    assert not same(found.get_weights(), fresh)


def test_a_resumed_training_ends_with_the_same_weights_bit_for_bit(here, tmp_path):
    whole, resumed = begin(), begin(SEED + 1)

    def go_on(training: loop.Training) -> None:
        batches = system.batches(settings(), NO_INDEX, KEEP, SEED, training.step)
        loop.train(
            training,
            settings(),
            system.make_step(training, settings()),
            batches,
            validate=lambda: 1 / training.step,
            checkpoint=lambda now: save_checkpoint(tmp_path, now.step, *loop.dump(now)),
        )

    go_on(whole)
    loop.restore(resumed, *load_checkpoint(tmp_path))
    assert resumed.step == 3 and not same(resumed.model.get_weights(), whole.model.get_weights())
    go_on(resumed)
    (arrays, state), (expected, curves) = loop.dump(resumed), loop.dump(whole)
    assert arrays.keys() == expected.keys() and same(list(arrays.values()), list(expected.values()))
    assert (state["losses"], state["validation"]) == (curves["losses"], curves["validation"])


def test_a_generator_loaded_by_its_card_fills_as_it_did_before(batch, tmp_path):
    generator = begin().model
    unet.calibrate(generator, [batch[0]])
    generator.save_weights(tmp_path / "best.weights.h5")
    facts = settings().model_dump() | {"precision": "float32", "threads": THREADS}
    write_card(
        tmp_path,
        model="vanilla_gan",
        parameters=generator.count_params(),
        devices="1 x CPU",
        settings=facts,
        normalisation=vanilla_gan.NORMALISATION,
        validation=[],
    )
    images = np.uint8((batch[1] + 1) * 127.5)
    boxes = np.array([[[20, 30], [150, 100]], [[100, 0], [10, 160]]])
    filled = load_fill(tmp_path, "best")(images, boxes, np.array(["cat", "dog"]))
    assert (filled == vanilla_gan.fill(generator, images, boxes)).all()
    holes = hole(boxes)
    assert (filled[~holes] == images[~holes]).all() and filled[holes].std() > 1
