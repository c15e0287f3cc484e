"""The submission: its values, its rows and their order; a wrong file is refused with the number of the line."""

import io
import math

import cv2
import numpy as np
import pandas as pd
import pytest

from pipeline.base.errors import BadInput
from pipeline.competition.boxes import BOX, cut
from pipeline.competition.images import SIZE
from pipeline.competition.metric import rmse
from pipeline.competition.submission import HEADER, ROWS_PER_IMAGE, encode, ids, read, write

NAMES = ["Tiger (1024).jpeg", "Cat-Train (24).jpg"]
BOXES = np.array([[[58, 27], [100, 60]], [[181, 0], [0, 181]]], np.int32)  # the first two overlap
AT = 40_000  # a row of the second image; its line is 40,002
ROWS = [AT, *(pytest.param(row, marks=pytest.mark.slow) for row in (0, 67_499))]


def photographs(n=2, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 9, 9, 3), dtype=np.uint8)
    return np.stack([cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC) for image in coarse])


def grey(level):
    return np.full((1, SIZE, SIZE, 3), level, np.uint8)


def plain_rows(names, boxes, image_value):
    """The rows in the order of the competition's page, from `image_value(image, i, j, c)`."""
    for k, name in enumerate(names):
        for b in (0, 1):
            row, column = boxes[k][b]
            for i in range(row, row + 75):
                for j in range(column, column + 75):
                    for c in range(3):
                        yield f"{name}_box{b + 1}_{i}_{j}_{c}", image_value(k, i, j, c)


def plain_frame(names, boxes, image_value):
    return pd.DataFrame(plain_rows(names, boxes.tolist(), image_value), columns=["filename_box_pixel", "value"])


# Values


def test_a_flat_fill_has_the_score_of_plain_python():
    """Black left half, 200 right half, filled with 100; box 2 lies across the edge, with the columns 98 to 172."""
    truth = grey(0)
    truth[:, :, 128:] = 200
    boxes = np.array([[[10, 150], [60, 98]]], np.int32)
    score = rmse(encode(grey(100), boxes, "bgr", "unit"), encode(truth, boxes, "bgr", "unit"))
    black, light, fill = 0.0, round(200 / 255, 5), round(100 / 255, 5)
    squares = []
    for column, width in ((150, 75), (98, 75)):
        for j in range(column, column + width):
            squares += [(fill - (light if j >= 128 else black)) ** 2] * 75 * 3
    assert len(squares) == ROWS_PER_IMAGE
    assert score == pytest.approx(math.sqrt(sum(squares) / len(squares)), abs=1e-12)
    assert score == pytest.approx(0.392156, abs=1e-5)


def test_a_flat_fill_scores_its_distance_from_a_flat_image():
    score = rmse(encode(grey(51), BOXES[:1], "bgr", "unit"), encode(grey(204), BOXES[:1], "bgr", "unit"))
    assert score == pytest.approx(0.6, abs=1e-12)


def test_an_overlap_counts_twice():
    truth = grey(0)
    truth[:, 100:133, 60:102] = 255  # the 33 x 42 pixels that both boxes of the first image cover
    score = rmse(encode(grey(0), BOXES[:1], "bgr", "unit"), encode(truth, BOXES[:1], "bgr", "unit"))
    assert score == pytest.approx(math.sqrt(2 * 33 * 42 / (2 * 75 * 75)), abs=1e-12)


@pytest.mark.parametrize(("channels", "first"), [("bgr", 2), ("rgb", 0)])
def test_channel_0_is_blue_under_bgr_and_red_under_rgb(channels, first):
    image = grey(0)
    image[..., first] = 255
    image[..., 1] = 51
    values = encode(image, BOXES[:1], channels, "unit")
    assert values.shape == (1, 2, BOX, BOX, 3) and values.dtype == np.float64
    assert (values[..., 0] == 1).all() and (values[..., 1] == 0.2).all() and (values[..., 2] == 0).all()


