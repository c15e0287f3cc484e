"""submissions/ledger.csv, in git: one row for each submission that was sent to Kaggle, oldest first.

The ledger is a table of text with the columns COLUMNS:

- time: when it was sent, UTC, 2023-03-01T08:00:00+00:00
- commit, tag: the git commit that made it, 40 hexadecimal digits, and its tag. `score-` alone means that the tag is
  made when the score is known
- sha256: of submission.csv, 64 hexadecimal digits
- recipe, validation_rmse: from params.yaml and metrics.json; the RMSE is empty if no pairs were held out
- public_score, private_score: from Kaggle; empty until it has scored the submission, `error` if it could not
- ref: Kaggle's number of the submission
- message: the user's message, followed by Kaggle's if there was an error
"""

import csv
import re
from pathlib import Path

import pandas as pd

from pipeline import paths
from pipeline.base.errors import BadInput
from pipeline.base.files import replacing
from pipeline.kaggle.client import NUMBER, REF

WAITING_TAG = "score-"
ERROR = "error"  # instead of a score, if Kaggle could not compute one
SCORE = rf"({NUMBER}|{ERROR})?"
FORMS = {
    "time": r"[0-9]{4}-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9]\+00:00",
    "commit": r"[0-9a-f]{40}",
    "tag": r"\S*",
    "sha256": r"[0-9a-f]{64}",
    "recipe": r".*",
    "validation_rmse": rf"({NUMBER})?",
    "public_score": SCORE,
    "private_score": SCORE,
    "ref": REF,
    "message": r".*",
}
COLUMNS = list(FORMS)


def read_ledger(path: Path = paths.LEDGER) -> pd.DataFrame:
    """The ledger, every column str, "" for an empty field. Without a file it has no rows.

    Raises BadInput naming the damaged line.
    """
    if not path.exists():
        return pd.DataFrame(columns=COLUMNS, dtype=str)
    rows: list[list[str]] = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for line, row in enumerate(csv.reader(file, strict=True), 1):
                check_row(row, line)
                rows.append(row)
        if not rows:
            raise ValueError("it is empty")
    except (csv.Error, ValueError) as error:  # bytes that are not UTF-8 raise a ValueError too
        raise BadInput(f"{path} is damaged: {error}; repair it, or `git checkout {path}`") from None
    return pd.DataFrame(rows[1:], columns=COLUMNS, dtype=str)


def check_row(row: list[str], line: int) -> None:
    """Raise ValueError unless this is a row of the ledger or, for line 1, its header."""
    if line == 1 and row != COLUMNS:
        raise ValueError(f"line 1 is not {','.join(COLUMNS)}")
    if len(row) != len(COLUMNS):
        raise ValueError(f"line {line} has {len(row)} fields, not {len(COLUMNS)}")
    for name, value in zip(COLUMNS, row, strict=True):
        if line > 1 and not re.fullmatch(FORMS[name], value):
            raise ValueError(f"line {line}: {value!r} is not a valid {name}")


def write_ledger(ledger: pd.DataFrame, path: Path = paths.LEDGER) -> None:
    """Replace the file with the ledger atomically."""
    with replacing(path) as partial:
        ledger[COLUMNS].to_csv(partial, index=False, lineterminator="\n")


def add_row(ledger: pd.DataFrame, row: dict[str, str]) -> pd.DataFrame:
    """The ledger with this row appended; a column that `row` does not name is empty."""
    return pd.concat([ledger, pd.DataFrame([{name: row.get(name, "") for name in COLUMNS}])], ignore_index=True)


def set_row(ledger: pd.DataFrame, ref: str, **values: str) -> pd.DataFrame:
    """The ledger with these columns of submission `ref` changed."""
    changed = ledger.copy()
    changed.loc[changed["ref"] == ref, list(values)] = list(values.values())
    return changed
