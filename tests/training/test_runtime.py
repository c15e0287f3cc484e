"""What the machine can compute in, and the number of threads."""

import os

import pytest
import tensorflow as tf

from pipeline.training import runtime


@pytest.mark.parametrize(
    ("capabilities", "flags", "can"),
    [
        ([], "avx2 avx512f", True),
        ([], "avx2", False),
        ([(8, 0)], "avx2", True),
        ([(7, 5), (8, 0)], "avx2 avx512f", False),
    ],
)
def test_bfloat16_needs_avx512_or_gpus_that_have_it(capabilities, flags, can):
    assert runtime.can_compute("mixed_bfloat16", capabilities, flags) is can
    assert runtime.can_compute("float32", capabilities, flags)


def test_the_threads_are_those_of_tensorflow_and_of_pytorch(monkeypatch):
    threads = []
    monkeypatch.setattr(tf.config.threading, "set_intra_op_parallelism_threads", threads.append)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    runtime.set_threads(3)
    assert threads == [3] and os.environ["OMP_NUM_THREADS"] == "3"
