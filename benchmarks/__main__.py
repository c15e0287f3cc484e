"""`make benchmark`: our speed and that of the obvious way, measured in the same run, as one table.

It needs no account: it draws photographs and links them under other names, until there are as many as in the real
competition. The times are this machine's; the ratios hold elsewhere too.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from benchmarks.measure import measure
from benchmarks.params import set_params
from pipeline import paths
from pipeline.archive.tables import list_images
from pipeline.base.progress import say
from pipeline.competition.index import COLUMNS, masked_path, target_path
from pipeline.demo.competition import draw_competition
from pipeline.params import SYSTEMS, load_params
from pipeline.split import main as split
from pipeline.training.runtime import usable_precision

PAIRS = 7000
ROUNDS = 3  # of the training steps; in each, every way is measured once
ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PYTHONPATH"] = str(ROOT)
        shutil.copytree(ROOT / paths.RECIPES, Path(folder, paths.RECIPES))
        os.chdir(folder)
        subprocess.run([sys.executable, "-m", "pipeline.recipe", "demo"], check=True)
        set_params("split", validation_pairs=2)  # few, since predict fills them too
        set_params("pix2pix", filters=64)
        say("benchmark: drawing the photographs")
        draw()
        split()
        rows = [augment(), *train(), *systems(), *predict(), fills(), *write()]
    columns = ["what", "ours", "peak memory", "the obvious way", "peak memory", "times as fast"]
    print(pd.DataFrame(rows, columns=columns).to_markdown(index=False))


def draw() -> None:
    """A competition of 7000 pairs, of which 400 are drawn and the others are copies."""
    paths.RAW.mkdir(parents=True)
    paths.TRUTH.mkdir()
    paths.SUBMISSION.parent.mkdir()
    draw_competition(paths.RAW, paths.TRUTH, 100, 200, 1)
    rows = list_images(paths.RAW)
    train = rows[rows["split"] == "train"]
    copies = []
    for number in range(PAIRS // len(train)):
        copy = train.assign(filename=[f"{number} {name}" for name in train["filename"]])
        for old, new in zip(train.to_dict("records"), copy.to_dict("records"), strict=True):
            for path in (masked_path, target_path):
                path(paths.RAW, new).hardlink_to(path(paths.RAW, old))
        copies.append(copy)
    copies.append(train.head(PAIRS - len(train) * len(copies)))
    index = pd.concat([*copies, rows[rows["split"] == "test"]])
    index.assign(group=range(len(index)))[COLUMNS].to_csv(paths.INDEX, index=False)


def augment() -> list[str]:
    return compare(f"augment {PAIRS} images into {5 * PAIRS}", measure("augment", "ours"), measure("augment", "plain"))


def train() -> list[list[str]]:
    say("benchmark: training steps")
    ways = list(dict.fromkeys(["plain", "float32", usable_precision("mixed_bfloat16")]))
    rounds = [{way: measure("train", way) for way in ways} for _ in range(ROUNDS)]
    seconds = {way: statistics.median(taken[way]["result"] for taken in rounds) for way in ways}
    inputs = measure("train", "inputs")["result"]
    rows = []
    for way in ways[1:]:
        ratio = statistics.median(taken["plain"]["result"] / taken[way]["result"] for taken in rounds)
        row = [f"{1 / seconds[way]:.2f} steps/s", memory(rounds[0][way])]
        plain = [f"{1 / seconds['plain']:.2f} steps/s", memory(rounds[0]["plain"])]
        rows.append([f"train at batch 1, {way} (the tutorial's loop: float32)", *row, *plain, f"{ratio:.2f}"])
    ratio = seconds[ways[-1]] / inputs
    rows.append(
        [
            "input pipeline alone (compared with the fastest step)",
            f"{1 / inputs:.0f} images/s",
            "",
            "",
            "",
            f"{ratio:.0f}",
        ]
    )
    return rows


def systems() -> list[list[str]]:
    say("benchmark: the systems")
    names = list(SYSTEMS)
    if find_spec("diffusers"):
        measure("systems", "write")
        set_params("diffusion", pretrained="stable-diffusion", resolution=256)
    else:
        names.remove("diffusion")
    rows, rates = [], {}
    for name in names:
        taken = measure("systems", name)
        rates[name] = taken["result"]
        batch = getattr(load_params(), name).batch_size
        rows.append([f"train {name} at batch {batch}", f"{rates[name]:.3g} samples/s", memory(taken), "", "", ""])
    two = measure("systems", "two devices")
    one = [f"{rates['residual']:.3g} samples/s", "", f"{two['result'] / rates['residual']:.2f}"]
    what = "train residual on two devices that share these cores (compared with one)"
    return [*rows, [what, f"{two['result']:.3g} samples/s", memory(two), *one]]


def predict() -> list[list[str]]:
    say("benchmark: match, predict")
    measure("predict", "prepare")
    whats = {"match": f"match 200 images with {PAIRS}", "ours": "predict 200 images, two systems"}
    taken = {what: measure("predict", way) for way, what in whats.items()}
    return [[what, f"{one['seconds']:.1f} s", memory(one), "", "", ""] for what, one in taken.items()]


def fills() -> list[str]:
    say("benchmark: fills")
    fast, direct = (measure("fills", way) for way in ("harmonic", "direct"))
    off = measure("fills", "difference")["result"]
    what = f"harmonic fill, 32 images of 64 x 64 (RMSE to a direct solution {off:.2f} grey levels)"
    ratio = f"{direct['result'] / fast['result']:.0f}"
    cells = [cell for taken in (fast, direct) for cell in (f"{1000 * taken['result']:.0f} ms", memory(taken))]
    return [what, *cells, ratio]


def write() -> list[list[str]]:
    say("benchmark: writing")
    alone, plain, checked = (measure("write", way) for way in ("alone", "plain", "ours"))
    if not measure("write", "same")["result"]:
        sys.exit("benchmark: the two ways wrote different submissions")
    return [
        compare("write 6,750,000 rows", alone, plain),
        compare("the same, read back and checked row by row (the loop: not)", checked, plain),
    ]


def compare(what: str, ours: dict, plain: dict) -> list[str]:
    """A row of the table."""
    return [
        what,
        f"{ours['seconds']:.1f} s",
        memory(ours),
        f"{plain['seconds']:.1f} s",
        memory(plain),
        f"{plain['seconds'] / ours['seconds']:.1f}",
    ]


def memory(taken: dict) -> str:
    return f"{taken['peak_mb']:.0f} MB"


if __name__ == "__main__":
    main()
