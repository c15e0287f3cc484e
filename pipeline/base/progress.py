"""Progress of anything that takes more than a few seconds: a bar in a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 10.0


def progress(items: Iterable[Item], what: str, total: int | None = None, unit: str = "image") -> Iterator[Item]:
    """Pass `items` through, showing on stderr how many are done, the rate and the time that remains."""
    if total is None:
        total = len(items)  # type: ignore[arg-type]
    if sys.stderr.isatty():
        yield from tqdm(items, what, total, unit=unit)
        return
    start = shown = time.monotonic()
    done = 0
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - shown >= SECONDS_BETWEEN_LINES and done < total:
            shown = now
            say(meter(what, done, total, now - start, unit))
    say(meter(what, done, total, time.monotonic() - start, unit))


def meter(what: str, done: int, total: int, seconds: float, unit: str) -> str:
    """One line as tqdm words it: share and count done, time taken and left, rate."""
    return tqdm.format_meter(done, total, seconds, ncols=0, prefix=what, unit=unit)


def say(line: str) -> None:
    """A line for the user, on stderr and at once."""
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()
