"""The training loop: it learns, resumes to the bit, keeps the best weights and stops where a loss is not finite.

The networks have two filters; images, shards and batches are real ones.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import chdir
from copy import deepcopy
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from pipeline import paths
from pipeline.base.errors import BadInput
from pipeline.competition.boxes import LAST, cut, paste
from pipeline.competition.images import SIZE, encode_image
from pipeline.competition.metric import rmse
from pipeline.params import Pix2pix
from pipeline.systems.pix2pix import network as pix2pix
from pipeline.systems.pix2pix import training as system
from pipeline.systems.shared import unet
from pipeline.training import loop
from pipeline.training.checkpoints import list_checkpoints, load_checkpoint, save_checkpoint
from pipeline.training.data import TrainingData
from pipeline.training.loop import TrainingState
from pipeline.training.shards import Record, write_shards
from tests.helpers.settings import settings_of

PAIRS, STEPS, SEED = 6, 10, 5
LOSSES = {"step", "generator", "generator_gan", "generator_l1", "generator_l2", "discriminator"}

Train = Callable[..., None]


def settings(**changes) -> Pix2pix:
    small = {"batch_size": 1, "shuffle_buffer": 4, "filters": 2}
    return settings_of("pix2pix", **{"steps": STEPS, "validate_every": 4, "checkpoint_every": 1} | small | changes)


def begin(seed: int = SEED) -> TrainingState:
    return system.begin(settings(), "float32", seed)


@pytest.fixture(scope="module", autouse=True)
def shallow_networks() -> Iterator[None]:
    """U-Nets of four levels instead of eight, which are compiled in half of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unet, "DOWN", unet.DOWN[:4])
        yield


@pytest.fixture(scope="module")
def pictures() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    coarse = rng.integers(0, 256, (PAIRS, 6, 6, 3), dtype=np.uint8)
    boxes = rng.integers(0, LAST + 1, (PAIRS, 2, 2), dtype=np.int32)
    return np.stack([cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR) for image in coarse]), boxes


@pytest.fixture(scope="module", autouse=True)
def shards(tmp_path_factory, pictures) -> Iterator[None]:
    """The current folder has the shards of the pictures, each in them five times."""
    with chdir(tmp_path_factory.mktemp("shards")):
        paths.AUGMENTED.mkdir(parents=True)
        records = [
            Record(encode_image(image, ".jpeg"), box, i) for i, (image, box) in enumerate(zip(*pictures, strict=True))
        ]
        write_shards(paths.AUGMENTED, ((i % 2, record) for i, record in enumerate(5 * records)), 2, 5)
        yield


def batches(chosen: Pix2pix, start: int = 0) -> tf.data.Dataset:
    index = pd.DataFrame(index=range(PAIRS))
    return system.batches(chosen, TrainingData(index, index[:0], SEED), start)


@pytest.fixture(scope="module")
def again() -> Callable[[Pix2pix], tuple[TrainingState, Train]]:
    """`again(settings)`: one training as it began, but for the learning rate, and the loop with its compiled step."""
    state = begin()
    step, start = system.make_step(state, settings()), deepcopy(loop.dump(state))

    def begun(chosen: Pix2pix) -> tuple[TrainingState, Train]:
        loop.restore(state, *deepcopy(start))
        for optimizer in state.optimizers.values():
            optimizer.learning_rate.assign(chosen.learning_rate)

        def train(validate=lambda: 0.5, checkpoint=lambda _: None, stopped=lambda: False, data=None) -> None:
            loop.train(state, chosen, step, data or batches(chosen, state.step), validate, checkpoint, stopped)

        return state, train

    return begun


@pytest.fixture(scope="module")
def validation(pictures) -> Callable[[TrainingState], Callable[[], float]]:
    """`validation(state)`: a function that returns its model's RMSE on two of the pictures."""
    images, boxes = (part[:2] for part in pictures)
    masked = paste(np.zeros_like(images), images, boxes)

    def validate(state: TrainingState) -> float:
        filled = pix2pix.fill(state.model, masked, boxes, np.full(2, ""))
        return rmse(cut(filled, boxes) / 255, cut(images, boxes) / 255)

    return lambda state: lambda: validate(state)


def saving(folder: Path) -> Callable[[TrainingState], None]:
    return lambda state: save_checkpoint(folder, state.step, *loop.dump(state))


def finite(arrays: Iterable[np.ndarray]) -> bool:
    return all(np.isfinite(array).all() for array in arrays)


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


def assert_same_end(state: TrainingState, expected: TrainingState) -> None:
    """Equal to the bit, but for the time that they took."""
    (arrays, counters), (expected_arrays, expected_counters) = loop.dump(state), loop.dump(expected)
    assert same(arrays, expected_arrays)
    assert counters.pop("seconds").keys() == expected_counters.pop("seconds").keys()
    assert counters == expected_counters


