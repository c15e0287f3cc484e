"""Turn what on_jax wrote into a model that predict reads: `python -m benchmarks.from_jax OUT MODEL`.

Run it with the params.yaml and data/split.csv of the training. It is for `residual`, whose weights on_jax keeps.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline import paths
from pipeline.base.files import replacing, sha256
from pipeline.params import load_params
from pipeline.systems.card import note_seconds, read_card, write_card
from pipeline.systems.residual import network


def main() -> None:
    parser = argparse.ArgumentParser(prog="from_jax", description=__doc__)
    parser.add_argument("out", type=Path, help="the folder that on_jax wrote")
    parser.add_argument("model", type=Path, help="the model's new folder")
    arguments = parser.parse_args()
    params, last = load_params(), pd.read_csv(arguments.out / "validation.csv").iloc[-1]
    settings = params.residual.model_copy(update={"steps": int(last["step"])})
    model = network.build(settings, "float32")
    with np.load(arguments.out / "weights.npz") as file:
        model.set_weights([file[str(number)].astype(np.float32) for number in range(len(file.files))])
    shared = {name: getattr(params.train, name) for name in ("precision", "threads", "seed")}
    with replacing(arguments.model) as folder:
        folder.mkdir()
        for name in ("best", "last"):
            model.save_weights(folder / f"{name}.weights.h5")
        reached = {"step": settings.steps, "rmse": float(last["rmse"])}
        write_card(
            folder,
            model="residual",
            parameters=model.count_params(),
            devices="1 x GPU, by Keras on JAX",
            settings=settings.model_dump() | shared,
            input_version=network.INPUT_VERSION,
            split=sha256(paths.SPLIT),
            best=reached,
            last=reached,
        )
    note_seconds(paths.TIMES, read_card(arguments.model), {"steps": float(last["seconds"]), "validation": 0.0})


if __name__ == "__main__":
    main()
