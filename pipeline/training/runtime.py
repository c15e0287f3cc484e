"""What TensorFlow and the C library are told about the machine before anything is computed."""

import ctypes
import os
from pathlib import Path

import tensorflow as tf

from pipeline.base.progress import say

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # malloc.h of the GNU C library
BFLOAT16 = (8, 0)  # compute capability of the first GPUs that have it


def keep_freed_memory() -> None:
    """Have malloc keep freed buffers: each step needs the same ones, and asking the kernel again costs a tenth of it.

    Call it first. With another C library it does nothing.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_ARENA_MAX, 1)


def grow_gpu_memory() -> None:
    """Have TensorFlow allocate GPU memory as it needs it. Call it before a GPU is used."""
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)


def set_threads(threads: int) -> None:
    """Set the threads of one operation, for TensorFlow and, once it is imported, PyTorch: they change rounding.

    Call it before TensorFlow computes anything.
    """
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)


def usable_precision(precision: str) -> str:
    """`precision`, or float32 with a warning if this machine cannot compute in it."""
    gpus = tf.config.list_physical_devices("GPU")
    capabilities = [tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus]
    if can_compute(precision, capabilities, cpu_flags()):
        return precision
    say(f"train.precision: this processor cannot compute in {precision}; using float32, which is slower")
    return "float32"


def can_compute(precision: str, capabilities: list[tuple[int, int]], flags: str) -> bool:
    """Whether GPUs of these compute capabilities, or without GPUs a CPU with these flags, can compute in `precision`.

    TensorFlow's CPU kernels abort the process if they cannot: below AVX-512 there is no convolution in bfloat16.
    """
    if precision == "float32":
        return True
    return min(capabilities) >= BFLOAT16 if capabilities else "avx512" in flags


def cpu_flags() -> str:
    """The processor's features as Linux lists them; empty if they cannot be read."""
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="ascii", errors="replace") if path.exists() else ""
