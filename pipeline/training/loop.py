"""The training loop of pix2pix: steps, validation at intervals, checkpoints; resumed, it ends with the same weights."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipeline.base.errors import BadInput
from pipeline.base.progress import progress, say
from pipeline.models import pix2pix
from pipeline.params import Train
from pipeline.training.adam import FusedAdam

CURVE_POINTS = 200  # rows of the loss curve, however long the training


@dataclass
class Training:
    """Everything that changes while training: two networks, their optimizers, the best generator so far, the curves."""

    generator: keras.Model
    discriminator: keras.Model
    generator_optimizer: FusedAdam
    discriminator_optimizer: FusedAdam
    best: list[np.ndarray]  # the generator's variables at the lowest validation RMSE
    step: int = 0
    losses: list[dict[str, float]] = field(default_factory=list)  # means over the steps since the row before
    sums: dict[str, float] = field(default_factory=dict)  # of the losses since the last row
    validation: list[dict[str, float]] = field(default_factory=list)

    def variables(self) -> dict[str, keras.Variable]:
        """Every variable, by a name that is the same in each run; the networks' include their random states."""
        parts = {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "generator_optimizer": self.generator_optimizer,
            "discriminator_optimizer": self.discriminator_optimizer,
        }
        return {f"{name}/{i}": value for name, part in parts.items() for i, value in enumerate(part.variables)}


def begin(settings: Train) -> Training:
    """Both networks with fresh weights, drawn from the seed, and their optimizers."""
    keras.utils.set_random_seed(settings.seed)
    generator = pix2pix.build_generator(settings.filters, settings.precision)
    discriminator = pix2pix.build_discriminator(settings.filters, settings.precision)
    optimizers = [FusedAdam(settings.learning_rate, beta_1=settings.beta_1) for _ in range(2)]
    for optimizer, model in zip(optimizers, (generator, discriminator), strict=True):
        optimizer.build(model.trainable_variables)
    return Training(generator, discriminator, *optimizers, best=snapshot(generator))


def snapshot(model: keras.Model) -> list[np.ndarray]:
    """A copy of the model's weights."""
    return [np.array(weight) for weight in model.get_weights()]


def dump(training: Training) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What a checkpoint holds of a training: arrays, and a state that JSON holds."""
    arrays = {name: keras.ops.convert_to_numpy(variable) for name, variable in training.variables().items()}
    arrays |= {f"best/{i}": weight for i, weight in enumerate(training.best)}
    return arrays, {name: getattr(training, name) for name in ("step", "losses", "sums", "validation")}


def restore(training: Training, arrays: dict[str, np.ndarray], state: dict[str, Any]) -> None:
    """Bring a training, begun with the same settings, to where a checkpoint was made."""
    for name, variable in training.variables().items():
        variable.assign(arrays[name])
    training.best = [arrays[f"best/{i}"] for i in range(len(training.best))]
    for name, value in state.items():
        setattr(training, name, value)


def make_step(training: Training, lambda_l1: float) -> Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]:
    """One step of both networks on one batch, compiled; it returns the losses that pix2pix.losses names."""
    generator, discriminator = training.generator, training.discriminator

    @tf.function
    def step(masked: tf.Tensor, whole: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as generator_tape, tf.GradientTape() as discriminator_tape:
            filled = generator(masked, training=True)
            real = discriminator([masked, whole], training=True)
            fake = discriminator([masked, filled], training=True)
            losses = pix2pix.losses(whole, filled, real, fake, lambda_l1)
        for tape, loss, model, optimizer in (
            (generator_tape, losses["generator"], generator, training.generator_optimizer),
            (discriminator_tape, losses["discriminator"], discriminator, training.discriminator_optimizer),
        ):
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return losses

    return step


def train(
    training: Training,
    settings: Train,
    batches: tf.data.Dataset,
    validate: Callable[[keras.Model], float],
    checkpoint: Callable[[Training], None],
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Go on to settings.steps. `batches` begins at training.step; `validate` gives a generator's validation RMSE.

    Raises BadInput naming the step at which a loss or a weight is no longer finite; checkpoints and the best weights
    are from before it. Where `stopped` says so after a step, that step is kept and KeyboardInterrupt raised.
    """
    step = make_step(training, settings.lambda_l1)
    every = math.ceil(settings.steps / CURVE_POINTS)
    remaining = batches.take(settings.steps - training.step)
    for masked, whole in progress(remaining, lambda: label(training), settings.steps, "step", done=training.step):
        losses = {name: float(loss) for name, loss in step(masked, whole).items()}
        training.step += 1
        if not all(map(math.isfinite, losses.values())):
            raise diverged(f"the loss at step {training.step} is not finite ({losses})")
        add_losses(training, losses, every)
        last, stop = training.step == settings.steps, stopped()
        validating = training.step % settings.validate_every == 0 or last
        saving = (training.step % settings.checkpoint_every == 0 and not last) or stop
        if validating or saving:
            check_variables(training)  # the losses are of the weights before the step
        if validating:
            rmse = validate(training.generator)
            check_variables(training)  # validation measures the generator's statistics
            if rmse < min((row["rmse"] for row in training.validation), default=math.inf):
                training.best = snapshot(training.generator)
            training.validation.append({"step": training.step, "rmse": rmse})
            say(f"step {training.step}: validation RMSE {rmse:.4f}, L1 {losses['generator_l1']:.4f}")
        if saving:
            checkpoint(training)
        if stop:
            raise KeyboardInterrupt(f"after step {training.step}, which was kept")


def check_variables(training: Training) -> None:
    """Raises BadInput where a weight, a statistic or an optimizer's mean is not finite."""
    for name, variable in training.variables().items():
        if not keras.ops.all(keras.ops.isfinite(variable)):
            raise diverged(f"after step {training.step} the weights are not finite ({name})")


def diverged(what: str) -> BadInput:
    """The error of a training that cannot go on, with the remedy."""
    return BadInput(f"{what}; the last checkpoint was kept: lower train.learning_rate, or train.precision: float32")


def add_losses(training: Training, losses: dict[str, float], every: int) -> None:
    """Sum up a step's losses; every so many steps, their means are a row of the curve."""
    training.sums = {name: training.sums.get(name, 0.0) + loss for name, loss in losses.items()}
    if training.step % every == 0:
        training.losses.append({"step": training.step} | {name: total / every for name, total in training.sums.items()})
        training.sums = {}


def label(training: Training) -> str:
    """What stands before the progress bar: the last validation RMSE, where there is one."""
    return f"train (validation RMSE {training.validation[-1]['rmse']:.4f})" if training.validation else "train"
