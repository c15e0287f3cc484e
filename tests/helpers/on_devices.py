"""The train stage on this many virtual devices of the CPU: `python tests/helpers/on_devices.py 2 pix2pix`.

Dropout is off, since each replica draws its own noise.
"""

import runpy
import sys

import tensorflow as tf

from pipeline.systems.shared import unet

if __name__ == "__main__":
    count = int(sys.argv.pop(1))
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    unet.DROPOUT = 0.0
    runpy.run_module("pipeline.train", run_name="__main__", alter_sys=True)
