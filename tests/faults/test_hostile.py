"""Hostile archives, images, tables and submissions: accepted or refused in one line; no file is written outside."""

import io
import struct
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable
from contextlib import chdir
from datetime import timedelta
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import fetch, paths
from pipeline.archive.tables import read_table
from pipeline.archive.unpack import FILE_LIMIT
from pipeline.base.errors import BadInput
from pipeline.competition import submission
from pipeline.competition.index import TABLE

# No case may hang. The examples are the same each time.
CASES = {"deadline": timedelta(seconds=20), "derandomize": True, "suppress_health_check": list(HealthCheck)}


@pytest.fixture(scope="module")
def honest(demo_competition) -> dict[str, bytes]:
    """The files of a competition with one pair a class, two for the cats, and one test image."""
    raw = demo_competition.raw
    files = {}
    for table in sorted(raw.rglob(TABLE)):
        lines = table.read_bytes().splitlines(keepends=True)
        lines = lines[: 3 if "Cat" in table.parts else 2]
        files[table.relative_to(raw).as_posix()] = b"".join(lines)
        for line in lines[1:]:
            name = line.decode().split(",")[1]
            for folder in {table.parent, table.parent.with_name(table.parent.name.replace("Masked", "Unmasked"))}:
                files[(folder.relative_to(raw) / name).as_posix()] = (folder / name).read_bytes()
    return files


def accepted(call: Callable[[], None], name: str = "") -> bool:
    """Whether the call succeeds; if not, it must raise BadInput with one line that has the name.

    No line may have the path of a temporary folder or an object's address.
    """
    try:
        call()
        return True
    except BadInput as refusal:
        assert name in str(refusal) and len(str(refusal).splitlines()) == 1
        assert ".partial" not in str(refusal) and "object at 0x" not in str(refusal)
        return False


@pytest.fixture(scope="module")
def fetched(params_file) -> Callable[[bytes], bool]:
    """`fetched(archive)` runs the fetch stage: whether the archive was accepted. No other file may be written."""
    return partial(fetch_in_sandbox, params_file)


def fetch_in_sandbox(params_file: Callable[..., Path], archive: bytes | bytearray) -> bool:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        work = root / "inside" / "work"
        work.mkdir(parents=True)
        (root / "a.zip").write_bytes(archive)
        params_file(work, **{"fetch.source": "archive", "fetch.archive": "../../a.zip"})
        with chdir(work):
            taken = accepted(fetch.main)
        found = {path for path in root.rglob("*") if not path.is_dir()} - {root / "a.zip", work / paths.PARAMS}
        assert all(path.is_relative_to(work / "data") and not path.is_symlink() for path in found)
        assert bool(found) == taken
        assert not list(root.rglob("*.partial"))
        return taken


def zipped(entries: Iterable[tuple[str | zipfile.ZipInfo, bytes]], method: int = zipfile.ZIP_STORED) -> bytearray:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as archive:
        warnings.simplefilter("ignore")  # a duplicate name
        for name, data in entries:
            archive.writestr(name, data)
    return bytearray(file.getvalue())


def test_the_honest_archive_is_accepted(honest, fetched):
    assert fetched(zipped(honest.items()))


# Archives

