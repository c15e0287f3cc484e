"""Print what a training here would run on: `make gpu` calls it after the installation."""

from pipeline.base.command import run
from pipeline.params import load_params
from pipeline.training.devices import describe, use_devices
from pipeline.training.runtime import usable_precision


def main() -> None:
    devices = describe(use_devices("mirrored"))
    precision = usable_precision(load_params().train.precision)
    print(f"trainings here run on {devices}, in {precision}")
    if devices.endswith("CPU"):
        print("TensorFlow sees no GPU; TF_CPP_MIN_LOG_LEVEL=0 python -m tools.gpus shows why")


if __name__ == "__main__":
    run("gpus", main)
