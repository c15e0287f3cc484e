"""submissions/ledger.csv: one row for each submission that Kaggle has of us, oldest first. It is kept in git.

The ledger is a table of text with the columns COLUMNS:

- time: when it was sent, UTC, 2023-03-01T08:00:00+00:00
- commit, tag: the git commit that made it, 40 hexadecimal digits, and the tag there. `score-` alone is a tag that waits
  for the score it will carry
- sha256: of submission.csv, 64 hexadecimal digits
- recipe, validation_rmse: as in params.yaml and metrics.json
- public_score, private_score: as Kaggle gives them; empty while it has not scored, `error` where it could not
- ref: Kaggle's number of the submission
- message: what the user said of it, and what Kaggle said of an error
"""

import csv
import re
from pathlib import Path

import pandas as pd

from pipeline import paths
from pipeline.base.errors import BadInput
from pipeline.base.files import replacing
from pipeline.kaggle.client import NUMBER

WAITING_TAG = "score-"
ERROR = "error"  # in place of a score that there will never be
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
    "ref": r"[1-9][0-9]*",
    "message": r".*",
}
COLUMNS = list(FORMS)


def read_ledger(path: Path = paths.LEDGER) -> pd.DataFrame:
    """The ledger, every column str, "" where empty; no rows where there is no file.

    Raises BadInput naming the line of a damaged file.
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
    except (csv.Error, ValueError) as error:  # what is not UTF-8 is a ValueError too
        raise BadInput(f"{path} is damaged: {error}; mend it, or `git checkout {path}`") from None
    return pd.DataFrame(rows[1:], columns=COLUMNS, dtype=str)


def check_row(row: list[str], line: int) -> None:
    """Raises ValueError where a line, the first of which is 1, is not what the ledger has there."""
    if line == 1 and row != COLUMNS:
        raise ValueError(f"line 1 is not {','.join(COLUMNS)}")
    if len(row) != len(COLUMNS):
        raise ValueError(f"line {line} has {len(row)} fields, not {len(COLUMNS)}")
    for name, value in zip(COLUMNS, row, strict=True):
        if line > 1 and not re.fullmatch(FORMS[name], value):
            raise ValueError(f"line {line}: {value!r} is no {name}")


def write_ledger(ledger: pd.DataFrame, path: Path = paths.LEDGER) -> None:
    """Put the ledger in the file's place, whole or not at all."""
    with replacing(path) as partial:
        ledger[COLUMNS].to_csv(partial, index=False, lineterminator="\n")


def add_row(ledger: pd.DataFrame, row: dict[str, str]) -> pd.DataFrame:
    """The ledger with one more row, last; a column that `row` does not name is empty."""
    return pd.concat([ledger, pd.DataFrame([{name: row.get(name, "") for name in COLUMNS}])], ignore_index=True)


def set_row(ledger: pd.DataFrame, ref: str, **values: str) -> pd.DataFrame:
    """The ledger with these columns of the submission `ref` changed."""
    changed = ledger.copy()
    changed.loc[changed["ref"] == ref, list(values)] = list(values.values())
    return changed
