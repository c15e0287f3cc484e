"""Which precision this machine can compute in."""

from pathlib import Path

import tensorflow as tf

from pipeline.base.progress import say


def usable_precision(wanted: str) -> str:
    """`wanted`, or float32, with a word about it, where bfloat16 has neither a GPU nor AVX-512.

    TensorFlow's CPU kernels abort the process there: a convolution in bfloat16 has no implementation below AVX-512.
    """
    if wanted == "float32" or tf.config.list_physical_devices("GPU") or "avx512" in cpu_flags():
        return wanted
    say(f"train.precision: this processor cannot compute in {wanted}; it is done in float32, which is slower")
    return "float32"


def cpu_flags() -> str:
    """What the processor can do, in Linux' words; nothing where that cannot be told."""
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="ascii", errors="replace") if path.exists() else ""
