"""The top of the leaderboard together with the ledger, best first: `python -m pipeline.leaderboard --top 20`."""

import argparse
import time

import pandas as pd

from pipeline import paths
from pipeline.base.command import run
from pipeline.kaggle import client as kaggle
from pipeline.kaggle.client import Entry
from pipeline.kaggle.ledger import read_ledger
from pipeline.params import load_params

DEADLINE = 300.0  # seconds
WIDTH = 40  # characters shown of a name or a message
OURS = "(ledger)"  # instead of a team's name


def main() -> None:
    parser = argparse.ArgumentParser(prog="leaderboard", description=__doc__)
    parser.add_argument("--top", type=int, default=10, metavar="N", help="teams to show (default %(default)s)")
    arguments = parser.parse_args()
    if arguments.top < 0:
        parser.error("--top must be 0 or more")
    ledger = read_ledger()
    competition = load_params().fetch.competition
    teams = kaggle.leaderboard(competition, time.monotonic() + DEADLINE)
    print(page(competition, teams, ledger, arguments.top))


def page(competition: str, teams: list[Entry], ledger: pd.DataFrame, top: int) -> str:
    """What the command prints: how many teams there are, the table unless it is empty, and our standing."""
    count = f"{len(teams)} team{'s' if len(teams) > 1 else ''}" if teams else "no team has a score yet"
    rows = table(teams, ledger, top)
    shown = [] if rows.empty else [rows.to_string(index=False, justify="left")]
    return "\n\n".join([f"{competition}: {count}", *shown, standing(teams, ledger)])


def table(teams: list[Entry], ledger: pd.DataFrame, top: int) -> pd.DataFrame:
    """The top teams and every scored submission of the ledger, best first, in columns of text.

    The rank of a score is its place among all teams; equal scores share a rank.
    """
    board = pd.DataFrame([(team.score, team.team) for team in teams[:top]], columns=["score", "team"])
    ours = scored(ledger).assign(team=OURS)
    # Stable: of equal scores, the team comes before the submission.
    rows = pd.concat([board, ours], ignore_index=True).sort_values("score", kind="stable").fillna("")
    rows.insert(0, "rank", [rank(score, teams) for score in rows["score"]])
    rows["commit"] = rows["commit"].str[:7]
    rows["score"] = rows["score"].map("{:.5f}".format)
    names = {"score": "public", "private_score": "private", "validation_rmse": "validation"}
    columns = ["rank", "public", "private", "validation", "team", "tag", "commit", "message"]
    return rows.rename(columns=names)[columns].astype(str).map(lambda text: text[:WIDTH])


def scored(ledger: pd.DataFrame) -> pd.DataFrame:
    """The submissions that have a public score, with the score as a number in the column `score`."""
    score = pd.to_numeric(ledger["public_score"], errors="coerce")
    return ledger.assign(score=score)[score.notna()]


def rank(score: float, teams: list[Entry]) -> int:
    """The place of a score on the leaderboard, where 1 is the best and a lower score is better."""
    return 1 + sum(team.score < score for team in teams)


def standing(teams: list[Entry], ledger: pd.DataFrame) -> str:
    """One line that names the best submission of the ledger and its rank."""
    ours = scored(ledger)
    if ours.empty:
        return f'{paths.LEDGER} has no score yet; `python -m pipeline.upload -m "..."` gets one'
    best = ours.loc[ours["score"].idxmin()]
    name = best["tag"] or f"commit {best['commit'][:7]}"
    place = f", rank {rank(best['score'], teams)} of {len(teams)}" if teams else ""
    return f"best: {best['public_score']} ({name}){place}"


if __name__ == "__main__":
    run("leaderboard", main)
