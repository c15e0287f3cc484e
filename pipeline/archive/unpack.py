"""The competition's archive, a zip or an unpacked folder, into data/raw: one layout whatever the source.

    Training_Data/<class>/Unmasked_Train/<image>    photographs
    Training_Data/<class>/Masked_Train/<image>      the same with two black boxes
    Training_Data/<class>/Masked_Train/masked_info.csv
    Testing_Data/<image>, Testing_Data/masked_info.csv

Folders above these, their names in another case, backslashes as separators and a masked_info.csv one level up are
accepted; other files, such as .DS_Store, are ignored. Names in data/raw have the Unicode form NFC. An entry that would
be written outside the folder or fill the disk is refused before the first byte is written.
"""

import hashlib
import os
import re
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, NoReturn
from unicodedata import normalize

from pipeline.base.errors import BadInput, Damaged, reading_zip
from pipeline.base.progress import progress
from pipeline.competition.images import SUFFIXES
from pipeline.competition.index import TABLE

FILE_LIMIT = 64 * 2**20  # bytes; the largest photograph has 100 kB, the largest csv 250 kB
ARCHIVE_LIMIT = 8 * 2**30  # bytes unpacked; the real archive has 300 MB
NAME_LIMIT = 200  # bytes of a path in data/raw; leaves room for the folder it is written to
LISTED = 5  # names in a message

PARTS = {
    "Training_Data": "Training_Data/<class>/Unmasked_Train/<image>",
    "Testing_Data": "Testing_Data/<image>",
}
NAMES = {name.lower(): name for name in (*PARTS, "Unmasked_Train", "Masked_Train", TABLE)}

READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
OTHER_METHODS = {9: "Deflate64", 93: "Zstandard", 95: "xz", 98: "PPMd"}
AES = 99  # in place of the compression method
ENCRYPTED = 0x1  # a flag of an entry
UTF8 = 0x800  # a flag of an entry

UNPACK = "unpack it and name the unpacked folder"
SEVEN_ZIP = "unpack the zip with 7-Zip and name the unpacked folder"
SIGN_IN = "sign in to Kaggle and download it again"
# A file's first bytes, what it is, and what to do if it is taken for the zip.
FORMATS = (
    (rb"\s*$", "empty", "get it again"),
    (rb"\s*<", "a web page", SIGN_IN),
    (rb"\s*\{", "a JSON message", SIGN_IN),
    (rb"version https://git-lfs", "a Git LFS pointer", "run `git lfs pull` in its repository"),
    (rb"\x1f\x8b", "a gzip file (.tar.gz)", UNPACK),
    (rb"BZh", "a bzip2 file (.tar.bz2)", UNPACK),
    (rb"\xfd7zXZ", "an xz file (.tar.xz)", UNPACK),
    (rb".{257}ustar", "a tar file", UNPACK),
    (rb"7z\xbc\xaf", "a 7-Zip archive", UNPACK),
    (rb"Rar!", "a RAR archive", UNPACK),
    (rb"PK\x07\x08", "one file of a split zip", SEVEN_ZIP),
    (rb"PK", "a zip that is cut off or damaged", "get it again"),
)

# A file of the archive: its size in bytes, and a call that opens it for reading.
Source = tuple[int, Callable[[], IO[bytes]]]


class Entry(NamedTuple):
    """A file or, without source, a folder of an archive. `fault` says why it cannot be used and what to do."""

    path: PurePosixPath
    source: Source | None
    fault: str = ""


def unpack(archive: Path, files: dict[PurePosixPath, Source], folder: Path) -> str:
    """Copy `files`, the contents of `archive`, into the empty `folder`, showing progress; their checksum.

    Raises BadInput naming the archive and the entry if an entry is damaged.
    """
    digests = {}
    for path, data in read_files(archive, files, "unpack"):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        digests[path] = hashlib.sha256(data).hexdigest()
    return combine(digests)


def checksum(archive: Path, files: dict[PurePosixPath, Source]) -> str:
    """The checksum of an archive's contents: the same for a zip and for its unpacked folder. Raises as unpack does."""
    return combine({path: hashlib.sha256(data).hexdigest() for path, data in read_files(archive, files, "read")})


