"""Progress of what takes more than a few seconds: a bar in a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 10.0
WORTH_A_LINE = 2.0  # seconds; shorter work prints no line


def progress(
    items: Iterable[Item],
    what: str | Callable[[], str],
    total: int | None = None,
    unit: str = "image",
    done: int = 0,
) -> Iterator[Item]:
    """Pass `items` through, showing on stderr how many of `total` are done, the rate and the remaining time.

    `what` is the label, or a call that returns the current one; `done` items were done before an interruption.
    """
    label = what if callable(what) else lambda: what
    terminal = sys.stderr.isatty()
    total = len(items) if total is None else total  # type: ignore[arg-type]
    with tqdm(total=total, initial=done, desc=label(), unit=unit, disable=not terminal) as bar:
        start = shown = time.monotonic()
        for count, item in enumerate(items, 1):
            yield item
            now = time.monotonic()
            bar.set_description_str(label(), refresh=False)
            bar.update()
            last = done + count == total and now - start >= WORTH_A_LINE
            if not terminal and (now - shown >= SECONDS_BETWEEN_LINES or last):
                shown = now
                counts = {"n": done + count, "total": total, "elapsed": now - start, "initial": done}
                say(tqdm.format_meter(**counts, ncols=0, prefix=label(), unit=unit))


def say(line: str) -> None:
    """Print a line to stderr and flush it."""
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()
