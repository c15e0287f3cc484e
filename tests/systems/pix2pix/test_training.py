"""How pix2pix is trained: what its settings do to a step, its losses by hand. shared/ tests its start and batches."""

from copy import deepcopy

import numpy as np
import pytest
import tensorflow as tf

from pipeline.competition.images import SIZE
from pipeline.params import Pix2pix
from pipeline.systems.pix2pix import network as pix2pix
from pipeline.systems.pix2pix import training as system
from pipeline.training import loop
from pipeline.training.runtime import cpu_flags
from tests.helpers.settings import settings_of
from tests.helpers.trainings import same

SEED = 5


def settings(**changes) -> Pix2pix:
    return settings_of("pix2pix", **({"steps": 4, "batch_size": 2, "lambda_l1": 100.0, "filters": 2} | changes))


def begin(chosen: Pix2pix, precision: str = "float32") -> loop.TrainingState:
    return system.begin(chosen, precision, SEED)


def step(chosen: Pix2pix, batch) -> tuple[dict[str, float], loop.TrainingState]:
    """The losses of a first step, and the state after it."""
    state = begin(chosen)
    losses = system.make_step(state, chosen)(*batch)
    return {name: float(loss) for name, loss in losses.items()}, state


def steps(chosen: Pix2pix, *batches) -> list[tuple[dict[str, float], list[np.ndarray]]]:
    """The losses and the generator after a first step on each of some batches."""
    state = begin(chosen)
    run, start, found = system.make_step(state, chosen), deepcopy(loop.dump(state)), []
    for batch in batches:
        loop.restore(state, *start)
        losses = run(*batch)
        found.append(({name: float(loss) for name, loss in losses.items()}, loop.snapshot(state.model)))
    return found


def losses_by_hand(chosen: Pix2pix, batch) -> dict[str, float]:
    """Of a first step: those of fresh networks, since with the same seed the dropout is the same too."""
    masked, target, hole = batch
    networks = begin(chosen).networks
    inputs = np.concatenate([masked, hole], axis=-1) if chosen.mask_channel else masked
    filled = networks["generator"](inputs, training=True)
    real, fake = (np.float64(networks["discriminator"]([masked, image], training=True)) for image in (target, filled))
    off = np.float64(target) - np.float64(filled)
    if chosen.loss == "holes":
        off = off[np.array(hole)[..., 0] == 1]
        assert off.shape == (2 * 75 * 75, 3)
    found = {
        "generator_l1": np.abs(off).mean(),
        "generator_l2": np.square(off).mean(),
        "generator_gan": np.log1p(np.exp(-fake)).mean(),
        "discriminator": np.log1p(np.exp(-real)).mean() + np.log1p(np.exp(fake)).mean(),
    }
    names = {"generator_l1": "lambda_l1", "generator_l2": "lambda_l2", "generator_gan": "lambda_gan"}
    return found | {"generator": sum(getattr(chosen, weight) * found[name] for name, weight in names.items())}


@pytest.mark.parametrize(
    "changes",
    [
        {"lambda_gan": 3.0, "lambda_l1": 50.0, "lambda_l2": 20.0},
        {"lambda_gan": 0.5, "lambda_l1": 10.0, "lambda_l2": 40.0, "loss": "holes", "mask_channel": True},
    ],
)
def test_the_losses_of_a_step_by_hand(batch, shallow, uncompiled, changes):
    chosen = settings(**changes)
    assert step(chosen, batch)[0] == pytest.approx(losses_by_hand(chosen, batch), rel=1e-4)


def test_without_an_adversary_no_discriminator_is_trained(batch, shallow, uncompiled):
    found, state = step(settings(lambda_gan=0.0, lambda_l2=7.0), batch)
    assert found.keys() == {"generator", "generator_l1", "generator_l2"}
    assert found["generator"] == pytest.approx(100 * found["generator_l1"] + 7 * found["generator_l2"], rel=1e-5)
    fresh = begin(settings())
    assert same(*(loop.snapshot(each.networks["discriminator"]) for each in (state, fresh)))
    assert not same(*(loop.snapshot(each.model) for each in (state, fresh)))
    counts = {name: int(optimizer.iterations.numpy()) for name, optimizer in state.optimizers.items()}
    assert counts == {"generator_optimizer": 1, "discriminator_optimizer": 0}


