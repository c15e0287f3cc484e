"""Every fill on the real archive's validation pairs, in one table: `python -m benchmarks.table ARCHIVE [RECIPE ...]`.

Each recipe is trained in a folder of its own work, .work/table, timed; what was trained there before by the same
command is not trained again. The pairs are those that the recipes hold out.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from skimage.restoration import inpaint_biharmonic

from pipeline import paths
from pipeline.competition.boxes import hole_mask, paste
from pipeline.competition.images import to_uint8
from pipeline.competition.index import read_index, read_pairs, split_validation
from pipeline.evaluate import SIMPLE_FILLS, encode, score
from pipeline.fills import telea
from pipeline.fills.batched import in_batches
from pipeline.params import load_params
from pipeline.systems.card import read_card
from pipeline.systems.trained import load_fill
from pipeline.twins import fill as twin

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".work" / "table"
RECIPES = ("quick", "fair", "laptop", "best")
HOLDING_OUT = "best"  # the recipe whose held-out pairs are filled


def navier_stokes(masked: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Bertalmio, Bertozzi & Sapiro, "Navier-Stokes, Fluid Dynamics, and Image and Video Inpainting", 2001."""
    return telea.inpaint(masked, boxes, cv2.INPAINT_NS)


def biharmonic(masked: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """scikit-image's: the bilaplacian is zero in the holes."""
    pairs = zip(masked, hole_mask(boxes), strict=True)
    filled = [255 * inpaint_biharmonic(image, missing, channel_axis=-1) for image, missing in pairs]
    return paste(to_uint8(np.stack(filled)), masked, boxes)


def run(*command: str) -> None:
    """Run one of the pipeline's modules here; what it says is shown."""
    subprocess.run([sys.executable, "-m", *command], check=True)


def train(recipe: str, archive: str) -> Iterator[tuple[str, float]]:
    """Train the systems of a recipe, each into FOLDER/recipe; yields the name of each and its seconds."""
    run("pipeline.recipe", recipe, "--archive", archive)
    for system in load_params().systems:
        kept = Path(recipe, system)
        if not kept.exists():
            start = time.perf_counter()
            run("pipeline.train", system)
            seconds = round(time.perf_counter() - start, 1)
            (paths.MODELS / system / "seconds.json").write_text(json.dumps(seconds), encoding="utf-8")
            kept.parent.mkdir(exist_ok=True)
            shutil.move(paths.MODELS / system, kept)
        yield system, json.loads((kept / "seconds.json").read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="table", description=__doc__)
    parser.add_argument("archive", type=Path, help="the competition's zip or its unpacked folder")
    parser.add_argument("recipes", nargs="*", default=RECIPES, help=f"those to train; without any, {' '.join(RECIPES)}")
    arguments = parser.parse_args()
    archive = str(arguments.archive.resolve())

    os.environ["PYTHONPATH"] = str(ROOT)
    FOLDER.mkdir(parents=True, exist_ok=True)
    os.chdir(FOLDER)
    shutil.copytree(ROOT / paths.RECIPES, paths.RECIPES, dirs_exist_ok=True)
    run("pipeline.recipe", HOLDING_OUT, "--archive", archive)
    settings = load_params()
    if not paths.AUGMENTED.exists():
        run("pipeline.fetch")
        run("pipeline.augment")
    index = read_index(paths.INDEX)
    pairs = index[split_validation(index, settings.train.validation_pairs, settings.train.seed)]
    masked, truth, boxes = read_pairs(paths.RAW, pairs)

    fills = {name.replace("_", " "): (fill, None) for name, fill in SIMPLE_FILLS.items()}
    fills |= {"Navier-Stokes": (navier_stokes, None), "biharmonic": (biharmonic, None)}
    for recipe in arguments.recipes:
        for system, seconds in train(recipe, archive):
            folder = Path(recipe, system)
            if not set(pairs.index) <= set(read_card(folder)["validation"]):
                sys.exit(f"table: recipe {recipe} trains on some of the pairs that {HOLDING_OUT} holds out")
            fills[f"{system}, recipe {recipe}"] = (load_fill(folder, "best"), seconds)

    answer = encode(truth, boxes, settings.submission)
    twins, covered, _ = twin.fill_over(masked, masked, boxes, paths.RAW, index, own=pairs.index.to_numpy())
    values, seconds = {}, {}
    for name, (fill, taken) in fills.items():
        filled = in_batches(fill, masked, boxes, 8, name)
        both = np.where(covered[..., None], twins, filled)
        values[name] = encode(filled, boxes, settings.submission)
        values[f"{name} + twins"] = encode(both, boxes, settings.submission)
        seconds[name] = taken
    scores = score(values, answer, pairs, index)
    rows = [
        {
            "fill": name,
            "training, minutes": "" if taken is None else f"{taken / 60:.1f}",
            "RMSE": f"{scores[name]['all']:.4f}",
            "pairs without a twin": f"{scores[name]['without_twins']:.4f}",
            "with twins": f"{scores[f'{name} + twins']['all']:.4f}",
        }
        for name, taken in seconds.items()
    ]
    print(f"{len(pairs)} pairs, {settings.submission.scale} scale\n")
    print(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
