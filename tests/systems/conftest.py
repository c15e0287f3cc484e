"""Inputs of the systems' trainings: a batch, a folder with shards, one with photographs."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from pipeline import paths
from pipeline.competition.boxes import LAST, TURNS
from pipeline.competition.images import SIZE, encode_image
from pipeline.competition.index import BOX_COLUMNS, target_path
from pipeline.training.data import TrainingData, training_data
from pipeline.training.shards import Record, list_shards, write_shards
from tests.helpers.trainings import THREADS, uncompiled

# Only settable before TensorFlow is first used, so here, while tests are collected.
tf.config.threading.set_intra_op_parallelism_threads(THREADS)


@pytest.fixture(name="uncompiled")
def run_uncompiled() -> Iterator[None]:
    """Steps run uncompiled during the test."""
    with uncompiled():
        yield


@pytest.fixture(scope="session")
def batch() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Two images: masked, target and hole."""
    rng = np.random.default_rng(0)
    target = rng.uniform(-1, 1, (2, 4, 4, 3)).repeat(SIZE // 4, axis=1).repeat(SIZE // 4, axis=2).astype(np.float32)
    hole = np.zeros((2, SIZE, SIZE, 1), np.float32)
    hole[0, 20:95, 30:105], hole[1, 100:175, 0:75] = 1, 1
    return tuple(map(tf.constant, (np.where(hole > 0, -1, target).astype(np.float32), target, hole)))


@pytest.fixture(scope="session")
def augmented(tmp_path_factory) -> Path:
    """A folder with the shards of four pairs: in place of an image's five turns, five pictures."""
    folder = tmp_path_factory.mktemp("augmented")
    (folder / paths.AUGMENTED).mkdir(parents=True)
    rng = np.random.default_rng(1)
    pictures = rng.integers(0, 256, (4 * len(TURNS), 6, 6, 3), dtype=np.uint8)
    boxes = rng.integers(0, LAST + 1, (len(pictures), 2, 2))
    records = [
        Record(encode_image(cv2.resize(picture, (SIZE, SIZE)), ".jpeg"), box, i % 4)
        for i, (picture, box) in enumerate(zip(pictures, boxes, strict=True))
    ]
    write_shards(folder / paths.AUGMENTED, ((i % 2, record) for i, record in enumerate(records)), 2, 5)
    return folder


@pytest.fixture
def shards(augmented, monkeypatch) -> list[str]:
    """The paths of those shards, in the working folder."""
    monkeypatch.chdir(augmented)
    return list_shards(paths.AUGMENTED)[0]


@pytest.fixture(scope="session")
def photographs() -> np.ndarray:
    """Four, fine and coarse at once."""
    rng = np.random.default_rng(5)
    return rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2) // 2 + (
        rng.integers(0, 128, (4, SIZE, SIZE, 3), dtype=np.uint8)
    )


@pytest.fixture
def project(tmp_path, monkeypatch, photographs) -> TrainingData:
    """A split with the training pairs 0, 2 and 3. There is no target of the validation pair and no test image."""
    monkeypatch.chdir(tmp_path)
    split = pd.DataFrame(
        {
            "split": ["train", "validation", "train", "train", "test"],
            "class": ["Cat", "Cat", "Dog", "Dog", ""],
            "filename": ["a.png", "b.png", "a.png", "b.png", "test.png"],
            **dict.fromkeys(BOX_COLUMNS, 0),
            "group": range(5),
        }
    )
    data = training_data(split, seed=3)
    for i, row in data.pairs.iterrows():
        path = target_path(paths.RAW, row)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_image(photographs[i], ".png"))
    return data
