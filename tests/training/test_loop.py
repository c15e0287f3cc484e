"""The training loop: it learns, goes on from a checkpoint to the bit, keeps the best and stops where a loss is no
number. The networks are of two filters; the images, shards and batches are real ones."""

from copy import deepcopy
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf

from pipeline.base.errors import BadInput
from pipeline.competition.boxes import LAST, cut, paste
from pipeline.competition.images import SIZE, encode_image
from pipeline.competition.metric import rmse
from pipeline.params import Pix2pix
from pipeline.systems.pix2pix import network as pix2pix
from pipeline.systems.pix2pix import training as system
from pipeline.training import loop
from pipeline.training.batches import training_batches
from pipeline.training.checkpoints import list_checkpoints, load_checkpoint, save_checkpoint
from pipeline.training.shards import Record, list_shards, write_shards

PAIRS, STEPS, SEED = 6, 10, 5
LOSSES = {"step", "generator", "generator_gan", "generator_l1", "generator_l2", "discriminator"}


def settings(**changes) -> Pix2pix:
    values = {
        "steps": STEPS,
        "batch_size": 1,
        "learning_rate": 3e-4,
        "beta_1": 0.5,
        "lambda_gan": 1.0,
        "lambda_l1": 1000.0,
        "lambda_l2": 0.0,
        "loss": "image",
        "mask_channel": False,
        "random_holes": False,
        "shuffle_buffer": 4,
        "validate_every": 4,
        "checkpoint_every": 1,
        "filters": 2,
    }
    return Pix2pix(**(values | changes))


def begin(chosen: Pix2pix, seed: int = SEED) -> loop.TrainingState:
    return system.begin(chosen, "float32", seed)


def train(training, chosen: Pix2pix, given: tf.data.Dataset, validate, *more, step=None) -> None:
    """The loop, with a validation that is told the model."""
    step = step or system.make_step(training, chosen)
    loop.train(training, chosen, step, given, lambda: validate(training.model), *more)


@pytest.fixture(scope="module")
def once():
    """A training, its compiled step, and how it began."""
    training = begin(settings())
    return training, system.make_step(training, settings()), deepcopy(loop.dump(training))


@pytest.fixture
def again(once):
    """`again(settings)`: that training as it began, but for the learning rate; with the step that compiled once."""
    training, step, start = once

    def begun(chosen: Pix2pix):
        loop.restore(training, *deepcopy(start))
        for optimizer in training.optimizers.values():
            optimizer.learning_rate.assign(chosen.learning_rate)
        return training, partial(train, step=step)

    return begun


@pytest.fixture(scope="module")
def pictures() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    coarse = rng.integers(0, 256, (PAIRS, 6, 6, 3), dtype=np.uint8)
    boxes = rng.integers(0, LAST + 1, (PAIRS, 2, 2), dtype=np.int32)
    return np.stack([cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR) for image in coarse]), boxes


@pytest.fixture(scope="module")
def shards(tmp_path_factory, pictures) -> list[str]:
    folder = tmp_path_factory.mktemp("shards")
    records = [
        Record(encode_image(image, ".jpeg"), box, pair) for pair, (image, box) in enumerate(zip(*pictures, strict=True))
    ]
    for _ in write_shards(folder, ((pair % 2, record) for pair, record in enumerate(records)), 2):
        pass
    return list_shards(folder)


@pytest.fixture(scope="module")
def validate(pictures):
    """The validation RMSE on two of the pictures."""
    images, boxes = (part[:2] for part in pictures)
    masked = paste(np.zeros_like(images), images, boxes)

    def call(generator) -> float:
        filled = pix2pix.fill(generator, masked, boxes)
        return rmse(cut(filled, boxes) / 255, cut(images, boxes) / 255)

    return call


def batches(shards, chosen: Pix2pix, start: int = 0) -> tf.data.Dataset:
    keep = np.ones(PAIRS, bool)
    return training_batches(shards, keep, PAIRS, chosen.batch_size, chosen.shuffle_buffer, SEED, start)


def go_on(training, chosen: Pix2pix, shards, validate, folder: Path | None = None) -> None:
    """As the train stage does; every checkpoint is kept, each in its own folder."""

    def checkpoint(now) -> None:
        if folder is not None:
            save_checkpoint(folder / str(now.step), now.step, *loop.dump(now))

    train(training, chosen, batches(shards, chosen, training.step), validate, checkpoint)


