"""Time a function in a process of its own, with the peak of its memory."""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable


def main(ways: dict[str, Callable[[], object]]) -> None:
    """Run the way named on the command line, and print what it took as JSON. What it returns is reported with it."""
    start = time.perf_counter()
    result = ways[sys.argv[1]]()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(json.dumps({"seconds": seconds, "peak_mb": peak, "result": result}))


def measure(module: str, way: str) -> dict:
    """What `python -m benchmarks.<module> <way>` reports."""
    run = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", way],
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        sys.exit(run.stderr)
    return json.loads(run.stdout.splitlines()[-1])
