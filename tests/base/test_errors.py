"""What counts as damage to a zip: whatever zipfile raises when bytes are changed or cut, and nothing else."""

import errno
import zipfile

import numpy as np
import pytest

from pipeline.base.errors import Damaged, reading_zip

ENTRIES = {"a.txt": b"hello " * 12, "b/\u00e9.bin": bytes(range(64))}
METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


def write_zip(path, method):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in ENTRIES.items():
            archive.writestr(name, data)
    return path.read_bytes()


def read_zip(path):
    with reading_zip(), zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def damaged(path, variants):
    """How many of these files cannot be read. The others hold the entries' bytes, all or some, under any name."""
    count = 0
    for data in variants:
        path.write_bytes(data)
        try:
            assert set(read_zip(path).values()) <= set(ENTRIES.values())
        except Damaged as error:
            assert str(error)
            assert error.__cause__ is not None
            count += 1
    return count


@pytest.mark.parametrize("method", METHODS)
def test_a_zip_cut_anywhere_is_damaged(tmp_path, method):
    data = write_zip(tmp_path / "a.zip", method)
    assert damaged(tmp_path / "a.zip", (data[:size] for size in range(len(data)))) == len(data)


@pytest.mark.parametrize("method", METHODS)
def test_a_changed_byte_is_damage_or_changes_no_data(tmp_path, method):
    data = write_zip(tmp_path / "a.zip", method)
    flips = (1, 8, 64, 255)
    changed = (data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :] for at in range(len(data)) for flip in flips)
    assert damaged(tmp_path / "a.zip", changed) > len(data) * len(flips) / 3


@pytest.mark.parametrize("method", METHODS)
def test_many_changed_bytes_are_damage(tmp_path, method):
    data, rng = write_zip(tmp_path / "a.zip", method), np.random.default_rng(0)
    at = rng.integers(0, len(data) - 4, 500)
    changed = (data[:start] + rng.bytes(4) + data[start + 4 :] for start in at.tolist())
    assert damaged(tmp_path / "a.zip", changed) > 300


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EIO, "Input/output error"),
        FileNotFoundError(errno.ENOENT, "No such file or directory"),
        KeyError("There is no item named 'c' in the archive"),
        TypeError("a bug"),
        AttributeError("a bug"),
        KeyboardInterrupt(),
    ],
)
def test_faults_of_the_machine_and_of_the_program_pass_through(error):
    with pytest.raises(type(error)) as caught, reading_zip():
        raise error
    assert caught.value is error
