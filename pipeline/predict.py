"""Stage 4: fill the test images with the trained model; data/filled holds them as PNG, known pixels untouched."""

import numpy as np

from pipeline import paths
from pipeline.base.command import run_stage
from pipeline.base.files import replacing
from pipeline.competition.images import encode_image, read_images
from pipeline.competition.index import boxes_of, filled_path, masked_path, read_index
from pipeline.params import load_params
from pipeline.training.trained import in_batches, load_fill


def main() -> None:
    settings = load_params().predict
    fill = load_fill(paths.MODEL, settings.weights)
    index = read_index(paths.INDEX)
    test = index[index["split"] == "test"]
    rows = test.to_dict("records")
    masked = read_images(masked_path(paths.RAW, row) for row in rows)
    with replacing(paths.FILLED) as folder:
        folder.mkdir()
        filled = in_batches(fill, masked, boxes_of(test), settings.batch_size, "predict")
        for row, image in zip(rows, filled, strict=True):
            filled_path(folder, row).write_bytes(encode_image(np.asarray(image), ".png"))


if __name__ == "__main__":
    run_stage("predict", main)
