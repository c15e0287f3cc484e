"""Stage 6: the score by the competition's metric beside simple fills, a sample sheet and a report page."""

import json

import numpy as np
import pandas as pd

from pipeline import paths
from pipeline.base.command import run_stage
from pipeline.base.files import keep_only, replacing
from pipeline.base.progress import say
from pipeline.competition import submission
from pipeline.competition.boxes import put
from pipeline.competition.images import encode_image, read_images
from pipeline.competition.index import boxes_of, masked_path, read_index, read_pairs
from pipeline.competition.metric import rmse
from pipeline.fills import harmonic, mean_colour, telea
from pipeline.fills.batched import Fill, in_batches
from pipeline.params import Submission, load_params
from pipeline.report.page import make_page
from pipeline.report.sheet import draw_sheet, spread

SIMPLE_FILLS: dict[str, Fill] = {"mean_colour": mean_colour.fill, "telea": telea.fill, "harmonic": harmonic.fill}
AT_ONCE = 10  # images
Scores = dict[str, dict[str, float]]


def main() -> None:
    params = load_params()
    systems, scale = params.systems, params.submission
    keep_only(paths.CURVES, systems)
    index = read_index(paths.INDEX)
    metrics = {}

    held_out = dict(np.load(paths.HELD_OUT))
    pairs = index.loc[held_out.pop("pairs")]
    masked, truth, boxes = read_pairs(paths.RAW, pairs)
    filled = {name: put(values, masked, boxes) for name, values in held_out.items()}
    values = {name: encode(filled[name], boxes, scale) for name in ("submission", "blend", *systems)}
    if len(systems) == 1:
        del values["blend"]
    answer = encode(truth, boxes, scale)
    metrics["validation"] = score(values | fill_simply(masked, boxes, scale), answer, pairs, index)
    sheet = make_sheet(
        masked, filled["submission"], truth, values["submission"], answer, pairs, params.evaluate.samples
    )

    test = index[index["split"] == "test"]
    known = [paths.TRUTH / filename for filename in test["filename"]]
    if known[0].exists():
        boxes = boxes_of(test)
        masked = read_images(masked_path(paths.RAW, row) for row in test.to_dict("records"))
        values = {"submission": submission.read(paths.SUBMISSION, test["filename"].tolist(), boxes)}
        values |= fill_simply(masked, boxes, scale)
        metrics["test"] = score(values, encode(read_images(known), boxes, scale), test, index)

    pixels = pd.read_csv(paths.TWINS).groupby("split")[["filled", "missing"]].sum()
    share = pixels["filled"] / pixels["missing"]
    shares = {"validation": share["train"], "test": share["test"]}

    title = f"{' and '.join(systems)}, recipe {params.recipe}"
    curves = {
        name: {path.stem: pd.read_csv(path) for path in sorted((paths.CURVES / name).glob("*.csv"))} for name in systems
    }
    page = make_page(title, metrics, curves, paths.SHEET.name)
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
        filled = in_batches(fill, masked, boxes, AT_ONCE, f"fill with {name}")
        result[name] = encode(filled, boxes, settings)
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
    chosen = spread(len(pairs), samples)
    captions = [f"{pairs['filename'].iloc[i]}: RMSE {rmse(values[i], answer[i]):.4f}" for i in chosen]
    return draw_sheet([(masked[i], filled[i], truth[i]) for i in chosen], captions)


if __name__ == "__main__":
    run_stage("evaluate", main)
