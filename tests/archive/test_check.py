"""What fetch checks: tables, images, and the twin groups of the index."""

import shutil
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.archive.check import build_index, check_images, list_images, read_table
from pipeline.base.errors import BadInput
from pipeline.competition.index import BOX_COLUMNS, COLUMNS
from pipeline.demo.competition import draw_competition
from pipeline.twins.groups import thumbnail

HEADER = ",filename,box1_row,box1_col,box2_row,box2_col\n"
KINDS = ["Cat", "Dog", "Elephant", "Tiger"]


@pytest.fixture
def table(tmp_path):
    """`table(text)` writes a masked_info.csv and gives its path."""

    def write(text):
        path = tmp_path / "masked_info.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.fixture
def raw(tmp_path, demo_competition):
    """A copy of the drawn competition to change."""
    return Path(shutil.copytree(demo_competition.raw, tmp_path / "raw"))


def indexed(raw):
    rows = list_images(raw)
    return build_index(rows, np.stack(list(check_images(raw, rows))))


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
    ids=["as it is", "CRLF", "byte order mark", "no last newline", "no index", "another order"],
)
def test_a_table_may_be_written_otherwise(table, text):
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
def test_a_box_that_is_no_whole_number_inside_the_image_is_named(table, column, value):
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


def test_a_name_twice_is_refused(table):
    with pytest.raises(BadInput, match=r"masked_info.csv names 'b.jpeg' twice"):
        read_table(table(HEADER + "0,a.jpeg,1,2,3,4\n1,b.jpeg,1,2,3,4\n2,b.jpeg,5,6,7,8\n"))


def test_two_names_of_one_stem_are_not_twice(table):
    assert len(read_table(table(HEADER + "0,a.jpeg,1,2,3,4\n1,a.jpg,1,2,3,4\n2,A.jpeg,1,2,3,4\n"))) == 3


@pytest.mark.parametrize(
    "name",
    ["../a.jpeg", "b/a.jpeg", "/a.jpeg", "b\\a.jpeg", '"b,a.jpeg"', '"b""a.jpeg"', "b\x07a.jpeg", "b\ta.jpeg"]
    + ["b\x7fa.jpeg", '"b\na.jpeg"', ".a.jpeg", "..", ".jpeg", "", "a", "a.gif", "a.jpeg.exe", "a.jpeg ", "a\0.jpeg"],
)
def test_what_cannot_be_a_name_is_refused(table, name):
    with pytest.raises(BadInput, match=r"masked_info.csv: .* cannot be the name of an image") as refusal:
        read_table(table(HEADER + f"0,good.jpeg,1,2,3,4\n1,{name},1,2,3,4\n"))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["a.jpeg", "a.JPG", "a b (1).png", "a'b.jpeg", "ünï.jpeg", "a.b.jpeg", "NA.jpeg"])
def test_what_can_be_a_name_is_taken(table, name):
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
def test_a_table_that_is_no_csv_is_refused(table, text):
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
    for folder in [*(f"Training_Data/{kind}/Masked_Train" for kind in KINDS), "Testing_Data"]:
        csv = pd.read_csv(raw / folder / "masked_info.csv", index_col=0)
        part = rows[start : start + len(csv)]
        assert part["filename"].tolist() == csv["filename"].tolist() != sorted(csv["filename"])
        assert part[BOX_COLUMNS].to_numpy().tolist() == csv[BOX_COLUMNS].to_numpy().tolist()
        start += len(csv)
    assert start == len(rows)


def test_a_shuffled_table_shuffles_the_rows(raw):
    _, path = first(raw, "Testing_Data")
    before = list_images(raw)
    pd.read_csv(path, index_col=0)[::-1].to_csv(path)
    after = list_images(raw)
    assert after["filename"].tolist()[24:] == before["filename"].tolist()[24:][::-1]
    assert after["filename"].tolist()[:24] == before["filename"].tolist()[:24]


