"""The tables of an archive."""

import re
import shutil
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pandas as pd
import pytest

from pipeline.archive.tables import list_images, read_table
from pipeline.archive.unpack import contents, unpack
from pipeline.base.errors import BadInput
from pipeline.competition.index import BOX_COLUMNS

PLACE = "Training_Data/Cat/Masked_Train/masked_info.csv"
HEADER = ",filename,box1_row,box1_col,box2_row,box2_col\n"
ROW = "0,a.jpeg,1,2,3,4\n"
CLASSES = ["Cat", "Dog", "Elephant", "Tiger"]


@pytest.fixture
def read(tmp_path):
    """`read(text)` writes a masked_info.csv and reads it."""

    def write_and_read(text):
        (tmp_path / PLACE).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / PLACE).write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_table(tmp_path, PLACE)

    return write_and_read


@pytest.fixture
def raw(tmp_path, demo_competition):
    """A copy of the drawn competition to change."""
    return Path(shutil.copytree(demo_competition.raw, tmp_path / "raw"))


def first(raw, folder="Training_Data/Cat/Masked_Train"):
    """The first image of a table, and the table's path."""
    path = raw / folder / "masked_info.csv"
    return pd.read_csv(path)["filename"][0], path


# A table


def test_a_table_is_read_in_its_order(read):
    text = HEADER + "0,Cat-Train (24).jpeg,0,181,58,27\n1,Cat-Train (24).jpg,1,2,3,4\n2,Cat-Train (1).png, 7 ,007,0,0\n"
    result = read(text)
    assert list(result.columns) == ["filename", *BOX_COLUMNS]
    assert result["filename"].tolist() == ["Cat-Train (24).jpeg", "Cat-Train (24).jpg", "Cat-Train (1).png"]
    assert result[BOX_COLUMNS].to_numpy().tolist() == [[0, 181, 58, 27], [1, 2, 3, 4], [7, 7, 0, 0]]
    assert (result[BOX_COLUMNS].dtypes == np.int32).all()


FORMS = {
    "LF": HEADER + ROW,
    "CRLF": (HEADER + ROW).replace("\n", "\r\n"),
    "CR": (HEADER + ROW).replace("\n", "\r"),
    "byte order mark": b"\xef\xbb\xbf" + (HEADER + ROW).encode(),
    "byte order mark, no index": b"\xef\xbb\xbf" + HEADER[1:].encode() + b"a.jpeg,1,2,3,4\n",
    "no last newline": HEADER + ROW.strip(),
    "blank lines": HEADER + "\n" + ROW + "\n \n,,,,,\n",
    "quotes": '"","filename","box1_row","box1_col","box2_row","box2_col"\n"0","a.jpeg","1","2","3","4"\n',
    "no index": HEADER[1:] + "a.jpeg,1,2,3,4\n",
    "an index without a header": HEADER[1:] + ROW,
    "a header without an index": HEADER + "a.jpeg,1,2,3,4\n",
    "two indices": "Unnamed: 0,Unnamed: 0.1" + HEADER + "0,0,0,a.jpeg,1,2,3,4\n",
    "another order": "box2_col,box2_row,box1_col,box1_row,more,filename\n4,3,2,1,x,a.jpeg\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_other_forms_of_a_table_are_read(read, form):
    assert read(FORMS[form]).to_numpy().tolist() == [["a.jpeg", 1, 2, 3, 4]]


@pytest.mark.parametrize("column", ["filename", *BOX_COLUMNS])
def test_a_missing_column_is_named(read, column):
    with pytest.raises(BadInput, match=f"masked_info.csv has no column '{column}'"):
        read(HEADER.replace(column, "other") + "0,a.jpeg,1,2,3,4\n")


@pytest.mark.parametrize(
    "value",
    ["182", "256", "1000", "-1", "-0", "", "nan", "NaN", "NA", "None", "inf", "1.0", "1.5", "1e2", "0x10", "+3", "1_0"]
    + ["a", "٣", "99999999999999999999", "1 2", "1,000"],
)
@pytest.mark.parametrize("column", range(4))
def test_a_box_that_is_not_an_integer_inside_the_image_is_named(read, column, value):
    cells = ["1", "2", "3", "4"]
    cells[column] = value
    text = HEADER + "0,good.jpeg,1,2,3,4\n1,Cat (1).jpeg," + ",".join(f'"{cell}"' for cell in cells) + "\n"
    with pytest.raises(BadInput) as refusal:
        read(text)
    message = str(refusal.value)
    assert "masked_info.csv" in message and "'Cat (1).jpeg'" in message and BOX_COLUMNS[column] in message
    assert repr(value) in message and "0 to 181" in message


@pytest.mark.parametrize("index", ["0", "7", "x"])
def test_a_bad_box_is_named_where_the_index_has_no_header(read, index):
    with pytest.raises(BadInput, match=r"'a.jpeg' has box2_col '182'"):
        read(HEADER[1:] + f"{index},a.jpeg,1,2,3,182\n")


def test_a_duplicate_name_is_refused(read):
    with pytest.raises(BadInput, match=r"masked_info.csv names 'b.jpeg' twice, in lines 3 and 5"):
        read(HEADER + ROW + "1,b.jpeg,1,2,3,4\n\n2,b.jpeg,1,2,3,4\n")
    with pytest.raises(BadInput, match="twice, in lines 2 and 3"):
        read(HEADER + "".join(f"0,{normalize(form, 'ü.jpeg')},1,2,3,4\n" for form in ("NFC", "NFD")))


def test_two_names_of_one_stem_are_accepted(read):
    assert len(read(HEADER + "0,a.jpeg,1,2,3,4\n1,a.jpg,1,2,3,4\n2,A.jpeg,1,2,3,4\n")) == 3


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        *((name, "it is a path") for name in ["../a.jpeg", "b/a.jpeg", "/a.jpeg", "b\\a.jpeg"]),
        *((name, "it contains") for name in ['"b,a.jpeg"', '"b""a.jpeg"', "b\x07a.jpeg", "b\ta.jpeg", "b\x7fa.jpeg"]),
        *((name, "it contains") for name in ['"b\na.jpeg"', "a\0.jpeg"]),
        *((name, "it starts with") for name in [".a.jpeg", "..", ".jpeg", "=a.jpeg", "+a.jpeg", "-a.jpeg", "@a.jpeg"]),
        *((name, "it starts or ends with a space") for name in ["a.jpeg ", " a.jpeg", "a.jpeg\u00a0"]),
        *((name, "expected one that ends in .jpeg, .jpg, .png") for name in ["", "a", "a.gif", "a.jpeg.exe"]),
        ("n" * 200 + ".jpeg", "it has more than 200 bytes"),
    ],
)
def test_an_unsafe_name_is_refused(read, name, fault):
    with pytest.raises(BadInput, match=rf"masked_info.csv: .* cannot be the name of an image: {fault}") as refusal:
        read(HEADER + f"0,good.jpeg,1,2,3,4\n1,{name},1,2,3,4\n")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["a.jpeg", "a.JPG", "a b (1).png", "a'b.jpeg", "ünï.jpeg", "a.b.jpeg", "NA.jpeg"])
