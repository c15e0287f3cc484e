"""Environment variables that change what a library computes, or break it, are removed before any is imported."""

import os
import sys
import warnings

# The start of each variable's name, and what it changes.
REMOVED = (
    "KERAS_",  # Keras: its backend, the limits of a training
    *("TF_", "TF2_", "XLA_", "ONEDNN_", "DNNL_"),  # TensorFlow: kernels, precision, threads, compilation
    *("NVIDIA_TF32_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG"),  # a GPU's precision and order of summation
    *("TORCH_", "PYTORCH_TUNABLEOP_", "DIFFUSERS_", "ACCELERATE_", "USE_TF", "USE_TORCH"),  # PyTorch: the same
    *("MKL_", "KMP_", "OMP_DYNAMIC", "OMP_THREAD_LIMIT"),  # PyTorch: threads, which runtime.set_threads sets
    *("OPENBLAS_", "GOTO_", "NPY_", "NUMPY_", "SCIPY_", "PANDAS_"),  # threads, instructions, types, experiments
    "OPENCV_",  # instructions, the largest image it reads
    *("MPLBACKEND", "MATPLOTLIBRC"),  # a notebook's backend, which is not installed here; the style of the curves
    "TQDM_",  # the progress bar; an invalid value is an exception
    "PYTHONWARNINGS",  # may turn warnings into exceptions; see keep_warnings
)
# These limit the processor's instructions. They change rounding, as another processor does, but some virtual machines
# need them. They are kept, and a model's card names them.
INSTRUCTIONS = (
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
    "NPY_DISABLE_CPU_FEATURES",
    "OPENCV_CPU_DISABLE",
    "ATEN_CPU_CAPABILITY",
)
# Exceptions from REMOVED. They concern several machines, TensorFlow's log or a GPU's memory, and change no result.
KEPT = ("TF_CONFIG", "TF_CPP_", "TF_GPU_", "TF_GRPC_", "TF_FORCE_", "TF_PER_DEVICE_", *INSTRUCTIONS)
SET = {
    "KERAS_BACKEND": "tensorflow",
    "KERAS_HOME": os.devnull,  # not a folder, so that no keras.json is read or written
    "MATPLOTLIBRC": os.devnull,  # empty, instead of the user's
    "OPENBLAS_NUM_THREADS": "1",  # the default is the number of cores, which changes summation order
}


def prepare() -> None:
    """Remove and set these variables in this process. Call it before any library is imported."""
    for name in list(os.environ):
        if name.startswith(REMOVED) and not name.startswith(KEPT):
            del os.environ[name]
    os.environ.update(SET)
    keep_warnings()


def keep_warnings() -> None:
    """Have no warning raise an exception, even if PYTHONWARNINGS or -W says so."""
    if sys.warnoptions:
        warnings.filters[:] = [rule for rule in warnings.filters if rule[0] != "error"]


def instruction_limits() -> dict[str, str]:
    """The variables of INSTRUCTIONS that are set, with their values."""
    return {name: os.environ[name] for name in INSTRUCTIONS if name in os.environ}
