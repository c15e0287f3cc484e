"""Stage 8: score the submission by the competition's metric, beside simple fills; sample sheets and a report page."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline import paths
from pipeline.base.command import run_stage
from pipeline.base.errors import BadInput
from pipeline.base.files import keep_only, replacing
from pipeline.base.progress import say
from pipeline.competition import submission
from pipeline.competition.boxes import put
from pipeline.competition.images import read_images
from pipeline.competition.index import boxes_of, filled_path, masked_path, read_index, read_pairs
from pipeline.competition.metric import rmse
from pipeline.fills import harmonic, mean_colour, telea
from pipeline.fills.batched import Fill, in_batches
from pipeline.params import Params, load_params, read_yaml
from pipeline.report import conventions
from pipeline.report.comparison import compare, describe
from pipeline.report.page import Heading, make_page
from pipeline.report.sheet import COLUMNS, draw_sheet, encode_sheet, spread, spread_over
from pipeline.systems.card import read_card

SIMPLE_FILLS: dict[str, Fill] = {"mean_colour": mean_colour.fill, "telea": telea.fill, "harmonic": harmonic.fill}
AT_ONCE = 10  # images
SCORE_COLUMNS = ["set", "fill", "subset", "rmse"]
Scores = dict[str, dict[str, float]]  # by fill and subset
Encode = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (images, boxes): submission.encode with the settings


@dataclass(frozen=True)
class Filled:
    """Validation pairs or test images as filled for the submission, and what is known to score them."""

    rows: pd.DataFrame  # of data/split.csv
    images: dict[str, np.ndarray]  # by column of the sheet, uint8 [n, 256, 256, 3] RGB
    values: dict[str, np.ndarray]  # by fill, as a submission holds it: float64 [n, 2, 75, 75, 3] in [0, 1]
    answer: np.ndarray | None  # the target as a submission holds it; None if it is not known


def main() -> None:
    params = load_params()
    keep_only(paths.CURVES, params.systems)
    split = read_index(paths.SPLIT)
    encode = partial(submission.encode, channels=params.submission.channels, scale=params.submission.scale)
    sets = {"test": load_test(split, encode)}
    if (split["split"] == "validation").any():
        sets = {"validation": load_validation(split, params.systems, encode)} | sets
    scores = {name: score(filled, split) for name, filled in sets.items() if filled.answer is not None}
    known = score_conventions(sets["validation"]) if "validation" in sets else {}
    shares = twin_shares()
    sheet = make_sheet(next(iter(sets.values())), params.evaluate.samples)
    test_sheet = make_test_sheet(sets["test"], params.evaluate.test_samples)
    page = make_report(params, scores)

    with (
        replacing(paths.METRICS) as metrics,
        replacing(paths.SCORES) as table,
        replacing(paths.SHEET) as picture,
        replacing(paths.TEST_SHEET) as test_picture,
        replacing(paths.PAGE) as html,
    ):
        summary = summarise(scores, params.systems) | {"filled_from_twins": shares}
        metrics.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        pd.DataFrame(flat(scores | known), columns=SCORE_COLUMNS).to_csv(table, index=False)
        picture.write_bytes(encode_sheet(sheet))
        test_picture.write_bytes(encode_sheet(test_sheet))
        html.write_text(page, encoding="utf-8")
    if "validation" not in scores:
        say("evaluate: no validation pairs were held out, so there is no validation RMSE")
    for name, fills in scores.items():
        say(f"evaluate: RMSE, {name}: " + ", ".join(f"{fill} {value['all']:.5f}" for fill, value in fills.items()))
    say("evaluate: filled from twins: " + ", ".join(f"{name} {share:.1%}" for name, share in shares.items()))


def load_validation(split: pd.DataFrame, systems: list[str], encode: Encode) -> Filled:
    """The validation pairs, filled for the submission, by each system and by the simple fills."""
    rows = split[split["split"] == "validation"]
    masked, target, boxes = read_pairs(paths.RAW, rows)
    names = ["submission", *(["blend"] if len(systems) > 1 else []), *systems]
    with np.load(paths.VALIDATION) as file:
        filled = {name: put(file[name], masked, boxes) for name in names}
    values = {name: encode(images, boxes) for name, images in (filled | fill_simply(masked, boxes)).items()}
    columns = dict(zip(COLUMNS, (masked, filled["submission"], target), strict=True))
    return Filled(rows, columns, values, encode(target, boxes))


def load_test(split: pd.DataFrame, encode: Encode) -> Filled:
    """The test images; if their targets are known, with the submission's values and the simple fills."""
    rows = split[split["split"] == "test"]
    boxes, names = boxes_of(rows), rows["filename"].tolist()
    masked = read_images(masked_path(paths.RAW, row) for row in rows.to_dict("records"))
    columns = {
        "masked": masked,
        "filled": read_images(filled_path(paths.FILLED, row) for row in rows.to_dict("records")),
    }
    if not (paths.TRUTH / names[0]).exists():
        return Filled(rows, columns, {}, None)
    target = read_images(paths.TRUTH / name for name in names)
    values = {"submission": submission.read(paths.SUBMISSION, names, boxes)}
    values |= {name: encode(images, boxes) for name, images in fill_simply(masked, boxes).items()}
    return Filled(rows, columns | {"target": target}, values, encode(target, boxes))


