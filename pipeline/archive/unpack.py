"""The competition's archive, a zip or an unpacked folder, into data/raw: one layout whatever the source.

    Training_Data/<class>/Unmasked_Train/<file>     photographs
    Training_Data/<class>/Masked_Train/<file>       the same with two black boxes
    Training_Data/<class>/Masked_Train/masked_info.csv
    Testing_Data/<file>, Testing_Data/masked_info.csv

Folders above Training_Data and a masked_info.csv one level up are accepted; files such as .DS_Store are ignored. An
entry that would be written outside the folder or fill the disk is refused before the first byte is written.
"""

import hashlib
import re
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from pipeline.base.errors import BadInput, Damaged, reading_zip
from pipeline.base.progress import progress
from pipeline.competition.index import TABLE

FILE_LIMIT = 64 * 2**20  # bytes; the largest photograph has 100 kB, the largest csv 250 kB
ARCHIVE_LIMIT = 8 * 2**30  # bytes unpacked; the real archive has 300 MB
NAME_LIMIT = 200  # bytes of a path in the archive; leaves room for the folder it is written to

# A file of the archive: its size in bytes, and a call that opens it for reading.
Source = tuple[int, Callable[[], IO[bytes]]]


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

    The archive is a zip, a folder with one zip in it, or an unpacked folder. Raises BadInput if it is missing,
    incomplete or unsafe.
    """
    if archive.is_dir() and len(zips := sorted(archive.glob("*.zip"))) == 1:
        archive = zips[0]
    if archive.is_dir():
        listing = list(folder_entries(archive))
    elif archive.exists():
        listing = list(zip_entries(archive))
    else:
        raise BadInput(f"{archive}: no such archive; set fetch.archive to the competition's zip or its unpacked folder")

    files: dict[PurePosixPath, Source] = {}
    classes = set()
    for path, source in listing:
        classes |= class_of(path, is_folder=source is None)
        place = place_of(path)
        if place is None or source is None:
            continue
        if place in files:
            raise BadInput(f"{archive}: {place} is in it twice")
        if source[0] > FILE_LIMIT:
            raise BadInput(f"{archive}: {path} has {source[0]:,} bytes, more than any of the competition's files")
        files[place] = source
    if sum(size for size, _ in files.values()) > ARCHIVE_LIMIT:
        raise BadInput(
            f"{archive} unpacks to more than {ARCHIVE_LIMIT // 2**30} GiB; this is not the competition's archive"
        )
    for part in ("Training_Data", "Testing_Data"):
        if not any(place.parts[0] == part for place in files):
            raise BadInput(f"{archive}: no folder {part} in it; expected the competition's Dataset folder or its zip")
    if empty := sorted(classes - {place.parts[1] for place in files if place.parts[2:3] == ("Unmasked_Train",)}):
        raise BadInput(
            f"{archive}: the class {empty[0]} is empty: Training_Data/{empty[0]}/Unmasked_Train has no image"
        )
    return files


def class_of(path: PurePosixPath, is_folder: bool) -> set[str]:
    """The class whose folder a path is or lies in, if any: {'Cat'} for Dataset/Training_Data/Cat."""
    parts = path.parts if is_folder else path.parts[:-1]
    if any(part.startswith(".") or part == "__MACOSX" for part in parts) or "Training_Data" not in parts:
        return set()
    return set(parts[parts.index("Training_Data") + 1 :][:1])


def place_of(path: PurePosixPath) -> PurePosixPath | None:
    """A file's path in data/raw; None if it is not part of the competition."""
    parts = path.parts
    if any(part.startswith(".") or part == "__MACOSX" for part in parts):
        return None
    top = next((i for i, part in enumerate(parts) if part in ("Training_Data", "Testing_Data")), None)
    match parts[top:] if top is not None else ():
        case "Testing_Data", name:
            return PurePosixPath("Testing_Data", name)
        case "Training_Data", class_name, "Unmasked_Train" | "Masked_Train" as half, name:
            return PurePosixPath("Training_Data", class_name, half, name)
        case "Training_Data", class_name, name if name == TABLE:
            return PurePosixPath("Training_Data", class_name, "Masked_Train", name)
    return None


def folder_entries(folder: Path) -> Iterator[tuple[PurePosixPath, Source | None]]:
    """All files below a folder, and its folders with None. Raises BadInput for a link, which may lead anywhere."""
    for path in sorted(folder.rglob("*")):
        relative = PurePosixPath(path.relative_to(folder).as_posix())
        if path.is_symlink():
            raise BadInput(f"{folder}: {relative} is a link; put the file itself there")
        yield relative, (path.stat().st_size, lambda path=path: path.open("rb")) if path.is_file() else None


def zip_entries(path: Path) -> Iterator[tuple[PurePosixPath, Source | None]]:
    """All files in a zip, and its folders with None. Raises BadInput if the zip is damaged or a name is unsafe."""
    try:
        with reading_zip():
            archive = zipfile.ZipFile(path)
    except Damaged as error:
        raise BadInput(f"{path} is not a complete zip file ({error}); get it again") from None
    for entry in archive.infolist():
        name = entry.filename
        inside = PurePosixPath(name)
        if not name or not name.isprintable() or len(name.encode("utf-8", "replace")) > NAME_LIMIT:
            raise BadInput(f"{path}: {name[:80]!r} cannot be the name of a file; this is not the competition's zip")
        if inside.is_absolute() or ".." in inside.parts or "\\" in name or re.match("[A-Za-z]:", name):
            raise BadInput(
                f"{path}: the entry {name!r} would be written outside its folder; this is not the competition's zip"
            )
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise BadInput(f"{path}: the entry {name!r} is a link; this is not the competition's zip")
        if entry.flag_bits & 0x1:
            raise BadInput(f"{path}: the entry {name!r} is encrypted; this is not the competition's zip")
        yield inside, None if entry.is_dir() else (entry.file_size, lambda entry=entry: archive.open(entry))
