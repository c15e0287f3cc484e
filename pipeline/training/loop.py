"""The training loop: steps, validation and checkpoints at intervals. A resumed training ends with the same weights."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipeline.base.errors import BadInput
from pipeline.base.progress import progress, say

CURVE_POINTS = 200  # rows of the loss curve, however long the training
COUNTERS = ("step", "losses", "sums", "validation", "seconds")  # of TrainingState, kept in a checkpoint as JSON


Step = Callable[..., Mapping[str, Any]]  # takes the parts of one batch, trains on them, returns the losses by name


class Schedule(Protocol):
    """A system's settings for the loop, all in steps."""

    steps: int
    validate_every: int
    checkpoint_every: int


class Variable(Protocol):
    """A value that training changes, read and written as an array. keras.Variable is one."""

    def numpy(self) -> np.ndarray: ...

    def assign(self, value: np.ndarray) -> object: ...


class Part(Protocol):
    """A network or an optimizer."""

    variables: list[Variable]


class Model(Part, Protocol):
    """The network that fills images: a keras.Model, or an object with these methods of one."""

    def get_weights(self) -> list[np.ndarray]: ...

    def set_weights(self, weights: list[np.ndarray]) -> None: ...

    def save_weights(self, path: Path) -> None: ...

    def load_weights(self, path: Path) -> None: ...

    def count_params(self) -> int: ...


@dataclass
class TrainingState:
    """Everything that changes during a training: networks, optimizers, the best weights so far, the curves."""

    model: Model  # the one of the networks that fills images
    networks: dict[str, Part]
    optimizers: dict[str, Part]
    best: list[np.ndarray]  # the model's weights at the lowest validation RMSE
    step: int = 0
    losses: list[dict[str, float]] = field(default_factory=list)  # means over the steps since the row before
    sums: dict[str, float] = field(default_factory=dict)  # of the losses since the last row
    validation: list[dict[str, float]] = field(default_factory=list)
    name: str = ""  # of the system, for the progress bar
    devices: str = ""  # what it runs on, if TensorFlow cannot tell
    seconds: dict[str, float] = field(default_factory=lambda: {"steps": 0.0, "validation": 0.0})

    def variables(self) -> dict[str, Variable]:
        """Every variable by a name that is the same in each run, the networks' random states among them."""
        parts = self.networks | self.optimizers
        return {f"{name}/{i}": value for name, part in parts.items() for i, value in enumerate(part.variables)}


def snapshot(model: Model) -> list[np.ndarray]:
    """A copy of the model's weights."""
    return [np.array(weight) for weight in model.get_weights()]


def dump(state: TrainingState) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """A checkpoint's content: arrays, and counters and curves that JSON can hold."""
    arrays = {name: variable.numpy() for name, variable in state.variables().items()}
    arrays |= {f"best/{i}": weight for i, weight in enumerate(state.best)}
    return arrays, {name: getattr(state, name) for name in COUNTERS}


def restore(state: TrainingState, arrays: dict[str, np.ndarray], counters: dict[str, Any]) -> None:
    """Bring a training that began with the same settings to where a checkpoint was made."""
    for name, variable in state.variables().items():
        variable.assign(arrays[name])
    state.best = [arrays[f"best/{i}"] for i in range(len(state.best))]
    for name in COUNTERS:
        setattr(state, name, counters[name])


def train(
    state: TrainingState,
    schedule: Schedule,
    step: Step,
    batches: Iterable[tuple],
    validate: Callable[[], float] | None,
    checkpoint: Callable[[TrainingState], None],
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Train up to schedule.steps, from state.step, where `batches` begins.

    `validate` returns the model's validation RMSE; it is None if there are no validation pairs or if another process
    of this training validates. `checkpoint` saves the state. If `stopped` is true after a step, that step is saved and
    KeyboardInterrupt raised.
    Raises BadInput naming the step at which a loss or a weight is no longer finite; checkpoints and the best weights
    are from before it.
    """
    every, since = math.ceil(schedule.steps / CURVE_POINTS), time.monotonic()

    def spent(what: str) -> None:
        nonlocal since
        now = time.monotonic()
        state.seconds[what] += now - since
        since = now

    remaining = islice(batches, schedule.steps - state.step)
    for batch in progress(remaining, lambda: label(state), schedule.steps, "step", done=state.step):
        losses = {name: float(loss) for name, loss in step(*batch).items()}
        state.step += 1
        if not all(map(math.isfinite, losses.values())):
            raise diverged(f"the loss at step {state.step} is not finite ({losses})")
        add_losses(state, losses, every)
        last, stop = state.step == schedule.steps, stopped()
        validating = validate is not None and (state.step % schedule.validate_every == 0 or last)
        saving = (state.step % schedule.checkpoint_every == 0 and not last) or stop
        if validating or saving or last:
            check_variables(state)  # the losses are of the weights before the step
        spent("steps")
        if validating:
            add_validation(state, validate())
            spent("validation")
        if saving:
            checkpoint(state)
        if stop:
            raise KeyboardInterrupt(f"after step {state.step}, which was saved")


def add_validation(state: TrainingState, rmse: float) -> None:
    """Add a row to the validation curve, and keep the weights if they are the best so far."""
    check_variables(state)  # validation may measure statistics
    if rmse < min((row["rmse"] for row in state.validation), default=math.inf):
        state.best = snapshot(state.model)
    state.validation.append({"step": state.step, "rmse": rmse})
    say(f"step {state.step}: validation RMSE {rmse:.4f}")


def check_variables(state: TrainingState) -> None:
    """Raises BadInput if a weight, a statistic or an optimizer's mean is not finite."""
    for name, variable in state.variables().items():
        if not np.isfinite(variable.numpy()).all():
            raise diverged(f"after step {state.step} the weights are not finite ({name})")


def diverged(what: str) -> BadInput:
    """The error of a training that cannot go on."""
    return BadInput(f"{what}; the last checkpoint is kept: lower its learning_rate, or set train.precision: float32")


def add_losses(state: TrainingState, losses: dict[str, float], every: int) -> None:
    """Add up a step's losses; after `every` steps, add their means to the curve."""
    state.sums = {name: state.sums.get(name, 0.0) + loss for name, loss in losses.items()}
    if state.step % every == 0:
        state.losses.append({"step": state.step} | {name: total / every for name, total in state.sums.items()})
        state.sums = {}


def label(state: TrainingState) -> str:
    """The progress bar's label: the system, its losses without the parts of a sum, its validation RMSE."""
    row = state.losses[-1] if state.losses else {"step": 0.0}
    sums = tuple(f"{name}_" for name in row)
    facts = [f"{name} {loss:.4g}" for name, loss in row.items() if name != "step" and not name.startswith(sums)]
    facts += [f"validation RMSE {last['rmse']:.4f}" for last in state.validation[-1:]]
    return f"train {state.name}" + (f" ({', '.join(facts)})" if facts else "")
