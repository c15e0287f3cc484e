"""A repository that a test makes, and the commands that it runs there."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.files import sha256
from pipeline.history.clone import FOLDER
from tests.helpers.children import start


@dataclass
class Repository:
    folder: Path
    environment: dict[str, str]

    def start(self, *command: str) -> subprocess.Popen:
        return start(command, self.folder, self.environment)

    def run(self, *command: str, status: int = 0) -> str:
        """The command's output, stdout and stderr; it must end with this status."""
        process = self.start(*command)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == status, output
        return output

    def commit(self, tag: str = "") -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", "a run")
        if tag:
            self.run("git", "tag", "--no-sign", tag)

    def start_reproduce(self, *arguments: str) -> subprocess.Popen:
        return self.start(sys.executable, "-m", "pipeline.reproduce", *arguments)

    def reproduce(self, *arguments: str, status: int = 0) -> str:
        """The output of pipeline.reproduce, which must not change the repository or leave its clone."""
        before = self.state()
        output = self.run(sys.executable, "-m", "pipeline.reproduce", *arguments, status=status)
        assert self.state() == before and not (self.folder / FOLDER / "tree").exists()
        assert "Traceback" not in output
        return output

    def state(self) -> dict[str, str]:
        """What a reproduction must not change: git's state, and every file outside .git, .dvc and .work."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        files = [path for path in files if path.relative_to(self.folder).parts[0] not in (".git", ".dvc", ".work")]
        commands = (
            ("rev-parse", "--abbrev-ref", "HEAD"),
            ("for-each-ref",),
            ("ls-files", "--stage"),
            ("status", "--porcelain"),
        )
        return {str(path): sha256(path) for path in files} | {name[0]: self.run("git", *name) for name in commands}
