"""Stage 5: find the twins of the images that are to be filled, and what they show of the holes.

A twin is the same photograph in the training set. data/twins.csv says which image has which twin and how much of its
hole the twin fills. data/twins.npz has the boxes' pixels, uint8 [n, 2, 75, 75, 3], and which of them are a twin's, bool
[n, 2, 75, 75].
"""

import numpy as np
import pandas as pd

from pipeline import paths
from pipeline.base.command import run_stage
from pipeline.base.files import replacing, sha256
from pipeline.base.progress import say
from pipeline.competition.boxes import cut, unknown_mask
from pipeline.competition.images import read_images
from pipeline.competition.index import boxes_of, masked_path, read_index, rows_to_fill
from pipeline.params import load_params
from pipeline.twins import fill as twins


def main() -> None:
    settings, split = load_params().match, read_index(paths.SPLIT)
    images = rows_to_fill(split)
    masked, boxes = read_images(masked_path(paths.RAW, row) for row in images.to_dict("records")), boxes_of(images)
    filled, twin_mask, found = masked, np.zeros(masked.shape[:3], bool), np.full(len(images), -1)
    if settings.twins:
        own = np.where(images["split"] == "validation", images.index, -1)  # a pair is not its own twin
        filled, twin_mask, found = twins.fill_from_pairs(masked, boxes, paths.RAW, split, own)
    table = list_twins(images, split, twin_mask, unknown_mask(masked, boxes), found)

    with replacing(paths.TWIN_PIXELS) as pixels_file, replacing(paths.TWINS) as table_file:
        with pixels_file.open("wb") as file:
            np.savez(file, split=sha256(paths.SPLIT), pixels=cut(filled, boxes), twin_mask=cut(twin_mask, boxes))
        table.to_csv(table_file, index=False)
    tests = table[table["split"] == "test"]
    count, share = (tests["twin"] != "").sum(), tests["filled"].sum() / tests["hole"].sum()
    say(f"match: {count} of {len(tests)} test images have a twin, which fills {share:.1%} of all holes")


def list_twins(
    images: pd.DataFrame, split: pd.DataFrame, twin_mask: np.ndarray, hole: np.ndarray, found: np.ndarray
) -> pd.DataFrame:
    """One row an image: which it is, its twin as class/name, and how many of its hole's pixels the twin fills."""
    names = split["class"] + "/" + split["filename"]
    return images[["split", "class", "filename"]].assign(
        twin=[names[i] if i >= 0 else "" for i in found],
        filled=twin_mask.sum(axis=(1, 2)),
        hole=hole.sum(axis=(1, 2)),
    )


if __name__ == "__main__":
    run_stage("match", main)