def test_classes_are_the_folders_and_the_tests_names_tell_theirs(raw):
    rows = list_images(raw)
    assert rows["class"].tolist()[:24] == [kind for kind in KINDS for _ in range(6)]
    tests = rows[rows["split"] == "test"]
    assert tests["class"].tolist() == [name.split("-")[0].split(" ")[0] for name in tests["filename"]]
    assert tests["class"].value_counts().to_dict() == {"Cat": 3, "Dog": 2, "Elephant": 2, "Tiger": 2}


def test_a_test_image_of_no_known_class_has_none(raw):
    name, path = first(raw, "Testing_Data")
    path.write_text(path.read_text().replace(name, "Lion (1).jpeg"))
    assert list_images(raw)["class"].tolist()[24:].count("") == 1


def test_an_empty_class_is_refused(raw):
    (raw / "Training_Data" / "Lion" / "Unmasked_Train").mkdir(parents=True)
    with pytest.raises(BadInput, match="Lion/Masked_Train/masked_info.csv is missing"):
        list_images(raw)


def test_a_class_without_rows_is_refused(raw):
    _, path = first(raw)
    path.write_text(HEADER)
    with pytest.raises(BadInput, match="Cat.*lists no image"):
        list_images(raw)


@pytest.mark.parametrize("folder", ["Training_Data/Tiger/Masked_Train", "Testing_Data"])
def test_a_folder_without_a_table_is_refused(raw, folder):
    (raw / folder / "masked_info.csv").unlink()
    with pytest.raises(BadInput, match=f"{folder}/masked_info.csv is missing"):
        list_images(raw)


# The images


def spoil(fault, path):
    if fault == "missing":
        path.unlink()
    elif fault == "truncated":
        path.write_bytes(path.read_bytes()[:-500])
    elif fault == "empty":
        path.write_bytes(b"")
    elif fault == "text":
        path.write_text("not an image")
    elif fault == "255 x 256":
        Image.new("RGB", (255, 256)).save(path)


FAULTS = {
    "missing": "is missing",
    "truncated": "does not decode",
    "empty": "does not decode",
    "text": "does not decode",
    "255 x 256": "is 255 x 256 pixels, expected 256 x 256",
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    "folder", ["Training_Data/Dog/Unmasked_Train", "Training_Data/Dog/Masked_Train", "Testing_Data"]
)
def test_a_bad_image_is_named(raw, folder, fault):
    name, _ = first(raw, folder.replace("Unmasked", "Masked"))
    spoil(fault, raw / folder / name)
    with pytest.raises(BadInput) as refusal:
        indexed(raw)
    assert f"{folder}/{name} {FAULTS[fault]}" in str(refusal.value)


def test_thumbnails_are_of_the_whole_image_and_of_the_masked_test_image(raw):
    rows = list_images(raw)
    thumbnails = list(check_images(raw, rows))
    assert len(thumbnails) == len(rows) and thumbnails[0].shape == (32, 32, 3)
    paths = [
        raw / "Training_Data/Cat/Unmasked_Train" / rows["filename"][0],
        raw / "Testing_Data" / rows["filename"][30],
    ]
    for path, ours in zip(paths, (thumbnails[0], thumbnails[30]), strict=True):
        np.testing.assert_array_equal(ours, thumbnail(np.asarray(Image.open(path).convert("RGB"))))


def test_a_file_that_no_table_names_is_not_looked_at(raw):
    (raw / "Testing_Data" / "notes.jpeg").write_text("not an image")
    assert len(indexed(raw)) == 33


# The index


