"""A home and an environment that are configured for other programs change none of our results."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Makes a network and its gradients, fills, multiplies, reads an image, draws a curve; prints each result's checksum.
PROGRAM = """
from pipeline.base.command import run

import hashlib
import json

import cv2
import keras
import numpy as np
import pandas as pd
import scipy.optimize
import tensorflow as tf

from pipeline.report.page import plot
from pipeline.systems.residual import network
from pipeline.training.runtime import set_threads
from tests.helpers.settings import settings_of


def main():
    set_threads(2)
    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(1)
    model = network.build(settings_of("residual", filters=4))
    images = rng.integers(0, 256, (2, 256, 256, 3), dtype=np.uint8)
    boxes = np.array([[[3, 4], [90, 91]], [[50, 60], [70, 80]]], np.int32)
    weights = network.weigh(boxes, 64)
    rims = network.rim_examples(images, np.ones(images.shape[:3], bool), boxes, 64)

    @tf.function
    def gradients(inputs, residual, near, lacking, rim_weights):
        with tf.GradientTape() as tape:
            predicted, mended = model([inputs, near], training=True)
            loss = network.loss(residual, predicted, weights) + network.loss(lacking, mended, rim_weights)
        return tape.gradient(loss, model.trainable_variables)

    changes = gradients(*network.examples(images[:, ::4, ::4], weights > 0), *rims[:3])
    for weight, change in zip(model.trainable_variables, changes):
        weight.assign_sub(change)
    filled = network.fill(model, images, boxes, np.array(["", ""]))
    left, right = (rng.normal(size=(n, 768)).astype(np.float32) for n in (64, 768))
    curve, words = pd.Series([1.0, 2.5, 4.0]), pd.Series(["a", "b"])
    results = {
        "weights": [weight.tobytes() for weight in model.get_weights()],
        "fill": filled.tobytes(),
        "product": (left @ right.T).tobytes(),
        "blend": scipy.optimize.nnls(np.abs(left[:, :5]), np.abs(right[:64, 0]))[0].tobytes(),
        "image": cv2.imdecode(cv2.imencode(".png", images[0])[1], cv2.IMREAD_COLOR).tobytes(),
        "curve": plot(curve, 3 * curve, 4),
        "type of text": str(words.dtype),
    }
    print(json.dumps({name: hashlib.sha256(repr(value).encode()).hexdigest() for name, value in results.items()}))


run("program", main)
"""
HOSTILE = {
    "KERAS_BACKEND": "jax",
    "KERAS_MAX_EPOCHS": "many",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "OMP_NUM_THREADS": "7",
    "OPENBLAS_NUM_THREADS": "2",
    "OPENCV_IO_MAX_IMAGE_PIXELS": "100",
    "PANDAS_FUTURE_INFER_STRING": "0",
    "PYTHONWARNINGS": "error",
    "SCIPY_ARRAY_API": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_USE_LEGACY_KERAS": "1",
    "TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit",
    "TQDM_MININTERVAL": "often",
    "XLA_FLAGS": "--no_such_flag",
}
KERAS = {"backend": "torch", "floatx": "float64", "epsilon": 0.1, "image_data_format": "channels_first"}
STYLE = "lines.linewidth: 5\nfont.size: 20\naxes.facecolor: red\n"


def results(folder: Path, repo: Path, environment: dict[str, str]) -> subprocess.Popen:
    """The program at work in a folder, with its home there."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(repo)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def homes(tmp_path_factory) -> tuple[Path, Path]:
    """An empty home, and one with settings for other programs. The program runs in it."""
    empty, configured = (tmp_path_factory.mktemp(name) for name in ("empty", "configured"))
    for path, text in (
        (".keras/keras.json", json.dumps(KERAS)),
        (".config/matplotlib/matplotlibrc", STYLE),
        ("matplotlibrc", STYLE),
    ):
        (configured / path).parent.mkdir(parents=True, exist_ok=True)
        (configured / path).write_text(text, encoding="utf-8")
    return empty, configured


@pytest.mark.slow
def test_settings_for_other_programs_change_no_result_and_print_nothing(homes, repo):
    """TensorFlow's own log lines are hidden, and Keras writes no keras.json."""
    empty, configured = homes
    processes = [results(empty, repo, {}), results(configured, repo, HOSTILE)]
    (clean, quiet), (found, noise) = (process.communicate(timeout=300) for process in processes)
    assert (quiet, noise) == ("", "")
    assert json.loads(found) == json.loads(clean)
    assert not (empty / ".keras").exists()
