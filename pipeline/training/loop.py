"""The training loop: steps, validation at intervals, checkpoints; resumed, it ends with the same weights."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipeline.base.errors import BadInput
from pipeline.base.progress import progress, say

CURVE_POINTS = 200  # rows of the loss curve, however long the training


class Schedule(Protocol):
    """What the loop wants to know of a system's settings, all in steps."""

    steps: int
    validate_every: int
    checkpoint_every: int


class Variable(Protocol):
    """A value that training changes, as Keras has it; an array on the way in and out."""

    def numpy(self) -> np.ndarray: ...

    def assign(self, value: np.ndarray) -> object: ...


class Part(Protocol):
    """A network or an optimizer."""

    variables: list[Variable]


class Network(Part, Protocol):
    """What fills images: a keras.Model, or what has these of its methods."""

    def get_weights(self) -> list[np.ndarray]: ...

    def set_weights(self, weights: list[np.ndarray]) -> None: ...

    def save_weights(self, path: Path) -> None: ...

    def load_weights(self, path: Path) -> None: ...

    def count_params(self) -> int: ...


@dataclass
class TrainingState:
    """Everything that changes while training: networks, optimizers, the best weights so far, the curves."""

    model: Network  # what fills images: one of the networks
    networks: dict[str, Part]
    optimizers: dict[str, Part]
    best: list[np.ndarray]  # the model's variables at the lowest validation RMSE
    step: int = 0
    losses: list[dict[str, float]] = field(default_factory=list)  # means over the steps since the row before
    sums: dict[str, float] = field(default_factory=dict)  # of the losses since the last row
    validation: list[dict[str, float]] = field(default_factory=list)
    devices: str = ""  # what it runs on, where that is not TensorFlow's to say
    seconds: dict[str, float] = field(default_factory=lambda: {"steps": 0.0, "validation": 0.0})

    def variables(self) -> dict[str, Variable]:
        """Every variable, by a name that is the same in each run; the networks' include their random states."""
        parts = self.networks | self.optimizers
        return {f"{name}/{i}": value for name, part in parts.items() for i, value in enumerate(part.variables)}


def snapshot(model: Network) -> list[np.ndarray]:
    """A copy of the model's weights."""
    return [np.array(weight) for weight in model.get_weights()]


def dump(training: TrainingState) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What a checkpoint holds of a training: arrays, and a state that JSON holds."""
    arrays = {name: variable.numpy() for name, variable in training.variables().items()}
    arrays |= {f"best/{i}": weight for i, weight in enumerate(training.best)}
    return arrays, {name: getattr(training, name) for name in ("step", "losses", "sums", "validation", "seconds")}


def restore(training: TrainingState, arrays: dict[str, np.ndarray], state: dict[str, Any]) -> None:
    """Bring a training, begun with the same settings, to where a checkpoint was made."""
    for name, variable in training.variables().items():
        variable.assign(arrays[name])
    training.best = [arrays[f"best/{i}"] for i in range(len(training.best))]
    for name, value in state.items():
        setattr(training, name, value)


def train(
    training: TrainingState,
    schedule: Schedule,
    step: Callable[..., dict[str, Any]],
    batches: Iterable[tuple],
    validate: Callable[[], float] | None,
    checkpoint: Callable[[TrainingState], None],
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Go on to schedule.steps. `batches` begins at training.step; `step` takes one and gives its losses; `validate`
    gives the model's validation RMSE; there is none where another process of the same training does that.

    Raises BadInput naming the step at which a loss or a weight is no longer finite; checkpoints and the best weights
    are from before it. Where `stopped` says so after a step, that step is kept and KeyboardInterrupt raised.
    """
    every, since = math.ceil(schedule.steps / CURVE_POINTS), time.monotonic()

    def spent(what: str) -> None:
        nonlocal since
        now = time.monotonic()
        training.seconds[what] += now - since
        since = now

    remaining = islice(batches, schedule.steps - training.step)
    for batch in progress(remaining, lambda: label(training), schedule.steps, "step", done=training.step):
        losses = {name: float(loss) for name, loss in step(*batch).items()}
        training.step += 1
        if not all(map(math.isfinite, losses.values())):
            raise diverged(f"the loss at step {training.step} is not finite ({losses})")
        add_losses(training, losses, every)
        last, stop = training.step == schedule.steps, stopped()
        validating = validate is not None and (training.step % schedule.validate_every == 0 or last)
        saving = (training.step % schedule.checkpoint_every == 0 and not last) or stop
        if validating or saving:
            check_variables(training)  # the losses are of the weights before the step
        spent("steps")
        if validating:
            rmse = validate()
            check_variables(training)  # validation may measure statistics
            if rmse < min((row["rmse"] for row in training.validation), default=math.inf):
                training.best = snapshot(training.model)
            training.validation.append({"step": training.step, "rmse": rmse})
            say(f"step {training.step}: validation RMSE {rmse:.4f}")
            spent("validation")
        if saving:
            checkpoint(training)
        if stop:
            raise KeyboardInterrupt(f"after step {training.step}, which was kept")


def check_variables(training: TrainingState) -> None:
    """Raises BadInput where a weight, a statistic or an optimizer's mean is not finite."""
    for name, variable in training.variables().items():
        if not np.isfinite(variable.numpy()).all():
            raise diverged(f"after step {training.step} the weights are not finite ({name})")


def diverged(what: str) -> BadInput:
    """The error of a training that cannot go on, with the remedy."""
    return BadInput(f"{what}; the last checkpoint was kept: lower its learning_rate, or set train.precision: float32")


def add_losses(training: TrainingState, losses: dict[str, float], every: int) -> None:
    """Sum up a step's losses; every so many steps, their means are a row of the curve."""
    training.sums = {name: training.sums.get(name, 0.0) + loss for name, loss in losses.items()}
    if training.step % every == 0:
        training.losses.append({"step": training.step} | {name: total / every for name, total in training.sums.items()})
        training.sums = {}


def label(training: TrainingState) -> str:
    """What stands before the progress bar: the last validation RMSE, where there is one."""
    return f"train (validation RMSE {training.validation[-1]['rmse']:.4f})" if training.validation else "train"
