"""Stages run in this process: to start Python with TensorFlow takes longer than most of them."""

from contextlib import chdir
from importlib import import_module
from pathlib import Path

import tensorflow as tf

from pipeline import train
from pipeline.params import load_params
from pipeline.training.devices import use_devices
from tests.helpers.trainings import THREADS

# Only settable before TensorFlow is first used, so here, while tests are collected.
tf.config.threading.set_intra_op_parallelism_threads(THREADS)


def run_here(folder: Path, *stages: str) -> None:
    """Run stages, but not train, in the folder. An error of theirs is raised."""
    with chdir(folder):
        for stage in stages:
            import_module(f"pipeline.{stage}").main()


def train_here(folder: Path, system: str) -> None:
    """Train in the folder, but write no model. An error is raised.

    The stage's main would change how this process allocates memory.
    """
    with chdir(folder):
        strategy = use_devices("none")
        train.train(train.load_run(system, load_params(), strategy), strategy)
