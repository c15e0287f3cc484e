"""The archive: every layout gives the same files; an unsafe or damaged archive is refused in one line."""

import io
import os
import re
import stat
import struct
import tempfile
import warnings
import zipfile
from pathlib import Path, PurePosixPath
from unicodedata import normalize

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline import fetch
from pipeline.archive.unpack import ARCHIVE_LIMIT, FILE_LIMIT, checksum, contents, unpack
from pipeline.base.command import run
from pipeline.base.errors import BadInput

FILES = {
    "Training_Data/Cat/Unmasked_Train/Cat-Train (24).jpeg": b"whole" * 99,
    "Training_Data/Cat/Unmasked_Train/Cat-Train (24).jpg": b"another",
    "Training_Data/Cat/Masked_Train/Cat-Train (24).jpeg": b"masked" * 99,
    "Training_Data/Cat/Masked_Train/Cat-Train (24).jpg": b"another, masked",
    "Training_Data/Cat/Masked_Train/masked_info.csv": b"the table of the cats",
    "Testing_Data/Tiger (1024).jpeg": b"test" * 99,
    "Testing_Data/masked_info.csv": b"the table of the tests",
}
ONE = "Testing_Data/Tiger (1024).jpeg"  # of FILES
LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"  # a zip's records


def zipped(files=FILES, prefix="Dataset/", more=(), method=zipfile.ZIP_DEFLATED):
    """The bytes of a zip; `more` holds (name or ZipInfo, bytes)."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in [*((prefix + name, data) for name, data in files.items()), *more]:
            archive.writestr(name, data)
    return file.getvalue()


def laid_out(folder, files=FILES, prefix=""):
    for name, data in files.items():
        path = folder / (prefix + name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def unpacked(archive, folder):
    folder.mkdir()
    unpack(archive, contents(archive), folder)
    return tree(folder)


# Accepted


@pytest.mark.parametrize("prefix", ["", "Dataset/", "a/b/Dataset/"])
@pytest.mark.parametrize("form", ["zip", "folder", "zip in a folder", "stored zip"])
def test_every_form_gives_the_same_files(tmp_path, form, prefix):
    source = tmp_path / "photo-reconstruction.zip"
    if form == "folder":
        source = laid_out(tmp_path / "unpacked", prefix=prefix)
    elif form == "zip in a folder":
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "any name.zip").write_bytes(zipped(prefix=prefix))
        source = tmp_path / "folder"
    else:
        source.write_bytes(zipped(prefix=prefix, method=zipfile.ZIP_STORED if "stored" in form else 8))
    assert unpacked(source, tmp_path / "out") == FILES


RENAMED = {
    "backslashes": lambda name: name.replace("/", "\\"),
    "a dot": lambda name: f"./{name}",
    "lower case": lambda name: name.replace("_Data", "_data").replace("_T", "_t").replace("Un", "un"),
    "upper case": lambda name: name.replace("Training_Data", "TRAINING_DATA").replace("info.csv", "INFO.CSV"),
}


@pytest.mark.parametrize("form", RENAMED)
def test_other_forms_of_names_give_the_same_files(tmp_path, form):
    files = {RENAMED[form](f"Dataset/{name}"): data for name, data in FILES.items()}
    (tmp_path / "a.zip").write_bytes(zipped(files, "", [(RENAMED[form]("Dataset/Testing_Data/"), b"")]))
    assert unpacked(tmp_path / "a.zip", tmp_path / "from zip") == FILES
    assert unpacked(laid_out(tmp_path / "a", files), tmp_path / "from folder") == FILES


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("flag", [True, False])
def test_names_beyond_ascii_are_in_form_nfc(tmp_path, form, flag):
    files = {**FILES, "Testing_Data/\u00fc.jpeg": b"u"}
    archive = zipped({normalize(form, name): data for name, data in files.items()})
    if not flag:  # as Finder writes it: UTF-8, and no flag that says so
        archive = re.sub(rb"(PK\x03\x04..|PK\x01\x02....)\0\x08", rb"\g<1>\0\0", archive, flags=re.DOTALL)
    (tmp_path / "a.zip").write_bytes(archive)
    assert unpacked(tmp_path / "a.zip", tmp_path / "from zip") == files
    folder = laid_out(tmp_path / "a", {normalize(form, name): data for name, data in files.items()})
    assert checksum(folder, contents(folder)) == checksum(tmp_path / "a.zip", contents(tmp_path / "a.zip"))


# What lies in a folder from which the files are read.
FOLDERS = {
    "a suffix in capitals": {"photos.ZIP": zipped()},
    "what macOS writes beside a zip": {"._photos.zip": b"\0\5\x16\7", "photos.zip": zipped()},
    "a zip one folder down": {"photos/a.zip": zipped(), "photos/._a.zip": b"\0", "notes.txt": b"x"},
    "a zip of something else two folders down": {"a.zip": zipped(), "b/c/d.zip": zipped({})},
    "a zip in the unpacked folder": {"backup.zip": b"no zip", **FILES},
    "two zips beside the unpacked folder": {
        "a.zip": b"",
        "b.zip": b"",
        **{f"Dataset/{n}": d for n, d in FILES.items()},
    },
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_is_read_if_one_thing_in_it_can_be_meant(tmp_path, case):
    assert unpacked(laid_out(tmp_path / "folder", FOLDERS[case]), tmp_path / "out") == FILES


def test_a_table_one_level_up_takes_its_place(tmp_path):
    table = "Training_Data/Cat/Masked_Train/masked_info.csv"
    moved = {name.replace("Masked_Train/masked_info", "masked_info"): data for name, data in FILES.items()}
    assert table not in moved and len(moved) == len(FILES)
    (tmp_path / "a.zip").write_bytes(zipped(moved))
    assert unpacked(tmp_path / "a.zip", tmp_path / "from zip") == FILES
    assert unpacked(laid_out(tmp_path / "a", moved), tmp_path / "from folder") == FILES


JUNK = [
    ".DS_Store",
    "Dataset/.DS_Store",
    "Dataset/Training_Data/.DS_Store",
    "Dataset/Training_Data/Cat/Unmasked_Train/.DS_Store",
    "Dataset/Training_Data/Cat/Unmasked_Train/._Cat-Train (24).jpeg",
    "Dataset/Testing_Data/.hidden/x.jpeg",
    "__MACOSX/Dataset/Testing_Data/Tiger (1024).jpeg",
    "__MACOSX/Dataset/Testing_Data/._Tiger (1024).jpeg",
    "README.md",
    "Dataset/sample_submission.csv",
    "Dataset/Training_Data/notes.txt",
    "Dataset/Training_Data/Cat/notes.txt",
    "Dataset/Training_Data/Cat/Other/x.jpeg",
    "Dataset/Icon\r",
    "Dataset/Training_Data/Cat/Unmasked_Train/Icon\r",
    "Dataset/Training_Data/Cat/Masked_Train/Thumbs.db",
    "Dataset/Testing_Data/desktop.ini",
    "Q: what is this?.txt",
    "\u202e.txt",
]


@pytest.mark.parametrize("name", JUNK)
def test_other_files_are_ignored(tmp_path, name):
    (tmp_path / "a.zip").write_bytes(zipped(more=[(name, b"junk")]))
    assert unpacked(tmp_path / "a.zip", tmp_path / "from zip") == FILES
    folder = laid_out(tmp_path / "a", {name: b"junk", **{f"Dataset/{key}": data for key, data in FILES.items()}})
    assert unpacked(folder, tmp_path / "from folder") == FILES


def test_what_is_not_read_from_a_zip_does_not_matter(tmp_path):
    link, long = stat.S_IFLNK << 16, "n" * 300
    more = [entry("link", b"/etc", external_attr=link), entry(f"{long}/{long}.jpeg"), entry("locked.txt", b"locked")]
    archive = bytearray(zipped(more=more))
    archive[archive.rindex(b"locked.txt") - 46 + 8] |= 1  # encrypted
    (tmp_path / "a.zip").write_bytes(archive)
    assert unpacked(tmp_path / "a.zip", tmp_path / "out") == FILES
    assert unpacked(no_name(tmp_path)[0], tmp_path / "no name") == FILES


def test_folders_in_a_zip_are_ignored(tmp_path):
    more = [("Dataset/", b""), ("Dataset/Testing_Data/", b""), ("Dataset/Training_Data/Cat/Unmasked_Train/", b"")]
    (tmp_path / "a.zip").write_bytes(zipped(more=more))
    assert unpacked(tmp_path / "a.zip", tmp_path / "out") == FILES


@pytest.mark.parametrize("name", [".hidden", "Training_Data", "Testing_Data", "__MACOSX"])
def test_the_name_of_an_unpacked_folder_does_not_matter(tmp_path, name):
    assert unpacked(laid_out(tmp_path / name, prefix="Dataset/"), tmp_path / "out") == FILES


def test_the_drawn_competition_is_unpacked_unchanged(tmp_path, demo_competition):
    whole = tree(demo_competition.raw)
    (tmp_path / "a.zip").write_bytes(zipped(whole))
    assert unpacked(tmp_path / "a.zip", tmp_path / "from zip") == whole
    assert unpacked(demo_competition.raw, tmp_path / "from folder") == whole


def test_sizes_are_the_files_sizes(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped())
    sizes = {str(place): size for place, (size, _) in contents(tmp_path / "a.zip").items()}
    assert sizes == {name: len(data) for name, data in FILES.items()}
    assert all(isinstance(place, PurePosixPath) for place in contents(tmp_path / "a.zip"))


# Refused: each maker writes an archive in the folder and returns its path and what the message must name.


def entry(name, data=b"x", **attributes):
    info = zipfile.ZipInfo(name)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, data


def with_entry(name, data=b"x", culprit="evil.jpeg", **attributes):
    def make(folder):
        (folder / "a.zip").write_bytes(zipped(more=[entry(name, data, **attributes)]))
        return folder / "a.zip", culprit

    return make


def patched(*changes):
    """A zip with changed bytes in the records of the entry ONE; each change is (record, offset, bytes)."""

    def make(folder):
        whole = bytearray(zipped())
        for record, offset, data in changes:
            name = f"Dataset/{ONE}".encode()
            at = (whole.index(name) - 30 if record == LOCAL else whole.rindex(name) - 46) + offset
            whole[at : at + len(data)] = data
        (folder / "a.zip").write_bytes(whole)
        return folder / "a.zip", Path(ONE).name

    return make


def raw(change):
    """A zip whose bytes are passed through `change`."""

    def make(folder):
        (folder / "photos.zip").write_bytes(change(zipped(method=zipfile.ZIP_STORED)))
        return folder / "photos.zip", "photos.zip"

    return make


def missing(folder):
    return folder / "nowhere.zip", "nowhere.zip"


def no_name(folder):
    """An entry with an empty name, which no tool writes."""
    whole = zipped(more=[("A", b"x")])
    at = whole.rindex(CENTRAL)
    record = bytearray(whole[at : at + 46])
    record[28:30] = b"\0\0"
    end = bytearray(whole[whole.rindex(END) :])
    end[12:16] = struct.pack("<I", struct.unpack("<I", end[12:16])[0] - 1)
    (folder / "a.zip").write_bytes(whole[:at] + record + end)
    return folder / "a.zip", "a.zip"


def broken(method):
    """A zip of this method with changed bytes in the middle of its largest entry."""

    def make(folder):
        data = bytes(n * n % 251 for n in range(20_000))
        whole = bytearray(zipped({**FILES, ONE: data}, method=method))
        sizes = zipfile.ZipFile(io.BytesIO(whole)).getinfo("Dataset/" + ONE)
        start = sizes.header_offset + 30 + len("Dataset/" + ONE)
        for at in range(start + sizes.compress_size // 3, start + sizes.compress_size // 3 + 40):
            whole[at] ^= 0x5A
        (folder / "a.zip").write_bytes(whole)
        return folder / "a.zip", "Tiger (1024).jpeg"

    return make


def lying(folder):
    """An entry of 3 MB that declares 10 bytes."""
    whole = bytearray(zipped({**FILES, ONE: bytes(3_000_000)}))
    at = whole.rindex(b"Dataset/" + ONE.encode()) - 46
    whole[at + 24 : at + 28] = struct.pack("<I", 10)
    (folder / "a.zip").write_bytes(whole)
    return folder / "a.zip", "Tiger (1024).jpeg"


def too_much(folder):
    """Entries that are small enough each and declare more than ARCHIVE_LIMIT together."""
    count = ARCHIVE_LIMIT // FILE_LIMIT + 1
    whole = bytearray(zipped({f"Testing_Data/{n}.jpeg": b"x" for n in range(count)} | FILES))
    at = whole.index(CENTRAL)
    for _ in range(count):
        whole[at + 24 : at + 28] = struct.pack("<I", FILE_LIMIT)
        at = whole.find(CENTRAL, at + 4)
    (folder / "a.zip").write_bytes(whole)
    return folder / "a.zip", "a.zip"


def bomb(folder):
    (folder / "a.zip").write_bytes(zipped(more=[("Dataset/Testing_Data/bomb.jpeg", bytes(FILE_LIMIT + 1))]))
    return folder / "a.zip", "bomb.jpeg"


def without(part):
    def make(folder):
        (folder / "a.zip").write_bytes(zipped({name: data for name, data in FILES.items() if part not in name}))
        return folder / "a.zip", part

    return make


def twice(name):
    def make(folder):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile warns of the duplicate it writes
            (folder / "a.zip").write_bytes(zipped(more=[(name, b"again")]))
        return folder / "a.zip", Path(name).name

    return make


def linked(target_is_folder):
    def make(folder):
        outside = laid_out(folder / "outside", {"secret/x.jpeg": b"secret"})
        root = laid_out(folder / "unpacked")
        link = root / "Testing_Data" / ("more" if target_is_folder else "link.jpeg")
        link.symlink_to(outside / "secret" if target_is_folder else outside / "secret" / "x.jpeg")
        return root, link.name

    return make


def empty_folder(folder):
    (folder / "nothing").mkdir()
    return folder / "nothing", "nothing"


BAD = {
    "no such archive": missing,
    "an empty file": raw(lambda whole: b""),
    "no zip": raw(lambda whole: b"<html>Sign in to Kaggle</html>" * 99),
    "cut in half": raw(lambda whole: whole[: len(whole) // 2]),
    "cut by a byte": raw(lambda whole: whole[:-1]),
    "its first bytes gone": raw(lambda whole: whole[100:]),
    "bytes gone from its middle": raw(lambda whole: whole[:500] + whole[700:]),
    "an empty zip": lambda folder: (raw(lambda whole: zipped({}))(folder)[0], "Training_Data"),
    "another checksum": patched((CENTRAL, 16, b"\1\2\3\4")),
    "a byte changed": broken(zipfile.ZIP_STORED),
    "broken deflate data": broken(zipfile.ZIP_DEFLATED),
    "broken bzip2 data": broken(zipfile.ZIP_BZIP2),
    "broken lzma data": broken(zipfile.ZIP_LZMA),
    "an unknown method": patched((CENTRAL, 10, b"\x61\0")),
    "two names for one entry": patched((LOCAL, 30 + len("Dataset/Testing_Data/"), b"Lion!")),
    "a name that is no text": patched((LOCAL, 6, b"\0\x08"), (LOCAL, 30, b"\xff")),
    "up and out": with_entry("../evil.jpeg"),
    "up and out, deeper": with_entry("Dataset/Testing_Data/../../../evil.jpeg"),
    "up and in again": with_entry("Dataset/Testing_Data/../Testing_Data/evil.jpeg"),
    "an absolute path": with_entry("/Testing_Data/evil.jpeg"),
    "backslashes up and out": with_entry("..\\..\\Testing_Data\\evil.jpeg"),
    "a drive": with_entry("C:/Testing_Data/evil.jpeg"),
    "a drive's folder": with_entry("c:Dataset/Testing_Data/evil.jpeg"),
    "a drive, backslashes": with_entry("C:\\Testing_Data\\evil.jpeg"),
    "a link": with_entry("Dataset/Testing_Data/evil.jpeg", b"../../x", external_attr=(stat.S_IFLNK | 0o777) << 16),
    "a name too long": with_entry("Dataset/Testing_Data/" + "n" * 300 + ".jpeg", culprit="nnnn"),
    "a class too long": with_entry("Dataset/Training_Data/" + "k" * 300 + "/Masked_Train/x.jpeg", culprit="kkkk"),
    "an entry twice": twice(f"Dataset/{ONE}"),
    "an entry under two roots": twice(f"Other/{ONE}"),
    "an entry twice but for the case": twice("Dataset/testing_data/Tiger (1024).jpeg"),
    "an entry twice but for the path": twice("Dataset/Testing_Data/./Tiger (1024).jpeg"),
    "two tables of one class": twice("Dataset/Training_Data/Cat/masked_info.csv"),
    "encrypted": patched((CENTRAL, 8, b"\1\0")),
    "a huge file declared": patched((CENTRAL, 24, struct.pack("<I", 2**32 - 2))),
    "a file declared a byte too large": patched((CENTRAL, 24, struct.pack("<I", FILE_LIMIT + 1))),
    "a huge file": bomb,
    "too much together": too_much,
    "more than it declares": lying,
    "no Training_Data": without("Training_Data"),
    "no Testing_Data": without("Testing_Data"),
    "a folder with a link": linked(False),
    "a folder with a link to a folder": linked(True),
    "an empty folder": empty_folder,
}
# Found when the entry is read; all other faults are found before the first byte is written.
WHILE_READING = {
    "another checksum",
    "a byte changed",
    "broken deflate data",
    "broken bzip2 data",
    "broken lzma data",
    "two names for one entry",
    "a name that is no text",
    "more than it declares",
    "its first bytes gone",
    "bytes gone from its middle",
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_archive_is_refused_by_name(tmp_path, fault):
    (tmp_path / "source").mkdir()
    archive, culprit = BAD[fault](tmp_path / "source")
    before = tree(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(BadInput) as refusal:
        unpack(archive, contents(archive), out)
    assert culprit in str(refusal.value) and "\n" not in str(refusal.value)
    after = {name: data for name, data in tree(tmp_path).items() if not name.startswith("out/")}
    assert after == before
    if fault not in WHILE_READING:
        assert list(out.iterdir()) == []


def test_an_entry_writes_no_more_than_it_declares(tmp_path):
    archive, _ = lying(tmp_path)
    (tmp_path / "out").mkdir()
    with pytest.raises(BadInput):
        unpack(archive, contents(archive), tmp_path / "out")
    assert sum(p.stat().st_size for p in (tmp_path / "out").rglob("*") if p.is_file()) < 10_000


def inside(name):
    """A zip with another file in it."""
    return lambda folder: laid_out(folder, {"a.zip": zipped({name: zipped()}, "")}) / "a.zip"


def only(data, name="photos.zip"):
    return lambda folder: laid_out(folder, {name: data}) / name


def listing(*names):
    """A folder with files of these names, each a zip of the competition."""
    return lambda folder: laid_out(folder, dict.fromkeys(names, zipped()))


def device(folder):
    os.mkfifo(folder / "a.zip")
    return folder / "a.zip"


SEVEN_ZIP = "; unpack the zip with 7-Zip and name the unpacked folder"
MESSAGES = {
    "AES": (patched((CENTRAL, 10, b"\x63\0")), f"Tiger (1024).jpeg is encrypted{SEVEN_ZIP}"),
    "encrypted": (patched((CENTRAL, 8, b"\1\0")), f"Tiger (1024).jpeg is encrypted{SEVEN_ZIP}"),
    "Deflate64": (patched((CENTRAL, 10, b"\x09\0")), f"compressed with Deflate64, which Python cannot read{SEVEN_ZIP}"),
    "method 97": (patched((CENTRAL, 10, b"\x61\0")), f"compressed with method 97, which Python cannot read{SEVEN_ZIP}"),
    "last of a split": (
        patched((CENTRAL, 34, b"\1\0")),
        f"Tiger (1024).jpeg is in another file of a split zip{SEVEN_ZIP}",
    ),
    "first of a split": (only(b"PK\7\x08" + zipped()[:99]), f"photos.zip is one file of a split zip{SEVEN_ZIP}"),
    "part of a split": (only(b"\1\2\3", "a.z02"), f"a.z02 is one file of a split zip{SEVEN_ZIP}"),
    "tar.gz": (only(b"\x1f\x8b\x08"), "photos.zip is a gzip file (.tar.gz); unpack it and name the unpacked folder"),
    "tar": (only(b"a" * 257 + b"ustar"), "photos.zip is a tar file; unpack it and name the unpacked folder"),
    "7z": (only(b"7z\xbc\xaf\x27\x1c"), "photos.zip is a 7-Zip archive; unpack it and name the unpacked folder"),
    "empty": (only(b""), "photos.zip is empty; get it again"),
    "a web page": (only(b"\n<!doctype html>"), "photos.zip is a web page; sign in to Kaggle and download it again"),
    "JSON": (only(b'{"code": 401}'), "photos.zip is a JSON message; sign in to Kaggle and download it again"),
    "Git LFS": (only(b"version https://git-lfs.github.com/spec/v1"), "is a Git LFS pointer; run `git lfs pull`"),
    "cut off": (only(zipped()[:-1]), "photos.zip is a zip that is cut off or damaged; get it again"),
    "text": (only(b"hello"), "photos.zip is not a zip (it starts with b'hello'); name the competition's zip or its"),
    "a pipe": (device, "a.zip is neither a file nor a folder; name the competition's zip or its unpacked folder"),
    "a zip in a zip": (inside("b.zip"), "no folder Training_Data in it but b.zip; unpack it and name the zip inside"),
    "another zip": (inside("b/c.txt"), "a.zip: no folder Training_Data in it (it has b); expected the competition's"),
    "two zips": (listing("a.zip", "a (1).zip", "._a.zip"), " has 2 zips (a (1).zip, a.zip); name one of them"),
    "two zips down": (listing("a/b.zip", "c/d.ZIP"), " has 2 zips (a/b.zip, c/d.ZIP); name one of them"),
    "many zips": (listing(*(f"{n}.zip" for n in range(9))), "has 9 zips (0.zip, 1.zip, 2.zip, 3.zip, 4.zip, 4 more)"),
    "deep": (listing("a/b/c.zip"), " no folder Training_Data in it but a/b/c.zip; name the competition's zip"),
    "no zip": (
        listing("a.part", "\r"),
        " no folder Training_Data in it (it has '\\r', a.part); expected the competition's",
    ),
    "nothing": (listing(), " no folder Training_Data in it (it is empty); expected the competition's Dataset folder"),
    "no images": (
        lambda folder: laid_out(folder, {"Training_Data/Cat/x.jpeg": b"", "Testing_Data/x.jpeg": b""}),
        "the folder Training_Data in it has no image; expected Training_Data/<class>/Unmasked_Train/<image>",
    ),
    "two forms of a name": (
        only(zipped({normalize(form, "Testing_Data/\u00fc.png"): b"" for form in ("NFD", "NFC")}, "")),
        "has Testing_Data/\u00fc.png twice, as Testing_Data/u\u0308.png and Testing_Data/\u00fc.png; name an unpacked",
    ),
    "a backslash": (with_entry("..\\..\\x"), "the entry ..\\..\\x would be written outside its folder"),
    "a drive": (with_entry("C:\\x"), "the entry C:\\x would be written outside its folder"),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_a_message_says_what_was_found_and_what_to_do(tmp_path, case):
    make, message = MESSAGES[case]
    made = make(tmp_path)
    with pytest.raises(BadInput, match=re.escape(message)) as refusal:
        contents(made[0] if isinstance(made, tuple) else made)
    assert "\n" not in str(refusal.value)


def test_a_folder_that_is_not_readable_is_named():
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # every user can reach it, unlike tmp_path
        folder = laid_out(Path(name), prefix="Dataset/")
        folder.chmod(0o755)
        closed = folder / "Dataset" / "Testing_Data"
        closed.chmod(0)
        user = os.geteuid()
        try:
            if user == 0:  # root may read everything
                os.seteuid(65534)
            with pytest.raises(BadInput, match=f"^{closed}: Permission denied; your user"):
                contents(folder)
        finally:
            os.seteuid(user)
            closed.chmod(0o755)


@pytest.mark.parametrize("folder", ["Dataset/Training_Data/Empty/Unmasked_Train/", "Dataset\\Training_Data\\Empty\\"])
def test_an_empty_class_is_refused_by_name(tmp_path, folder):
    (tmp_path / "a.zip").write_bytes(zipped(more=[(folder, b"")]))
    with pytest.raises(BadInput, match="the class Empty is empty: Training_Data/Empty/Unmasked_Train has no image"):
        contents(tmp_path / "a.zip")


def test_a_message_is_one_line_whatever_a_name_holds(tmp_path):
    names = ["Dataset/Testing_Data/a\nb.jpeg", "Other/Testing_Data/a\nb.jpeg"]
    (tmp_path / "a.zip").write_bytes(zipped(more=[(name, b"x") for name in names]))
    with pytest.raises(BadInput, match="cannot be the name") as refusal:
        contents(tmp_path / "a.zip")
    assert "\n" not in str(refusal.value)


@pytest.fixture
def bad(tmp_path, params_file):
    """`bad(fault)` makes that archive, and tmp_path/work to fetch it in; returns what the message must name."""
    source, work = tmp_path / "source", tmp_path / "work"
    source.mkdir()
    work.mkdir()

    def make(fault):
        archive, culprit = BAD[fault](source)
        params_file(work, **{"fetch.source": "archive", "fetch.archive": str(archive)})
        return culprit

    return make


@pytest.mark.parametrize("fault", BAD)
def test_fetch_leaves_nothing_of_a_bad_archive(tmp_path, monkeypatch, capsys, bad, fault):
    culprit = bad(fault)
    before = tree(tmp_path)
    monkeypatch.chdir(tmp_path / "work")
    with pytest.raises(SystemExit) as end:
        run("fetch", fetch.main)
    message = end.value.code  # Python prints it on stderr and exits with 1
    assert message.startswith("fetch: ") and culprit in message and "\n" not in message
    assert capsys.readouterr() == ("", "")
    assert tree(tmp_path) == before
    assert not Path("data").exists() or list(Path("data").iterdir()) == []


def test_fetch_keeps_what_an_earlier_fetch_made(tmp_path, run_stage, params_file, demo_competition):
    params_file(tmp_path, **{"fetch.source": "archive", "fetch.archive": str(demo_competition.raw)})
    assert run_stage("fetch", tmp_path).returncode == 0
    before = tree(tmp_path / "data")
    assert len(before) == 1 + len(tree(demo_competition.raw))
    archive, _ = broken(zipfile.ZIP_DEFLATED)(tmp_path)
    params_file(tmp_path, **{"fetch.source": "archive", "fetch.archive": str(archive)})
    done = run_stage("fetch", tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
    assert done.stderr.startswith("fetch: ") and "Tiger (1024).jpeg" in done.stderr
    assert tree(tmp_path / "data") == before


def test_fetch_says_how_many_there_are(tmp_path, run_stage, params_file, demo_competition):
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "photos.zip").write_bytes(zipped(tree(demo_competition.raw)))
    params_file(tmp_path, **{"fetch.source": "archive", "fetch.archive": "archive"})
    done = run_stage("fetch", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "24 training pairs and 9 test images (the competition has 7000 and 200)" in done.stderr
    assert tree(tmp_path / "data" / "raw") == tree(demo_competition.raw)
    assert list((tmp_path / "data" / "truth").iterdir()) == []
    assert {p.name for p in (tmp_path / "data").iterdir()} == {"raw", "truth", "index.csv"}


def test_fetch_without_an_account_says_how_to_set_one_up(tmp_path, run_stage, params_file):
    params_file(tmp_path, **{"fetch.source": "kaggle"})
    home = tmp_path / "home"
    home.mkdir()
    nobody = {"HOME": str(home), "XDG_CONFIG_HOME": str(home)}
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "https_proxy"), "http://127.0.0.1:9")
    done = run_stage("fetch", tmp_path, {**nobody, **nowhere})
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert "no Kaggle account is set up" in done.stderr
    assert "https://www.kaggle.com/settings" in done.stderr and "KAGGLE_USERNAME" in done.stderr
    assert tree(tmp_path / "data") == {} and not (tmp_path / "data" / "raw").exists()


# Random archives


def check_sandbox(archive_bytes):
    """Unpack in a temporary folder: only BadInput may be raised, and all files must be in a folder of data/raw."""
    with tempfile.TemporaryDirectory() as root:
        root = Path(root)
        out = root / "inside" / "out"
        out.mkdir(parents=True)
        archive = root / "inside" / "a.zip"
        archive.write_bytes(archive_bytes)
        try:
            unpack(archive, contents(archive), out)
        except BadInput as refusal:
            assert "\n" not in str(refusal)
        found = [p for p in root.rglob("*") if not p.is_dir() and p != archive]
        assert all(not p.is_symlink() and p.is_relative_to(out) for p in found)
        assert all(p.relative_to(out).parts[0] in ("Training_Data", "Testing_Data") for p in found)
        return found


PIECES = st.one_of(
    st.sampled_from(
        ["..", ".", "", " ", "~", "C:", "c:x", "Dataset", "__MACOSX", ".DS_Store", "Training_Data", "Testing_Data"]
        + ["Cat", "Masked_Train", "Unmasked_Train", "masked_info.csv", "Cat-Train (24).jpeg", "n" * 300, "ü" * 200]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)
NAMES = st.builds(
    lambda start, pieces, separator: start + separator.join(pieces),
    st.sampled_from(["", "", "", "/", "//", "\\", "\\\\?\\", "../", "Dataset/", "Testing_Data/"]),
    st.lists(PIECES, min_size=1, max_size=6),
    st.sampled_from(["/", "/", "/", "//", "\\", "/../"]),
).filter(lambda name: name.split("\0")[0])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(NAMES, min_size=1, max_size=4, unique=True), st.booleans())
@example(["Testing_Data/" + "n" * 300], True)
@example(["C:/Testing_Data/x.jpeg", "C:\\Testing_Data\\x.jpeg"], True)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_no_name_leads_outside_the_folder(names, whole):
    check_sandbox(zipped(FILES if whole else {}, more=[(name, b"evil") for name in names]))


CHANGES = st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=4)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(CHANGES, st.integers(0, 40), st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA]))
def test_changed_bytes_raise_only_bad_input(changes, cut, method):
    whole = bytearray(zipped({name: data[:20] for name, data in FILES.items()}, "", method=method))
    for at, value in changes:
        whole[at % len(whole)] = value
    check_sandbox(bytes(whole[: len(whole) - (cut if cut < 20 else 0)]))


def test_the_sandbox_accepts_a_good_archive():
    assert len(check_sandbox(zipped())) == len(FILES)