PIECES = st.one_of(
    st.sampled_from(["..", ".", "", "C:", "Dataset", "Training_Data", "Testing_Data", "Cat", "Masked_Train", TABLE]),
    st.sampled_from(["Unmasked_Train", "n" * 255, "ü" * 120, "con", "a\\b", "\u202e", "~root", "$HOME", "x.jpeg"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
NAMES = st.builds(
    lambda start, pieces: start + "/".join(pieces),
    st.sampled_from(["", "", "/", "//", "../", "../../", "\\\\host\\", "Dataset/Testing_Data/", "Training_Data/Cat/"]),
    st.lists(PIECES, min_size=1, max_size=5),
).filter(lambda name: name.split("\0")[0])


@st.composite
def entries(draw: st.DrawFn) -> list[tuple[zipfile.ZipInfo, bytes]]:
    """Entries of hostile archives: names that lead outside, links, devices, zip bombs."""
    found = []
    for name in draw(st.lists(NAMES, max_size=3)):
        info = zipfile.ZipInfo(name)
        info.external_attr = draw(st.sampled_from([0o100644, 0o120777, 0o060666, 0o010666, 0o104755])) << 16
        data = draw(st.sampled_from([b"", b"../../../evil", b"/etc/passwd", b"x" * 1000, "bomb"]))
        info.compress_type = zipfile.ZIP_DEFLATED if data == "bomb" else zipfile.ZIP_STORED
        found.append((info, bytes(draw(st.sampled_from([10**6, FILE_LIMIT + 1]))) if data == "bomb" else data))
    return found


# Where a field stands in an entry's record of the zip's central directory, and how long it is.
FIELDS = {"flags": (8, 2), "method": (10, 2), "crc": (16, 4), "packed": (20, 4), "size": (24, 4), "name": (28, 2)}
FIELDS |= {"extra": (30, 2), "comment": (32, 2), "disk": (34, 2), "attributes": (38, 4), "offset": (42, 4)}
LIES = st.lists(
    st.tuples(
        st.integers(0, 30), st.sampled_from(sorted(FIELDS)), st.sampled_from([0, 1, 8, 14, 255, 2**16 - 1, 2**32 - 1])
    ),
    max_size=2,
)
NOISE = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=3)


def lie(archive: bytearray, lies: list[tuple[int, str, int]]) -> None:
    """Change fields in the records of some entries."""
    starts = [at for at in range(len(archive)) if archive.startswith(b"PK\x01\x02", at)] if lies else []
    for number, field, value in lies:
        offset, length = FIELDS[field]
        at = starts[number % len(starts)] + offset
        archive[at : at + length] = (value % 256**length).to_bytes(length, "little")


@pytest.mark.slow
def test_no_archive_is_anything_but_unpacked_or_refused_in_one_line(honest, fetched):
    taken = []

    @settings(max_examples=250, **CASES)
    @given(
        entries(),
        st.sets(st.sampled_from(sorted(honest)), max_size=1),
        st.lists(st.sampled_from(sorted(honest)), max_size=1),
        LIES,
        st.one_of(st.just([]), NOISE),
        st.one_of(st.just(1.0), st.floats(0, 1)),
        st.sampled_from(["", "Dataset/"]),
        st.sampled_from([None, b"\xff\xfe", b"\xc3\x28"]),
    )
    def case(evil, absent, twice, lies, noise, kept, prefix, encoding):
        files = [(prefix + name, data) for name, data in honest.items() if name not in absent]
        archive = zipped(files + [(prefix + name, honest[name]) for name in twice] + evil)
        if encoding:  # a name that is not UTF-8, though its record says so
            archive = archive.replace(b"Tiger", encoding + b"ger")
        lie(archive, lies)
        for share, change in noise:
            archive[int(share * len(archive))] ^= change
        taken.append(fetched(archive[: round(kept * len(archive))]))

    case()
    assert len(taken) >= 250 and 0 < sum(taken) < len(taken)


# Images

FORMATS = [
    b"GIF89a\x00\x01\x00\x01",
    b"II*\x00\x08\x00\x00\x00",
    b"%!PS-Adobe-3.0 EPSF-3.0\n",
    b"BM",
    b"RIFF\0\0\0\0WEBPVP8 ",
]
SIDES = st.sampled_from([0, 1, 255, 257, 4096, 2**15, 2**16 - 1, 2**31 - 1])


CHUNKS = [b"PLTE", b"tRNS", b"iCCP", b"zTXt", b"iTXt", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"IHDR", b"IEND", b"sPLT"]


def chunk(name: bytes, body: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def with_chunk(image: bytes, at: float, name: bytes, body: bytes) -> bytes:
    """The image as a PNG that has another chunk: first, before the pixels, or after them."""
    data = cv2.imencode(".png", cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR))[1].tobytes()
    place = [8, data.find(b"IDAT") - 4, len(data) - 12][int(3 * at)]
    return data[:place] + chunk(name, body) + data[place:]


def png(width: int, height: int, depth: int, colour: int, data: bytes) -> bytes:
    """A PNG with this header and these bytes as its pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def declare(image: bytes, width: int, height: int) -> bytes:
    """A JPEG whose header declares another size."""
    at = max(image.find(b"\xff\xc0"), image.find(b"\xff\xc2"))
    sides = struct.pack(">HH", height % 2**16, width % 2**16)
    return image if at < 0 else image[: at + 5] + sides + image[at + 9 :]


@pytest.mark.slow
def test_no_image_is_anything_but_decoded_or_refused_in_one_line(honest, fetched):
    images = sorted(name for name in honest if not name.endswith(TABLE))
    taken = []

    @settings(max_examples=250, **CASES)
    @given(
        st.sampled_from(images),
        st.sampled_from(["noise", "noise", "cut", "declare", "png", "another format", "chunk"]),
        NOISE,
        SIDES,
        SIDES,
        st.tuples(st.sampled_from([1, 2, 4, 8, 16, 3]), st.sampled_from([0, 2, 3, 4, 6, 9])),
        st.sampled_from(FORMATS),
        st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from(CHUNKS), st.binary(max_size=30)),
    )
    def case(name, fault, noise, width, height, depth_and_colour, start, extra):
        image = bytearray(honest[name])
        if fault == "noise":
            for share, change in noise:
                image[int(share * len(image))] ^= change
        elif fault == "cut":
            image = image[: int(len(image) * (noise[0][0] if noise else 0.5))]
        elif fault == "declare":
            image = declare(bytes(image), width, height)
        elif fault == "png":
            image = png(width, height, *depth_and_colour, data=bytes(10_000))
        elif fault == "chunk":
            image = with_chunk(image, *extra)
        else:
            image = start + image
        taken.append(fetched(zipped((honest | {name: bytes(image)}).items())))

    case()
    assert len(taken) >= 250 and 0 < sum(taken) < len(taken)


# Tables

CELLS = st.one_of(
    st.integers(-(10**30), 10**30).map(str),
    st.floats().map(str),
    st.sampled_from(
        ["", " 5", "0x10", "1e2", "٣", "²", "NaN", "inf", "-0", "+1", "1_0", '"', '"a', "a\0b", "=1+1", "a\rb"]
    ),
    st.sampled_from(
        ["../../evil.jpeg", "/etc/passwd", "a/b.jpeg", ".hidden.jpeg", "x" * 300 + ".jpeg", "a.jpeg\n", "a.svg"]
    ),
    st.text(max_size=10),
)
EDITS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), CELLS), max_size=3)
TAILS = st.one_of(st.just(b""), st.binary(max_size=30), st.sampled_from([b'"', b"\0" * 50, b",,,,,,,,\n", b"\xff\xfe"]))


def edited(table: bytes, edits: list[tuple[int, int, str]], tail: bytes) -> bytes:
    """A table with some cells (of the header too) changed, and with bytes appended."""
    rows = [line.split(",") for line in table.decode().splitlines()]
    for row, column, cell in edits:
        rows[row % len(rows)][column % len(rows[0])] = cell
    return "\n".join(map(",".join, rows)).encode("utf-8", "surrogatepass") + b"\n" + tail


@pytest.mark.slow
def test_no_table_is_anything_but_read_or_refused_in_one_line(tmp_path, honest):
    table = honest[f"Training_Data/Cat/Masked_Train/{TABLE}"]
    path, taken = tmp_path / TABLE, []

    @settings(max_examples=400, **CASES)
    @given(EDITS, TAILS, st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
    def case(edits, tail, encoding):
        data = edited(table, edits, tail)
        path.write_bytes(data if encoding == "utf-8" else data.decode("utf-8", "ignore").encode(encoding, "ignore"))

        def check():
            rows = read_table(tmp_path, TABLE)
            assert rows[rows.columns[1:]].isin(range(182)).all(axis=None)
            assert not rows["filename"].str.contains(r"[/\\\0\n]").any()

        taken.append(accepted(check, TABLE))

    case()
    assert len(taken) >= 400 and 0 < sum(taken) < len(taken)


@pytest.mark.slow
def test_no_table_in_an_archive_is_anything_but_unpacked_or_refused_in_one_line(honest, fetched):
    tables = sorted(name for name in honest if name.endswith(TABLE))
    taken = []

    @settings(max_examples=100, **CASES)
    @given(st.sampled_from(tables), EDITS, TAILS)
    def case(name, edits, tail):
        changed = edited(honest[name], edits, tail)
        taken.append(fetched(zipped((honest | {name: changed}).items())))

    case()
    assert len(taken) >= 100 and 0 < sum(taken) < len(taken)


# Submissions


@pytest.mark.slow
def test_no_submission_is_anything_but_read_or_refused_in_one_line(tmp_path):
    names, boxes = ["Cat (1).jpeg"], np.array([[[0, 181], [7, 30]]], np.int32)
    values = np.random.default_rng(4).random((1, 2, 75, 75, 3)).round(5)
    id_, rows = "Cat (1).jpeg_box", []
    for number, (row, column) in enumerate(boxes[0].tolist(), 1):
        for (i, j, channel), value in np.ndenumerate(values[0, number - 1]):
            rows.append(f"{id_}{number}_{row + i}_{column + j}_{channel},{value:.5f}")
    good = ["filename_box_pixel,value", *rows]
    path, taken = tmp_path / "submission.csv", []
    lines = st.one_of(st.text(max_size=30), CELLS.map(lambda cell: f"{id_}1_0_181_0,{cell}"), st.just(None))

    @settings(max_examples=100, **CASES)
    @given(st.lists(st.tuples(st.one_of(st.integers(0, 3), st.integers(0, 33_750)), lines), max_size=2), TAILS, NOISE)
    def case(changes, tail, noise):
        text = list(good)
        for at, line in changes:
            text[at] = line
        data = bytearray("\n".join(line for line in text if line is not None).encode() + b"\n" + tail)
        for share, change in noise[1:]:
            data[int(share * len(data))] ^= change
        path.write_bytes(data)

        def check():
            found = submission.read(path, names, boxes)
            assert found.shape == values.shape and ((found >= 0) & (found <= 1)).all()

        taken.append(accepted(check, str(path)))

    case()
    assert len(taken) >= 100 and 0 < sum(taken) < len(taken)
