"""TensorBoard's event files: what a validation writes is read, and a resumed training writes nothing twice."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from pipeline.training.board import remove_after, write_events
from pipeline.training.loop import TrainingState

PICTURE = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)


def state_at(step: int, validated: int = 0) -> TrainingState:
    """A training with a row of losses every second step, and one earlier validation."""
    losses = [{"step": row, "loss": row / 8, "gan": row / 4} for row in range(2, step + 1, 2)]
    validation = [{"step": validated, "rmse": 0.5}] if validated else []
    return TrainingState(None, {}, {}, [], step, losses, validation=validation)


def read(folder: Path) -> list[tuple[int, str, object]]:
    """Step, tag and value of each summary in the files of a folder, in TensorBoard's order."""
    found = []
    for path in sorted(folder.iterdir()):
        first, *events = (
            tf.compat.v1.Event.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path))
        )
        assert first.file_version == "brain.Event:2" and "tfevents" in path.name
        for event in events:
            for value in event.summary.value:
                picture = value.image.encoded_image_string
                shown = tf.io.decode_png(picture).numpy().tolist() if picture else value.simple_value
                found.append((event.step, value.tag, shown))
    return found


def test_each_validation_adds_its_rmse_a_picture_and_the_losses_since_the_one_before(tmp_path):
    write_events(tmp_path, state_at(4), 0.25, PICTURE)
    write_events(tmp_path, state_at(7, validated=4), 0.125, PICTURE)
    losses = [[(step, "losses/loss", step / 8), (step, "losses/gan", step / 4)] for step in (2, 4, 6)]
    validations = [
        [(step, "validation/rmse", rmse), (step, "pairs", PICTURE.tolist())] for step, rmse in ((4, 0.25), (7, 0.125))
    ]
    assert read(tmp_path) == [*losses[0], *losses[1], *validations[0], *losses[2], *validations[1]]


@pytest.mark.parametrize(("resumed", "kept"), [(0, []), (5, [4]), (8, [4, 8]), (100, [4, 8, 12])])
def test_a_training_removes_the_events_of_the_steps_to_come(tmp_path, resumed, kept):
    for step in (4, 8, 12):
        write_events(tmp_path, state_at(step), 0.5, PICTURE)
    (tmp_path / "events.out.tfevents.00000012.partial").touch()
    remove_after(tmp_path, resumed)
    assert [int(path.suffix[1:]) for path in sorted(tmp_path.iterdir()) if path.suffix != ".partial"] == kept
    assert resumed == 100 or len(list(tmp_path.iterdir())) == len(kept)


def test_a_folder_without_events_is_no_error(tmp_path):
    remove_after(tmp_path / "none", 0)