def test_a_safe_name_is_accepted(read, name):
    assert read(HEADER + f"0,{name},1,2,3,4\n")["filename"][0] == name


IN_LINE_2 = "line 2 ends in a comma and the header does not"
REFUSED = {
    "no bytes": ("", "is not a readable csv but empty"),
    "blank lines": ("\n \n", "is not a readable csv but empty"),
    "commas": (",,,\n", "has no column 'filename'"),
    "no rows": (HEADER + "\n,,,,,\n", "lists no image"),
    "another encoding": (
        (HEADER + "0,K\xe4tzchen.jpeg,1,2,3,4\n").encode("latin-1"),
        "UTF-8 (the byte 0xe4 in line 2)",
    ),
    "UTF-16": ((HEADER + ROW).encode("utf-16"), "is not a readable csv but UTF-16 text"),
    "UTF-16 without a mark": ((HEADER + ROW).encode("utf-16-le"), "is not a readable csv but UTF-16 text"),
    "a web page": ("<!DOCTYPE html><html></html>", "is not a readable csv but a web page"),
    "a Git LFS pointer": ("version https://git-lfs.github.com/spec/v1\noid x\n", "but a Git LFS pointer; expected"),
    "an Excel workbook": (b"PK\x03\x04\x14\0", "is not a readable csv but an Excel workbook"),
    "an open quote": (HEADER + '0,"a.jpeg,1,2,3,4\n', "is not a readable csv: unexpected end of data in line 2"),
    "semicolons": ((HEADER + ROW).replace(",", ";"), "has semicolons between its columns, expected commas"),
    "tabs": ((HEADER + ROW).replace(",", "\t"), "has tabs between its columns, expected commas"),
    "sep= and semicolons": ("sep=;\n" + (HEADER + ROW).replace(",", ";"), "starts with the line 'sep=;', expected"),
    "sep=": ("sep=,\n" + HEADER + ROW, "starts with the line 'sep=,', expected the header; delete the line"),
    "a comment": ("# by x, y\n" + HEADER + ROW, "starts with the line '# by x, y', expected the header"),
    "spaces in the header": (
        HEADER.replace("box1_row", " box1_row "),
        "has the column ' box1_row ', expected 'box1_row'",
    ),
    "spaces after commas": ((HEADER + ROW).replace(",", ", "), "has the column ' filename', expected 'filename'"),
    "capitals": (HEADER.replace("filename", "Filename") + ROW, "has the column 'Filename', expected 'filename'"),
    "a column twice": (
        HEADER.replace("box1_row", "box1_row,box1_row"),
        "has the column 'box1_row' 2 times, expected once",
    ),
    "commas at the ends": (HEADER + ROW.replace("\n", ",\n") * 2, IN_LINE_2),
    "commas at the ends, no index": (HEADER[1:] + "a.jpeg,1,2,3,4,\n", IN_LINE_2),
    "a comma at one end": (HEADER + ROW + "1,b.jpeg,1,2,3,4,\n", "line 3 ends in a comma"),
    "a short row": (
        HEADER + ROW + "1,b.jpeg,1,2,3\n2,c.jpeg,1,2,3,4\n",
        "expected 6 cells in line 3, as in the header, found 5",
    ),
    "a long row": (HEADER + ROW + "1,b.jpeg,1,2,3,4,5\n", "expected 6 cells in line 3, as in the header, found 7"),
    "short rows": (HEADER + "0,a.jpeg,1,2,3\n", "expected 6 cells in line 2, as in the header, found 5"),
    "long rows": (HEADER + "0,a.jpeg,1,2,3,4,5\n", "expected 6 cells in line 2, as in the header, found 7"),
    "no first column": (
        "box2_col,filename,box1_row,box1_col,box2_row\na.jpeg,1,2,3\n",
        "expected 5 cells in line 2, as in the header, found 4",
    ),
    "a name": (HEADER + "a.jpeg\n", "expected 6 cells in line 2, as in the header, found 1"),
    "a zero byte": (HEADER + "\0", "expected 6 cells in line 2, as in the header, found 1"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_message_says_what_was_found(read, fault):
    text, message = REFUSED[fault]
    with pytest.raises(BadInput, match=re.escape(message)) as refusal:
        read(text)
    assert str(refusal.value).startswith(PLACE) and "\n" not in str(refusal.value)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(BadInput, match="masked_info.csv is missing"):
        read_table(tmp_path, PLACE)


# The rows of all tables


def test_rows_keep_the_order_of_their_tables(raw):
    rows = list_images(raw)
    assert rows["split"].tolist() == ["train"] * 24 + ["test"] * 9
    start = 0
    for folder in [*(f"Training_Data/{name}/Masked_Train" for name in CLASSES), "Testing_Data"]:
        csv = pd.read_csv(raw / folder / "masked_info.csv", index_col=0)
        part = rows[start : start + len(csv)]
        assert part["filename"].tolist() == csv["filename"].tolist() != sorted(csv["filename"])
        assert part[BOX_COLUMNS].to_numpy().tolist() == csv[BOX_COLUMNS].to_numpy().tolist()
        start += len(csv)
    assert start == len(rows)


def test_classes_are_the_folders_and_for_test_images_the_start_of_the_name(raw):
    rows = list_images(raw)
    assert rows["class"].tolist()[:24] == [name for name in CLASSES for _ in range(6)]
    tests = rows[rows["split"] == "test"]
    assert tests["class"].tolist() == [name.split("-")[0].split(" ")[0] for name in tests["filename"]]
    assert tests["class"].value_counts().to_dict() == {"Cat": 3, "Dog": 2, "Elephant": 2, "Tiger": 2}


def test_a_test_image_of_an_unknown_class_has_none(raw):
    name, path = first(raw, "Testing_Data")
    path.write_text(path.read_text().replace(name, "Lion (1).jpeg"))
    assert list_images(raw)["class"].tolist()[24:].count("") == 1


@pytest.mark.parametrize(
    "folder", ["Training_Data/Tiger/Masked_Train", "Training_Data/Lion/Masked_Train", "Testing_Data"]
)
def test_a_folder_without_a_table_is_refused(raw, folder):
    (raw / folder / "masked_info.csv").unlink(missing_ok=True)
    (raw / folder).mkdir(parents=True, exist_ok=True)
    with pytest.raises(BadInput, match=f"{folder}/masked_info.csv is missing"):
        list_images(raw)


@pytest.mark.parametrize("in_archive", ["NFC", "NFD"])
@pytest.mark.parametrize("in_table", ["NFC", "NFD"])
def test_an_image_has_its_tables_name_byte_for_byte(tmp_path, raw, in_table, in_archive):
    name = normalize(in_table, "Tiger K\xe4tzchen.jpeg")
    images = {}
    for folder in ["Training_Data/Tiger/Masked_Train", "Testing_Data"]:
        old, table = first(raw, folder)
        table.write_text(table.read_text().replace(old, name))
        for half in {folder, folder.replace("Masked", "Unmasked")}:
            path = raw / half / old
            images[f"{half}/{name}"] = path.read_bytes()
            path.rename(path.with_name(normalize(in_archive, name)))
    out = tmp_path / "out"
    out.mkdir()
    unpack(raw, contents(raw), out)
    rows = list_images(out)
    named = rows[rows["filename"] == name]
    assert named[["split", "class"]].to_numpy().tolist() == [["train", "Tiger"], ["test", "Tiger"]]
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*K*tzchen.jpeg")}
    assert found == images and list_images(out).equals(rows)
