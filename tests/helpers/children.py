"""Programs that a test starts, watches and stops."""

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


def start(command: Sequence[str], cwd: Path, env: Mapping[str, str]) -> subprocess.Popen:
    """A running program: stdout and stderr in one stream of text, stdin empty."""
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(reached: Callable[[], bool], process: subprocess.Popen, seconds: float = 240) -> None:
    """Wait until something is reached. It fails if the process ends first, and after so many seconds."""
    until = time.monotonic() + seconds
    while not reached():
        assert process.poll() is None, f"it ended with status {process.returncode}"
        assert time.monotonic() < until, f"not reached in {seconds} s"
        time.sleep(0.01)


def wait_for_checkpoint(folder: Path, process: subprocess.Popen, seconds: float = 240) -> None:
    """Wait until a training that the process runs has saved a checkpoint below a folder."""
    wait_for(lambda: any(folder.rglob("step-*.npz")), process, seconds)
