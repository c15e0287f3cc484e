"""Which of the user's environment variables are removed, set and kept."""

import os
import warnings

import pytest

from pipeline.base import environment


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """Changes end with the test."""
    monkeypatch.setattr(os, "environ", os.environ.copy())


@pytest.mark.parametrize(
    "name",
    [
        "KERAS_MAX_EPOCHS",
        "TF_DETERMINISTIC_OPS",
        "TF_FUNCTION_JIT_COMPILE_DEFAULT",
        "XLA_FLAGS",
        "ONEDNN_DEFAULT_FPMATH_MODE",
        "NVIDIA_TF32_OVERRIDE",
        "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
        "MKL_NUM_THREADS",
        "OPENCV_IO_MAX_IMAGE_PIXELS",
        "PANDAS_FUTURE_INFER_STRING",
        "MPLBACKEND",
        "PYTHONWARNINGS",
    ],
)
def test_what_changes_results_or_breaks_a_library_is_removed(name):
    os.environ[name] = "1"
    environment.prepare()
    assert name not in os.environ


@pytest.mark.parametrize(
    "name",
    ["TF_CONFIG", "TF_CPP_MIN_LOG_LEVEL", "TF_GPU_ALLOCATOR", "CUDA_VISIBLE_DEVICES", "HF_HOME", "MPLCONFIGDIR", "TZ"]
    + list(environment.INSTRUCTIONS),
)
def test_what_changes_no_result_or_is_recorded_is_kept(name):
    os.environ[name] = "1"
    environment.prepare()
    assert os.environ[name] == "1"


def test_our_values_replace_the_users():
    os.environ |= dict.fromkeys(environment.SET, "theirs")
    environment.prepare()
    assert environment.SET.items() <= os.environ.items()


def test_a_warning_raises_nothing(monkeypatch):
    monkeypatch.setattr("sys.warnoptions", ["error"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("error")
        environment.prepare()
        warnings.warn("it is late", stacklevel=1)
    assert len(caught) == 1
