"""Filling from twins: found though cropped, stretched, mirrored or re-encoded; other photographs are refused."""

import cv2
import numpy as np
import pytest

from pipeline.archive.tables import list_images
from pipeline.competition.boxes import hole_mask
from pipeline.competition.images import SIZE, read_images
from pipeline.competition.index import boxes_of, masked_path, read_pairs
from pipeline.twins import fill as twin

BOXES = np.array([[[90, 60], [120, 110]]], np.int32)
BIG = 400  # pixels a side of the photographs that all images are cut from


def photograph(seed: int) -> np.ndarray:
    """Shapes large and small, uint8 [400, 400, 3]."""
    rng = np.random.default_rng(seed)
    layers = [rng.normal(0, 1, (cells, cells, 3)).astype(np.float32) for cells in (4, 9, 25, 60)]
    image = sum(
        weight * cv2.resize(layer, (BIG, BIG), interpolation=cv2.INTER_CUBIC)
        for weight, layer in zip((30, 25, 20, 12), layers, strict=True)
    )
    return np.clip(np.round(128 + image), 0, 255).astype(np.uint8)


def resized(image: np.ndarray) -> np.ndarray:
    return cv2.resize(np.ascontiguousarray(image), (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def encoded(image: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def masked(image: np.ndarray) -> np.ndarray:
    return encoded(np.where(hole_mask(BOXES)[0][..., None], 0, image).astype(np.uint8), 95)[None]


def fill(image: np.ndarray, others: list[np.ndarray], own: int = -1):
    """Mask the photograph and fill it from the others: the result, filled_mask, and which one it came from."""
    candidates = list(map(twin.describe, others))
    filled, filled_mask, found = twin.fill(masked(image), BOXES, candidates, others.__getitem__, np.array([own]))
    assert filled.dtype == np.uint8 and filled_mask.dtype == bool
    assert not filled_mask[0][~hole_mask(BOXES)[0]].any()
    np.testing.assert_array_equal(filled[~filled_mask], masked(image)[~filled_mask])
    return filled[0], filled_mask[0], int(found[0])


STRANGERS = [resized(photograph(seed)) for seed in (11, 12, 13)]
TARGET = photograph(1)

CHANGES = {
    "the same": lambda image: resized(image),
    "quality 40": lambda image: encoded(resized(image), 40),
    "lighter, less contrast": lambda image: np.round(40 + 0.75 * resized(image)).astype(np.uint8),
    "another white": lambda image: np.clip(resized(image) * [0.94, 1.0, 0.97] + [0, 2, 8], 0, 255).astype(np.uint8),
    "shifted": lambda image: resized(image[9:, :-6]),
    "mirrored": lambda image: resized(image[:, ::-1]),
    "the middle": lambda image: resized(image[:, 45:-45]),
    "mirrored, the left": lambda image: resized(image[:, :-90][:, ::-1]),
    "the lower part": lambda image: resized(image[70:]),
    "a crop": lambda image: resized(image[10:-50, 30:-30]),
}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", CHANGES)
def test_a_photograph_is_filled_from_a_changed_one_and_the_reverse(name, reverse):
    image, other = resized(TARGET), CHANGES[name](TARGET)
    if reverse:
        image, other = other, image
    filled, filled_mask, found = fill(image, [*STRANGERS, other])
    assert found == len(STRANGERS)
    assert filled_mask[hole_mask(BOXES)[0]].mean() > 0.9
    assert np.sqrt(np.mean((filled[filled_mask].astype(float) - image[filled_mask]) ** 2)) < 8


def test_strangers_fill_nothing():
    filled, filled_mask, found = fill(resized(TARGET), STRANGERS)
    assert found == -1 and not filled_mask.any()
    np.testing.assert_array_equal(filled, masked(resized(TARGET))[0])


def test_a_similar_photograph_fills_nothing():
    """The same light and large shapes with other details, like another photograph of a series."""
    rng = np.random.default_rng(5)
    blurred = cv2.GaussianBlur(TARGET, (0, 0), 12).astype(float)
    details = TARGET - blurred
    other = np.clip(blurred + np.roll(details, rng.integers(60, 200, 2), (0, 1)), 0, 255).astype(np.uint8)
    assert fill(resized(TARGET), [*STRANGERS, resized(other)])[2] == -1


def test_the_nearer_of_two_twins_fills():
    image = resized(TARGET)
    assert fill(image, [encoded(image, 20), encoded(image, 90), *STRANGERS])[2] == 1


def test_an_image_is_not_its_own_twin():
    image = resized(TARGET)
    assert fill(image, [image, *STRANGERS], own=0)[2] == -1
    assert fill(image, [image, *STRANGERS], own=1)[2] == 0


@pytest.mark.parametrize("level", [0, 128])
def test_flat_images_have_no_twins(level):
    flat = np.full((SIZE, SIZE, 3), level, np.uint8)
    assert fill(flat, STRANGERS)[2] == -1
    assert fill(resized(TARGET), [flat, *STRANGERS])[2] == -1


def test_targets_of_all_pairs_are_candidates_and_own_is_skipped(demo_competition):
    raw = demo_competition.raw
    index = list_images(raw)
    index.loc[::3, "split"] = index["split"][::3].replace("train", "validation")
    pairs, test = index[index["split"] == "validation"], index[index["split"] == "test"]
    masked = read_images(masked_path(raw, row) for row in test.to_dict("records"))
    none = np.full(len(test), -1)
    _, twin_mask, found = twin.fill_from_pairs(masked, boxes_of(test), raw, index, none)
    assert (found >= 0).sum() == 2 and twin_mask.any(axis=(1, 2)).tolist() == (found >= 0).tolist()
    masked, targets, boxes = read_pairs(raw, pairs)
    filled, filled_mask, found = twin.fill_from_pairs(masked, boxes, raw, index, np.full(len(pairs), -1))
    assert found.tolist() == pairs.index.tolist()
    assert np.abs(filled.astype(int) - targets)[filled_mask].mean() < 5
    own = pairs.index.to_numpy()
    assert (twin.fill_from_pairs(masked, boxes, raw, index, own)[2] == -1).all()


def test_weights_of_cells_are_shares():
    np.testing.assert_allclose(twin.cell_weights(0, 1, 64).sum(1), 1, atol=1e-6)
    part = twin.cell_weights(0.25, 0.5, 64)
    np.testing.assert_allclose(part.sum(1), [0] * 4 + [1] * 8 + [0] * 4, atol=1e-6)
    image = np.random.default_rng(0).random((2, 64, 32, 3)).astype(np.float32)
    found = twin.cells_of(image, twin.cell_weights(0, 1, 64), twin.cell_weights(0, 1, 32))
    np.testing.assert_allclose(found, image.reshape(2, 16, 4, 16, 2, 3).mean((2, 4)), atol=1e-6)
