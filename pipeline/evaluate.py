"""Stage 6: the score by the competition's metric beside simple fills, a sample sheet and a report page."""

import json

import numpy as np
import pandas as pd

from pipeline import paths
from pipeline.base.command import run_stage
from pipeline.base.files import replacing
from pipeline.base.progress import say
from pipeline.competition import submission
from pipeline.competition.boxes import hole
from pipeline.competition.images import encode_image, read_images
from pipeline.competition.index import boxes_of, masked_path, read_index, read_pairs
from pipeline.competition.metric import rmse
from pipeline.fills import harmonic, mean_colour, telea, twin
from pipeline.params import Submission, load_params
from pipeline.report.page import make_page
from pipeline.report.sheet import draw_sheet
from pipeline.training.card import read_card
from pipeline.training.trained import Fill, in_batches, load_fill

SIMPLE_FILLS: dict[str, Fill] = {"mean_colour": mean_colour.fill, "telea": telea.fill, "harmonic": harmonic.fill}
Scores = dict[str, dict[str, float]]


def main() -> None:
    params = load_params()
    index = read_index(paths.INDEX)
    card = read_card(paths.MODEL)
    name, scale = card["model"], params.submission
    fill = load_fill(paths.MODEL, params.predict.weights)

    pairs = index.loc[card["validation"]]
    masked, truth, boxes = read_pairs(paths.RAW, pairs)
    filled = np.stack(list(in_batches(fill, masked, boxes, params.predict.batch_size, "fill validation pairs")))
    alone = encode(filled, boxes, scale)
    covered = np.zeros(masked.shape[:3], bool)
    if params.predict.twins:  # as predict does; a pair's own whole image is no twin of it
        filled, covered, _ = twin.fill_over(filled, masked, boxes, paths.RAW, index, own=pairs.index.to_numpy())
    values = {"submission": encode(filled, boxes, scale), name: alone} | fill_simply(masked, boxes, scale)
    answer = encode(truth, boxes, scale)
    metrics = {"validation": score(values, answer, pairs, index)}
    shares = {"validation": float(covered.sum() / hole(boxes).sum())}
    sheet = make_sheet(masked, filled, truth, values["submission"], answer, pairs, params.evaluate.samples)

    test = index[index["split"] == "test"]
    known = [paths.TRUTH / filename for filename in test["filename"]]
    if known[0].exists():
        boxes = boxes_of(test)
        masked = read_images(masked_path(paths.RAW, row) for row in test.to_dict("records"))
        values = {"submission": submission.read(paths.SUBMISSION, test["filename"].tolist(), boxes)}
        values |= fill_simply(masked, boxes, scale)
        metrics["test"] = score(values, encode(read_images(known), boxes, scale), test, index)

    filled_pixels = pd.read_csv(paths.TWINS)[["filled", "missing"]].sum()
    shares["test"] = float(filled_pixels["filled"] / filled_pixels["missing"])

    title = f"{name}, recipe {params.recipe}, {card['settings']['steps']:,} steps"
    page = make_page(title, metrics, pd.read_csv(paths.LOSSES), pd.read_csv(paths.VALIDATION), paths.SHEET.name)
    with replacing(paths.METRICS) as path, replacing(paths.SHEET) as picture, replacing(paths.PAGE) as html:
        path.write_text(json.dumps(metrics | {"filled_from_twins": shares}, indent=2) + "\n", encoding="utf-8")
        picture.write_bytes(encode_image(sheet, ".png"))
        html.write_text(page, encoding="utf-8")
    for which, scores in metrics.items():
        say(f"evaluate: RMSE, {which}: " + ", ".join(f"{key} {value['all']:.5f}" for key, value in scores.items()))
    say("evaluate: filled from twins: " + ", ".join(f"{which} {share:.1%}" for which, share in shares.items()))


def encode(images: np.ndarray, boxes: np.ndarray, settings: Submission) -> np.ndarray:
    """What a submission holds for these images."""
    return submission.encode(images, boxes, settings.channels, settings.scale)


def fill_simply(masked: np.ndarray, boxes: np.ndarray, settings: Submission) -> dict[str, np.ndarray]:
    """What a submission would hold if the images were filled by the fills that learn nothing."""
    result = {}
    for name, fill in SIMPLE_FILLS.items():
        filled = in_batches(fill, masked, boxes, 10, f"fill with {name}")
        result[name] = encode(np.stack(list(filled)), boxes, settings)
    return result


def score(values: dict[str, np.ndarray], truth: np.ndarray, rows: pd.DataFrame, index: pd.DataFrame) -> Scores:
    """RMSE of each fill on the images of these index rows: in all, by class, with and without a twin.

    A training pair's twin is any other training pair, a test image's twin is a training pair.
    """
    train = index[index["split"] == "train"]
    trained = rows["group"].map(train["group"].value_counts()).fillna(0)
    twin = (trained > (rows["split"] == "train")).to_numpy()
    kinds = rows["class"].to_numpy()
    subsets = {"all": np.ones(len(rows), bool), "with_twins": twin, "without_twins": ~twin}
    subsets |= {kind: kinds == kind for kind in sorted(set(kinds)) if kind}
    return {
        name: {subset: rmse(value[where], truth[where]) for subset, where in subsets.items() if where.any()}
        for name, value in values.items()
    }


def make_sheet(
    masked: np.ndarray,
    filled: np.ndarray,
    truth: np.ndarray,
    values: np.ndarray,
    answer: np.ndarray,
    pairs: pd.DataFrame,
    samples: int,
) -> np.ndarray:
    """The sample sheet of some validation pairs, spread evenly over the classes as the index has them."""
    chosen = np.unique(np.linspace(0, len(pairs) - 1, samples).round().astype(int))
    captions = [f"{pairs['filename'].iloc[i]}: RMSE {rmse(values[i], answer[i]):.4f}" for i in chosen]
    return draw_sheet([(masked[i], filled[i], truth[i]) for i in chosen], captions)


if __name__ == "__main__":
    run_stage("evaluate", main)
