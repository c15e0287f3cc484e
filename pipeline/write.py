"""Stage 7: write the filled test images to submissions/submission.csv, which is read back and checked."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from pipeline import paths
from pipeline.base.command import run
from pipeline.base.files import replacing
from pipeline.competition import submission
from pipeline.competition.images import read_images
from pipeline.competition.index import boxes_of, filled_path, read_index
from pipeline.params import Submission, load_params

IMAGES_AT_ONCE = 10  # bounds the memory


def main() -> None:
    settings = load_params().submission
    index = read_index(paths.INDEX)
    test = index[index["split"] == "test"]
    names, boxes = test["filename"].tolist(), boxes_of(test)
    with replacing(paths.SUBMISSION) as path:
        submission.write(path, names, boxes, encode_all(test, settings))
        submission.read(path, names, boxes)


def encode_all(test: pd.DataFrame, settings: Submission) -> Iterator[np.ndarray]:
    """The values of the filled images, one after the other: [2, 75, 75, 3] in [0, 1]."""
    for start in range(0, len(test), IMAGES_AT_ONCE):
        part = test.iloc[start : start + IMAGES_AT_ONCE]
        images = read_images(filled_path(paths.FILLED, row) for row in part.to_dict("records"))
        yield from submission.encode(images, boxes_of(part), settings.channels, settings.scale)


if __name__ == "__main__":
    run("write", main)
