"""What a training may learn from."""

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class TrainingData:
    """Rows of data/split.csv, each with its number there as its label, and the seed of everything drawn from them."""

    pairs: pd.DataFrame  # the training pairs
    masked_only: pd.DataFrame  # pairs held out and test images: only the known pixels of the masked image may be seen
    seed: int


def training_data(split: pd.DataFrame, seed: int) -> TrainingData:
    """What a split allows a training to learn from."""
    train_mask = split["split"] == "train"
    return TrainingData(split[train_mask], split[~train_mask], seed)
