"""The training loop: it learns, goes on from a checkpoint to the bit, keeps the best and stops where a loss is no
number. The networks are of two filters; the images, shards and batches are real ones."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf

from pipeline.base.errors import BadInput
from pipeline.competition.boxes import LAST, cut, paste
from pipeline.competition.images import SIZE, encode_image
from pipeline.competition.metric import rmse
from pipeline.models import pix2pix
from pipeline.params import Train
from pipeline.training import loop
from pipeline.training.batches import training_batches
from pipeline.training.checkpoints import list_checkpoints, load_checkpoint, save_checkpoint
from pipeline.training.shards import Record, list_shards, write_shards

PAIRS, STEPS = 6, 10


def settings(**changes) -> Train:
    values = {
        "steps": STEPS,
        "batch_size": 1,
        "learning_rate": 3e-4,
        "beta_1": 0.5,
        "lambda_l1": 1000.0,
        "precision": "float32",
        "shuffle_buffer": 4,
        "validation_pairs": 2,
        "validate_every": 4,
        "checkpoint_every": 1,
        "filters": 2,
        "threads": 2,
        "seed": 5,
    }
    return Train(**(values | changes))


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


def batches(shards, chosen: Train, start: int = 0) -> tf.data.Dataset:
    keep = np.ones(PAIRS, bool)
    return training_batches(shards, keep, PAIRS, chosen.batch_size, chosen.shuffle_buffer, chosen.seed, start)


def go_on(training, chosen: Train, shards, validate, folder: Path | None = None) -> None:
    """As the train stage does; every checkpoint is kept, each in its own folder."""

    def checkpoint(now) -> None:
        if folder is not None:
            save_checkpoint(folder / str(now.step), now.step, *loop.dump(now))

    loop.train(training, chosen, batches(shards, chosen, training.step), validate, checkpoint)


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
        training = loop.begin(settings())
        go_on(training, settings(), shards, validate, folder)
    return training, folder


def test_a_seed_gives_its_weights_each_time():
    once, again, other = (loop.dump(loop.begin(settings(seed=seed)))[0] for seed in (1, 1, 2))
    assert same(once, again) and not same(once, other)


def test_training_ends_after_its_steps_with_a_curve_of_means(uninterrupted, shards, validate):
    training, _ = uninterrupted
    assert training.step == STEPS
    assert [row["step"] for row in training.losses] == [3, 6, 9]
    single = loop.begin(settings())
    go_on(single, settings(), shards, validate)
    assert [row["step"] for row in single.losses] == list(range(1, STEPS + 1))
    for row in training.losses:
        parts = [part for part in single.losses if row["step"] - 3 < part["step"] <= row["step"]]
        assert row.keys() == parts[0].keys() == {"step", "generator", "generator_gan", "generator_l1", "discriminator"}
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
        training = loop.begin(settings())
        loop.restore(training, *load_checkpoint(folder / str(step)))
        assert training.step == step
        go_on(training, settings(), shards, validate)
    (arrays, state), (expected, expected_state) = loop.dump(training), loop.dump(whole)
    assert same(arrays, expected)
    assert state == expected_state


def test_a_restored_training_is_the_dumped_one(uninterrupted):
    training, _ = uninterrupted
    arrays, state = loop.dump(training)
    other = loop.begin(settings(seed=99))
    assert not same(loop.dump(other)[0], arrays)
    loop.restore(other, arrays, state)
    assert same(loop.dump(other)[0], arrays) and loop.dump(other)[1] == state


def test_a_checkpoint_holds_the_random_states_of_the_dropout(uninterrupted):
    training, folder = uninterrupted
    first, later = (load_checkpoint(folder / str(step))[0] for step in (1, 2))
    states = [name for name, variable in training.variables().items() if "seed_generator" in variable.path]
    assert len(states) == 3 and all((first[name] != later[name]).any() for name in states)


def test_checkpoints_are_made_at_their_steps_but_not_at_the_end(shards):
    chosen, made = settings(steps=6, checkpoint_every=2), []
    training = loop.begin(chosen)
    loop.train(training, chosen, batches(shards, chosen), lambda _: 0.5, lambda now: made.append(now.step))
    assert made == [2, 4]


@pytest.mark.parametrize(("curve", "best"), [([0.1, 0.2, 0.1, 0.3], 1), ([0.5, 0.2, 0.3, 0.1], 4)])
def test_the_best_generator_is_the_one_of_the_lowest_validation(shards, curve, best):
    chosen, seen, values = settings(steps=4, validate_every=1), [], iter(curve)
    training = loop.begin(chosen)

    def validate(generator) -> float:
        seen.append(loop.snapshot(generator))
        return next(values)

    loop.train(training, chosen, batches(shards, chosen), validate, nothing)
    assert [row["rmse"] for row in training.validation] == curve
    assert all((a == b).all() for a, b in zip(training.best, seen[best - 1], strict=True))
    assert any((a != b).any() for a, b in zip(training.best, seen[best % 4], strict=True))


def test_a_learning_rate_beyond_all_reason_ends_in_a_message_that_names_the_step(tmp_path, shards):
    chosen = settings(learning_rate=1e30, validate_every=100)
    training = loop.begin(chosen)
    with pytest.raises(BadInput, match="learning_rate") as caught:
        loop.train(
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


def test_a_batch_that_is_no_number_ends_it_with_the_last_checkpoint_sound(tmp_path, shards):
    chosen = settings()
    bad = tf.constant(np.nan, tf.float32, (1, SIZE, SIZE, 3))
    damaged = batches(shards, chosen).take(3).concatenate(tf.data.Dataset.from_tensors((bad, bad)).repeat())
    training = loop.begin(chosen)
    with pytest.raises(BadInput, match="the loss at step 4 is not finite"):
        loop.train(
            training, chosen, damaged, lambda _: 0.5, lambda now: save_checkpoint(tmp_path, now.step, *loop.dump(now))
        )
    arrays, state = load_checkpoint(tmp_path)
    assert state["step"] == 3 and len(state["losses"]) == 3
    assert all(np.isfinite(value).all() for value in arrays.values())


@pytest.mark.parametrize("part", ["generator", "discriminator"])
@pytest.mark.parametrize("validate_every", [1, 2])
def test_a_last_step_that_leaves_no_number_is_noticed(tmp_path, shards, part, validate_every):
    """The losses are of the weights before it, and filled pixels are whole numbers whatever the weights are."""
    chosen = settings(steps=3, validate_every=validate_every)
    training = loop.begin(chosen)

    def checkpoint(now) -> None:
        save_checkpoint(tmp_path, now.step, *loop.dump(now))
        if now.step == 2:
            getattr(now, f"{part}_optimizer").learning_rate.assign(np.inf)

    with pytest.raises(BadInput, match="after step 3 the weights are not finite .*learning_rate"):
        loop.train(training, chosen, batches(shards, chosen), lambda _: 0.5, checkpoint)
    arrays, state = load_checkpoint(tmp_path)
    assert state["step"] == 2
    assert all(np.isfinite(value).all() for value in arrays.values())
    assert all(np.isfinite(weight).all() for weight in training.best)


@pytest.mark.parametrize("every", [1, 2])
def test_a_checkpoint_never_holds_what_is_no_number(tmp_path, shards, every):
    chosen = settings(learning_rate=1e39, validate_every=100, checkpoint_every=every)
    with pytest.raises(BadInput, match="not finite"):
        loop.train(
            loop.begin(chosen),
            chosen,
            batches(shards, chosen),
            lambda _: 0.5,
            lambda now: save_checkpoint(tmp_path, now.step, *loop.dump(now)),
        )
    assert load_checkpoint(tmp_path) is None


def test_statistics_that_are_no_number_are_never_the_best(shards):
    chosen = settings(steps=2, validate_every=1)
    training, values = loop.begin(chosen), iter([0.5, 0.1])

    def validate(generator) -> float:
        rmse = next(values)
        if rmse < 0.5:
            statistic = next(variable for variable in generator.variables if variable.path.endswith("moving_variance"))
            statistic.assign(np.full(statistic.shape, np.nan))
        return rmse

    with pytest.raises(BadInput, match="after step 2 the weights are not finite"):
        loop.train(training, chosen, batches(shards, chosen), validate, nothing)
    assert [row["rmse"] for row in training.validation] == [0.5]
    assert all(np.isfinite(weight).all() for weight in training.best)


@pytest.mark.parametrize("at", [3, 4, STEPS])
def test_stopped_it_keeps_that_step_and_ends_as_if_it_had_not_been(tmp_path, uninterrupted, shards, validate, at):
    """Between two checkpoints, right after a validation, and after the last step."""
    chosen, calls = settings(checkpoint_every=100), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CURVE_POINTS", 4)
        with pytest.raises(KeyboardInterrupt, match=f"after step {at}, which was kept"):
            loop.train(
                loop.begin(chosen),
                chosen,
                batches(shards, chosen),
                validate,
                lambda now: save_checkpoint(tmp_path, now.step, *loop.dump(now)),
                lambda: calls.append(1) or len(calls) == at,
            )
        assert [path.name for path in list_checkpoints(tmp_path)] == [f"step-{at:08d}.npz"]
        training = loop.begin(chosen)
        loop.restore(training, *load_checkpoint(tmp_path))
        go_on(training, chosen, shards, validate)
    (arrays, state), (expected, expected_state) = loop.dump(training), loop.dump(uninterrupted[0])
    assert same(arrays, expected) and state == expected_state


def test_steps_on_one_batch_lower_its_loss(shards):
    chosen = settings(filters=4, learning_rate=2e-3)
    training = loop.begin(chosen)
    step = loop.make_step(training, chosen.lambda_l1)
    masked, whole = next(iter(batches(shards, chosen)))
    found = [float(step(masked, whole)["generator_l1"]) for _ in range(40)]
    assert np.mean(found[-5:]) < 0.6 * found[0]


def test_a_step_moves_both_networks_and_tells_the_losses_it_moved_along(shards):
    chosen = settings(batch_size=2)  # the innermost kernel has no gradient where normalisation sees one value
    training = loop.begin(chosen)
    before = loop.dump(training)[0]
    masked, whole = next(iter(batches(shards, chosen)))
    found = loop.make_step(training, 50.0)(masked, whole)
    assert float(found["generator"]) == pytest.approx(
        float(found["generator_gan"]) + 50 * float(found["generator_l1"]), rel=1e-5
    )
    for name, model in (("generator", training.generator), ("discriminator", training.discriminator)):
        moved = {
            variable.path.rsplit("/", 1)[1]
            for i, variable in enumerate(model.variables)
            if (variable.numpy() != before[f"{name}/{i}"]).any()
        }
        kernels = [i for i, variable in enumerate(model.variables) if variable.path.endswith("kernel")]
        assert all((model.variables[i].numpy() != before[f"{name}/{i}"]).any() for i in kernels)
        assert {"kernel", "moving_mean", "moving_variance"} <= moved


def test_the_optimizers_have_the_settings(shards):
    training = loop.begin(settings(learning_rate=0.25, beta_1=0.75))
    for optimizer in (training.generator_optimizer, training.discriminator_optimizer):
        assert float(optimizer.learning_rate) == 0.25 and optimizer.beta_1 == 0.75


def has_avx512() -> bool:
    path = Path("/proc/cpuinfo")
    return path.exists() and "avx512bw" in path.read_text(encoding="utf-8")


@pytest.mark.skipif(not has_avx512(), reason="bfloat16 convolutions need AVX-512 here")
def test_mixed_precision_trains_float32_weights(shards):
    chosen = settings(precision="mixed_bfloat16")
    training = loop.begin(chosen)
    step = loop.make_step(training, chosen.lambda_l1)
    for masked, whole in batches(shards, chosen).take(2):
        assert all(math.isfinite(float(loss)) for loss in step(masked, whole).values())
    assert all(np.isfinite(value).all() for value in loop.dump(training)[0].values())
    assert {variable.dtype for variable in training.generator.trainable_variables} == {"float32"}
