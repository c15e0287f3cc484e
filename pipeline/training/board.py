"""TensorBoard event files of a training: its losses, its validation RMSE and a few pairs as they are filled.

Each validation writes one file, named after its step. A resumed training removes those that it will write again.
"""

import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from pipeline.base.files import remove, replacing
from pipeline.competition.images import encode_image
from pipeline.training.loop import TrainingState
from pipeline.training.shards import named_errors

PREFIX = "events.out.tfevents."
Event, Summary = tf.compat.v1.Event, tf.compat.v1.Summary  # tf.summary needs TensorBoard to make any other


def remove_after(folder: Path, step: int) -> None:
    """Remove the event files of later steps: all of them if a training begins."""
    for path in folder.glob(f"{PREFIX}*"):
        if path.name > f"{PREFIX}{step:08d}":
            remove(path)


def write_events(folder: Path, state: TrainingState, rmse: float, picture: np.ndarray) -> None:
    """Write the losses since the last validation, this one's RMSE and a picture, uint8 [height, width, 3] RGB.

    Call it before the state has this validation. Raises OSError if the disk is full.
    """
    since = state.validation[-1]["step"] if state.validation else 0
    height, width, _ = picture.shape
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encode_image(picture, ".png"))
    values = [Summary.Value(tag="validation/rmse", simple_value=rmse), Summary.Value(tag="pairs", image=image)]
    summaries = [(row["step"], scalars(row)) for row in state.losses if row["step"] > since] + [(state.step, values)]
    events = [Event(wall_time=time.time(), step=step, summary=Summary(value=value)) for step, value in summaries]
    first = Event(wall_time=time.time(), file_version="brain.Event:2")
    path = folder / f"{PREFIX}{state.step:08d}"
    with replacing(path) as partial, named_errors(), tf.io.TFRecordWriter(str(partial)) as file:
        for event in [first, *events]:
            file.write(event.SerializeToString())


def scalars(row: dict[str, float]) -> list[Summary.Value]:
    """A row of the loss curve."""
    return [Summary.Value(tag=f"losses/{name}", simple_value=loss) for name, loss in row.items() if name != "step"]
