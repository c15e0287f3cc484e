"""The tables of an archive."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.archive.tables import list_images, read_table
from pipeline.base.errors import BadInput
from pipeline.competition.index import BOX_COLUMNS

HEADER = ",filename,box1_row,box1_col,box2_row,box2_col\n"
CLASSES = ["Cat", "Dog", "Elephant", "Tiger"]


@pytest.fixture
def table(tmp_path):
    """`table(text)` writes a masked_info.csv and returns its path."""

    def write(text):
        path = tmp_path / "masked_info.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.fixture
def raw(tmp_path, demo_competition):
    """A copy of the drawn competition to change."""
    return Path(shutil.copytree(demo_competition.raw, tmp_path / "raw"))


def first(raw, folder="Training_Data/Cat/Masked_Train"):
    """The first image of a table, and the table's path."""
    path = raw / folder / "masked_info.csv"
    return pd.read_csv(path)["filename"][0], path


# A table


def test_a_table_is_read_in_its_order(table):
    text = HEADER + "0,Cat-Train (24).jpeg,0,181,58,27\n1,Cat-Train (24).jpg,1,2,3,4\n2,Cat-Train (1).png, 7 ,007,0,0\n"
    result = read_table(table(text))
    assert list(result.columns) == ["filename", *BOX_COLUMNS]
    assert result["filename"].tolist() == ["Cat-Train (24).jpeg", "Cat-Train (24).jpg", "Cat-Train (1).png"]
    assert result[BOX_COLUMNS].to_numpy().tolist() == [[0, 181, 58, 27], [1, 2, 3, 4], [7, 7, 0, 0]]
    assert (result[BOX_COLUMNS].dtypes == np.int32).all()


@pytest.mark.parametrize(
    "text",
    [
        HEADER + "0,a.jpeg,1,2,3,4\n",
        HEADER.strip() + "\r\n0,a.jpeg,1,2,3,4\r\n",
        b"\xef\xbb\xbf" + HEADER.encode() + b"0,a.jpeg,1,2,3,4\n",
        HEADER + "0,a.jpeg,1,2,3,4",
        HEADER[1:] + "a.jpeg,1,2,3,4\n",
        "box2_col,box2_row,box1_col,box1_row,more,filename\n4,3,2,1,x,a.jpeg\n",
    ],
    ids=["LF", "CRLF", "byte order mark", "no last newline", "no index", "another order"],
)
def test_other_forms_of_a_table_are_read(table, text):
    result = read_table(table(text))
    assert result.iloc[0].tolist() == ["a.jpeg", 1, 2, 3, 4]


@pytest.mark.parametrize("column", ["filename", *BOX_COLUMNS])
def test_a_missing_column_is_named(table, column):
    with pytest.raises(BadInput, match=f"masked_info.csv has no column '{column}'"):
        read_table(table(HEADER.replace(column, "other") + "0,a.jpeg,1,2,3,4\n"))


@pytest.mark.parametrize(
    "value",
    ["182", "256", "1000", "-1", "-0", "", "nan", "NaN", "NA", "None", "inf", "1.0", "1.5", "1e2", "0x10", "+3", "1_0"]
    + ["a", "٣", "99999999999999999999", "1 2"],
)
@pytest.mark.parametrize("column", range(4))
def test_a_box_that_is_not_an_integer_inside_the_image_is_named(table, column, value):
    cells = ["1", "2", "3", "4"]
    cells[column] = value
    text = HEADER + "0,good.jpeg,1,2,3,4\n1,Cat (1).jpeg," + ",".join(cells) + "\n"
    with pytest.raises(BadInput) as refusal:
        read_table(table(text))
    message = str(refusal.value)
    assert "masked_info.csv" in message and "'Cat (1).jpeg'" in message and BOX_COLUMNS[column] in message
    assert repr(value) in message and "0 to 181" in message


@pytest.mark.parametrize("index", ["0", "7", "x"])
def test_a_bad_box_is_named_where_the_index_has_no_header(table, index):
    with pytest.raises(BadInput, match=r"'a.jpeg' has box2_col '182'"):
        read_table(table(HEADER[1:] + f"{index},a.jpeg,1,2,3,182\n"))


def test_a_duplicate_name_is_refused(table):
    with pytest.raises(BadInput, match=r"masked_info.csv names 'b.jpeg' twice"):
        read_table(table(HEADER + "0,a.jpeg,1,2,3,4\n1,b.jpeg,1,2,3,4\n2,b.jpeg,5,6,7,8\n"))


def test_two_names_of_one_stem_are_accepted(table):
    assert len(read_table(table(HEADER + "0,a.jpeg,1,2,3,4\n1,a.jpg,1,2,3,4\n2,A.jpeg,1,2,3,4\n"))) == 3


@pytest.mark.parametrize(
    "name",
    ["../a.jpeg", "b/a.jpeg", "/a.jpeg", "b\\a.jpeg", '"b,a.jpeg"', '"b""a.jpeg"', "b\x07a.jpeg", "b\ta.jpeg"]
    + ["b\x7fa.jpeg", '"b\na.jpeg"', ".a.jpeg", "..", ".jpeg", "", "a", "a.gif", "a.jpeg.exe", "a.jpeg ", "a\0.jpeg"],
)
def test_an_unsafe_name_is_refused(table, name):
    with pytest.raises(BadInput, match=r"masked_info.csv: .* cannot be the name of an image") as refusal:
        read_table(table(HEADER + f"0,good.jpeg,1,2,3,4\n1,{name},1,2,3,4\n"))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["a.jpeg", "a.JPG", "a b (1).png", "a'b.jpeg", "ünï.jpeg", "a.b.jpeg", "NA.jpeg"])
def test_a_safe_name_is_accepted(table, name):
    assert read_table(table(HEADER + f"0,{name},1,2,3,4\n"))["filename"][0] == name


@pytest.mark.parametrize("text", ["", "\n", HEADER, HEADER + "\n"])
def test_a_table_without_images_is_refused(table, text):
    with pytest.raises(BadInput, match="masked_info.csv (lists no image|is not a readable csv)"):
        read_table(table(text))


@pytest.mark.parametrize(
    "text",
    [
        (HEADER + "0,Kätzchen.jpeg,1,2,3,4\n").encode("latin-1"),
        (HEADER + "0,a.jpeg,1,2,3,4\n").encode("utf-16"),
        HEADER + "0,a.jpeg,1,2,3,4\n1,b.jpeg,1,2,3,4,5\n",
        HEADER + '0,"a.jpeg,1,2,3,4\n',
    ],
    ids=["latin-1", "utf-16", "a longer row", "an open quote"],
)
def test_a_file_that_is_not_csv_is_refused(table, text):
    with pytest.raises(BadInput, match="masked_info.csv is not a readable csv") as refusal:
        read_table(table(text))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "rows",
    ["0,a.jpeg,1,2,3\n", "0,a.jpeg\n", "0\n", "0,a.jpeg,1,2,3,4,5\n", "0,a.jpeg,1,2,3,4\n1,b.jpeg,1\n", "x" * 99, "\0"],
)
def test_a_ragged_table_is_refused(table, rows):
    with pytest.raises(BadInput, match="masked_info.csv"):
        read_table(table(HEADER + rows))


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(BadInput, match="masked_info.csv is missing"):
        read_table(tmp_path / "masked_info.csv")


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
