"""The table and the picture of all systems, from what the pipeline left. With DVC: tests/test_pipeline.py."""

import json

import numpy as np
import pandas as pd
import pytest

from pipeline import paths
from pipeline.base.errors import BadInput
from pipeline.compare import describe, read_results
from pipeline.evaluate import SCORE_COLUMNS, flat
from pipeline.report import comparison
from pipeline.systems.card import note_seconds, read_card, seconds_of, write_card

SCORES = {
    name: {"all": 0.1 + number / 100, "without_twins": 0.2 + number / 100}
    for number, name in enumerate(("submission", "blend", "pix2pix", "residual", "mean_colour"))
}


def compare(systems: list[str], scores: dict[str, dict[str, float]]) -> pd.DataFrame:
    return comparison.compare({system: describe(system) for system in systems}, scores)


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Here: the cards of two systems, of which one was trained here."""
    monkeypatch.chdir(tmp_path)
    for name, steps in (("pix2pix", 200), ("residual", 300)):
        folder = paths.MODELS / name
        folder.mkdir(parents=True)
        (folder / "last.weights.h5").write_text(name)
        write_card(
            folder,
            model=name,
            settings={"steps": steps, "batch_size": 4},
            parameters=1_234_567,
            devices="2 x CPU",
        )
    note_seconds(paths.TIMES, read_card(paths.MODELS / "pix2pix"), {"steps": 100.0, "validation": 20.0})
    return tmp_path


def test_a_system_has_its_size_its_time_and_its_score_beside_the_baselines(trained):
    row = compare(["pix2pix", "residual"], SCORES).to_dict("records")[0]
    assert row == {
        "system": "pix2pix",
        "parameters": "1,234,567",
        "steps": "200 of 4",
        "devices": "2 x CPU",
        "training, minutes": "2.0",
        "samples a second": "8.0",
        "RMSE": "0.1200",
        "pairs without a twin": "0.2200",
        "baseline, leaderboard": "0.16714",
    }


def test_systems_stand_as_listed_and_the_fills_that_learn_nothing_after_them(trained):
    table = compare(["residual", "pix2pix"], SCORES)
    assert table["system"].tolist() == ["residual", "pix2pix", "mean colour"]
    assert table["RMSE"].tolist() == ["0.1300", "0.1200", "0.1400"]
    assert table["baseline, leaderboard"].tolist() == ["", "0.16714", ""]


def test_what_was_trained_elsewhere_has_no_time(trained):
    assert "samples a second" not in describe("residual")
    assert compare(["residual", "pix2pix"], SCORES)["training, minutes"].tolist() == ["", "2.0", ""]


def test_the_time_is_that_of_these_weights(trained):
    folder = paths.MODELS / "pix2pix"
    assert seconds_of(paths.TIMES, read_card(folder)) == {"steps": 100.0, "validation": 20.0}
    (folder / "last.weights.h5").write_text("others")
    card = read_card(folder)
    del card["weights"], card["code"], card["python"], card["libraries"]
    write_card(folder, **card)
    assert seconds_of(paths.TIMES, json.loads((folder / "card.json").read_text())) is None


def write_scores(name: str, fills: dict[str, dict[str, float]]) -> None:
    paths.SCORES.parent.mkdir(exist_ok=True)
    pd.DataFrame(flat({name: fills}), columns=SCORE_COLUMNS).to_csv(paths.SCORES, index=False)


def test_without_a_run_it_says_what_makes_one(trained):
    with pytest.raises(BadInput, match="scores.csv is missing; `dvc repro` writes it"):
        read_results(["pix2pix"])


@pytest.mark.parametrize(("scored", "filled"), [("pix2pix", "residual"), ("residual", "pix2pix")])
def test_results_of_other_systems_are_refused(trained, scored, filled):
    write_scores("validation", {scored: SCORES["pix2pix"]})
    np.savez(paths.VALIDATION, **{filled: np.zeros(1)})
    with pytest.raises(BadInput, match=r"has nothing for residual, which params.yaml lists; run `dvc repro`"):
        read_results(["residual"])


def test_without_validation_pairs_it_says_what_to_raise(trained):
    write_scores("test", SCORES)
    np.savez(paths.VALIDATION)
    with pytest.raises(BadInput, match=r"no validation pairs to compare on; raise split.validation_pairs"):
        read_results(["residual"])