def fill_simply(masked: np.ndarray, boxes: np.ndarray) -> dict[str, np.ndarray]:
    """The images as filled by the fills that learn nothing."""
    return {
        name: in_batches(fill, (masked, boxes), AT_ONCE, f"fill with {name}") for name, fill in SIMPLE_FILLS.items()
    }


def read_curves(folder: Path) -> dict[str, pd.DataFrame]:
    """The curves of one system by name."""
    return {path.stem: pd.read_csv(path) for path in sorted(folder.glob("*.csv"))}


def score(filled: Filled, split: pd.DataFrame) -> Scores:
    """RMSE of each fill: on all images, by class, with and without a twin (another pair of the same group)."""
    rows = filled.rows
    groups = split.loc[split["split"] != "test", "group"]
    pairs = rows["group"].map(groups.value_counts()).fillna(0)
    twin_mask = (pairs > (rows["split"] != "test")).to_numpy()
    classes = rows["class"].to_numpy()
    subsets = {"all": np.ones(len(rows), bool), "with_twins": twin_mask, "without_twins": ~twin_mask}
    subsets |= {name: classes == name for name in sorted(set(classes)) if name}
    return {
        name: {subset: rmse(value[mask], filled.answer[mask]) for subset, mask in subsets.items() if mask.any()}
        for name, value in filled.values.items()
    }


def score_conventions(validation: Filled) -> dict[str, Scores]:
    """The submission's RMSE on the validation pairs against a truth in each convention, as a set of its own."""
    values, target = validation.values["submission"], validation.images["target"]
    found = conventions.score_conventions(values, target, boxes_of(validation.rows))
    return {conventions.SET: {conventions.FILL: found}}


def flat(scores: dict[str, Scores]) -> list[tuple[str, str, str, float]]:
    """The rows of SCORE_COLUMNS."""
    return [
        (name, fill, subset, value)
        for name, fills in scores.items()
        for fill, subsets in fills.items()
        for subset, value in subsets.items()
    ]


def summarise(scores: dict[str, Scores], systems: list[str]) -> dict[str, dict[str, float]]:
    """What runs are compared by: the submission's RMSE by set; of validation also without twins and by each system."""
    metrics = {name: {"submission": fills["submission"]["all"]} for name, fills in scores.items()}
    if validation := scores.get("validation"):
        without = validation["submission"].get("without_twins")
        metrics["validation"] |= {} if without is None else {"without_twins": without}
        metrics["validation"] |= {system: validation[system]["all"] for system in systems}
    return metrics


