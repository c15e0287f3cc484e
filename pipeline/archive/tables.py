"""Read data/raw's tables: every masked_info.csv, checked."""

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pandas as pd

from pipeline.archive.unpack import format_of
from pipeline.base.errors import BadInput
from pipeline.competition.boxes import BOX, LAST
from pipeline.competition.images import SUFFIXES
from pipeline.competition.index import BOX_COLUMNS, TABLE

NAME_LIMIT = 200  # bytes; file systems allow 255, and data/filled adds a suffix
# Characters that need quoting in a CSV or escaping in a path: names are keys of the submission.
FORBIDDEN = set('/\\,"') | {chr(code) for code in [*range(32), 127]}
FORMULA = tuple("=+-@")  # a spreadsheet computes a cell that starts with one of these
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
COLUMNS = ["filename", *BOX_COLUMNS]
EXPECTED = f"expected UTF-8 text, a header with {', '.join(COLUMNS)}, and commas between columns"

# A line of a table: its number in the file, from 1, and its cells.
Line = tuple[int, list[str]]


def list_images(raw: Path) -> pd.DataFrame:
    """The rows of every masked_info.csv under `raw`: the index without its column "group".

    An image whose name differs from its table's only in its Unicode form is renamed: the table's is the submission's
    key. Raises BadInput naming the table by its path in the archive.
    """
    classes = sorted(normalize("NFC", path.name) for path in (raw / "Training_Data").iterdir() if path.is_dir())
    tables = []
    for class_name in classes:
        folder = f"Training_Data/{class_name}"
        table = read_table(raw, f"{folder}/Masked_Train/{TABLE}")
        for half in ("Masked_Train", "Unmasked_Train"):
            rename_images(raw / folder / half, table["filename"])
        tables.append(table.assign(split="train", **{"class": class_name}))
    test = read_table(raw, f"Testing_Data/{TABLE}")
    rename_images(raw / "Testing_Data", test["filename"])
    starts = [normalize("NFC", name).lower() for name in test["filename"]]
    test_classes = [next((name for name in classes if start.startswith(name.lower())), "") for start in starts]
    return pd.concat([*tables, test.assign(split="test", **{"class": test_classes})], ignore_index=True)


def rename_images(folder: Path, names: Iterable[str]) -> None:
    """Rename the images that unpack wrote in Unicode form NFC to these names of another form."""
    for name in names:
        written = folder / normalize("NFC", name)
        if written.name != name and written.exists():
            written.rename(folder / name)


def read_table(raw: Path, place: str) -> pd.DataFrame:
    """Read the masked_info.csv at `place` under `raw`: columns filename (str) and BOX_COLUMNS (int32, 0 to 181).

    The rows are in the file's order. Other columns are ignored. Raises BadInput naming the place, the line and the
    fault.
    """
    path = raw / place
    if not path.exists():
        raise BadInput(f"{place} is missing")
    header, *lines = parse(decode(path.read_bytes(), place), place) or [(1, [""])]
    if fault := header_fault(header[1], lines):
        raise BadInput(f"{place} {fault}")
    if not lines:
        raise BadInput(f"{place} lists no image")
    columns = align(header[1], lines, place)
    rows = [(number, dict(zip(columns, cells, strict=True))) for number, cells in lines]
    check_names([(number, row["filename"]) for number, row in rows], place)
    for number, row in rows:
        for column in BOX_COLUMNS:
            if not re.fullmatch("[0-9]{1,3}", row[column].strip()) or int(row[column]) > LAST:
                raise BadInput(
                    f"{place}: {row['filename']!r} has {column} {row[column][:80]!r} in line {number}; a box of "
                    f"{BOX} x {BOX} pixels inside the image starts at a whole number from 0 to {LAST}"
                )
    boxes = np.array([[int(row[column]) for column in BOX_COLUMNS] for _, row in rows], np.int32)
    table = pd.DataFrame(boxes, columns=BOX_COLUMNS)
    table.insert(0, "filename", [row["filename"] for _, row in rows])
    return table


