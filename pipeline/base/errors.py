"""The one exception that means: the input is at fault, not the program; and how damaged files show."""

import lzma
import struct
import zipfile
import zlib


class BadInput(Exception):
    """Something the user gave cannot be used. The message says what, where, and what to do about it."""


# What zipfile, numpy and the decoders below them raise for bytes that are missing or wrong, wherever they are.
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
