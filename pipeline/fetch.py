"""Stage 1: put the competition into data/raw and its index into data/index.csv, everything checked."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline import paths
from pipeline.archive import unpack as archive
from pipeline.archive.check import build_index, check_images, list_images
from pipeline.base.command import run_stage
from pipeline.base.errors import BadInput
from pipeline.base.files import replacing
from pipeline.base.progress import progress, say
from pipeline.demo.competition import draw_competition
from pipeline.kaggle import client as kaggle
from pipeline.params import Fetch, load_params

REAL_COUNTS = {"train": 7000, "test": 200}


def main() -> None:
    settings = load_params().fetch
    with replacing(paths.RAW) as raw, replacing(paths.TRUTH) as truth, replacing(paths.INDEX) as table:
        raw.mkdir()
        truth.mkdir()
        fill(settings, raw, truth)
        rows = list_images(raw)
        thumbnails = list(progress(check_images(raw, rows), "check", len(rows)))
        index = build_index(rows, np.stack(thumbnails))
        check_counts(settings, index)
        index.to_csv(table, index=False)


def fill(settings: Fetch, raw: Path, truth: Path) -> None:
    """Write the competition's files into the empty folder `raw`, and whole test images, if drawn, into `truth`."""
    if settings.source == "demo":
        demo = settings.demo
        drawn = draw_competition(raw, truth, demo.pairs_per_class, demo.test_images, demo.seed)
        exhaust(progress(drawn, "draw", 4 * demo.pairs_per_class + demo.test_images))
        return
    source = Path(settings.archive)
    if settings.source == "kaggle":
        source = kaggle.download(settings.competition, paths.WORK / "download")
    files = archive.contents(source)
    exhaust(progress(archive.unpack(source, files, raw), "unpack", len(files), "file"))


def exhaust(items: Iterator[object]) -> None:
    """Run an iterator for what it does."""
    for _ in items:
        pass


def check_counts(settings: Fetch, index: pd.DataFrame) -> None:
    """The real competition's counts: expected of kaggle.com, mentioned where another source has others."""
    counts = index["split"].value_counts().to_dict()
    what = f"{counts['train']} training pairs and {counts['test']} test images"
    expected = f"the competition has {REAL_COUNTS['train']} and {REAL_COUNTS['test']}"
    if settings.source == "kaggle" and counts != REAL_COUNTS:
        raise BadInput(f"kaggle.com sent {what}, {expected}: check fetch.competition")
    say(f"fetch: {what}" + ("" if counts == REAL_COUNTS else f" ({expected})"))


if __name__ == "__main__":
    run_stage("fetch", main)