@pytest.fixture
def rows_of_three(monkeypatch) -> None:
    """A row of the curve is the mean over three steps."""
    monkeypatch.setattr(loop, "CURVE_POINTS", 4)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, validation, again) -> tuple[TrainingState, Path]:
    """A training to the end, its curve in rows of three steps, and a folder with each checkpoint in a folder."""
    (state, train), folder = again(settings()), tmp_path_factory.mktemp("checkpoints")

    def checkpoint(now: TrainingState) -> None:
        saving(folder / str(now.step))(now)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CURVE_POINTS", 4)
        train(validation(state), checkpoint)
    copy = begin(seed=SEED + 1)  # `again` uses its state again
    loop.restore(copy, *deepcopy(loop.dump(state)))
    return copy, folder


def test_training_ends_after_its_steps_with_a_curve_of_means(uninterrupted, validation, again):
    state, _ = uninterrupted
    assert state.step == STEPS
    assert [row["step"] for row in state.losses] == [3, 6, 9]
    single, train = again(settings())
    train(validation(single))
    assert [row["step"] for row in single.losses] == list(range(1, STEPS + 1))
    for row in state.losses:
        parts = [part for part in single.losses if row["step"] - 3 < part["step"] <= row["step"]]
        assert row.keys() == parts[0].keys() == LOSSES
        for name in row.keys() - {"step"}:
            assert row[name] == pytest.approx(np.mean([part[name] for part in parts]), rel=1e-9)


def test_validation_is_at_its_steps_and_at_the_last(uninterrupted):
    state, _ = uninterrupted
    assert [row["step"] for row in state.validation] == [4, 8, STEPS]
    assert len({row["rmse"] for row in state.validation}) == 3


def test_without_a_validation_it_trains_all_the_same(again, validation):
    with_it, train = again(settings(steps=4))
    train(validation(with_it))
    expected = loop.dump(with_it)
    state, train = again(settings(steps=4))
    train(None)
    arrays, counters = loop.dump(state)
    assert counters["validation"] == [] and counters["losses"] == expected[1]["losses"]
    trained = [name for name in arrays if not name.startswith("best/")]
    assert all((arrays[name] == expected[0][name]).all() for name in trained)


@pytest.mark.parametrize("step", [5, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 8))])
def test_an_interrupted_training_ends_as_an_uninterrupted_one_to_the_bit(
    uninterrupted, validation, step, again, rows_of_three
):
    """Interrupted inside a row of the curve, after a validation, and right after one."""
    expected, folder = uninterrupted
    state, train = again(settings())
    arrays, counters = load_checkpoint(folder / str(step))
    before = dict(counters["seconds"])
    loop.restore(state, arrays, counters)
    assert state.step == step
    train(validation(state))
    assert_same_end(state, expected)
    assert all(state.seconds[what] > before[what] for what in before)


def test_a_restored_training_is_the_dumped_one(uninterrupted):
    arrays, counters = loop.dump(uninterrupted[0])
    other = begin(seed=99)
    assert not same(loop.dump(other)[0], arrays)
    loop.restore(other, arrays, counters)
    assert same(loop.dump(other)[0], arrays) and loop.dump(other)[1] == counters


def test_a_checkpoint_holds_the_random_states_of_the_dropout(uninterrupted):
    state, folder = uninterrupted
    first, later = (load_checkpoint(folder / str(step))[0] for step in (1, 2))
    states = [name for name, variable in state.variables().items() if "seed_generator" in variable.path]
    assert len(states) == 3 and all((first[name] != later[name]).any() for name in states)


def test_checkpoints_are_made_at_their_steps_but_not_at_the_end(again):
    made = []
    _, train = again(settings(steps=6, checkpoint_every=2))
    train(checkpoint=lambda now: made.append(now.step))
    assert made == [2, 4]


@pytest.mark.parametrize(("curve", "best"), [([0.1, 0.2, 0.1, 0.3], 1), ([0.5, 0.2, 0.3, 0.1], 4)])
def test_the_best_weights_are_those_of_the_lowest_validation(curve, best, again):
    seen, values = [], iter(curve)
    state, train = again(settings(steps=4, validate_every=1))

    def validate() -> float:
        seen.append(loop.snapshot(state.model))
        return next(values)

    train(validate)
    assert [row["rmse"] for row in state.validation] == curve
    assert all((a == b).all() for a, b in zip(state.best, seen[best - 1], strict=True))
    assert any((a != b).any() for a, b in zip(state.best, seen[best % 4], strict=True))


