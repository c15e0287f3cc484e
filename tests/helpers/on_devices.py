"""The train stage, once in each folder, on this many virtual devices of the CPU: `on_devices.py 2 pix2pix FOLDER ...`.

One process, since to start TensorFlow takes longer than these trainings. Dropout is off, since each replica draws its
own noise, and U-Nets have four levels. A training that is refused ends alone.
"""

import runpy
import sys
from contextlib import chdir

import tensorflow as tf

from pipeline.systems.shared import unet

if __name__ == "__main__":
    count, system, *folders = sys.argv[1:]
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(count))
    unet.DROPOUT, unet.DOWN = 0.0, unet.DOWN[:4]
    sys.argv = ["train", system]
    for folder in folders:
        with chdir(folder):
            runpy.run_module("pipeline.train", run_name="__main__", alter_sys=True)