def decode(data: bytes, place: str) -> str:
    """The text of a table. Raises BadInput that says what the file is if it is no UTF-8 text."""
    found = format_of(data[:512])
    if data.startswith(b"PK"):
        what = "an Excel workbook or a zip"
    elif found:
        what = found[0]
    elif data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:2]:
        what = "UTF-16 text"
    else:
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            what = f"text in another encoding than UTF-8 (the byte 0x{data[error.start]:02x} in line {line})"
    raise BadInput(f"{place} is not a readable csv but {what}; {EXPECTED}")


def parse(text: str, place: str) -> list[Line]:
    """The lines of a CSV, without those whose cells are all empty. Raises BadInput for a wrong quote."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        return [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise BadInput(f"{place} is not a readable csv: {error} in line {reader.line_num}") from None


def header_fault(header: list[str], lines: list[Line]) -> str:
    """What is wrong with a header and what is expected; "" if it has each column once."""
    text = ",".join(header)
    for column in COLUMNS:
        if header.count(column) > 1:
            return f"has the column {column!r} {header.count(column)} times, expected once"
        if column in header:
            continue
        for separator, plural in SEPARATORS.items():
            if column in (name.strip().lower() for name in text.split(separator)):
                return f"has {plural} between its columns, expected commas"
        if lines and "filename" not in text and any("filename" in cell for cell in lines[0][1]):
            return f"starts with the line {text[:80]!r}, expected the header; delete the line"
        for name in header:
            if name.strip().lower() == column:
                return f"has the column {name!r}, expected {column!r}"
        return f"has no column {column!r}; its columns are {', '.join(map(repr, header))[:300]}"
    return ""


def align(header: list[str], lines: list[Line], place: str) -> list[str]:
    """The name of each of the lines' cells: the header, where only it or only they may have an index before the others.

    Raises BadInput for a line that has more or fewer cells.
    """
    for number, cells in lines:
        if len(cells) > len(header) and not cells[-1].strip():
            raise BadInput(f"{place}: line {number} ends in a comma and the header does not; delete these commas")
    widths = {len(cells) for _, cells in lines}
    for columns in (["", *header], header[1:]):
        fits = set(COLUMNS) <= set(columns) and widths == {len(columns)}
        if fits and not name_fault(lines[0][1][columns.index("filename")]):
            return columns
    for number, cells in lines:
        if len(cells) != len(header):
            raise BadInput(
                f"{place}: expected {len(header)} cells in line {number}, as in the header, found {len(cells)}"
            )
    return header


def check_names(names: list[tuple[int, str]], place: str) -> None:
    """Raise BadInput for a name, with its line's number, that no image may have or that was there before."""
    seen: dict[str, int] = {}
    for number, name in names:
        if fault := name_fault(name):
            raise BadInput(f"{place}: {name[:80]!r} in line {number} cannot be the name of an image: {fault}")
        first = seen.setdefault(normalize("NFC", name), number)
        if first != number:
            raise BadInput(f"{place} names {name!r} twice, in lines {first} and {number}")


def name_fault(name: str) -> str:
    """Why a file of this name cannot be an image of the competition; "" if it can."""
    if name != name.strip():
        return "it starts or ends with a space"
    if "/" in name or "\\" in name:
        return "it is a path, expected the file's name alone"
    if found := sorted(FORBIDDEN & set(name)):
        return f"it contains {found[0]!r}"
    if name.startswith((".", *FORMULA)):
        return f"it starts with {name[0]!r}"
    if Path(name).suffix.lower() not in SUFFIXES:
        return f"expected one that ends in {', '.join(SUFFIXES)}"
    if len(name.encode()) > NAME_LIMIT:
        return f"it has more than {NAME_LIMIT} bytes"
    return ""