@pytest.mark.slow
def test_the_loss_of_the_holes_ignores_the_known_pixels(batch, shallow, uncompiled):
    masked, target, hole = batch
    other = tf.where(hole > 0, target, -target)  # another target where the pixels are known
    for where, alike in (("holes", True), ("image", False)):
        chosen = settings(loss=where, lambda_gan=0.0)
        (once, model), (again, other_model) = steps(chosen, (masked, target, hole), (masked, other, hole))
        assert (once["generator_l1"] == pytest.approx(again["generator_l1"], rel=1e-6)) == alike
        assert same(model, other_model) == alike


def test_the_generators_input_ends_with_the_hole_if_asked_for(batch):
    masked, _, hole = batch
    assert pix2pix.generator_input(masked, hole, False) is masked
    inputs = pix2pix.generator_input(masked, hole, True)
    assert inputs.shape == (2, SIZE, SIZE, 4)
    assert (inputs[..., :3].numpy() == masked.numpy()).all() and (inputs[..., 3:].numpy() == hole.numpy()).all()


@pytest.mark.parametrize("mask_channel", [True, False])
def test_in_training_the_generator_sees_the_hole_if_asked_for(batch, shallow, uncompiled, mask_channel):
    """The loss over the whole image uses it for nothing else."""
    masked, target, hole = batch
    chosen = settings(mask_channel=mask_channel, lambda_gan=0.0, learning_rate=0.01)
    assert begin(chosen).model.input_shape[-1] == 3 + mask_channel
    found = steps(chosen, (masked, target, hole), (masked, target, tf.zeros_like(hole)))
    kernels = [model[0] for _, model in found]
    assert kernels[0].shape[2] == 3 + mask_channel
    assert (np.abs(kernels[0] - kernels[1]).max() > 1e-3) == mask_channel
    if mask_channel:  # where there is no hole the fourth channel is 0, and its weights have no gradient
        before = loop.snapshot(begin(chosen).model)[0]
        assert (kernels[1][:, :, 3] == before[:, :, 3]).all() and (kernels[0][:, :, 3] != before[:, :, 3]).all()


@pytest.mark.slow
def test_a_training_with_all_settings_changed_learns(batch, shallow):
    chosen = settings(
        mask_channel=True, loss="holes", lambda_gan=0.0, lambda_l1=0.0, lambda_l2=1.0, filters=4, learning_rate=2e-3
    )
    state = begin(chosen)
    run = system.make_step(state, chosen)
    found = [float(run(*batch)["generator_l2"]) for _ in range(30)]
    assert found[-1] < 0.9 * found[0]


@pytest.mark.slow
def test_compiled_steps_on_one_batch_have_the_same_losses_and_lower_them(batch, shallow):
    chosen, one = settings(filters=4, learning_rate=2e-3, lambda_l1=1000.0), [part[:1] for part in batch]
    state = begin(chosen)
    run = system.make_step(state, chosen)
    found = [{name: float(loss) for name, loss in run(*one).items()} for _ in range(40)]
    assert found[0] == pytest.approx(losses_by_hand(chosen, one), rel=1e-4)
    assert np.mean([losses["generator_l1"] for losses in found[-5:]]) < 0.6 * found[0]["generator_l1"]


@pytest.mark.slow
def test_a_step_moves_both_networks(batch, uncompiled):
    """At batch 2: the innermost kernel has no gradient where normalisation sees one value."""
    before = begin(settings())
    _, state = step(settings(), batch)
    for name, model in state.networks.items():
        pairs = list(zip(model.variables, before.networks[name].variables, strict=True))
        moved = {now.path.rsplit("/", 1)[1] for now, then in pairs if (now.numpy() != then.numpy()).any()}
        kernels = [(now.numpy(), then.numpy()) for now, then in pairs if now.path.endswith("kernel")]
        assert len(kernels) >= 5 and all((now != then).any() for now, then in kernels)
        assert {"kernel", "moving_mean", "moving_variance"} <= moved


@pytest.mark.skipif("avx512bw" not in cpu_flags(), reason="bfloat16 convolutions need AVX-512 here")
def test_mixed_precision_trains_float32_weights(batch):
    state = begin(settings(), "mixed_bfloat16")
    run = system.make_step(state, settings())
    for _ in range(2):
        assert all(np.isfinite(float(loss)) for loss in run(*batch).values())
    assert all(np.isfinite(value).all() for value in loop.dump(state)[0].values())
    assert {variable.dtype for variable in state.model.trainable_variables} == {"float32"}
    convolutions = [layer for layer in state.model.layers if "conv" in layer.name]
    assert {layer.compute_dtype for layer in convolutions} == {"bfloat16"}
