"""Stage 2: hold out validation pairs; data/split.csv is the index with `split` train, validation or test."""

import numpy as np
import pandas as pd

from pipeline import paths
from pipeline.base.command import run_stage
from pipeline.base.errors import BadInput
from pipeline.base.files import replacing
from pipeline.base.progress import say
from pipeline.competition.index import read_index
from pipeline.params import load_params


def main() -> None:
    settings = load_params().split
    index = read_index(paths.INDEX)
    validation_mask = choose_validation(index, settings.validation_pairs, settings.seed)
    split = index.assign(split=index["split"].mask(validation_mask, "validation"))
    with replacing(paths.SPLIT) as path:
        split.to_csv(path, index=False)
    say("split: " + ", ".join(f"{count} {name}" for name, count in split["split"].value_counts().items()))


def choose_validation(index: pd.DataFrame, pairs: int, seed: int) -> np.ndarray:
    """Which rows of the index to hold out: bool [len(index)], at least `pairs` training rows, none for 0.

    Whole twin groups are drawn in random order, so that no photograph is on both sides. A group with a test image is
    drawn like any other. Raises BadInput if a class would keep no pair to train on.
    """
    train_mask = (index["split"] == "train").to_numpy()
    groups = index["group"].to_numpy()
    validation_mask = np.zeros(len(index), bool)
    for group in np.random.default_rng(seed).permutation(np.unique(groups[train_mask])):
        if validation_mask.sum() >= pairs:
            break
        validation_mask |= train_mask & (groups == group)
    for class_name in index["class"][train_mask].unique():
        if not (train_mask & ~validation_mask & (index["class"] == class_name)).any():
            raise BadInput(
                f"split.validation_pairs: {pairs} of {train_mask.sum()} pairs leave class {class_name} nothing to "
                "train on: lower it, or train on the competition's own pairs (`make recipe RECIPE=laptop ARCHIVE=...`)"
            )
    return validation_mask


if __name__ == "__main__":
    run_stage("split", main)
