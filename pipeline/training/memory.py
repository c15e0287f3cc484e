"""How freed memory is kept for the next step, and a GPU's memory is taken as it is needed."""

import ctypes

import tensorflow as tf

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # malloc.h of the GNU C library


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
