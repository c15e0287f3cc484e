"""Check data/raw's images: every file that the tables name."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from pipeline.base.progress import progress
from pipeline.competition.images import read_image
from pipeline.competition.index import masked_path, target_path

Measure = TypeVar("Measure")


def check_images(raw: Path, rows: pd.DataFrame, measure: Callable[[np.ndarray], Measure]) -> list[Measure]:
    """Decode every file that the rows name, on all cores, showing progress.

    Returns `measure` of each row's target, uint8 [256, 256, 3], or of a test row's masked image. Raises BadInput for
    the first file that is missing, does not decode or has another size.
    """

    def check(row: dict) -> Measure:
        masked = read_image(masked_path(raw, row))
        return measure(masked if row["split"] == "test" else read_image(target_path(raw, row)))

    with ThreadPoolExecutor() as pool:
        return list(progress(pool.map(check, rows.to_dict("records")), "check", len(rows)))
