"""Read data/raw's tables: every masked_info.csv, checked."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.base.errors import BadInput
from pipeline.competition.boxes import BOX, LAST
from pipeline.competition.images import SUFFIXES
from pipeline.competition.index import BOX_COLUMNS, TABLE

NAME_LIMIT = 200  # bytes; file systems allow 255, and data/filled adds a suffix
# Characters that need quoting in a CSV or escaping in a path: names are keys of the submission.
FORBIDDEN = set('/\\,"') | {chr(code) for code in [*range(32), 127]}


def read_table(path: Path) -> pd.DataFrame:
    """Read a masked_info.csv: columns filename (str) and BOX_COLUMNS (int32, 0 to 181), in the file's order.

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
    table = table.reset_index(drop=True)  # pandas takes a first column without a name as the index

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
    """The rows of every masked_info.csv under `raw`: the index without its column "group"."""
    classes = sorted(path.name for path in (raw / "Training_Data").iterdir() if path.is_dir())
    tables = []
    for class_name in classes:
        table = read_table(raw / "Training_Data" / class_name / "Masked_Train" / TABLE)
        tables.append(table.assign(split="train", **{"class": class_name}))
    test = read_table(raw / "Testing_Data" / TABLE)
    test_classes = [next((start for start in classes if name.startswith(start)), "") for name in test["filename"]]
    return pd.concat([*tables, test.assign(split="test", **{"class": test_classes})], ignore_index=True)
