"""The table that compares the trained systems with each other and with the fills that learn nothing."""

from typing import Any

import pandas as pd

# The baseline's systems on the public leaderboard.
LEADERBOARD = {"vanilla_gan": "0.24881", "diffusion": "0.23722", "cyclegan": "0.23562", "pix2pix": "0.16714"}
NOT_SYSTEMS = ("submission", "blend")


def compare(systems: dict[str, dict[str, str]], scores: dict[str, dict[str, float]]) -> pd.DataFrame:
    """A row for each system with its description, then one for each simple fill, in columns of text.

    `scores` has the RMSE on the validation pairs by fill and subset.
    """
    simple = [name for name in scores if name not in (*systems, *NOT_SYSTEMS)]
    rows = [{"system": system} | described for system, described in systems.items()]
    rows += [{"system": name.replace("_", " ")} for name in simple]
    for row, name in zip(rows, (*systems, *simple), strict=True):
        row["RMSE"] = f"{scores[name]['all']:.4f}"
        if "without_twins" in scores[name]:
            row["pairs without a twin"] = f"{scores[name]['without_twins']:.4f}"
        row["baseline, leaderboard"] = LEADERBOARD.get(name, "")
    return pd.DataFrame(rows).fillna("")


def describe(card: dict[str, Any]) -> dict[str, str]:
    """A system's size and training, from its card."""
    settings = card["settings"]
    return {
        "parameters": f"{card['parameters']:,}",
        "steps": f"{settings['steps']} of {settings['batch_size']}",
        "devices": card["devices"],
    }
