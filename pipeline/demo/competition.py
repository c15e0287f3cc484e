"""A small imitation of the competition, so that everything runs without an account.

It has the real one's traps: mixed suffixes, two files of one stem, unsorted tables, overlapping boxes, JPEG noise in
the masked images, test images with a twin in the training set. The same seed gives the same bytes on every machine
with the same libraries.
"""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from pipeline.base.progress import progress
from pipeline.competition.boxes import BOX
from pipeline.competition.images import SIZE, decode_image, encode_image, read_image
from pipeline.demo.drawing import CLASSES, draw_animal

COLUMNS = ("filename", "box1_row", "box1_col", "box2_row", "box2_col")
TWINS_PER_1000 = 225  # test images with a near-identical training image
TRAIN_TWINS_PER_1000 = 40  # training images that repeat another training image
TWIN, APART = 0.02, 0.085  # RMSE of 32 x 32 thumbnails: the most of twins, the least of different drawings


class _Photograph(NamedTuple):
    class_name: str
    key: list[int]  # seeds its random numbers
    boxes: np.ndarray  # int [2, 2]
    target: Path
    masked: Path
    twin_of: Path | None  # the photograph it repeats


def draw_competition(folder: Path, truth: Path, pairs_per_class: int, test_images: int, seed: int) -> list[Path]:
    """Draw training pairs and test images into `folder`, in the layout of the competition's archive.

    The test images' targets go to `truth`, under the same names. Both folders exist and are empty. Shows progress.
    Returns 4 * pairs_per_class + test_images paths: the pairs' targets, then the masked test images.
    """
    pairs, tests = _plan(folder, truth, pairs_per_class, test_images, seed)
    thumbnails: list[np.ndarray] = []
    for photograph in progress([*pairs, *tests], "draw"):
        _write(photograph, _twin(photograph) if photograph.twin_of else _fresh(photograph, thumbnails))
    return [*(pair.target for pair in pairs), *(test.masked for test in tests)]


