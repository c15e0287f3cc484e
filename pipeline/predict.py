"""Stage 5: fill the test images, from a twin if there is one, else with the blend of the trained systems.

data/filled holds them as PNG, known pixels untouched. The validation pairs are filled alike, and by each system alone,
for evaluate to score: data/validation.npz has the pixels of their boxes. data/twins.csv says how much of each image
came from which twin, data/blend.json how much each system weighs.
"""

import json
from typing import Literal

import numpy as np
import pandas as pd

from pipeline import paths
from pipeline.base.command import run_stage
from pipeline.base.errors import BadInput
from pipeline.base.files import keep_only, replacing, sha256
from pipeline.base.progress import say
from pipeline.competition.boxes import cut, put, unknown_mask
from pipeline.competition.images import encode_image, read_images
from pipeline.competition.index import boxes_of, filled_path, masked_path, read_index, target_path
from pipeline.fills.batched import in_batches
from pipeline.params import load_params
from pipeline.systems import Fill, blend
from pipeline.systems.card import read_card
from pipeline.systems.trained import load_fill
from pipeline.twins import fill as twins


def main() -> None:
    params = load_params()
    settings = params.predict
    fills = load_fills(params.systems, settings.weights)
    split = read_index(paths.SPLIT)
    images = pd.concat([split[split["split"] == "validation"], split[split["split"] == "test"]])
    masked = read_images(masked_path(paths.RAW, row) for row in images.to_dict("records"))

    alone = fill_alone(fills, masked, images, settings.batch_size)
    blended, weights = blend_systems(alone, images, settings.blend)
    boxes = boxes_of(images)
    filled = put(blended, masked, boxes)
    twin_mask, found = np.zeros(masked.shape[:3], bool), np.full(len(images), -1)
    if settings.twins:
        own = np.where(images["split"] == "validation", images.index, -1)  # a pair is not its own twin
        filled, twin_mask, found = twins.fill_over(filled, masked, boxes, paths.RAW, split, own)

    validation_mask = (images["split"] == "validation").to_numpy()
    boxes_filled = alone | {"blend": blended, "submission": cut(filled, boxes)}
    table = list_twins(images, split, twin_mask, unknown_mask(masked, boxes), found)
    tests = images[~validation_mask].to_dict("records")
    write_outputs(
        list(zip(tests, filled[~validation_mask], strict=True)),
        {name: values[validation_mask] for name, values in boxes_filled.items()},
        table,
        weights,
    )
    say("predict: weights: " + ", ".join(f"{name} {weight:.3f}" for name, weight in weights.items()))
    table = table[~validation_mask]
    share = table["filled"].sum() / table["hole"].sum()
    twins_found = (table["twin"] != "").sum()
    say(f"predict: {twins_found} of {len(table)} test images have a twin, which fills {share:.1%} of all holes")


def load_fills(systems: list[str], weights: str) -> dict[str, Fill]:
    """The fill of each trained system. Raises BadInput if a model is missing, damaged or of another split."""
    keep_only(paths.MODELS, systems)  # a system that is no longer listed is no input
    for name in systems:
        if read_card(paths.MODELS / name).get("split") != sha256(paths.SPLIT):
            raise BadInput(f"{paths.MODELS / name} was trained on another split than {paths.SPLIT}; `dvc repro train`")
    return {name: load_fill(paths.MODELS / name, weights) for name in systems}


def fill_alone(fills: dict[str, Fill], masked: np.ndarray, images: pd.DataFrame, size: int) -> dict[str, np.ndarray]:
    """The boxes of all images, uint8 [n, 2, 75, 75, 3], as each system fills them, `size` images at once."""
    boxes, classes = boxes_of(images), images["class"].to_numpy()
    return {name: cut(in_batches(fill, (masked, boxes, classes), size, name), boxes) for name, fill in fills.items()}


def blend_systems(
    alone: dict[str, np.ndarray], images: pd.DataFrame, chosen: Literal["fit"] | dict[str, float]
) -> tuple[np.ndarray, dict[str, float]]:
    """The blend uint8 [n, 2, 75, 75, 3] of the systems' fills, and the weight of each system.

    Fitted weights are fitted on all validation pairs. But a validation pair itself is filled with weights that were
    fitted on neither it nor its twin.
    """
    stacked, validation_mask = np.stack(list(alone.values())), (images["split"] == "validation").to_numpy()
    fitted = chosen == "fit" and len(alone) > 1
    pairs = images[validation_mask]
    if fitted:
        target = cut(read_images(target_path(paths.RAW, row) for row in pairs.to_dict("records")), boxes_of(pairs))
        weights = blend.fit(stacked[:, validation_mask], target)
    else:
        weights = np.array([1.0 if chosen == "fit" else chosen[name] for name in alone])
    blended = blend.blend(stacked, weights)
    if fitted:
        first = pairs["group"].to_numpy() % 2 == 0
        blended[validation_mask] = blend.cross_fitted(stacked[:, validation_mask], target, first)
    return blended, dict(zip(alone, weights.tolist(), strict=True))


def list_twins(
    images: pd.DataFrame, split: pd.DataFrame, twin_mask: np.ndarray, hole: np.ndarray, found: np.ndarray
) -> pd.DataFrame:
    """One row an image: which it is, its twin as class/name, and how many of its hole's pixels the twin filled."""
    names = split["class"] + "/" + split["filename"]
    return images[["split", "class", "filename"]].assign(
        twin=[names[i] if i >= 0 else "" for i in found],
        filled=twin_mask.sum(axis=(1, 2)),
        hole=hole.sum(axis=(1, 2)),
    )


def write_outputs(
    tests: list[tuple[dict, np.ndarray]],
    validation: dict[str, np.ndarray],
    table: pd.DataFrame,
    weights: dict[str, float],
) -> None:
    """Write the filled test images, each with its index row, the validation pairs' fills, the twins and the weights."""
    with (
        replacing(paths.FILLED) as folder,
        replacing(paths.VALIDATION) as validation_file,
        replacing(paths.TWINS) as twins_file,
        replacing(paths.BLEND) as blend_file,
    ):
        folder.mkdir()
        for row, image in tests:
            filled_path(folder, row).write_bytes(encode_image(image, ".png"))
        with validation_file.open("wb") as file:
            np.savez(file, **validation)
        table.to_csv(twins_file, index=False)
        blend_file.write_text(json.dumps(weights, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_stage("predict", main)
