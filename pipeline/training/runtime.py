"""What TensorFlow is told of the machine before it computes: memory, threads, precision."""

import ctypes
from pathlib import Path

import tensorflow as tf

from pipeline.base.progress import say

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # malloc.h of the GNU C library
BFLOAT16 = (8, 0)  # compute capability of the first GPUs that know it


def keep_freed_memory() -> None:
    """Have malloc keep freed buffers: each step needs the same ones, and asking the kernel anew costs a tenth of it.

    Call it first. Nothing happens where the C library is another.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_ARENA_MAX, 1)


def grow_gpu_memory() -> None:
    """Have TensorFlow take what it uses of a GPU's memory, not all there is. Must come before it uses one."""
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)


def usable_precision(wanted: str) -> str:
    """`wanted`, or float32, with a word about it, where this machine cannot compute in bfloat16."""
    gpus = tf.config.list_physical_devices("GPU")
    capabilities = [tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus]
    if can_compute(wanted, capabilities, cpu_flags()):
        return wanted
    say(f"train.precision: this processor cannot compute in {wanted}; it is done in float32, which is slower")
    return "float32"


def can_compute(wanted: str, capabilities: list[tuple[int, int]], flags: str) -> bool:
    """Whether GPUs with these compute capabilities, or a CPU with these flags where there are none, can compute so.

    TensorFlow's CPU kernels abort the process where they cannot: a convolution in bfloat16 has no implementation below
    AVX-512.
    """
    if wanted == "float32":
        return True
    return min(capabilities) >= BFLOAT16 if capabilities else "avx512" in flags


def cpu_flags() -> str:
    """What the processor can do, in Linux' words; nothing where that cannot be told."""
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="ascii", errors="replace") if path.exists() else ""
