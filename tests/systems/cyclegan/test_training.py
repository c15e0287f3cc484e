"""How CycleGAN is trained: its losses by hand, what each network learns, its pretrained weights."""

from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.base.errors import BadInput
from pipeline.competition.boxes import hole_mask, paste
from pipeline.competition.images import to_uint8
from pipeline.params import CycleGan
from pipeline.systems.cyclegan import network as cyclegan
from pipeline.systems.cyclegan import training as system
from pipeline.systems.shared import unet
from pipeline.training import loop
from pipeline.training.runtime import cpu_flags
from tests.helpers import keras2
from tests.helpers.pictures import masked_photographs, some_boxes, unknown
from tests.helpers.settings import settings_of
from tests.helpers.trainings import check_resumed, same, shard_data, uncompiled

pytestmark = pytest.mark.slow
DATA = shard_data(seed=5)
NETWORKS = [*system.GENERATORS, *system.DISCRIMINATORS]


@pytest.fixture(autouse=True, scope="module")
def small_networks() -> Iterator[None]:
    """A resnet of one residual block, a U-Net of three levels without dropout: compiled in a third of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cyclegan, "BLOCKS", 1)
        patch.setattr(unet, "DOWN", unet.DOWN[:3])
        patch.setattr(unet, "DROPOUT", 0.0)
        yield


def settings(**changes) -> CycleGan:
    own = {"steps": 2, "validate_every": 1, "checkpoint_every": 1, "generator": "unet", "filters": 2}
    return settings_of("cyclegan", **(own | changes))


def begin(precision: str = "float32", **changes) -> loop.TrainingState:
    return system.begin(settings(**changes), precision, DATA.seed)


@pytest.fixture(scope="module")
def batch(batch) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Of one image."""
    return tuple(part[:1] for part in batch)


