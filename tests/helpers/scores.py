"""Reading what evaluate writes."""

from pathlib import Path

import pandas as pd

from pipeline import paths

Scores = dict[str, dict[str, float]]


def read_scores(folder: Path) -> dict[str, Scores]:
    """reports/scores.csv: RMSE by set, fill and subset, of the sets of images."""
    found = read_all(folder)
    found.pop("convention", None)
    return found


def read_conventions(folder: Path) -> dict[str, float]:
    """The submission's RMSE on the validation pairs, by the truth's convention, as "bgr minmax"."""
    return read_all(folder).get("convention", {}).get("submission", {})


def read_all(folder: Path) -> dict[str, Scores]:
    """reports/scores.csv: RMSE by set, fill and subset."""
    found: dict[str, Scores] = {}
    for row in pd.read_csv(folder / paths.SCORES).itertuples():
        found.setdefault(row.set, {}).setdefault(row.fill, {})[row.subset] = row.rmse
    return found
