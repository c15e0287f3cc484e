"""Compare the systems of params.yaml: `python -m pipeline.compare`, after `dvc repro`.

It prints a table, and writes it to reports/comparison.md with a picture of the same images filled by each system.
"""

import argparse
from functools import partial

import numpy as np
import pandas as pd

from pipeline import paths
from pipeline.base.command import run
from pipeline.base.errors import BadInput
from pipeline.base.files import replacing
from pipeline.base.progress import say
from pipeline.competition import submission
from pipeline.competition.boxes import put
from pipeline.competition.index import read_index, read_pairs
from pipeline.competition.metric import rmse
from pipeline.params import Params, load_params
from pipeline.report import comparison
from pipeline.report.sheet import draw_sheet, encode_sheet, spread
from pipeline.systems.card import read_card, seconds_of

IMAGES = 4  # in the picture


def main() -> None:
    argparse.ArgumentParser(prog="compare", description=__doc__).parse_args()
    params = load_params()
    scores, fills = read_results(params.systems)
    split = read_index(paths.SPLIT)
    pairs = split[split["split"] == "validation"]
    systems = {system: describe(system) for system in params.systems}
    text = comparison.compare(systems, scores).to_markdown(index=False, disable_numparse=True)
    picture = draw(params, pairs, fills)
    title = f"# The systems, recipe {params.recipe}, on {len(pairs)} validation pairs\n\n"
    shown = f"\n\n![the same images filled by each]({paths.COMPARISON_SHEET.name})\n"
    with replacing(paths.COMPARISON) as page, replacing(paths.COMPARISON_SHEET) as image:
        page.write_text(title + text + shown, encoding="utf-8")
        image.write_bytes(encode_sheet(picture))
    print(text)
    say(f"compare: wrote this table to {paths.COMPARISON} and the images to {paths.COMPARISON_SHEET}")


def read_results(systems: list[str]) -> tuple[dict, dict[str, np.ndarray]]:
    """The validation scores in reports/scores.csv, by fill and subset, and the fills in data/validation.npz.

    Raises BadInput if they are missing or of other systems, or if no validation pairs were held out.
    """
    try:
        table = pd.read_csv(paths.SCORES)
        fills = dict(np.load(paths.VALIDATION))
    except FileNotFoundError as error:
        raise BadInput(f"{error.filename} is missing; `dvc repro` writes it") from None
    rows = table[table["set"] == "validation"]
    if rows.empty:
        raise BadInput("there are no validation pairs to compare on; raise split.validation_pairs and run `dvc repro`")
    scores = {
        fill: dict(zip(part["subset"], part["rmse"], strict=True)) for fill, part in rows.groupby("fill", sort=False)
    }
    for name, found in ((paths.SCORES, scores), (paths.VALIDATION, fills)):
        if missing := [system for system in systems if system not in found]:
            raise BadInput(f"{name} has nothing for {', '.join(missing)}, which params.yaml lists; run `dvc repro`")
    return scores, fills


def describe(system: str) -> dict[str, str]:
    """Size and training of a system, from its card; and how long the training took, if it was done here."""
    card = read_card(paths.MODELS / system)
    settings, seconds = card["settings"], seconds_of(paths.TIMES, card)
    row = comparison.describe(card)
    if seconds:
        samples = settings["steps"] * settings["batch_size"] / seconds["steps"]
        row |= {"training, minutes": f"{sum(seconds.values()) / 60:.1f}", "samples a second": f"{samples:.1f}"}
    return row


def draw(params: Params, pairs: pd.DataFrame, fills: dict[str, np.ndarray]) -> np.ndarray:
    """A few validation pairs: masked, filled by every system, and the target, with the RMSE of each fill."""
    settings, chosen = params.submission, spread(len(pairs), IMAGES)
    rows = pairs.iloc[chosen]
    masked, target, boxes = read_pairs(paths.RAW, rows)
    filled = {system: put(fills[system][chosen], masked, boxes) for system in params.systems}
    encode = partial(submission.encode, boxes=boxes, channels=settings.channels, scale=settings.scale)
    answer, values = encode(target), {system: encode(images) for system, images in filled.items()}
    captions = [
        f"{name}: " + ", ".join(f"{system} {rmse(value[i], answer[i]):.4f}" for system, value in values.items())
        for i, name in enumerate(rows["filename"])
    ]
    samples = list(zip(masked, *filled.values(), target, strict=True))
    return draw_sheet(samples, captions, columns=("masked", *filled, "target"), groups=1)


if __name__ == "__main__":
    run("compare", main)
