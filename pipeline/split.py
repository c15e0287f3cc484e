"""Stage 2: hold pairs out; data/split.csv is the index with `split` train, validation, holdout or test."""

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
    split = read_index(paths.INDEX)
    for name, pairs in {"validation": settings.validation_pairs, "holdout": settings.holdout_pairs}.items():
        split["split"] = split["split"].mask(choose_pairs(split, pairs, settings.seed), name)
    with replacing(paths.SPLIT) as path:
        split.to_csv(path, index=False)
    say("split: " + ", ".join(f"{count} {name}" for name, count in split["split"].value_counts().items()))


def choose_pairs(index: pd.DataFrame, pairs: int, seed: int) -> np.ndarray:
    """Which of the index's training rows to hold out: bool [len(index)], at least `pairs`, none for 0.

    Whole twin groups are drawn in random order, so that no photograph is on both sides. A group with a test image is
    drawn like any other. Raises BadInput if a class would keep no pair to train on.
    """
    train_mask = (index["split"] == "train").to_numpy()
    groups = index["group"].to_numpy()
    held_out = np.zeros(len(index), bool)
    for group in np.random.default_rng(seed).permutation(np.unique(groups[train_mask])):
        if held_out.sum() >= pairs:
            break
        held_out |= train_mask & (groups == group)
    for class_name in index["class"][train_mask].unique():
        if not (train_mask & ~held_out & (index["class"] == class_name)).any():
            raise BadInput(
                f"holding out {pairs} of {train_mask.sum()} pairs leaves class {class_name} nothing to train on: lower "
                "split.validation_pairs or split.holdout_pairs, or train on the competition's own pairs "
                "(`make recipe RECIPE=laptop ARCHIVE=...`)"
            )
    return held_out


if __name__ == "__main__":
    run_stage("split", main)
