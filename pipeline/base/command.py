"""How a stage or a command ends: silently, or with one line that says what is wrong."""

import fcntl
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.base.errors import MACHINE_FAULTS, BadInput


def run(name: str, main: Callable[[], None], again: str = "`dvc repro`") -> None:
    """Call `main`. Bad input or a full or read-only disk ends in one line on stderr and status 1.

    Ctrl-C and SIGTERM end in status 130 and a line that names `again`, the command to continue with.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except BadInput as error:
        sys.exit(f"{name}: {error}")
    except OSError as error:
        if error.errno not in MACHINE_FAULTS:
            raise
        sys.unraisablehook = lambda _: None  # h5py reports the file it could not write a second time
        reason = os.strerror(error.errno)  # h5py's own text has many lines
        sys.exit(f"{name}: {reason}: {error.filename or 'writing its output'}; nothing was half-written")
    except KeyboardInterrupt as interrupt:
        where = f" {interrupt}" if interrupt.args else ""
        print(f"\n{name}: interrupted{where}; {again} goes on from here", file=sys.stderr)
        sys.exit(130)


def run_stage(name: str, main: Callable[[], None]) -> None:
    """As run, but refuse to start while another stage runs in this folder: both would write the same files."""

    def alone() -> None:
        with lock("."):
            main()

    run(name, alone)


@contextmanager
def lock(folder: str) -> Iterator[None]:
    """Lock a folder without writing to it; the kernel unlocks it when the process ends, even if killed.

    Raises BadInput if another process holds the lock.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    os.set_inheritable(descriptor, True)  # a child started with close_fds=False holds the lock too
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
    """Record Ctrl-C and SIGTERM; the yielded call tells whether one came. A second one raises KeyboardInterrupt."""
    received: list[int] = []

    def record(number: int, _: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, record) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
