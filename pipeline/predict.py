"""Stage 4: fill the test images, from a twin where there is one, else with the blend of the trained systems.

data/filled holds them as PNG, known pixels untouched. The validation pairs are filled alike, and by each system alone,
for evaluate to score: data/held_out.npz has their boxes' pixels. data/twins.csv says of each image how much of it came
from which twin, data/blend.json what each system weighs.
"""

import json
from typing import Literal

import numpy as np
import pandas as pd

from pipeline import paths
from pipeline.base.command import run_stage
from pipeline.base.files import keep_only, replacing
from pipeline.base.progress import say
from pipeline.competition.boxes import cut, hole_mask, put
from pipeline.competition.images import encode_image, read_images
from pipeline.competition.index import boxes_of, filled_path, masked_path, read_index, target_path
from pipeline.fills.batched import in_batches
from pipeline.params import load_params
from pipeline.systems import blend
from pipeline.systems.card import read_card
from pipeline.systems.trained import load_fill
from pipeline.twins import fill as twin


def main() -> None:
    params = load_params()
    systems, settings = params.systems, params.predict
    keep_only(paths.MODELS, systems)  # the model of a system that is no longer listed is no input
    fills = {name: load_fill(paths.MODELS / name, settings.weights) for name in systems}
    index = read_index(paths.INDEX)
    pairs = index.loc[read_card(paths.MODELS / systems[0])["validation"]]  # the same for every system
    images = pd.concat([pairs, index[index["split"] == "test"]])
    held = (images["split"] == "train").to_numpy()
    rows, boxes = images.to_dict("records"), boxes_of(images)
    masked = read_images(masked_path(paths.RAW, row) for row in rows)
    truth = cut(read_images(target_path(paths.RAW, row) for row in pairs.to_dict("records")), boxes[held])

    size = settings.batch_size
    classes = images["class"].to_numpy()
    alone = np.stack([cut(in_batches(fill, masked, boxes, size, name, classes), boxes) for name, fill in fills.items()])
    blended, weights = blend_systems(alone, held, truth, pairs["group"].to_numpy(), systems, settings.blend)
    filled = put(blended, masked, boxes)
    covered, found = np.zeros(masked.shape[:3], bool), np.full(len(images), -1)
    if settings.twins:  # nor is it its own twin
        own = np.where(held, images.index, -1)
        filled, covered, found = twin.fill_over(filled, masked, boxes, paths.RAW, index, own)

    held_out = dict(zip(systems, alone[:, held], strict=True))
    held_out |= {"blend": blended[held], "submission": cut(filled[held], boxes[held])}
    table = list_twins(images, index, boxes, covered, found)
    tests = [(row, image) for row, image in zip(rows, filled, strict=True) if row["split"] == "test"]
    write_outputs(tests, pairs.index.to_numpy(), held_out, table, weights)

    say("predict: weights: " + ", ".join(f"{name} {weight:.3f}" for name, weight in weights.items()))
    test = table[~held]
    share = test["filled"].sum() / test["missing"].sum()
    say(f"predict: {(test['twin'] != '').sum()} of {len(test)} images have a twin, for {share:.1%} of what is missing")


def blend_systems(
    alone: np.ndarray,
    held: np.ndarray,
    truth: np.ndarray,
    groups: np.ndarray,
    systems: list[str],
    chosen: Literal["fit"] | dict[str, float],
) -> tuple[np.ndarray, dict[str, float]]:
    """The blend uint8 [n, 2, 75, 75, 3] of what each system gives, [k, n, ...], and the weight of each.

    held, bool [n], are the validation pairs, whose truth and twin groups are given. Fitted weights are those of all of
    them, but a pair itself is filled with weights that were fitted on neither it nor its twin.
    """
    fitted = chosen == "fit"
    weights = blend.fit(alone[:, held], truth) if fitted else np.array([chosen[name] for name in systems])
    blended = blend.blend(alone, weights)
    if fitted:
        blended[held] = blend.cross_fitted(alone[:, held], truth, groups % 2 == 0)
    return blended, dict(zip(systems, weights.tolist(), strict=True))


def write_outputs(
    tests: list[tuple[dict, np.ndarray]],
    pairs: np.ndarray,
    held_out: dict[str, np.ndarray],
    twins: pd.DataFrame,
    weights: dict[str, float],
) -> None:
    """The filled test images, each with its index row; the validation pairs' numbers and fills; two tables."""
    with (
        replacing(paths.FILLED) as folder,
        replacing(paths.HELD_OUT) as held_out_file,
        replacing(paths.TWINS) as twins_file,
        replacing(paths.BLEND) as blend_file,
    ):
        folder.mkdir()
        for row, image in tests:
            filled_path(folder, row).write_bytes(encode_image(image, ".png"))
        with held_out_file.open("wb") as file:
            np.savez(file, pairs=pairs, **held_out)
        twins.to_csv(twins_file, index=False)
        blend_file.write_text(json.dumps(weights, indent=2) + "\n", encoding="utf-8")


def list_twins(
    images: pd.DataFrame, index: pd.DataFrame, boxes: np.ndarray, covered: np.ndarray, found: np.ndarray
) -> pd.DataFrame:
    """One row an image: which it is, its twin as class/name, and how many of its missing pixels the twin filled."""
    names = index["class"] + "/" + index["filename"]
    return images[["split", "class", "filename"]].assign(
        twin=[names[i] if i >= 0 else "" for i in found],
        filled=covered.sum(axis=(1, 2)),
        missing=hole_mask(boxes).sum(axis=(1, 2)),
    )


if __name__ == "__main__":
    run_stage("predict", main)
