"""Programs that a test starts, watches and stops."""

import subprocess
from collections.abc import Mapping, Sequence
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
