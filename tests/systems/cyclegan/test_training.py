"""How CycleGAN is trained: its losses by hand, what each network learns, from which weights it begins, what is kept."""

from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.base.errors import BadInput
from pipeline.competition.boxes import LAST, hole_mask, paste
from pipeline.competition.images import SIZE, to_uint8
from pipeline.params import CycleGan
from pipeline.systems.cyclegan import network as cyclegan
from pipeline.systems.cyclegan import training as system
from pipeline.systems.shared import unet
from pipeline.systems.trained import load_fill
from pipeline.training import loop
from pipeline.training.batches import training_batches
from pipeline.training.runtime import cpu_flags
from tests.helpers import keras2
from tests.helpers.trainings import KEEP, NO_INDEX, check_resumed, drawn, same, save

SEED, FILTERS = 5, 2
NETWORKS = [*system.GENERATORS, *system.DISCRIMINATORS]


@pytest.fixture(autouse=True, scope="module")
def few_blocks() -> Iterator[None]:
    """A resnet of one residual block, which is compiled in a third of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cyclegan, "BLOCKS", 1)
        yield


def settings(**changes) -> CycleGan:
    values = {
        "steps": 2,
        "batch_size": 1,
        "validate_every": 1,
        "checkpoint_every": 1,
        "generator": "resnet",
        "pretrained": "",
        "revision": "",
        "learning_rate": 2e-4,
        "beta_1": 0.5,
        "lambda_cycle": 10.0,
        "lambda_identity": 5.0,
        "shuffle_buffer": 4,
        "filters": FILTERS,
    }
    return CycleGan(**(values | changes))


def begin(seed: int = SEED, precision: str = "float32", **changes) -> loop.TrainingState:
    return system.begin(settings(**changes), precision, seed)


@pytest.fixture(scope="module")
def batch(batch) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Of one image."""
    return tuple(part[:1] for part in batch)


