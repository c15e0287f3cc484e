"""stdout and stderr: a closed pipe or terminal is no error, any text can be printed, and an import can be quiet."""

import errno
import importlib.util
import io
import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TextIO

# A shell that prints its input when the input ends.
SHOW = 'text=$(cat) && printf "%s\\n" "$text" >&2'


class Lasting(io.FileIO):
    """A pipe or a terminal. Once it is closed, what is written is lost without an error, and the work goes on."""

    def write(self, data: bytes) -> int:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[super().write(rest) or 0 :]  # a terminal that is not ready takes nothing
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
        return len(data)


def fill_closed() -> None:
    """Open /dev/null for each of the descriptors 0 to 2 that is closed, or the next file opened would be stderr."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def open_streams() -> None:
    """Make a closed pipe or terminal no error on stdout and stderr. Print as escapes what their encoding lacks."""
    if sys.stdout is sys.__stdout__:
        sys.stdout = lasting(sys.stdout, 1)
    if sys.stderr is sys.__stderr__:
        sys.stderr = lasting(sys.stderr, 2)


def lasting(stream: TextIO | None, descriptor: int) -> TextIO:
    """The stream of a file descriptor, changed so. If it is None, because it was closed, one that writes nowhere."""
    if stream is None:
        return Path(os.devnull).open("w", encoding="utf-8")
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        stream.reconfigure(errors="backslashreplace")
        return stream
    # Without a buffer, which would write again what a signal interrupts.
    raw = Lasting(descriptor, "w", closefd=False)
    return io.TextIOWrapper(raw, stream.encoding, "backslashreplace", write_through=True)


def flush_stdout() -> None:
    """Write what stdout holds. Raises OSError if the disk is full."""
    try:
        sys.stdout.flush()
    except OSError:
        # Or Python would fail to write the rest when it ends, with status 120.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


class QuietImport:
    """A finder for sys.meta_path that hides what the import of one module prints to stderr."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The module's own spec with a quiet loader; None for other modules."""
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec and spec.loader:
            load = spec.loader.exec_module

            def load_quietly(module: ModuleType) -> None:
                with hidden_stderr():
                    load(module)

            spec.loader.exec_module = load_quietly
        return spec


@contextmanager
def hidden_stderr() -> Iterator[None]:
    """Hide what is written to file descriptor 2, by C code too. It is shown if the block raises or the process dies.

    A second process holds the text, because TensorFlow aborts the process if the processor lacks its instructions.
    """
    kept = os.dup(2)
    with subprocess.Popen(["sh", "-c", SHOW], stdin=subprocess.PIPE) as holder:
        os.dup2(holder.stdin.fileno(), 2)
        try:
            yield
            holder.kill()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
