"""Reading and writing the ledger, and the messages for a damaged file."""

import pandas as pd
import pytest

from pipeline.base.errors import BadInput
from pipeline.kaggle.ledger import COLUMNS, add_row, read_ledger, set_row, write_ledger

ROW = {
    "time": "2023-03-01T08:00:00+00:00",
    "commit": "a" * 40,
    "tag": "score-0.16714",
    "sha256": "b" * 64,
    "recipe": "demo",
    "validation_rmse": "0.34568",
    "public_score": "0.16714",
    "private_score": "",
    "ref": "1000",
    "message": "first",
}


def ledger_of(*rows: dict[str, str]) -> pd.DataFrame:
    return pd.DataFrame([ROW | row for row in rows], columns=COLUMNS, dtype=str)


def test_without_a_file_the_ledger_has_no_rows(tmp_path):
    ledger = read_ledger(tmp_path / "ledger.csv")
    assert ledger.empty and ledger.columns.tolist() == COLUMNS


@pytest.mark.parametrize("message", ["NA", "null", "", 'a, "quoted", word', "' =1+1", "ü 象", "007", "a;b\tc"])
def test_a_written_ledger_is_read_back_as_text(tmp_path, message):
    path = tmp_path / "submissions" / "ledger.csv"
    ledger = ledger_of({"message": message}, {"ref": "1001", "tag": "", "validation_rmse": "", "public_score": "error"})
    write_ledger(ledger, path)
    assert read_ledger(path).to_dict("records") == ledger.to_dict("records")
    assert [file.name for file in path.parent.iterdir()] == ["ledger.csv"]


def test_a_row_is_appended_and_changed_by_its_ref_without_changing_the_input(tmp_path):
    first = read_ledger(tmp_path / "none.csv")
    second = add_row(first, {name: value for name, value in ROW.items() if name != "private_score"})
    third = set_row(add_row(second, ROW | {"ref": "1001"}), "1001", private_score="0.2", tag="t")
    assert first.empty and second.to_dict("records") == [ROW]
    assert third.to_dict("records") == [ROW, ROW | {"ref": "1001", "private_score": "0.2", "tag": "t"}]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("time", "yesterday"),
        ("commit", "abc"),
        ("tag", "two words"),
        ("sha256", "B" * 64),
        ("validation_rmse", "nan"),
        ("public_score", "0,16"),
        ("private_score", "-"),
        ("ref", "0"),
        ("ref", ""),
        ("ref", "١"),
        ("message", "two\nlines"),
    ],
)
def test_an_invalid_field_is_reported_with_its_line(tmp_path, name, value):
    path = tmp_path / "ledger.csv"
    ledger_of({}, {name: value}).to_csv(path, index=False)
    with pytest.raises(BadInput) as error:
        read_ledger(path)
    assert str(error.value).startswith(f"{path} is damaged: line 3: {value!r} is not a valid {name}; repair it")


DAMAGE = {
    "empty": lambda text: b"",
    "no header": lambda text: text.partition("\n")[2].encode(),
    "columns in another order": lambda text: text.replace("time,commit", "commit,time").encode(),
    "a conflict": lambda text: f"{text}<<<<<<< HEAD\n".encode(),
    "a blank line": lambda text: f"{text}\n".encode(),
    "an extra field": lambda text: f"{text.rstrip()},\n".encode(),
    "an open quote": lambda text: f'{text}"'.encode(),
    "not UTF-8": lambda text: text.encode("utf-16"),
    "cut short": lambda text: text.encode()[:-100],
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_ledger_is_refused(tmp_path, how):
    path = tmp_path / "ledger.csv"
    write_ledger(ledger_of({}, {"ref": "1001"}), path)
    path.write_bytes(DAMAGE[how](path.read_text(encoding="utf-8")))
    with pytest.raises(BadInput, match="ledger.csv is damaged: "):
        read_ledger(path)