def test_far_too_high_a_learning_rate_ends_in_a_message_that_names_the_step(tmp_path, again):
    state, train = again(settings(learning_rate=1e30, validate_every=100))
    with pytest.raises(BadInput, match="learning_rate") as caught:
        train(checkpoint=saving(tmp_path))
    assert f"the loss at step {state.step} is not finite" in str(caught.value)
    assert 1 < state.step < STEPS
    assert load_checkpoint(tmp_path)[1]["step"] == state.step - 1
    assert len(list_checkpoints(tmp_path)) == min(2, state.step - 1)


def test_a_batch_that_is_not_finite_ends_it_and_the_last_checkpoint_is_sound(tmp_path, again):
    bad = tf.constant(np.nan, tf.float32, (1, SIZE, SIZE, 3))
    broken = tf.data.Dataset.from_tensors((bad, bad, bad[..., :1])).repeat()
    _, train = again(settings())
    with pytest.raises(BadInput, match="the loss at step 4 is not finite"):
        train(checkpoint=saving(tmp_path), data=batches(settings()).take(3).concatenate(broken))
    arrays, counters = load_checkpoint(tmp_path)
    assert counters["step"] == 3 and len(counters["losses"]) == 3 and finite(arrays.values())


@pytest.mark.parametrize("part", ["generator", "discriminator"])
@pytest.mark.parametrize("validate_every", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_last_step_whose_weights_are_not_finite_is_noticed(tmp_path, part, validate_every, again):
    """The losses are of the weights before it, and filled pixels are whole numbers whatever the weights are."""
    state, train = again(settings(steps=3, validate_every=validate_every))

    def checkpoint(now: TrainingState) -> None:
        saving(tmp_path)(now)
        if now.step == 2:
            now.optimizers[f"{part}_optimizer"].learning_rate.assign(np.inf)

    with pytest.raises(BadInput, match="after step 3 the weights are not finite .*learning_rate"):
        train(checkpoint=checkpoint)
    arrays, counters = load_checkpoint(tmp_path)
    assert counters["step"] == 2 and finite(arrays.values()) and finite(state.best)


@pytest.mark.parametrize("every", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_checkpoint_never_holds_a_value_that_is_not_finite(tmp_path, every, again):
    _, train = again(settings(learning_rate=1e39, validate_every=100, checkpoint_every=every))
    with pytest.raises(BadInput, match="not finite"):
        train(checkpoint=saving(tmp_path))
    assert load_checkpoint(tmp_path) is None


def test_statistics_that_are_not_finite_are_never_the_best(again):
    state, train = again(settings(steps=2, validate_every=1))
    values = iter([0.5, 0.1])

    def validate() -> float:
        rmse = next(values)
        if rmse < 0.5:
            statistic = next(one for one in state.model.variables if one.path.endswith("moving_variance"))
            statistic.assign(np.full(statistic.shape, np.nan))
        return rmse

    with pytest.raises(BadInput, match="after step 2 the weights are not finite"):
        train(validate)
    assert [row["rmse"] for row in state.validation] == [0.5] and finite(state.best)


@pytest.mark.parametrize("at", [4, *(pytest.param(step, marks=pytest.mark.slow) for step in (3, STEPS))])
def test_a_stopped_training_saves_that_step_and_resumes_to_the_same_end(
    tmp_path, uninterrupted, validation, at, again, rows_of_three
):
    """Between two checkpoints, right after a validation, and after the last step."""
    chosen = settings(checkpoint_every=100)
    state, train = again(chosen)
    with pytest.raises(KeyboardInterrupt, match=f"after step {at}, which was saved"):
        train(validation(state), saving(tmp_path), lambda: state.step == at)
    assert [path.name for path in list_checkpoints(tmp_path)] == [f"step-{at:08d}.npz"]
    state, train = again(chosen)
    loop.restore(state, *load_checkpoint(tmp_path))
    train(validation(state))
    assert_same_end(state, uninterrupted[0])


@pytest.mark.parametrize(
    ("losses", "rmse", "expected"),
    [
        ({}, None, "train residual"),
        ({"loss": 0.0123456}, None, "train residual (loss 0.01235)"),
        ({"loss": 2.0}, 0.25, "train residual (loss 2, validation RMSE 0.2500)"),
        (
            {"discriminator": 1.5, "generator": 3.0, "generator_gan": 1.0},
            None,
            "train residual (discriminator 1.5, generator 3)",
        ),
        ({"discriminator": 1.5, "generator_gan": 1.0}, None, "train residual (discriminator 1.5, generator_gan 1)"),
    ],
)
def test_the_progress_line_names_the_system_its_losses_and_the_last_validation(losses, rmse, expected):
    """The parts of a sum are left out."""
    rows = [{"step": 8} | losses] if losses else []
    validation = [{"step": 8, "rmse": rmse}] if rmse else []
    assert loop.label(TrainingState(None, {}, {}, [], 8, rows, validation=validation, name="residual")) == expected