def _plan(
    folder: Path, truth: Path, pairs_per_class: int, test_images: int, seed: int
) -> tuple[list[_Photograph], list[_Photograph]]:
    """All pairs, class by class, and all test images, the classes in turn. Makes their folders and tables."""
    names = [_names(k, pairs_per_class, (test_images + 3 - k) // 4, seed) for k in range(len(CLASSES))]
    repeats = max((pairs_per_class * TRAIN_TWINS_PER_1000 + 500) // 1000, int(pairs_per_class >= 20))
    fresh = pairs_per_class - repeats
    pairs, tests = [], []
    for k, class_name in enumerate(CLASSES):
        targets, masked = (folder / "Training_Data" / class_name / half for half in ("Unmasked_Train", "Masked_Train"))
        targets.mkdir(parents=True)
        masked.mkdir()
        boxes = _boxes(masked, names[k][:pairs_per_class], np.random.default_rng([seed, 1, k]))
        for i, (name, corners) in enumerate(boxes.items()):
            source = targets / names[k][i - fresh] if i >= fresh else None
            pairs.append(_Photograph(class_name, [seed, 2, k, i], corners, targets / name, masked / name, source))
    masked = folder / "Testing_Data"
    masked.mkdir()
    numbers = [(n % len(CLASSES), n // len(CLASSES)) for n in range(test_images)]  # class, number within the class
    test_names = [names[k][pairs_per_class + i] for k, i in numbers]
    boxes = _boxes(masked, test_names, np.random.default_rng([seed, 1, len(CLASSES)]))
    twins = (test_images * TWINS_PER_1000 + 500) // 1000 if pairs_per_class else 0
    for n, ((k, i), (name, corners)) in enumerate(zip(numbers, boxes.items(), strict=True)):
        # From the last fresh drawing backwards: the training set's own twins repeat the first.
        source = pairs[k * pairs_per_class + (fresh - 1 - i) % fresh].target if n < twins else None
        tests.append(_Photograph(CLASSES[k], [seed, 3, k, i], corners, truth / name, masked / name, source))
    return pairs, tests


def _names(k: int, train: int, test: int, seed: int) -> list[str]:
    """The file names of class k, training first: numbers with gaps, and two files that differ in suffix only."""
    rng = np.random.default_rng([seed, 0, k])
    numbers = rng.permutation(np.arange(1, 2 * (train + test) + 1))[: train + test].tolist()
    suffixes = [(".png", *[".jpg"] * 8, *[".jpeg"] * 191)[i] for i in rng.integers(0, 200, train + test)]
    if train > 2:
        numbers[1], suffixes[:3] = numbers[0], (".jpeg", ".jpg", ".png")
    stem = CLASSES[k] if CLASSES[k] == "Tiger" else f"{CLASSES[k]}-Train"
    return [f"{stem} ({number}){suffix}" for number, suffix in zip(numbers, suffixes, strict=True)]


def _boxes(folder: Path, names: list[str], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw two boxes for each photograph, some overlapping, and write them, in random order, to masked_info.csv."""
    boxes = rng.integers(0, SIZE - BOX, (len(names), 2, 2))  # [photograph, box, (row, column)]
    while len(boxes) and not (np.abs(boxes[:, 0] - boxes[:, 1]) < BOX).all(axis=1).any():
        boxes[0] = rng.integers(0, SIZE - BOX, (2, 2))
    order = rng.permutation(len(names))
    rows = [(names[i], *boxes[i].ravel()) for i in order]
    pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / "masked_info.csv", lineterminator="\n")
    return dict(zip(names, boxes, strict=True))


def _write(photograph: _Photograph, image: np.ndarray) -> None:
    """Write the target, then mask what is read back from that file."""
    target, masked = photograph.target, photograph.masked
    target.write_bytes(encode_image(image, target.suffix))
    image = read_image(target).copy()
    for row, column in photograph.boxes:
        image[row : row + BOX, column : column + BOX] = 0
    masked.write_bytes(encode_image(image, target.suffix))


def _thumbnail(image: np.ndarray, size: int = 32) -> np.ndarray:
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA).astype(np.int32)


def _fresh(photograph: _Photograph, thumbnails: list[np.ndarray]) -> np.ndarray:
    """Draw an image unlike all whose `thumbnails` are given, and append its own."""
    near = int((APART * 255) ** 2 * 8 * 8 * 3)  # at 8 x 8 two images are never further apart than at 32 x 32
    for attempt in range(1000):
        image = draw_animal(photograph.class_name, np.random.default_rng([*photograph.key, attempt]))
        thumbnail = _thumbnail(image, 8)
        if not thumbnails or ((np.stack(thumbnails) - thumbnail) ** 2).sum(axis=(1, 2, 3)).min() > near:
            break
    thumbnails.append(thumbnail)
    return image


def _twin(photograph: _Photograph) -> np.ndarray:
    """The photograph it repeats as another site would have it: cropped, lit and compressed slightly differently."""
    rng = np.random.default_rng(photograph.key)
    image = read_image(photograph.twin_of)
    grey, quality = int(rng.integers(-1, 2)), int(rng.integers(80, 91))
    for widest in (2, 1, 0):  # a smaller crop if the drawing has much detail
        top, bottom, left, right = (int(v) for v in rng.integers(0, widest + 1, 4))
        part = image[top : SIZE - bottom, left : SIZE - right]
        twin = cv2.resize(part, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR_EXACT).astype(np.int32) + grey
        twin = np.clip(twin, 0, 255).astype(np.uint8)[..., ::-1]  # OpenCV's BGR
        data = cv2.imencode(".jpeg", twin, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        twin = decode_image(data.tobytes(), photograph.masked.name)
        if ((_thumbnail(twin) - _thumbnail(image)) ** 2).mean() < (TWIN * 0.9 * 255) ** 2:
            break
    return twin