def nothing(_) -> None:
    pass


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, shards, validate):
    """A training to the end with rows of the curve over three steps, and the folder of its checkpoints."""
    folder = tmp_path_factory.mktemp("checkpoints")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CURVE_POINTS", 4)
        training = begin(settings())
        go_on(training, settings(), shards, validate, folder)
    return training, folder


def test_training_ends_after_its_steps_with_a_curve_of_means(uninterrupted, shards, validate):
    training, _ = uninterrupted
    assert training.step == STEPS
    assert [row["step"] for row in training.losses] == [3, 6, 9]
    single = begin(settings())
    go_on(single, settings(), shards, validate)
    assert [row["step"] for row in single.losses] == list(range(1, STEPS + 1))
    for row in training.losses:
        parts = [part for part in single.losses if row["step"] - 3 < part["step"] <= row["step"]]
        assert row.keys() == parts[0].keys() == LOSSES
        for name in row.keys() - {"step"}:
            assert row[name] == pytest.approx(np.mean([part[name] for part in parts]), rel=1e-9)


def test_validation_is_at_its_steps_and_at_the_last(uninterrupted):
    training, _ = uninterrupted
    assert [row["step"] for row in training.validation] == [4, 8, STEPS]
    assert len({row["rmse"] for row in training.validation}) == 3


@pytest.mark.parametrize("step", [1, 5, 8])
def test_an_interrupted_training_ends_as_an_uninterrupted_one_to_the_bit(uninterrupted, shards, validate, step):
    """Interrupted inside a row of the curve, after a validation, and right after one."""
    whole, folder = uninterrupted
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CURVE_POINTS", 4)
        training = begin(settings())
        loop.restore(training, *load_checkpoint(folder / str(step)))
        assert training.step == step
        go_on(training, settings(), shards, validate)
    (arrays, state), (expected, expected_state) = loop.dump(training), loop.dump(whole)
    assert same(arrays, expected)
    seconds = state.pop("seconds")
    assert expected_state.pop("seconds").keys() == seconds.keys() and state == expected_state
    before = load_checkpoint(folder / str(step))[1]["seconds"]
    assert all(seconds[what] > before[what] for what in seconds)


def test_a_restored_training_is_the_dumped_one(uninterrupted):
    training, _ = uninterrupted
    arrays, state = loop.dump(training)
    other = begin(settings(), seed=99)
    assert not same(loop.dump(other)[0], arrays)
    loop.restore(other, arrays, state)
    assert same(loop.dump(other)[0], arrays) and loop.dump(other)[1] == state


def test_a_checkpoint_holds_the_random_states_of_the_dropout(uninterrupted):
    training, folder = uninterrupted
    first, later = (load_checkpoint(folder / str(step))[0] for step in (1, 2))
    states = [name for name, variable in training.variables().items() if "seed_generator" in variable.path]
    assert len(states) == 3 and all((first[name] != later[name]).any() for name in states)


def test_checkpoints_are_made_at_their_steps_but_not_at_the_end(shards, again):
    chosen, made = settings(steps=6, checkpoint_every=2), []
    training, train = again(chosen)
    train(training, chosen, batches(shards, chosen), lambda _: 0.5, lambda now: made.append(now.step))
    assert made == [2, 4]


@pytest.mark.parametrize(("curve", "best"), [([0.1, 0.2, 0.1, 0.3], 1), ([0.5, 0.2, 0.3, 0.1], 4)])
def test_the_best_generator_is_the_one_of_the_lowest_validation(shards, curve, best, again):
    chosen, seen, values = settings(steps=4, validate_every=1), [], iter(curve)
    training, train = again(chosen)

    def validate(generator) -> float:
        seen.append(loop.snapshot(generator))
        return next(values)

    train(training, chosen, batches(shards, chosen), validate, nothing)
    assert [row["rmse"] for row in training.validation] == curve
    assert all((a == b).all() for a, b in zip(training.best, seen[best - 1], strict=True))
    assert any((a != b).any() for a, b in zip(training.best, seen[best % 4], strict=True))


def test_a_learning_rate_beyond_all_reason_ends_in_a_message_that_names_the_step(tmp_path, shards, again):
    chosen = settings(learning_rate=1e30, validate_every=100)
    training, train = again(chosen)
    with pytest.raises(BadInput, match="learning_rate") as caught:
        train(
            training,
            chosen,
            batches(shards, chosen),
            lambda _: 0.5,
            lambda now: save_checkpoint(tmp_path, now.step, *loop.dump(now)),
        )
    assert f"the loss at step {training.step} is not finite" in str(caught.value)
    assert 1 < training.step < STEPS
    assert load_checkpoint(tmp_path)[1]["step"] == training.step - 1
    assert len(list_checkpoints(tmp_path)) == min(2, training.step - 1)


