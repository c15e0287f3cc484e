"""`make benchmark`: each speed beside the obvious way, measured in the same run, as one table.

It needs no account: it draws some photographs and repeats them under other names until there are as many as the real
competition has. Absolute times are this machine's; the ratios carry over.
"""

import os
import tempfile
from pathlib import Path

import pandas as pd

PAIRS = 7000
ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PYTHONPATH"] = str(ROOT)
        os.chdir(folder)
        rows = [*benchmark_nothing(), *prepare(), *benchmark_stages()]
        print(
            pd.DataFrame(rows, columns=["what", "ours", "the obvious way", "ratio", "peak memory"]).to_markdown(
                index=False
            )
        )
