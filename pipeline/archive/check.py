"""Everything about data/raw is checked here, once: its tables, its images, and which of them are twins."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.base.errors import BadInput
from pipeline.competition.boxes import BOX, LAST
from pipeline.competition.images import SUFFIXES, read_image
from pipeline.competition.index import BOX_COLUMNS, COLUMNS, TABLE, boxes_of, masked_path, target_path
from pipeline.twins import groups as twins

NAME_LIMIT = 200  # bytes; file systems allow 255, and data/filled adds a suffix
# Only characters that need no quoting in a CSV and no escaping in a path: names are keys of the submission.
FORBIDDEN = set('/\\,"') | {chr(code) for code in [*range(32), 127]}


def read_table(path: Path) -> pd.DataFrame:
    """A masked_info.csv: columns filename (str) and the four BOX_COLUMNS (int32, 0 to 181), in the file's order.

    Raises BadInput naming the file, the row and the fault.
    """
    if not path.exists():
        raise BadInput(f"{path} is missing")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8", on_bad_lines="error")
    except (ValueError, pd.errors.ParserError) as error:
        raise BadInput(f"{path} is not a readable csv: {str(error).splitlines()[0]}") from None
    for column in ["filename", *BOX_COLUMNS]:
        if column not in table.columns:
            raise BadInput(f"{path} has no column {column!r}; its columns are {', '.join(map(repr, table.columns))}")
    if table.empty:
        raise BadInput(f"{path} lists no image")
    table = table.reset_index(drop=True)  # where the bare index has no comma in the header, pandas makes it the index

    names = table["filename"]
    for name in names:
        fine = not name.startswith(".") and not FORBIDDEN & set(name) and len(name.encode()) <= NAME_LIMIT
        if not fine or Path(name).suffix.lower() not in SUFFIXES:
            raise BadInput(f"{path}: {name[:80]!r} cannot be the name of an image ({', '.join(SUFFIXES)})")
    if names.duplicated().any():
        raise BadInput(f"{path} names {names[names.duplicated()].iloc[0]!r} twice")

    result = pd.DataFrame({"filename": names})
    for column in BOX_COLUMNS:
        values = table[column].str.strip()
        inside = values.str.fullmatch("[0-9]{1,3}") & (pd.to_numeric(values, errors="coerce") <= LAST)
        if not inside.all():
            row = int(np.flatnonzero(~inside)[0])
            raise BadInput(
                f"{path}: {names[row]!r} has {column} {table[column][row]!r}; a box of {BOX} x {BOX} pixels inside the "
                f"image starts at a whole number from 0 to {LAST}"
            )
        result[column] = values.astype(np.int32)
    return result


def list_images(raw: Path) -> pd.DataFrame:
    """The rows of every masked_info.csv under data/raw, as the index has them but for the twin group."""
    classes = sorted(path.name for path in (raw / "Training_Data").iterdir() if path.is_dir())
    tables = []
    for kind in classes:
        folder = raw / "Training_Data" / kind
        tables.append(read_table(folder / "Masked_Train" / TABLE).assign(split="train", **{"class": kind}))
    test = read_table(raw / "Testing_Data" / TABLE)
    kinds = [next((kind for kind in classes if name.startswith(kind)), "") for name in test["filename"]]
    return pd.concat([*tables, test.assign(split="test", **{"class": kinds})], ignore_index=True)


def check_images(raw: Path, rows: pd.DataFrame) -> Iterator[np.ndarray]:
    """Decode every file that the rows name, on all cores, yielding each row's thumbnail, float32 [32, 32, 3].

    Raises BadInput for the first that is missing, does not decode or has another size.
    """

    def check(row: dict) -> np.ndarray:
        masked = read_image(masked_path(raw, row))
        return twins.thumbnail(masked if row["split"] == "test" else read_image(target_path(raw, row)))

    with ThreadPoolExecutor() as pool:
        yield from pool.map(check, rows.to_dict("records"))


def build_index(rows: pd.DataFrame, thumbnails: np.ndarray) -> pd.DataFrame:
    """The index: the rows with their twin group, found over the pixels known in both (test images have holes)."""
    known = np.ones(thumbnails.shape[:3], bool)
    test = (rows["split"] == "test").to_numpy()
    known[test] = twins.known_cells(boxes_of(rows[test]))
    return rows.assign(group=twins.group(twins.twin_pairs(thumbnails, known), len(rows)))[COLUMNS]
