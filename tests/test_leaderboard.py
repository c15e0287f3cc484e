"""The table of teams and submissions. tests/ways/test_upload.py runs it with a server and the real client."""

import pytest

from pipeline.kaggle.client import Entry
from pipeline.kaggle.ledger import add_row, read_ledger
from pipeline.leaderboard import page, rank, standing, table

TEAMS = [Entry("first", 0.1), Entry("second", 0.2), Entry("also second", 0.2), Entry("fourth", 0.3)]


@pytest.fixture
def ledger(tmp_path):
    """Four submissions: two with a score, one that waits for it, one with an error."""
    result = read_ledger(tmp_path / "none.csv")
    for ref, score in enumerate(("0.25", "0.20000", "", "error"), 1):
        message = "long " * 100 if ref == 1 else "short"
        result = add_row(result, {"ref": str(ref), "public_score": score, "commit": str(ref) * 40, "message": message})
    return result


@pytest.mark.parametrize(("score", "place"), [(0.05, 1), (0.1, 1), (0.15, 2), (0.2, 2), (0.25, 4), (0.3, 4), (0.5, 5)])
def test_the_rank_is_the_place_among_all_teams(score, place):
    assert rank(score, TEAMS) == place


def test_teams_and_scored_submissions_are_sorted_best_first(ledger):
    found = table(TEAMS, ledger, top=3)
    assert found["public"].tolist() == ["0.10000", "0.20000", "0.20000", "0.20000", "0.25000"]
    assert found["team"].tolist() == ["first", "second", "also second", "(ledger)", "(ledger)"]
    assert found["rank"].tolist() == ["1", "2", "2", "2", "4"]
    assert found["commit"].tolist() == ["", "", "", "2" * 7, "1" * 7]
    assert all(len(line) < 200 for line in found.to_string().splitlines())


def test_an_empty_ledger_or_leaderboard_is_shown(ledger, tmp_path):
    nothing = read_ledger(tmp_path / "none.csv")
    assert table(TEAMS, nothing, top=10)["team"].tolist() == [team.team for team in TEAMS]
    assert table([], ledger, top=10)["rank"].tolist() == ["1", "1"]
    none = 'submissions/ledger.csv has no score yet; `python -m pipeline.upload -m "..."` gets one'
    assert page("photo", [], nothing, top=10) == f"photo: no team has a score yet\n\n{none}"
    assert page("photo", TEAMS, nothing, top=0) == f"photo: 4 teams\n\n{none}"
    assert page("photo", [], ledger, top=10).endswith("\n\nbest: 0.20000 (commit 2222222)")


def test_the_best_submission_is_named_with_its_rank(ledger):
    assert standing(TEAMS, ledger) == "best: 0.20000 (commit 2222222), rank 2 of 4"
