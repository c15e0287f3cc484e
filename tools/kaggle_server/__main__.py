"""Prints what to export in another terminal, and answers there until Ctrl-C."""

import argparse
import tempfile
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

from pipeline import paths
from tools.kaggle_server.contest import FILES, Contest, scorer
from tools.kaggle_server.kernels import Kernels
from tools.kaggle_server.server import COMPETITION, STORE, KaggleServer, download, redirect


def main() -> None:
    parser = argparse.ArgumentParser(description="A fake Kaggle on this machine, for a drawn competition.")
    parser.add_argument(
        "--archive",
        type=Path,
        help="the competition's zip, for fetch.source: kaggle, or its folder: only pipeline.remote then",
    )
    parser.add_argument("--index", type=Path, default=paths.INDEX)
    parser.add_argument("--truth", type=Path, default=paths.TRUTH, help="the test images without holes")
    parser.add_argument("--polls", type=int, default=3, help="requests before a submission is scored")
    arguments = parser.parse_args()
    with KaggleServer() as server, ExitStack() as running:
        if arguments.archive and arguments.archive.is_dir():
            folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
            running.enter_context(Kernels(server, folder, arguments.archive))
        else:
            contest = Contest(server, scorer(arguments.index, arguments.truth), arguments.polls)
            contest.teams = [
                {"teamId": k, "teamName": f"team {k}", "score": f"{0.15 + k / 100:.5f}"} for k in range(30)
            ]
            if arguments.archive:
                server.answers[FILES] = redirect(f"{STORE}/{COMPETITION}.zip")
                server.answers["GET", f"/{COMPETITION}.zip"] = download(arguments.archive)
        for name, value in server.environment(Path.home()).items():
            if name not in ("HOME", "XDG_CONFIG_HOME"):  # git and DVC need the user's own
                print(f"export {name}={value}")
        print("# Ctrl-C ends it", flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