@pytest.fixture
def uncompiled():
    """Steps run as they are: for a single one, compiling takes longer than it saves."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def losses_by_hand(networks: dict[str, keras.Model], batch) -> dict[str, float]:
    masked, whole, _ = batch
    fill, back, judge_whole, judge_masked = (
        lambda images, name=name: np.float32(networks[name](images, training=True)) for name in NETWORKS
    )
    filled, emptied = fill(masked), back(whole)
    fakes, reals = (judge_whole(filled), judge_masked(emptied)), (judge_whole(whole), judge_masked(masked))
    found = {
        "generator_gan": sum(((fake - 1) ** 2).mean() for fake in fakes),
        "generator_cycle": np.abs(back(filled) - masked).mean() + np.abs(fill(emptied) - whole).mean(),
        "generator_identity": np.abs(fill(whole) - whole).mean() + np.abs(back(masked) - masked).mean(),
        "discriminator": sum(
            ((real - 1) ** 2).mean() + (fake**2).mean() for real, fake in zip(reals, fakes, strict=True)
        )
        / 2,
    }
    return found | {
        "generator": found["generator_gan"] + 10 * found["generator_cycle"] + 5 * found["generator_identity"]
    }


@pytest.fixture(scope="module")
def steps(batch) -> tuple[list[dict[str, float]], list[dict[str, list[np.ndarray]]]]:
    """The losses of some steps on one batch, and the weights before and after the first one and after the last."""
    chosen = settings(learning_rate=2e-3)
    training = system.begin(chosen, "float32", SEED)
    run, losses, weights = system.make_step(training, chosen), [], []
    for number in range(20):
        if number in (0, 1):
            weights.append({name: loop.snapshot(network) for name, network in training.networks.items()})
        losses.append({name: float(loss) for name, loss in run(*batch).items()})
    return losses, weights


def test_a_seed_gives_its_weights_each_time():
    once, again, other = (loop.dump(begin(seed))[0].values() for seed in (1, 1, 2))
    assert same(once, again) and not same(once, other)


def test_a_training_has_four_networks_with_the_settings_and_fills_with_the_first():
    training = begin(generator="unet", filters=1, learning_rate=0.25, beta_1=0.75)
    assert list(training.networks) == NETWORKS and training.step == 0
    assert training.model is training.networks["generator"] and same(training.best, training.model.get_weights())
    assert list(training.optimizers) == [f"{name}_optimizer" for name in NETWORKS]
    for optimizer in training.optimizers.values():
        assert float(optimizer.learning_rate) == 0.25 and optimizer.beta_1 == 0.75
    fresh = [training.networks[name].get_weights() for name in NETWORKS]
    assert not same(*fresh[:2]) and not same(*fresh[2:])
    assert [len(weights) for weights in fresh[:2]] == [45, 45]


def test_the_losses_of_a_step_by_hand(steps, batch):
    assert steps[0][0] == pytest.approx(losses_by_hand(begin().networks, batch), rel=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_lowers_the_loss_of_each_network_against_the_others_as_they_were(steps, batch, name):
    losses, (_, after) = steps
    networks = begin().networks
    networks[name].set_weights(after[name])
    loss = "generator" if name in system.GENERATORS else "discriminator"
    assert losses_by_hand(networks, batch)[loss] < losses[0][loss]


def test_a_step_moves_every_kernel(steps):
    for name, network in begin().networks.items():
        before, after = (weights[name] for weights in steps[1])
        moved = [
            (old != new).any()
            for old, new, weight in zip(before, after, network.weights, strict=True)
            if weight.path.endswith("kernel")
        ]
        assert len(moved) >= 5 and all(moved)


def test_steps_on_one_batch_lower_what_the_generators_are_to_lower(steps):
    losses, _ = steps
    for name in ("generator", "generator_cycle", "generator_identity"):
        assert losses[-1][name] < 0.95 * losses[0][name]


def test_each_generator_learns_from_both_cycles(batch, uncompiled):
    """An image that only one cycle begins with changes what both learn where nothing but the cycles counts."""
    masked, whole, missing = batch
    chosen, found = settings(filters=1, lambda_cycle=1e6, lambda_identity=0.0), []
    for truth in (whole, -whole):
        training = system.begin(chosen, "float32", SEED)
        losses = system.make_step(training, chosen)(masked, truth, missing)
        assert "generator_identity" not in losses
        expected = losses["generator_gan"] + 1e6 * losses["generator_cycle"]
        assert float(losses["generator"]) == pytest.approx(float(expected), rel=1e-5)
        found.append([training.networks[name].get_weights() for name in system.GENERATORS])
    assert not any(same(once, other) for once, other in zip(*found, strict=True))


@pytest.mark.skipif("avx512bw" not in cpu_flags(), reason="bfloat16 convolutions need AVX-512 here")
@pytest.mark.parametrize("generator", ["resnet", "unet"])
def test_mixed_precision_trains_float32_weights_with_losses_in_float32(batch, uncompiled, generator):
    training = begin(precision="mixed_bfloat16", generator=generator)
    before = training.model.get_weights()
    losses = system.make_step(training, settings())(*batch)
    assert all(loss.dtype == tf.float32 and np.isfinite(float(loss)) for loss in losses.values())
    assert all(np.isfinite(value).all() for value in loop.dump(training)[0].values())
    assert {variable.dtype for variable in training.model.trainable_variables} == {"float32"}
    assert not same(before, training.model.get_weights())


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> tuple[Path, list[list[np.ndarray]]]:
    """The folder of two generators, and their weights."""
    folder, weights = tmp_path_factory.mktemp("pretrained"), [keras2.lively("resnet", FILTERS, seed) for seed in (1, 2)]
    keras2.write_two(folder, "resnet", *weights)
    return folder, weights


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_it_begins_with_pretrained_generators_and_with_the_discriminators_it_has_without(pretrained, precision):
    folder, weights = pretrained
    training, scratch = begin(precision=precision, pretrained=str(folder)), begin()
    found, fresh = ([each.networks[name].get_weights() for name in NETWORKS] for each in (training, scratch))
    assert same(found[0], weights[0]) and same(found[1], weights[1]) and same(training.best, weights[0])
    assert same(found[2], fresh[2]) and same(found[3], fresh[3])


def test_a_pretrained_generator_fills_as_the_original_would(tmp_path):
    weights = keras2.lively("unet", FILTERS, 3)
    keras2.write_one(tmp_path, "unet", weights)
    training = begin(generator="unet", pretrained=str(tmp_path))
    assert same(training.networks["back_generator"].get_weights(), weights)
    rng = np.random.default_rng(4)
    images, boxes = rng.integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8), rng.integers(0, LAST + 1, (2, 2, 2))
    given = unet.normalise(images, boxes)
    expected = to_uint8((keras2.unet(iter(weights), given).numpy() + 1) * 127.5)
    filled = cyclegan.fill(training.model, images, boxes)
    assert np.abs(filled.astype(int) - paste(expected, images, boxes)).max() <= 1 and filled[hole_mask(boxes)].std() > 5


def test_pretrained_weights_of_another_shape_are_refused(pretrained):
    with pytest.raises(BadInput, match="set generator and filters to what its network is"):
        begin(pretrained=str(pretrained[0]), filters=3)


def test_a_hub_id_needs_its_revision():
    for call in (system.sources, lambda chosen, *_: system.begin(chosen, "float32", SEED)):
        with pytest.raises(BadInput, match="keras-io/CycleGAN.*40 hexadecimal digits of a commit"):
            call(settings(pretrained="keras-io/CycleGAN"), NO_INDEX, KEEP)


def test_the_batches_are_those_of_the_shards_pairs_that_are_trained_on(shards):
    """Of 15 records, so that batches of two cross the end of an epoch; begun late, they are those of that step."""
    chosen = settings(batch_size=2)
    found = drawn(system.batches(chosen, NO_INDEX, KEEP, SEED, 0), 12)
    assert same(found, drawn(training_batches(shards, KEEP, 15, batch_size=2, buffer=4, seed=SEED), 12))
    assert same(found[3 * 9 :], drawn(system.batches(chosen, NO_INDEX, KEEP, SEED, 9), 3))
    assert not same(found, drawn(system.batches(chosen, NO_INDEX, KEEP, SEED + 1, 0), 12))


def test_a_checkpoint_depends_on_the_shards_checksums_and_on_the_pretrained_weights(shards, pretrained):
    folder, _ = pretrained
    (source,) = system.sources(settings(), NO_INDEX, KEEP)
    assert source.exists() and {Path(name).name for name in shards} <= set(source.read_text().split('"'))
    names = ("saved_model.pb", "variables/variables.data-00000-of-00001", "variables/variables.index")
    expected = [source, *(folder / name for name in names)]
    assert system.sources(settings(pretrained=str(folder)), NO_INDEX, KEEP) == expected


def test_a_resumed_training_ends_with_the_same_weights_bit_for_bit(shards, tmp_path, uncompiled):
    """With the U-Net, whose dropout has a random state."""
    check_resumed(system, settings(generator="unet", filters=1), NO_INDEX, KEEP, tmp_path, 1)


@pytest.mark.parametrize("generator", ["resnet", "unet"])
def test_a_generator_loaded_by_its_card_fills_as_it_did_before(tmp_path, generator):
    model = cyclegan.build(generator, FILTERS)
    model.set_weights(keras2.lively(generator, FILTERS, 1))
    save(tmp_path, cyclegan, model, settings(generator=generator), SEED)
    images = np.random.default_rng(4).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    boxes = np.array([[[20, 30], [150, 100]], [[100, 0], [10, 160]]])
    filled = load_fill(tmp_path, "best")(images, boxes, np.array(["cat", "dog"]))
    assert (filled == cyclegan.fill(model, images, boxes)).all() and filled[hole_mask(boxes)].std() > 5


def test_validation_leaves_the_generator_as_it_is():
    generator = begin().model
    before = loop.snapshot(generator)
    system.before_validation(settings(), NO_INDEX, KEEP, SEED)(generator)
    assert same(before, generator.get_weights())
