"""All systems of params.yaml side by side: `python -m pipeline.compare`, after `dvc repro`.

Prints a table, and keeps it as reports/comparison.md with a picture of the same images filled by each.
"""

import argparse
import json

import numpy as np
import pandas as pd

from pipeline import paths
from pipeline.base.command import run
from pipeline.base.errors import BadInput
from pipeline.base.files import replacing
from pipeline.base.progress import say
from pipeline.competition import submission
from pipeline.competition.boxes import put
from pipeline.competition.images import encode_image
from pipeline.competition.index import read_index, read_pairs
from pipeline.competition.metric import rmse
from pipeline.params import Params, load_params
from pipeline.report.sheet import draw_sheet, spread
from pipeline.systems.card import read_card, seconds_of

# What the report's systems scored on the public leaderboard.
LEADERBOARD = {"vanilla_gan": "0.24881", "diffusion": "0.23722", "cyclegan": "0.23562", "pix2pix": "0.16714"}
IMAGES = 4  # in the picture
NOT_SYSTEMS = ("submission", "blend")


def main() -> None:
    argparse.ArgumentParser(prog="compare", description=__doc__).parse_args()
    params = load_params()
    metrics, held_out = read_results(params.systems)
    table = compare(params.systems, metrics["validation"])
    text = table.to_markdown(index=False, disable_numparse=True)
    picture = draw(params, held_out)
    title = f"# The systems, recipe {params.recipe}, on {len(held_out['pairs'])} validation pairs\n\n"
    shown = f"\n\n![the same images filled by each]({paths.COMPARISON_SHEET.name})\n"
    with replacing(paths.COMPARISON) as page, replacing(paths.COMPARISON_SHEET) as image:
        page.write_text(title + text + shown, encoding="utf-8")
        image.write_bytes(encode_image(picture, ".png"))
    print(text)
    say(f"compare: {paths.COMPARISON} has this table, {paths.COMPARISON_SHEET} the same images filled by each")


def read_results(systems: list[str]) -> tuple[dict, dict[str, np.ndarray]]:
    """metrics.json and data/held_out.npz. Raises BadInput where they are missing or of other systems."""
    try:
        metrics = json.loads(paths.METRICS.read_text(encoding="utf-8"))
        held_out = dict(np.load(paths.HELD_OUT))
    except FileNotFoundError as error:
        raise BadInput(f"{error.filename} is missing; `dvc repro` makes it") from None
    for name, found in ((paths.METRICS, metrics["validation"]), (paths.HELD_OUT, held_out)):
        if missing := [system for system in systems if system not in found]:
            raise BadInput(f"{name} has nothing of {', '.join(missing)}, which params.yaml lists; run `dvc repro`")
    return metrics, held_out


def compare(systems: list[str], scores: dict[str, dict[str, float]]) -> pd.DataFrame:
    """A row a system, as trained, then a row a fill that learns nothing, in columns of text."""
    simple = [name for name in scores if name not in (*systems, *NOT_SYSTEMS)]
    rows = [{"system": system} | describe(system) for system in systems]
    rows += [{"system": name.replace("_", " ")} for name in simple]
    for row, name in zip(rows, (*systems, *simple), strict=True):
        row["RMSE"] = f"{scores[name]['all']:.4f}"
        if "without_twins" in scores[name]:
            row["pairs without a twin"] = f"{scores[name]['without_twins']:.4f}"
        row["report, leaderboard"] = LEADERBOARD.get(name, "")
    return pd.DataFrame(rows).fillna("")


def describe(system: str) -> dict[str, str]:
    """What a trained system's card says of its size and training, and how long that took, where it was done here."""
    card = read_card(paths.MODELS / system)
    settings, seconds = card["settings"], seconds_of(paths.TIMES, card)
    row = {
        "parameters": f"{card['parameters']:,}",
        "steps": f"{settings['steps']} of {settings['batch_size']}",
        "devices": card["devices"],
    }
    if seconds:
        samples = settings["steps"] * settings["batch_size"] / seconds["steps"]
        row |= {"training, minutes": f"{sum(seconds.values()) / 60:.1f}", "samples a second": f"{samples:.1f}"}
    return row


def draw(params: Params, held_out: dict[str, np.ndarray]) -> np.ndarray:
    """A few validation pairs, each masked, filled by every system, and whole, with the RMSE of each fill."""
    pairs, settings = held_out["pairs"], params.submission
    chosen = spread(len(pairs), IMAGES)
    rows = read_index(paths.INDEX).loc[pairs[chosen]]
    masked, truth, boxes = read_pairs(paths.RAW, rows)
    filled = {system: put(held_out[system][chosen], masked, boxes) for system in params.systems}

    def encode(images: np.ndarray) -> np.ndarray:
        return submission.encode(images, boxes, settings.channels, settings.scale)

    answer, values = encode(truth), {system: encode(images) for system, images in filled.items()}
    captions = [
        f"{name}: " + ", ".join(f"{system} {rmse(value[i], answer[i]):.4f}" for system, value in values.items())
        for i, name in enumerate(rows["filename"])
    ]
    samples = list(zip(masked, *filled.values(), truth, strict=True))
    return draw_sheet(samples, captions, columns=("masked", *filled, "truth"), groups=1)


if __name__ == "__main__":
    run("compare", main)