def test_minmax_equals_opencvs():
    images = photographs()
    images[0] = images[0] // 2 + 40  # a smaller range
    images[1, ..., 2] = images[1, ..., 2] // 3
    planes = [
        [cv2.normalize(image[..., c].astype(np.float64), None, 0, 1, cv2.NORM_MINMAX) for c in range(3)]
        for image in images
    ]
    expected = np.stack([np.stack(three, axis=-1) for three in planes])
    np.testing.assert_allclose(encode(images, BOXES, "rgb", "minmax"), cut(expected, BOXES), atol=5.001e-6)
    assert rmse(encode(images, BOXES, "rgb", "minmax"), encode(images, BOXES, "rgb", "unit")) > 0.05


def test_minmax_takes_its_range_from_the_whole_image():
    image = grey(100)
    image[0, 0, 0] = (0, 100, 50)  # outside the boxes
    image[0, 255, 255] = (200, 150, 100)
    values = encode(image, BOXES[:1], "rgb", "minmax")
    assert np.unique(values[..., 0]) == 0.5 and np.unique(values[..., 1]) == 0 and np.unique(values[..., 2]) == 1


@pytest.mark.parametrize("level", [0, 7, 255])
def test_a_channel_of_one_value_is_zero_as_in_opencv(level):
    plane = grey(level)[0, ..., 0].astype(np.float64)
    assert (cv2.normalize(plane, None, 0, 1, cv2.NORM_MINMAX) == 0).all()
    assert (encode(grey(level), BOXES[:1], "bgr", "minmax") == 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_images_that_are_not_bytes_are_refused(dtype):
    with pytest.raises(ValueError, match="not uint8"):
        encode(photographs().astype(dtype), BOXES, "bgr", "unit")


# Rows


def test_ids_equal_those_of_the_nested_loops():
    expected = [name for name, _ in plain_rows(NAMES, BOXES.tolist(), lambda *_: 0)]
    assert len(expected) == 2 * ROWS_PER_IMAGE and 200 * ROWS_PER_IMAGE == 6_750_000
    assert list(ids(NAMES, BOXES)) == expected
    assert expected[0] == "Tiger (1024).jpeg_box1_58_27_0"
    assert expected[-1] == "Cat-Train (24).jpg_box2_74_255_2"
    assert len(set(expected)) == len(expected)  # box 1 and box 2 keep an overlap's rows apart


@pytest.mark.parametrize("scale", ["minmax", "unit"])
@pytest.mark.parametrize("channels", ["bgr", "rgb"])
def test_the_file_equals_that_of_the_plain_loop(tmp_path, channels, scale):
    images = photographs()

    planes = {}
    for k in range(2):
        for c in range(3):
            plane = images[k, ..., 2 - c if channels == "bgr" else c].astype(float)
            low, high = (plane.min(), plane.max()) if scale == "minmax" else (0, 255)
            planes[k, c] = ((plane - low) / (high - low)).tolist()
    expected = io.StringIO()
    frame = plain_frame(NAMES, BOXES, lambda k, i, j, c: planes[k, c][i][j])
    frame.to_csv(expected, index=False, float_format="%.5f", lineterminator="\n")
    write(tmp_path / "s.csv", NAMES, BOXES, encode(images, BOXES, channels, scale))
    assert (tmp_path / "s.csv").read_bytes() == expected.getvalue().encode()


@pytest.fixture(scope="module")
def submission(tmp_path_factory):
    """A submission of two images as bytes, and the values in it."""
    values = encode(photographs(), BOXES, "bgr", "minmax")
    path = tmp_path_factory.mktemp("submission") / "submission.csv"
    write(path, NAMES, BOXES, values)
    return path.read_bytes(), values


@pytest.fixture
def written(tmp_path, submission):
    """A copy of that file: its path, its lines without line ends, and the values."""
    path = tmp_path / "submission.csv"
    path.write_bytes(submission[0])
    return path, submission[0].split(b"\n")[:-1], submission[1]


@pytest.mark.parametrize("images", [0, 1, 3])
def test_more_or_fewer_images_than_names_are_refused(tmp_path, images):
    values = np.zeros((images, 2, BOX, BOX, 3))
    with pytest.raises(ValueError):
        write(tmp_path / "s.csv", NAMES, BOXES, values)


# Reading back


def test_reading_gives_the_values_written(written):
    path, _, values = written
    np.testing.assert_array_equal(read(path, NAMES, BOXES), values)


def test_unusual_names_are_read_back(tmp_path):
    names = ["Kätzchen (1).jpeg", "it's a 100% #1 \u2028 name.png"]
    values = encode(photographs(), BOXES, "bgr", "minmax")
    write(tmp_path / "s.csv", names, BOXES, values)
    np.testing.assert_array_equal(read(tmp_path / "s.csv", names, BOXES), values)


@pytest.mark.parametrize("notation", [b"%.6f", b"%.3e", b"%r"])
def test_other_notations_of_the_same_numbers_are_read(written, notation):
    path, lines, values = written
    numbers = [notation % value for value in values.ravel().tolist()]
    rows = [line[:-7] + number for line, number in zip(lines[1:], numbers, strict=True)]
    path.write_bytes(b"\n".join([lines[0], *rows]) + b"\n")
    np.testing.assert_allclose(read(path, NAMES, BOXES), values, rtol=1e-3)


def test_windows_line_ends_are_refused(written):
    path, lines, _ = written
    assert "line 2: the value is" in refused(path, [lines[0], *(line + b"\r" for line in lines[1:])])


def refused(path, lines, names=NAMES, boxes=BOXES, end=b"\n"):
    """The error message for a file of these lines."""
    path.write_bytes(b"\n".join(lines) + end)
    with pytest.raises(BadInput) as refusal:
        read(path, names, boxes)
    assert path.name in str(refusal.value) and "\n" not in str(refusal.value)
    return str(refusal.value)


def name_of(line):
    return line.rsplit(b",", 1)[0].decode()


@pytest.mark.parametrize(
    "value",
    ["nan", "NaN", "inf", "-inf", "1.5", "1.00001", "-0.1", "-0.00001", "text", "", " ", "None", "0x1", "1_0", '"0.5"']
    + ["0.5;", "0.5 0.5", "0.5\t", "0.5\0", "5e5"],
)
@pytest.mark.parametrize("row", ROWS)
def test_a_value_that_is_not_a_number_from_0_to_1_is_named_by_its_line(written, row, value):
    path, lines, _ = written
    lines[row + 1] = f"{name_of(lines[row + 1])},{value}".encode()
    message = refused(path, lines)
    assert f"line {row + 2}: the value is" in message and "expected a number from 0 to 1" in message


@pytest.mark.parametrize("row", [0, AT, 67_498])
def test_swapped_rows_are_named_by_their_line(written, row):
    path, lines, _ = written
    lines[row + 1], lines[row + 2] = lines[row + 2], lines[row + 1]
    message = refused(path, lines)
    assert f"line {row + 2}: the id is {name_of(lines[row + 1])!r}" in message
    assert f"expected {name_of(lines[row + 2])!r}" in message


@pytest.mark.parametrize("row", [0, AT])
def test_a_missing_row_is_named_by_its_line(written, row):
    path, lines, _ = written
    gone = lines.pop(row + 1)
    assert f"line {row + 2}: the id is" in refused(path, lines)
    assert f"expected {name_of(gone)!r}" in refused(path, lines)


@pytest.mark.parametrize("keep", [0, 1, 67_499])
def test_rows_missing_at_the_end_are_named(written, keep):
    path, lines, _ = written
    message = refused(path, lines[: keep + 1])
    assert f"has {keep:,} rows" in message and name_of(lines[keep + 1]) in message and "missing" in message


@pytest.mark.parametrize("row", [0, AT])
def test_a_duplicate_row_is_named_by_its_line(written, row):
    path, lines, _ = written
    assert f"line {row + 3}: the id is" in refused(path, lines[: row + 2] + lines[row + 1 :])


@pytest.mark.parametrize("more", [[b""], [b"", b""], [b"x"], [b"x_box1_0_0_0,0.5"], None])
def test_an_extra_row_is_named_by_its_line(written, more):
    path, lines, _ = written
    assert "line 67502" in refused(path, [*lines, *(lines[-1:] if more is None else more)])


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize(
    "change",
    [
        lambda line: line + b",0",
        lambda line: line.replace(b",", b",,"),
        lambda line: line.replace(b",", b";"),
        lambda line: line.split(b",")[0],
        lambda line: b"\xff" + line,
        lambda line: line + b"\xff",
        lambda line: b" " + line,
        lambda line: b"#" + line,
        lambda line: b'"' + line.replace(b",", b'",'),
        lambda line: b'"' + line,
        lambda line: b"\xef\xbb\xbf" + line,
        lambda line: b"",
        lambda line: b"\n" + line,
        lambda line: line.upper(),
    ],
    ids=["a third field", "two commas", "a semicolon", "no value", "not UTF-8 before", "not UTF-8 after", "a blank"]
    + ["a comment", "quotes", "an open quote", "a byte order mark", "no line", "an empty line", "upper case"],
)
def test_a_broken_row_is_named_by_its_line(written, row, change):
    path, lines, _ = written
    lines[row + 1] = change(lines[row + 1])
    assert f"line {row + 2}:" in refused(path, lines)


@pytest.mark.parametrize(
    "change", [(HEADER, b"\n"), (b"filename", b"name"), (b",", b";"), (b"f", b"\xef\xbb\xbff"), (b"\n", b"\r\n")]
)
def test_another_header_is_refused(written, change):
    path, lines, _ = written
    header = HEADER.replace(*change, 1).removesuffix(b"\n")
    assert "does not begin with the line 'filename_box_pixel,value'" in refused(path, [header, *lines[1:]])


@pytest.mark.parametrize("rows", [slice(0), slice(1, None)])
def test_an_empty_file_and_one_without_a_header_are_refused(written, rows):
    path, lines, _ = written
    assert "does not begin with" in refused(path, lines[rows], end=b"")


@pytest.mark.parametrize("cut_off", [0, 1, 3, 6])
def test_a_last_line_without_its_end_is_refused(written, cut_off):
    """Its value may be cut: 0.4 of 0.40392 is a valid value."""
    path, lines, _ = written
    lines[-1] = lines[-1][: len(lines[-1]) - cut_off]
    message = refused(path, lines, end=b"")
    assert "67501" in message or "67,501" in message or "last line" in message


def test_other_names_are_refused(written):
    path, lines, _ = written
    message = refused(path, lines, names=[NAMES[0], "Cat-Train (25).jpg"])
    assert "line 33752: the id is 'Cat-Train (24).jpg_box1" in message and "'Cat-Train (25).jpg_box1" in message
    assert "line 2:" in refused(path, lines, names=NAMES[::-1])
    assert "line 2:" in refused(path, lines, names=["Tiger (1024).jpg", NAMES[1]])


def test_other_boxes_are_refused(written):
    path, lines, _ = written
    other = BOXES.copy()
    other[1, 1, 1] -= 1
    assert f"line {33_750 + 16_875 + 2}:" in refused(path, lines, boxes=other)
    assert "line 2:" in refused(path, lines, boxes=BOXES[:, ::-1])


def test_more_or_fewer_images_than_expected_are_refused(written):
    path, lines, _ = written
    assert "line 33752" in refused(path, lines, names=NAMES[:1], boxes=BOXES[:1])
    message = refused(path, lines, names=[*NAMES, "Dog (1).png"], boxes=BOXES[[0, 1, 0]])
    assert "67,500 rows" in message and "Dog (1).png_box1_58_27_0" in message