def test_a_batch_that_is_no_number_ends_it_with_the_last_checkpoint_sound(tmp_path, shards, again):
    chosen = settings()
    bad = tf.constant(np.nan, tf.float32, (1, SIZE, SIZE, 3))
    damaged = (
        batches(shards, chosen).take(3).concatenate(tf.data.Dataset.from_tensors((bad, bad, bad[..., :1])).repeat())
    )
    training, train = again(chosen)
    with pytest.raises(BadInput, match="the loss at step 4 is not finite"):
        train(
            training, chosen, damaged, lambda _: 0.5, lambda now: save_checkpoint(tmp_path, now.step, *loop.dump(now))
        )
    arrays, state = load_checkpoint(tmp_path)
    assert state["step"] == 3 and len(state["losses"]) == 3
    assert all(np.isfinite(value).all() for value in arrays.values())


@pytest.mark.parametrize("part", ["generator", "discriminator"])
@pytest.mark.parametrize("validate_every", [1, 2])
def test_a_last_step_that_leaves_no_number_is_noticed(tmp_path, shards, part, validate_every, again):
    """The losses are of the weights before it, and filled pixels are whole numbers whatever the weights are."""
    chosen = settings(steps=3, validate_every=validate_every)
    training, train = again(chosen)

    def checkpoint(now) -> None:
        save_checkpoint(tmp_path, now.step, *loop.dump(now))
        if now.step == 2:
            now.optimizers[f"{part}_optimizer"].learning_rate.assign(np.inf)

    with pytest.raises(BadInput, match="after step 3 the weights are not finite .*learning_rate"):
        train(training, chosen, batches(shards, chosen), lambda _: 0.5, checkpoint)
    arrays, state = load_checkpoint(tmp_path)
    assert state["step"] == 2
    assert all(np.isfinite(value).all() for value in arrays.values())
    assert all(np.isfinite(weight).all() for weight in training.best)


@pytest.mark.parametrize("every", [1, 2])
def test_a_checkpoint_never_holds_what_is_no_number(tmp_path, shards, every, again):
    chosen = settings(learning_rate=1e39, validate_every=100, checkpoint_every=every)
    training, train = again(chosen)
    with pytest.raises(BadInput, match="not finite"):
        train(
            training,
            chosen,
            batches(shards, chosen),
            lambda _: 0.5,
            lambda now: save_checkpoint(tmp_path, now.step, *loop.dump(now)),
        )
    assert load_checkpoint(tmp_path) is None


def test_statistics_that_are_no_number_are_never_the_best(shards, again):
    chosen = settings(steps=2, validate_every=1)
    (training, train), values = again(chosen), iter([0.5, 0.1])

    def validate(generator) -> float:
        rmse = next(values)
        if rmse < 0.5:
            statistic = next(variable for variable in generator.variables if variable.path.endswith("moving_variance"))
            statistic.assign(np.full(statistic.shape, np.nan))
        return rmse

    with pytest.raises(BadInput, match="after step 2 the weights are not finite"):
        train(training, chosen, batches(shards, chosen), validate, nothing)
    assert [row["rmse"] for row in training.validation] == [0.5]
    assert all(np.isfinite(weight).all() for weight in training.best)


@pytest.mark.parametrize("at", [3, 4, STEPS])
def test_stopped_it_keeps_that_step_and_ends_as_if_it_had_not_been(
    tmp_path, uninterrupted, shards, validate, at, again
):
    """Between two checkpoints, right after a validation, and after the last step."""
    chosen, calls = settings(checkpoint_every=100), []
    training, train = again(chosen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CURVE_POINTS", 4)
        with pytest.raises(KeyboardInterrupt, match=f"after step {at}, which was kept"):
            train(
                training,
                chosen,
                batches(shards, chosen),
                validate,
                lambda now: save_checkpoint(tmp_path, now.step, *loop.dump(now)),
                lambda: calls.append(1) or len(calls) == at,
            )
        assert [path.name for path in list_checkpoints(tmp_path)] == [f"step-{at:08d}.npz"]
        training = begin(chosen)
        loop.restore(training, *load_checkpoint(tmp_path))
        go_on(training, chosen, shards, validate)
    (arrays, state), (expected, expected_state) = loop.dump(training), loop.dump(uninterrupted[0])
    del state["seconds"], expected_state["seconds"]
    assert same(arrays, expected) and state == expected_state
