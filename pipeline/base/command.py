"""How a stage or a command ends: quietly, or with one line that says what is wrong."""

import errno
import fcntl
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.base.errors import BadInput

# What the machine refuses, as opposed to what the program does wrong.
MACHINE_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO}


def run(name: str, main: Callable[[], None], again: str = "`dvc repro`") -> None:
    """Call `main`. Bad input or a full or read-only disk ends in one line on stderr and status 1, Ctrl-C in 130.

    SIGTERM is as Ctrl-C, and `again` is what goes on after it.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except BadInput as error:
        sys.exit(f"{name}: {error}")
    except OSError as error:
        if error.errno not in MACHINE_FAULTS:
            raise
        sys.unraisablehook = lambda _: None  # h5py complains once more, of the file it could not write
        reason = os.strerror(error.errno)  # h5py's own has many lines
        sys.exit(f"{name}: {reason}: {error.filename or 'writing its output'}; nothing was half-written")
    except KeyboardInterrupt as interrupt:
        where = f" {interrupt}" if interrupt.args else ""
        print(f"\n{name}: interrupted{where}; {again} goes on from here", file=sys.stderr)
        sys.exit(130)


def run_stage(name: str, main: Callable[[], None]) -> None:
    """As run, and refused where another stage is at work in this folder: the two would write the same files."""

    def alone() -> None:
        with lock("."):
            main()

    run(name, alone)


@contextmanager
def lock(folder: str) -> Iterator[None]:
    """Hold a folder, leaving nothing in it; the kernel lets go when the process ends, however that is.

    Raises BadInput where another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    os.set_inheritable(descriptor, True)  # a child that is started with close_fds=False holds it too
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput("another stage is at work in this folder; run again when it is done") from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(descriptor)


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Take note of Ctrl-C and SIGTERM; the call given says whether one came. A second one raises as usual."""
    came: list[int] = []

    def note(number: int, _: object) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