def losses_by_hand(networks: dict[str, keras.Model], batch) -> dict[str, float]:
    masked, target, _ = batch
    fill, back, judge_target, judge_masked = (
        lambda images, name=name: np.float32(networks[name](images, training=True)) for name in NETWORKS
    )
    filled, emptied = fill(masked), back(target)
    fakes, reals = (judge_target(filled), judge_masked(emptied)), (judge_target(target), judge_masked(masked))
    found = {
        "generator_gan": sum(((fake - 1) ** 2).mean() for fake in fakes),
        "generator_cycle": np.abs(back(filled) - masked).mean() + np.abs(fill(emptied) - target).mean(),
        "generator_identity": np.abs(fill(target) - target).mean() + np.abs(back(masked) - masked).mean(),
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
    chosen = settings(learning_rate=1e-2)
    state = system.begin(chosen, "float32", DATA.seed)
    run, losses, weights = system.make_step(state, chosen), [], []
    with uncompiled():
        for number in range(8):
            if number in (0, 1):
                weights.append({name: loop.snapshot(network) for name, network in state.networks.items()})
            losses.append({name: float(loss) for name, loss in run(*batch).items()})
    return losses, weights


def test_a_training_has_four_different_networks_with_the_settings():
    state = begin(filters=1)
    assert list(state.networks) == NETWORKS
    fresh = [state.networks[name].get_weights() for name in NETWORKS]
    assert not same(*fresh[:2]) and not same(*fresh[2:])
    assert [len(weights) for weights in fresh[:2]] == [15, 15]


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


def test_steps_on_one_batch_lower_the_generators_losses(steps):
    losses, _ = steps
    for name in ("generator", "generator_cycle", "generator_identity"):
        assert losses[-1][name] < 0.95 * losses[0][name]


def test_each_generator_learns_from_both_cycles(batch, uncompiled):
    """A target begins only one of the cycles. If nothing else counts, another target still changes both generators."""
    masked, target, hole = batch
    chosen, found = settings(filters=1, lambda_cycle=1e6, lambda_identity=0.0), []
    for other in (target, -target):
        state = system.begin(chosen, "float32", DATA.seed)
        losses = system.make_step(state, chosen)(masked, other, hole)
        assert "generator_identity" not in losses
        expected = losses["generator_gan"] + 1e6 * losses["generator_cycle"]
        assert float(losses["generator"]) == pytest.approx(float(expected), rel=1e-5)
        found.append([state.networks[name].get_weights() for name in system.GENERATORS])
    assert not any(same(once, other) for once, other in zip(*found, strict=True))


@pytest.mark.skipif("avx512bw" not in cpu_flags(), reason="bfloat16 convolutions need AVX-512 here")
@pytest.mark.parametrize("generator", ["resnet", "unet"])
def test_mixed_precision_trains_float32_weights_with_losses_in_float32(batch, uncompiled, generator):
    state = begin(precision="mixed_bfloat16", generator=generator)
    before = state.model.get_weights()
    losses = system.make_step(state, settings())(*batch)
    assert all(loss.dtype == tf.float32 and np.isfinite(float(loss)) for loss in losses.values())
    assert all(np.isfinite(value).all() for value in loop.dump(state)[0].values())
    assert {variable.dtype for variable in state.model.trainable_variables} == {"float32"}
    assert not same(before, state.model.get_weights())


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> tuple[Path, list[list[np.ndarray]]]:
    """The folder of two generators, and their weights."""
    folder, weights = tmp_path_factory.mktemp("pretrained"), [keras2.lively("resnet", 2, seed) for seed in (1, 2)]
    keras2.write_two(folder, "resnet", *weights)
    return folder, weights


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_pretrained_generators_are_loaded_and_the_discriminators_drawn_as_without(pretrained, precision):
    folder, weights = pretrained
    state, scratch = begin(precision, generator="resnet", pretrained=str(folder)), begin(generator="resnet")
    found, fresh = ([each.networks[name].get_weights() for name in NETWORKS] for each in (state, scratch))
    assert same(found[0], weights[0]) and same(found[1], weights[1]) and same(state.best, weights[0])
    assert same(found[2], fresh[2]) and same(found[3], fresh[3])


def test_a_pretrained_generator_fills_as_the_original_would(tmp_path):
    weights = keras2.lively("unet", 2, 3)
    keras2.write_one(tmp_path, "unet", weights)
    state = begin(pretrained=str(tmp_path))
    assert same(state.networks["back_generator"].get_weights(), weights)
    images, boxes = masked_photographs(2), some_boxes(2)
    expected = to_uint8((keras2.unet(iter(weights), unet.normalise(images, boxes)).numpy() + 1) * 127.5)
    filled = cyclegan.fill(state.model, images, boxes, unknown(2))
    assert np.abs(filled.astype(int) - paste(expected, images, boxes)).max() <= 1 and filled[hole_mask(boxes)].std() > 5


def test_pretrained_weights_of_another_shape_are_refused(pretrained):
    with pytest.raises(BadInput, match="set generator and filters to what its network is"):
        begin(generator="resnet", pretrained=str(pretrained[0]), filters=3)


def test_a_hub_id_needs_its_revision():
    chosen = settings(pretrained="keras-io/CycleGAN")
    for call in (system.input_files, lambda chosen, data: system.begin(chosen, "float32", data.seed)):
        with pytest.raises(BadInput, match="keras-io/CycleGAN.*40 hexadecimal digits"):
            call(chosen, DATA)


def test_a_checkpoint_depends_on_the_pretrained_weights_too(pretrained):
    (shards,) = system.input_files(settings(), DATA)
    names = ("saved_model.pb", "variables/variables.data-00000-of-00001", "variables/variables.index")
    expected = [shards, *(pretrained[0] / name for name in names)]
    assert system.input_files(settings(pretrained=str(pretrained[0])), DATA) == expected


def test_a_resumed_training_ends_with_the_same_weights_bit_for_bit(shards, tmp_path, monkeypatch):
    """With dropout, which has a random state."""
    monkeypatch.setattr(unet, "DROPOUT", 0.5)
    check_resumed(system, settings(filters=1), DATA, tmp_path, 1)


def test_validation_leaves_the_generator_unchanged():
    generator = begin().model
    before = loop.snapshot(generator)
    system.before_validation(generator, settings(), DATA)
    assert same(before, generator.get_weights())
