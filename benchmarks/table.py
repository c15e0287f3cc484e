"""Every fill on held-out pairs of the real archive, in one table: `python -m benchmarks.table ARCHIVE [RECIPE ...]`.

Each recipe is trained and timed in .work/table; an interrupted training resumes, and a model that is already there is
not trained again. What on_jax wrote for pix2pix counts as a model, in .work/table/RECIPE/pix2pix: it has the fills of
the pairs instead of the weights. The validation pairs of each recipe choose its weights. The table is of HOLDOUT other
pairs, on which nothing was chosen.
"""

import argparse
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from skimage.restoration import inpaint_biharmonic

from benchmarks.params import set_params
from pipeline import paths
from pipeline.base.files import sha256
from pipeline.competition import submission
from pipeline.competition.boxes import paste, put, unknown_mask
from pipeline.competition.images import to_uint8
from pipeline.competition.index import read_index, read_pairs
from pipeline.evaluate import SIMPLE_FILLS, Filled, score
from pipeline.fills import telea
from pipeline.fills.batched import in_batches
from pipeline.params import load_params
from pipeline.systems.card import read_card, seconds_of
from pipeline.systems.trained import load_fill
from pipeline.twins import fill as twin

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".work" / "table"
RECIPES = ("baseline", "quick", "fair", "laptop", "best")
HOLDOUT = 400  # pairs
FILLS = "holdout.npz"


def navier_stokes(masked: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Bertalmio, Bertozzi & Sapiro, "Navier-Stokes, Fluid Dynamics, and Image and Video Inpainting", 2001."""
    return telea.inpaint(masked, boxes, cv2.INPAINT_NS)


def biharmonic(masked: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """scikit-image's: the bilaplacian is zero in the holes."""
    pairs = zip(masked, unknown_mask(masked, boxes), strict=True)
    filled = [255 * inpaint_biharmonic(image, hole, channel_axis=-1) for image, hole in pairs]
    return paste(to_uint8(np.stack(filled)), masked, boxes)


def run(*command: str) -> None:
    """Run one of the pipeline's modules here, its output shown."""
    subprocess.run([sys.executable, "-m", *command], check=True)


def use(recipe: str, archive: str) -> None:
    """Take a recipe's settings, and hold HOLDOUT more pairs out."""
    run("pipeline.recipe", recipe, "--archive", archive)
    set_params("split", holdout_pairs=HOLDOUT)


def train(recipe: str, archive: str, pairs: pd.Index) -> dict[str, float]:
    """Train the systems of a recipe, each into FOLDER/recipe; the seconds that each took.

    Exits if the recipe holds other pairs out than these, or if a model was trained on another split.
    """
    use(recipe, archive)
    run("pipeline.split")
    if (read_index(paths.SPLIT).loc[pairs, "split"] != "holdout").any():
        sys.exit(f"table: recipe {recipe} holds other pairs out than {RECIPES[-1]}")
    seconds = {}
    for system in load_params().systems:
        model = Path(recipe, system)
        if not model.exists():
            run("pipeline.train", system)
            model.parent.mkdir(exist_ok=True)
            shutil.move(paths.MODELS / system, model)
        trained_on, seconds[system] = split_and_seconds(model)
        if trained_on != sha256(paths.SPLIT):
            sys.exit(f"table: {model.resolve()} was trained on another split; remove it to train it again")
    return seconds


def split_and_seconds(model: Path) -> tuple[str, float]:
    """The sha256 of the split that a model was trained on, and how long that took."""
    if (model / FILLS).exists():
        with np.load(model / FILLS) as file:
            return str(file["split"]), pd.read_csv(model / "validation.csv")["seconds"].iloc[-1]
    card = read_card(model)
    return card.get("split"), sum(seconds_of(paths.TIMES, card).values())


def fill_with(model: Path, masked: np.ndarray, boxes: np.ndarray, classes: np.ndarray, name: str) -> np.ndarray:
    """Images as a model fills them, uint8 [n, 256, 256, 3], or as on_jax filled them with it."""
    if (model / FILLS).exists():
        with np.load(model / FILLS) as file:
            return put(file["filled"], masked, boxes)
    return in_batches(load_fill(model, "best"), (masked, boxes, classes), 8, name)


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
    use(RECIPES[-1], archive)
    if not paths.AUGMENTED.exists():
        run("pipeline.fetch")
        run("pipeline.augment")
    run("pipeline.split")
    settings, split = load_params().submission, read_index(paths.SPLIT)
    pairs = split[split["split"] == "holdout"]
    masked, target, boxes = read_pairs(paths.RAW, pairs)

    simple = SIMPLE_FILLS | {"Navier-Stokes": navier_stokes, "biharmonic": biharmonic}
    filled = {name.replace("_", " "): in_batches(fill, (masked, boxes), 8, name) for name, fill in simple.items()}
    seconds = dict.fromkeys(filled)
    for recipe in arguments.recipes:
        for system, taken in train(recipe, archive, pairs.index).items():
            name = f"{system}, recipe {recipe}"
            filled[name] = fill_with(Path(recipe, system), masked, boxes, pairs["class"].to_numpy(), name)
            seconds[name] = taken

    encode = partial(submission.encode, boxes=boxes, channels=settings.channels, scale=settings.scale)
    twins, twin_mask, _ = twin.fill_from_pairs(masked, boxes, paths.RAW, split, own=pairs.index.to_numpy())
    with_twins = {f"{name} + twins": np.where(twin_mask[..., None], twins, fill) for name, fill in filled.items()}
    values = {name: encode(images) for name, images in (filled | with_twins).items()}
    scores = score(Filled(pairs, {}, values, encode(target)), split)
    rows = [
        {
            "fill": name,
            "training, minutes": "" if taken is None else f"{taken / 60:.1f}",
            "RMSE": f"{scores[name]['all']:.4f}",
            "pairs without a twin": f"{scores[name].get('without_twins', float('nan')):.4f}",
            "with twins": f"{scores[f'{name} + twins']['all']:.4f}",
        }
        for name, taken in seconds.items()
    ]
    print(f"{len(pairs)} pairs that nothing was chosen on, {settings.scale} scale\n")
    print(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
