"""How a stage or a command ends: silently, or with one line that says what is wrong."""

import fcntl
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.base.errors import MACHINE_FAULTS, BadInput
from pipeline.base.streams import flush_stdout, open_streams

# From Ctrl-C; `kill` or a shutdown; a closed terminal or a lost connection. SIGQUIT (Ctrl-\) still kills at once.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Handler = Callable[[int, object], object] | signal.Handlers


def run(name: str, main: Callable[[], None], again: str = "`dvc repro`") -> None:
    """Call `main`. Bad input or a full or read-only disk ends in one line on stderr and status 1.

    STOP_SIGNALS end in status 130 and a line that names `again`, the command to continue with. After `main` they are
    ignored: its work is done, and with another status DVC would do it again.
    """
    open_streams()
    handle_signals(raise_interrupt)
    try:
        try:
            main()
        finally:
            flush_stdout()
        handle_signals(signal.SIG_IGN)
    except BadInput as error:
        sys.exit(f"{name}: {error}")
    except OSError as error:
        if error.errno not in MACHINE_FAULTS:
            raise
        sys.unraisablehook = lambda _: None  # h5py reports the file it could not write a second time
        reason = os.strerror(error.errno)  # h5py's own text has many lines
        sys.exit(f"{name}: {reason}: {error.filename or 'writing its output'}; nothing was half-written")
    except KeyboardInterrupt as interrupt:
        ignore_all_but_ctrl_c()
        where = f" {interrupt}" if interrupt.args else ""
        print(f"\n{name}: interrupted{where}; {again} goes on from here", file=sys.stderr)
        sys.exit(130)


def handle_signals(handler: Handler) -> dict[int, Handler]:
    """Set the handler of STOP_SIGNALS; returns the earlier handlers.

    A signal that was ignored at the start stays ignored, so that the program goes on as its starter wants: nohup
    ignores SIGHUP, and a script ignores SIGINT for what it starts with `&`.
    """
    handled = [number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in handled}


def raise_interrupt(*_: object) -> None:
    """A signal handler that ends the program."""
    ignore_all_but_ctrl_c()
    raise KeyboardInterrupt


def ignore_all_but_ctrl_c() -> None:
    """Ignore SIGTERM and SIGHUP from now on: a closed terminal sends SIGHUP twice, a shutdown sends both."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


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
    """Record STOP_SIGNALS; the yielded call tells whether one came. A later Ctrl-C raises KeyboardInterrupt."""
    received: list[int] = []

    def record(number: int, _: object) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    before = handle_signals(record)
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
