"""Stage 4: fill the test images, from a twin where there is one, else with the trained model.

data/filled holds them as PNG, known pixels untouched; data/twins.csv says of each how much came from which twin.
"""

import numpy as np
import pandas as pd

from pipeline import paths
from pipeline.base.command import run_stage
from pipeline.base.files import replacing
from pipeline.base.progress import say
from pipeline.competition.boxes import hole
from pipeline.competition.images import encode_image, read_images
from pipeline.competition.index import boxes_of, filled_path, masked_path, read_index
from pipeline.fills import twin
from pipeline.params import load_params
from pipeline.training.trained import in_batches, load_fill


def main() -> None:
    settings = load_params().predict
    fill = load_fill(paths.MODEL, settings.weights)
    index = read_index(paths.INDEX)
    test = index[index["split"] == "test"]
    rows, boxes = test.to_dict("records"), boxes_of(test)
    masked = read_images(masked_path(paths.RAW, row) for row in rows)
    filled = np.stack(list(in_batches(fill, masked, boxes, settings.batch_size, "predict")))
    covered, found = np.zeros(masked.shape[:3], bool), np.full(len(test), -1)
    if settings.twins:
        filled, covered, found = twin.fill_over(filled, masked, boxes, paths.RAW, index)
    table = list_twins(test, index, boxes, covered, found)
    with replacing(paths.FILLED) as folder, replacing(paths.TWINS) as path:
        folder.mkdir()
        for row, image in zip(rows, filled, strict=True):
            filled_path(folder, row).write_bytes(encode_image(image, ".png"))
        table.to_csv(path, index=False)
    share = table["filled"].sum() / table["missing"].sum()
    say(
        f"predict: {(found >= 0).sum()} of {len(test)} images have a twin; twins fill {share:.1%} of the missing pixels"
    )


def list_twins(
    test: pd.DataFrame, index: pd.DataFrame, boxes: np.ndarray, covered: np.ndarray, found: np.ndarray
) -> pd.DataFrame:
    """One row a test image: its name, its twin as class/name, and how many of its missing pixels the twin filled."""
    names = index["class"] + "/" + index["filename"]
    return pd.DataFrame(
        {
            "filename": test["filename"].to_numpy(),
            "twin": [names[i] if i >= 0 else "" for i in found],
            "filled": covered.sum(axis=(1, 2)),
            "missing": hole(boxes).sum(axis=(1, 2)),
        }
    )


if __name__ == "__main__":
    run_stage("predict", main)