def expected_groups(paths, pairs, fresh):
    """The twins as draw_competition drew them: partitions of the file names, class by class.

    In each class the drawings from `fresh` on repeat the first ones, and a test image the last fresh one.
    """
    trains = {kind: [f"{kind}/{p.name}" for p in paths if f"/{kind}/Unmasked_Train/" in p.as_posix()] for kind in KINDS}
    tests = [p.name for p in paths if p.parent.name == "Testing_Data"]
    assert all(len(names) == pairs for names in trains.values())
    groups = {name: {name} for names in [*trains.values(), tests] for name in names}
    drawn = [(names[i], names[i - fresh]) for names in trains.values() for i in range(fresh, pairs)]
    for n, test in enumerate(tests[: round(len(tests) * 0.225)]):
        drawn.append((test, trains[KINDS[n % 4]][fresh - 1 - n // 4]))
    for one, other in drawn:
        groups[one] |= groups[other]
        for name in groups[one]:
            groups[name] = groups[one]
    return {frozenset(group) for group in groups.values()}


def found_groups(index):
    groups = defaultdict(set)
    for row in index.to_dict("records"):
        prefix = f"{row['class']}/" if row["split"] == "train" else ""
        groups[row["group"]].add(prefix + row["filename"])
    return {frozenset(group) for group in groups.values()}


def test_groups_are_the_twins_drawn(demo_competition):
    index = indexed(demo_competition.raw)
    assert list(index.columns) == COLUMNS
    expected = expected_groups(demo_competition.paths, 6, 6)
    assert sum(len(group) > 1 for group in expected) == 2
    assert found_groups(index) == expected


def test_groups_are_the_twins_drawn_inside_the_training_set_too(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "truth").mkdir()
    paths = list(draw_competition(tmp_path / "raw", tmp_path / "truth", 20, 22, seed=3))
    expected = expected_groups(paths, 20, 19)
    assert sum(len(group) > 1 for group in expected) == 4 + 5
    assert found_groups(indexed(tmp_path / "raw")) == expected


def test_a_group_is_called_after_its_first_row(demo_competition):
    groups = indexed(demo_competition.raw)["group"]
    assert all(groups[group] == group and (groups[:group] != group).all() for group in groups)


def test_a_twin_is_found_through_its_holes(raw):
    """A training photograph becomes a test image, masked, compressed and under another class."""
    name, path = first(raw, "Testing_Data")
    csv = pd.read_csv(path, index_col=0)
    source, _ = first(raw, "Training_Data/Elephant/Masked_Train")
    image = cv2.imread(str(raw / "Training_Data/Elephant/Unmasked_Train" / source))
    before = indexed(raw)
    row = before[before["filename"] == source].index[0]
    for b in (1, 2):
        i, j = csv[f"box{b}_row"][0], csv[f"box{b}_col"][0]
        image[i : i + 75, j : j + 75] = 0
    cv2.imwrite(str(raw / "Testing_Data" / name), image)
    after = indexed(raw)
    assert before["group"][24] != row
    assert after["group"][24] == after["group"][row] == row


def test_the_same_input_gives_the_same_index(demo_competition):
    pd.testing.assert_frame_equal(indexed(demo_competition.raw), indexed(demo_competition.raw))


# As the user sees it


def far_box(raw):
    name, path = first(raw)
    lines = path.read_text().splitlines()
    lines[1] = ",".join([*lines[1].split(",")[:2], "182", "0", "0", "0"])
    path.write_text("\n".join(lines) + "\n")
    return name


def small_image(raw):
    name, _ = first(raw, "Testing_Data")
    spoil("255 x 256", raw / "Testing_Data" / name)
    return name


def long_name(raw):
    name, path = first(raw, "Testing_Data")
    path.write_text(path.read_text().replace(name, "n" * 300 + ".jpeg"))
    return "n" * 300


@pytest.mark.parametrize("fault", [far_box, small_image, long_name])
def test_fetch_ends_with_one_line_and_leaves_nothing(tmp_path, raw, run_stage, params_file, fault):
    culprit = fault(raw)
    work = tmp_path / "work"
    work.mkdir()
    params_file(work, **{"fetch.source": "archive", "fetch.archive": str(raw)})
    done = run_stage("fetch", work)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("fetch: "), done.stderr
    assert culprit[:80] in done.stderr  # a name of any length is quoted no further
    assert list((work / "data").iterdir()) == []