def twin_shares() -> dict[str, float]:
    """The share of the holes' pixels that twins filled, by split."""
    pixels = pd.read_csv(paths.TWINS).groupby("split", sort=False)[["filled", "hole"]].sum()
    return (pixels["filled"] / pixels["hole"]).to_dict()


def make_sheet(filled: Filled, samples: int) -> np.ndarray:
    """The sample sheet: some of the images, spread evenly over the classes in the split's order."""
    return draw(filled, spread(len(filled.rows), samples), lambda _: "")


def make_test_sheet(filled: Filled, samples: int) -> np.ndarray:
    """Some of the test images, of every class where it is known, each with the name of its twin."""
    table = pd.read_csv(paths.TWINS, keep_default_na=False).query("split == 'test'")
    twins = dict(zip(table["filename"], table["twin"], strict=True))
    chosen = spread_over(filled.rows["class"].to_numpy(str), samples)
    return draw(filled, chosen, lambda name: f"\ntwin: {twins[name]}" if twins[name] else "")


def draw(filled: Filled, chosen: np.ndarray, note: Callable[[str], str]) -> np.ndarray:
    """A sheet of the chosen images. A caption has the file name, the RMSE if it is known, and the name's note."""
    names = filled.rows["filename"].iloc[chosen].tolist()
    errors = [""] * len(names)
    if filled.answer is not None:
        errors = [f": RMSE {rmse(filled.values['submission'][i], filled.answer[i]):.4f}" for i in chosen]
    captions = [f"{name}{error}{note(name)}" for name, error in zip(names, errors, strict=True)]
    images = [tuple(column[i] for column in filled.images.values()) for i in chosen]
    return draw_sheet(images, captions, tuple(filled.images))


def make_report(params: Params, scores: dict[str, Scores]) -> str:
    """The report page of the run."""
    cards = {name: read_card(paths.MODELS / name) for name in params.systems}
    several = len(cards) > 1 and "validation" in scores
    table = compare({name: describe(card) for name, card in cards.items()}, scores["validation"]) if several else None
    curves = {name: read_curves(paths.CURVES / name) for name in params.systems}
    sheets = {"Validation pairs": paths.SHEET.name} if "validation" in scores else {}
    return make_page(heading(params, cards), scores, table, curves, sheets | {"Test images": paths.TEST_SHEET.name})


def heading(params: Params, cards: dict[str, dict[str, Any]]) -> Heading:
    """The recipe, the devices and the settings of a run that differ from the defaults; a system's are on its card."""
    try:
        defaults = read_yaml(paths.DEFAULTS.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{paths.DEFAULTS} is missing; `git checkout {paths.DEFAULTS}` restores it") from None
    used = {
        "fetch": params.fetch.model_dump(exclude={"archive", "checksum"}),  # not where the archive is here
        "split": params.split.model_dump(),
        "augment": params.augment.model_dump(),
        "match": params.match.model_dump(),
        "predict": params.predict.model_dump(),
        "submission": params.submission.model_dump(),
        "evaluate": params.evaluate.model_dump(),
    }
    for name, card in cards.items():
        shared = {key: value for key, value in card["settings"].items() if key in defaults["train"]}
        used |= {"train": shared, name: {key: card["settings"][key] for key in card["settings"].keys() - shared}}
    devices = " and ".join(dict.fromkeys(card["devices"] for card in cards.values()))
    return Heading(params.systems, params.recipe, devices, changed(used, defaults))


def changed(used: dict[str, Any], defaults: dict[str, Any], section: str = "") -> dict[str, tuple[str, str]]:
    """The settings that differ from the defaults, as "residual.steps", with both values as text."""
    found = {}
    for key in sorted(used.keys() & defaults.keys(), key=list(defaults).index):
        value, default = used[key], defaults[key]
        if isinstance(default, dict):
            found |= changed(value, default, f"{section}{key}.")
        elif value != default:
            found[section + key] = (json.dumps(value).strip('"'), json.dumps(default).strip('"'))
    return found


if __name__ == "__main__":
    run_stage("evaluate", main)
