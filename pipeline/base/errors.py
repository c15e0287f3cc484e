"""The exceptions that are not the program's fault: bad input, damaged files, and what the machine refuses."""

import errno
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

# Errors of the machine, such as a full disk.
MACHINE_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO}


class BadInput(Exception):
    """The user's input cannot be used. The message says what is wrong, where, and what to do."""


class Damaged(Exception):
    """A file's bytes are not those that were written."""


# What zipfile and its decompressors raise on damaged bytes; tests/base/test_errors.py tries them. ValueError and
# OSError: offsets before the file's start, bzip2. RuntimeError: flags. MemoryError: lzma headers that ask for too much.
DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, MemoryError, OSError, RuntimeError, ValueError)


@contextmanager
def reading_zip() -> Iterator[None]:
    """Run calls of zipfile. Raises Damaged where they meet damaged bytes; all other errors pass through."""
    try:
        yield
    except DAMAGE as error:
        # Damaged offsets give EINVAL and damaged bzip2 data no errno; any other number comes from the machine.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise Damaged(str(error) or type(error).__name__) from error
