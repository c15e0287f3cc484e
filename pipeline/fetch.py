"""Stage 1: write the competition's files to data/raw and their index to data/index.csv, everything checked."""

from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from pipeline import paths
from pipeline.archive.check import check_images
from pipeline.archive.tables import list_images
from pipeline.archive.unpack import Source, contents, unpack
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
KEEP = "to keep what was fetched before: `dvc checkout fetch`, then `dvc commit --force fetch`"


def main() -> None:
    settings = load_params().fetch
    with replacing(paths.RAW) as raw, replacing(paths.TRUTH) as truth, replacing(paths.INDEX) as table:
        raw.mkdir()
        truth.mkdir()
        write_files(settings, raw, truth)
        rows = list_images(raw)
        thumbnails = np.stack(check_images(raw, rows, thumbnail))
        index = rows.assign(group=group_twins(rows, thumbnails))[COLUMNS]
        index.to_csv(table, index=False)
    tell_counts(index)


def write_files(settings: Fetch, raw: Path, truth: Path) -> None:
    """Write the competition's files to the empty folder `raw` and, if it is drawn, the test targets to `truth`."""
    if settings.source == "demo":
        demo = settings.demo
        draw_competition(raw, truth, demo.pairs_per_class, demo.test_images, demo.seed)
        return
    archive, files = find_archive(settings)
    checksum = unpack(archive, files, raw)
    if settings.source == "archive" and checksum != settings.checksum:
        was = f"has changed: fetch.checksum is {settings.checksum}" if settings.checksum else "is new"
        raise BadInput(f"{archive} {was}; to use it, set fetch.checksum to {checksum}")


def find_archive(settings: Fetch) -> tuple[Path, dict[PurePosixPath, Source]]:
    """The competition's archive, downloaded if it comes from Kaggle, and its contents."""
    try:
        if settings.source == "kaggle":
            archive = client.download(settings.competition, paths.WORK / "download")
        else:
            archive = Path(settings.archive).expanduser()
        return archive, contents(archive)
    except BadInput as error:
        raise BadInput(f"{error} ({KEEP})" if fetched_before() else str(error)) from None


def fetched_before() -> bool:
    """Whether dvc.lock has an earlier fetch, whose files DVC has removed from data/ but not from its cache."""
    lock = Path("dvc.lock")
    return lock.exists() and "\n  fetch:\n" in lock.read_text(encoding="utf-8")


def tell_counts(index: pd.DataFrame) -> None:
    """Print how many pairs and test images there are, and the real competition's counts if they differ."""
    counts = index["split"].value_counts().to_dict()
    real = "" if counts == REAL_COUNTS else " (the competition has {train} and {test})".format(**REAL_COUNTS)
    say(f"fetch: {counts['train']} training pairs and {counts['test']} test images{real}")


if __name__ == "__main__":
    run_stage("fetch", main)
