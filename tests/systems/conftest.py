"""What the systems' trainings are given: a batch, a folder with shards, one with photographs."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from pipeline import paths
from pipeline.competition.boxes import LAST, TURNS
from pipeline.competition.images import SIZE, encode_image
from pipeline.competition.index import BOX_COLUMNS
from pipeline.training.shards import Record, list_shards, write_shards
from tests.helpers.trainings import KEEP, THREADS

# Only settable before TensorFlow is first used, so here, while tests are collected.
tf.config.threading.set_intra_op_parallelism_threads(THREADS)


@pytest.fixture(scope="session")
def batch() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Two images: as they are given, whole, and where they are missing."""
    rng = np.random.default_rng(0)
    whole = rng.uniform(-1, 1, (2, 4, 4, 3)).repeat(SIZE // 4, axis=1).repeat(SIZE // 4, axis=2).astype(np.float32)
    missing = np.zeros((2, SIZE, SIZE, 1), np.float32)
    missing[0, 20:95, 30:105], missing[1, 100:175, 0:75] = 1, 1
    return tuple(map(tf.constant, (np.where(missing > 0, -1, whole).astype(np.float32), whole, missing)))


@pytest.fixture(scope="session")
def augmented(tmp_path_factory) -> Path:
    """A folder with the shards of four pairs: each image in five turns, here five pictures."""
    folder = tmp_path_factory.mktemp("augmented")
    (folder / paths.AUGMENTED).mkdir(parents=True)
    rng = np.random.default_rng(1)
    pictures = rng.integers(0, 256, (len(KEEP) * len(TURNS), 6, 6, 3), dtype=np.uint8)
    boxes = rng.integers(0, LAST + 1, (len(pictures), 2, 2))
    records = [
        Record(encode_image(cv2.resize(picture, (SIZE, SIZE)), ".jpeg"), box, i % len(KEEP))
        for i, (picture, box) in enumerate(zip(pictures, boxes, strict=True))
    ]
    written = write_shards(folder / paths.AUGMENTED, ((i % 2, record) for i, record in enumerate(records)), 2)
    assert len(list(written)) == len(records)
    return folder


@pytest.fixture
def shards(augmented, monkeypatch) -> list[str]:
    """Those shards, in this folder."""
    monkeypatch.chdir(augmented)
    return list_shards(paths.AUGMENTED)


@pytest.fixture(scope="session")
def photographs() -> np.ndarray:
    """Four, fine and coarse at once."""
    rng = np.random.default_rng(5)
    return rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2) // 2 + (
        rng.integers(0, 128, (4, SIZE, SIZE, 3), dtype=np.uint8)
    )


@pytest.fixture
def project(tmp_path, monkeypatch, photographs) -> tuple[pd.DataFrame, np.ndarray]:
    """An index of which rows 0, 2 and 3 are trained on. Of the pair held out and the test image there is no file."""
    monkeypatch.chdir(tmp_path)
    index = pd.DataFrame(
        {
            "split": ["train"] * 4 + ["test"],
            "class": ["Cat", "Cat", "Dog", "Dog", ""],
            "filename": ["a.png", "held.png", "a.png", "b.png", "test.png"],
            **dict.fromkeys(BOX_COLUMNS, 0),
            "group": range(5),
        }
    )
    for row, image in zip(index[:4].to_dict("records"), photographs, strict=True):
        if row["filename"] != "held.png":
            path = paths.RAW / "Training_Data" / row["class"] / "Unmasked_Train" / row["filename"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_image(image, ".png"))
    return index, np.array([True, False, True, True, False])
