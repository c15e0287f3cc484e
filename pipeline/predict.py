"""Stage 6: fill the test images, from a twin if there is one, else with the blend of the trained systems.

data/filled holds them as PNG, known pixels untouched. The validation pairs are filled alike, and by each system alone,
for evaluate to score: data/validation.npz has the pixels of their boxes. data/blend.json says how much each system
weighs.
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
from pipeline.competition.boxes import cut, put
from pipeline.competition.images import encode_image, read_images
from pipeline.competition.index import boxes_of, filled_path, masked_path, read_index, rows_to_fill, target_path
from pipeline.fills.batched import in_batches
from pipeline.params import load_params
from pipeline.systems import Fill, blend
from pipeline.systems.card import read_card
from pipeline.systems.trained import load_fill


def main() -> None:
    params = load_params()
    settings = params.predict
    fills = load_fills(params.systems, settings.weights)
    twins, twin_mask = load_twins()
    images = rows_to_fill(read_index(paths.SPLIT))
    masked = read_images(masked_path(paths.RAW, row) for row in images.to_dict("records"))

    alone = fill_alone(fills, masked, images, settings.batch_size)
    blended, weights = blend_systems(alone, images, settings.blend)
    boxes_filled = alone | {"blend": blended, "submission": np.where(twin_mask[..., None], twins, blended)}
    filled = put(boxes_filled["submission"], masked, boxes_of(images))
    validation_mask = (images["split"] == "validation").to_numpy()
    tests = images[~validation_mask].to_dict("records")
    write_outputs(
        list(zip(tests, filled[~validation_mask], strict=True)),
        {name: values[validation_mask] for name, values in boxes_filled.items()},
        weights,
    )
    say("predict: weights: " + ", ".join(f"{name} {weight:.3f}" for name, weight in weights.items()))


def load_fills(systems: list[str], weights: str) -> dict[str, Fill]:
    """The fill of each trained system. Raises BadInput if a model is missing, damaged or of another split."""
    keep_only(paths.MODELS, systems)  # a system that is no longer listed is no input
    split = sha256(paths.SPLIT)
    for name in systems:
        if read_card(paths.MODELS / name).get("split") != split:
            raise BadInput(f"{paths.MODELS / name} was trained on another split than {paths.SPLIT}; `dvc repro train`")
    return {name: load_fill(paths.MODELS / name, weights) for name in systems}


def load_twins() -> tuple[np.ndarray, np.ndarray]:
    """What match found: the boxes' pixels, uint8 [n, 2, 75, 75, 3], and which are a twin's, bool [n, 2, 75, 75].

    Raises BadInput if they are missing or of another split.
    """
    if not paths.TWIN_PIXELS.exists():
        raise BadInput(f"{paths.TWIN_PIXELS} is missing; `dvc repro match` makes it")
    with np.load(paths.TWIN_PIXELS) as file:
        if file["split"] != sha256(paths.SPLIT):
            raise BadInput(f"{paths.TWIN_PIXELS} is of another split than {paths.SPLIT}; `dvc repro match`")
        return file["pixels"], file["twin_mask"]


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


def write_outputs(
    tests: list[tuple[dict, np.ndarray]],
    validation: dict[str, np.ndarray],
    weights: dict[str, float],
) -> None:
    """Write the filled test images, each with its index row, the validation pairs' fills and the weights."""
    with (
        replacing(paths.FILLED) as folder,
        replacing(paths.VALIDATION) as validation_file,
        replacing(paths.BLEND) as blend_file,
    ):
        folder.mkdir()
        for row, image in tests:
            filled_path(folder, row).write_bytes(encode_image(image, ".png"))
        with validation_file.open("wb") as file:
            np.savez(file, **validation)
        blend_file.write_text(json.dumps(weights, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_stage("predict", main)
