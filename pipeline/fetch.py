"""Stage 1: write the competition's files to data/raw and their index to data/index.csv, everything checked."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline import paths
from pipeline.archive.check import check_images
from pipeline.archive.tables import list_images
from pipeline.archive.unpack import contents, unpack
from pipeline.base.command import run_stage
from pipeline.base.errors import BadInput
from pipeline.base.files import replacing
from pipeline.base.progress import say
from pipeline.competition.index import COLUMNS
from pipeline.demo.competition import draw_competition
from pipeline.kaggle import client
from pipeline.params import Fetch, load_params
from pipeline.twins.groups import group_twins, thumbnail

REAL_COUNTS = {"train": 7000, "test": 200}


def main() -> None:
    settings = load_params().fetch
    with replacing(paths.RAW) as raw, replacing(paths.TRUTH) as truth, replacing(paths.INDEX) as table:
        raw.mkdir()
        truth.mkdir()
        write_files(settings, raw, truth)
        rows = list_images(raw)
        thumbnails = np.stack(check_images(raw, rows, thumbnail))
        index = rows.assign(group=group_twins(rows, thumbnails))[COLUMNS]
        check_counts(settings, index)
        index.to_csv(table, index=False)


def write_files(settings: Fetch, raw: Path, truth: Path) -> None:
    """Write the competition's files to the empty folder `raw` and, if it is drawn, the test targets to `truth`."""
    if settings.source == "demo":
        demo = settings.demo
        draw_competition(raw, truth, demo.pairs_per_class, demo.test_images, demo.seed)
        return
    source = Path(settings.archive)
    if settings.source == "kaggle":
        source = client.download(settings.competition, paths.WORK / "download")
    unpack(source, contents(source), raw)


def check_counts(settings: Fetch, index: pd.DataFrame) -> None:
    """Compare with the real competition's counts: kaggle.com must send these, other sources may have others."""
    counts = index["split"].value_counts().to_dict()
    found = f"{counts['train']} training pairs and {counts['test']} test images"
    expected = f"the competition has {REAL_COUNTS['train']} and {REAL_COUNTS['test']}"
    if settings.source == "kaggle" and counts != REAL_COUNTS:
        raise BadInput(f"kaggle.com sent {found}, {expected}: check fetch.competition")
    say(f"fetch: {found}" + ("" if counts == REAL_COUNTS else f" ({expected})"))


if __name__ == "__main__":
    run_stage("fetch", main)