def combine(digests: dict[PurePosixPath, str]) -> str:
    """sha256 over the files' paths and their sha256, in hexadecimal."""
    lines = sorted(f"{path}\0{digest}\n" for path, digest in digests.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_files(archive: Path, files: dict[PurePosixPath, Source], what: str) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Each file's path and bytes, showing progress labelled `what`. Raises BadInput if an entry is damaged."""
    for path, (_, opener) in progress(files.items(), what, len(files), "file"):
        try:
            with reading_zip(), opener() as source:
                data = source.read()
        except Damaged as error:
            raise BadInput(f"{archive}: {path} cannot be unpacked ({error}); get the archive again") from None
        yield path, data


def contents(archive: Path) -> dict[PurePosixPath, Source]:
    """The competition's files in an archive, by their path in data/raw.

    The archive is a zip, an unpacked folder, or a folder with one zip in it or one folder down. Raises BadInput if it
    is missing, incomplete or unsafe.
    """
    try:
        archive, entries = open_archive(archive)
    except PermissionError as error:
        who = "your user (on macOS the terminal app)"
        raise BadInput(f"{error.filename}: {error.strerror}; {who} needs access to it") from None
    files: dict[PurePosixPath, Source] = {}
    origins: dict[PurePosixPath, PurePosixPath] = {}
    for path, source, fault in entries:
        place = place_of(path)
        if place is None or source is None:
            continue
        if fault := fault or fault_of(place, source):
            raise BadInput(f"{archive}: {shown(path)} {fault}")
        if place in files:
            both = f"{shown(origins[place])} and {shown(path)}"
            raise BadInput(f"{archive} has {place} twice, as {both}; name an unpacked folder that has it once")
        files[place], origins[place] = source, path
    if sum(size for size, _ in files.values()) > ARCHIVE_LIMIT:
        raise BadInput(
            f"{archive} unpacks to more than {ARCHIVE_LIMIT // 2**30} GiB; this is not the competition's archive"
        )
    check_complete(archive, entries, files)
    return files


def fault_of(place: PurePosixPath, source: Source) -> str:
    """Why a file cannot be written to data/raw; "" if it can."""
    if not str(place).isprintable() or len(str(place).encode()) > NAME_LIMIT:
        return f"cannot be the name of a file: expected printable characters and at most {NAME_LIMIT} bytes"
    if source[0] > FILE_LIMIT:
        return f"has {source[0]:,} bytes, more than any of the competition's files"
    return ""


def check_complete(archive: Path, entries: list[Entry], files: Iterable[PurePosixPath]) -> None:
    """Raise BadInput, saying what was found, if an archive lacks training images, test images or those of a class."""
    for part, layout in PARTS.items():
        if any(place.parts[0] == part for place in files):
            continue
        if any(part in canonical(entry.path) for entry in entries):
            raise BadInput(f"{archive}: the folder {part} in it has no image; expected {layout}")
        if inner := [entry.path for entry in entries if entry.source and is_zip(entry.path)]:
            remedy = "name the competition's zip" if archive.is_dir() else "unpack it and name the zip inside"
            raise BadInput(f"{archive}: no folder {part} in it but {listed(inner)}; {remedy}")
        top = sorted({PurePosixPath(entry.path.parts[0]) for entry in entries if entry.path.parts})
        found = f"it has {listed(top)}" if top else "it is empty"
        raise BadInput(
            f"{archive}: no folder {part} in it ({found}); expected the competition's Dataset folder or its zip"
        )
    classes = {name for entry in entries for name in class_of(entry.path, is_folder=entry.source is None)}
    if empty := sorted(classes - {place.parts[1] for place in files if place.parts[2:3] == ("Unmasked_Train",)}):
        folder = shown(f"Training_Data/{empty[0]}/Unmasked_Train")
        raise BadInput(f"{archive}: the class {shown(empty[0])} is empty: {folder} has no image")


def shown(path: PurePosixPath | str) -> str:
    """A name as a message shows it: on one line, whatever it holds, and not too long."""
    text = str(path)
    return text if text.isprintable() and len(text) <= NAME_LIMIT else repr(text[:80])


def listed(paths: list[PurePosixPath]) -> str:
    """The first names of a list, and how many more there are."""
    more = [f"{len(paths) - LISTED} more"] if len(paths) > LISTED else []
    return ", ".join([shown(path) for path in paths[:LISTED]] + more)


def canonical(path: PurePosixPath) -> list[str]:
    """The names in a path: the competition's own in its case, all others in Unicode form NFC."""
    return [NAMES.get(name.lower(), normalize("NFC", name)) for name in path.parts]


def is_junk(names: Iterable[str]) -> bool:
    """Whether a path is hidden or lies in a hidden folder, or in the one that Finder adds to a zip."""
    return any(name.startswith(".") or name == "__MACOSX" for name in names)


def class_of(path: PurePosixPath, is_folder: bool) -> set[str]:
    """The class whose folder a path is or lies in, if any: {'Cat'} for Dataset/Training_Data/Cat."""
    names = canonical(path if is_folder else path.parent)
    if is_junk(names) or "Training_Data" not in names:
        return set()
    return set(names[names.index("Training_Data") + 1 :][:1])


def place_of(path: PurePosixPath) -> PurePosixPath | None:
    """A file's path in data/raw; None if it is not part of the competition."""
    names = canonical(path)
    if is_junk(names) or not (names[-1:] == [TABLE] or path.suffix.lower() in SUFFIXES):
        return None
    match names:
        case [*_, "Testing_Data", name]:
            return PurePosixPath("Testing_Data", name)
        case [*_, "Training_Data", class_name, "Unmasked_Train" | "Masked_Train" as half, name]:
            return PurePosixPath("Training_Data", class_name, half, name)
        case [*_, "Training_Data", class_name, name] if name == TABLE:
            return PurePosixPath("Training_Data", class_name, "Masked_Train", name)
    return None


def is_zip(path: Path | PurePosixPath) -> bool:
    """Whether a path has the name of a zip; `._a.zip` is what macOS writes beside a.zip."""
    return path.suffix.lower() == ".zip" and not path.name.startswith(".")


def open_archive(path: Path) -> tuple[Path, list[Entry]]:
    """The zip or the unpacked folder that a path stands for, and its entries.

    Raises BadInput if the path is missing, damaged or a folder with several zips, PermissionError if it is unreadable.
    """
    if not path.exists():
        raise BadInput(f"{path}: no such archive; set fetch.archive to the competition's zip or its unpacked folder")
    if not path.is_dir():
        return path, list(zip_entries(path))
    children = sorted(path.iterdir())
    zips = [child for child in children if is_zip(child) and child.is_file()]
    if len(zips) == 1 and not any(child.name.lower() == "training_data" for child in children):
        return zips[0], list(zip_entries(zips[0]))
    entries = list(folder_entries(path))
    if not any(place_of(entry.path) for entry in entries):
        down = [entry.path for entry in entries if entry.source and is_zip(entry.path) and len(entry.path.parts) == 2]
        zips = zips or [path / place for place in down]
        if len(zips) == 1:
            return zips[0], list(zip_entries(zips[0]))
        if zips:
            names = listed([PurePosixPath(found.relative_to(path)) for found in zips])
            raise BadInput(f"{path} has {len(zips)} zips ({names}); name one of them")
    return path, entries


def folder_entries(folder: Path) -> Iterator[Entry]:
    """All files and folders below a folder, in order.

    Raises BadInput for a link in the competition's folders, which may lead anywhere, and PermissionError for a folder
    that is not readable.
    """

    def refuse(error: OSError) -> NoReturn:
        raise error  # os.walk would leave the folder out

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders.sort()
        for path in sorted(Path(parent, name) for name in [*folders, *names]):
            inside = posix_path(path.relative_to(folder).as_posix())
            above = canonical(inside)
            if path.is_symlink() and set(PARTS) & set(above) and not is_junk(above):
                raise BadInput(f"{folder}: {shown(inside)} is a link; put the file itself there")
            yield Entry(inside, (path.stat().st_size, lambda path=path: path.open("rb")) if path.is_file() else None)


def zip_entries(path: Path) -> Iterator[Entry]:
    """All files and folders in a zip. Raises BadInput if it is no zip, if it is damaged, or if a name is unsafe."""
    if not path.is_file():
        raise BadInput(f"{path} is neither a file nor a folder; name the competition's zip or its unpacked folder")
    try:
        with reading_zip():
            archive = zipfile.ZipFile(path)
    except Damaged:
        raise BadInput(f"{path} is {explain(path)}") from None
    for entry in archive.infolist():
        name = name_of(entry)
        inside = posix_path(name)
        drive = len(inside.parts) > 1 and re.match("[A-Za-z]:", name)
        if inside.is_absolute() or ".." in inside.parts or drive:
            raise BadInput(
                f"{path}: the entry {shown(name)} would be written outside its folder; this is not the "
                "competition's zip"
            )
        is_folder = name.endswith(("/", "\\"))
        source = None if is_folder else (entry.file_size, lambda entry=entry: archive.open(entry))
        yield Entry(inside, source, fault_of_entry(entry))


def name_of(entry: zipfile.ZipInfo) -> str:
    """An entry's name. Finder writes UTF-8 without the flag for it, and zipfile then reads it as code page 437."""
    if not entry.flag_bits & UTF8:
        with suppress(UnicodeError):
            return entry.filename.encode("cp437").decode()
    return entry.filename


def posix_path(name: str) -> PurePosixPath:
    """A path from a name in which .NET or an old PowerShell may have written backslashes."""
    return PurePosixPath(name.replace("\\", "/"))


def fault_of_entry(entry: zipfile.ZipInfo) -> str:
    """Why an entry of a zip cannot be read, and what to do; "" if it can."""
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "is a link; this is not the competition's zip"
    if entry.flag_bits & ENCRYPTED or entry.compress_type == AES:
        return f"is encrypted; {SEVEN_ZIP}"
    if 0 < entry.volume < 0xFFFF:  # 0xFFFF: the number stands elsewhere, in large zips
        return f"is in another file of a split zip; {SEVEN_ZIP}"
    if entry.compress_type not in READABLE:
        method = OTHER_METHODS.get(entry.compress_type, f"method {entry.compress_type}")
        return f"is compressed with {method}, which Python cannot read; {SEVEN_ZIP}"
    return ""


def explain(path: Path) -> str:
    """What a file is that zipfile cannot open, and what to do."""
    with path.open("rb") as file:
        start = file.read(512)
    if re.search(r"\.(z\d\d|\d{3})$", path.name, re.IGNORECASE):
        return f"one file of a split zip; {SEVEN_ZIP}"
    if found := format_of(start):
        return "{}; {}".format(*found)
    return f"not a zip (it starts with {start[:8]!r}); name the competition's zip or its unpacked folder"


def format_of(data: bytes) -> tuple[str, str] | None:
    """What a file is by its first bytes, and what to do if it was to be the zip; None if it is none of FORMATS."""
    return next(((what, remedy) for start, what, remedy in FORMATS if re.match(start, data, re.DOTALL)), None)
