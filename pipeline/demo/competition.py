"""A small imitation of the competition, its traps included, so that everything runs with no account.

Mixed suffixes, two files of one stem, tables in no order, overlapping boxes, JPEG noise in the masked images, test
images with a twin in the training set. The same seed gives the same bytes on every machine with the same libraries.
"""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from pipeline.competition.boxes import BOX
from pipeline.competition.images import SIZE, decode_image, encode_image
from pipeline.demo.drawing import KINDS, draw_animal

COLUMNS = ("filename", "box1_row", "box1_col", "box2_row", "box2_col")
TWINS_PER_1000 = 225  # test images with a near-identical training image
TRAIN_TWINS_PER_1000 = 40  # training images that repeat another training image
TWIN, APART = 0.02, 0.085  # RMSE of 32 x 32 thumbnails: twins at most, two different drawings at least


def draw_competition(folder: Path, truth: Path, pairs_per_class: int, test_images: int, seed: int) -> Iterator[Path]:
    """Draws training pairs and test images into `folder`, laid out as the competition's archive is, and the
    whole originals of the test images into `truth`, under the same names. Both folders exist and are empty.
    Yields the path of each photograph written, 4 * pairs_per_class + test_images in all.
    """
    thumbnails: list[np.ndarray] = []
    tests = [(i % len(KINDS), i // len(KINDS)) for i in range(test_images)]  # class, number within the class
    names = [_names(k, pairs_per_class, (test_images + 3 - k) // 4, seed) for k in range(len(KINDS))]
    repeats = max((pairs_per_class * TRAIN_TWINS_PER_1000 + 500) // 1000, int(pairs_per_class >= 20))
    fresh = pairs_per_class - repeats
    for k, kind in enumerate(KINDS):
        whole, masked = _home(folder, k) / "Unmasked_Train", _home(folder, k) / "Masked_Train"
        whole.mkdir(parents=True)
        masked.mkdir()
        boxes = _boxes(masked, names[k][:pairs_per_class], np.random.default_rng([seed, 1, k]))
        for i, name in enumerate(names[k][:pairs_per_class]):
            key = [seed, 2, k, i]
            image = _fresh(kind, key, thumbnails) if i < fresh else _twin(whole / names[k][i - fresh], key)
            yield _write(image, name, boxes[name], whole, masked)
    masked = folder / "Testing_Data"
    masked.mkdir()
    test_names = [names[k][pairs_per_class + i] for k, i in tests]
    boxes = _boxes(masked, test_names, np.random.default_rng([seed, 1, len(KINDS)]))
    twins = (test_images * TWINS_PER_1000 + 500) // 1000 if pairs_per_class else 0
    for n, ((k, i), name) in enumerate(zip(tests, test_names, strict=True)):
        key = [seed, 3, k, i]
        if n < twins:  # from the last fresh drawing backwards: the training set's own twins repeat the first
            image = _twin(_home(folder, k) / "Unmasked_Train" / names[k][(fresh - 1 - i) % fresh], key)
        else:
            image = _fresh(KINDS[k], key, thumbnails)
        _write(image, name, boxes[name], truth, masked)
        yield masked / name


def _home(folder: Path, k: int) -> Path:
    return folder / "Training_Data" / KINDS[k]


def _names(k: int, train: int, test: int, seed: int) -> list[str]:
    """File names of a class, training first: numbers with gaps, and two files that differ in their suffix."""
    rng = np.random.default_rng([seed, 0, k])
    numbers = rng.permutation(np.arange(1, 2 * (train + test) + 1))[: train + test].tolist()
    suffixes = [(".png", *[".jpg"] * 8, *[".jpeg"] * 191)[i] for i in rng.integers(0, 200, train + test)]
    if train > 2:
        numbers[1], suffixes[:3] = numbers[0], (".jpeg", ".jpg", ".png")
    stem = KINDS[k] if KINDS[k] == "Tiger" else f"{KINDS[k]}-Train"
    return [f"{stem} ({number}){suffix}" for number, suffix in zip(numbers, suffixes, strict=True)]


def _boxes(folder: Path, names: list[str], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draws two boxes a photograph and writes masked_info.csv, rows in no order. Some boxes overlap."""
    boxes = rng.integers(0, SIZE - BOX, (len(names), 2, 2))  # [photograph, box, (row, column)]
    while len(boxes) and not (np.abs(boxes[:, 0] - boxes[:, 1]) < BOX).all(axis=1).any():
        boxes[0] = rng.integers(0, SIZE - BOX, (2, 2))
    order = rng.permutation(len(names))
    rows = [(names[i], *boxes[i].ravel()) for i in order]
    pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / "masked_info.csv", lineterminator="\n")
    return dict(zip(names, boxes, strict=True))


def _write(image: np.ndarray, name: str, boxes: np.ndarray, whole: Path, masked: Path) -> Path:
    """Writes a photograph, and masked what is read back from that file."""
    suffix = Path(name).suffix
    (whole / name).write_bytes(encode_image(image, suffix))
    image = decode_image((whole / name).read_bytes(), name).copy()
    for row, column in boxes:
        image[row : row + BOX, column : column + BOX] = 0
    (masked / name).write_bytes(encode_image(image, suffix))
    return whole / name


def _thumbnail(image: np.ndarray, size: int = 32) -> np.ndarray:
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA).astype(np.int32)


def _fresh(kind: str, key: list[int], thumbnails: list[np.ndarray]) -> np.ndarray:
    """A drawing unlike every one whose thumbnail is there already; adds its own."""
    near = int((APART * 255) ** 2 * 8 * 8 * 3)  # at 8 x 8 two images are never further apart than at 32 x 32
    for attempt in range(1000):
        image = draw_animal(kind, np.random.default_rng([*key, attempt]))
        thumbnail = _thumbnail(image, 8)
        if not thumbnails or ((np.stack(thumbnails) - thumbnail) ** 2).sum(axis=(1, 2, 3)).min() > near:
            break
    thumbnails.append(thumbnail)
    return image


def _twin(source: Path, key: list[int]) -> np.ndarray:
    """The photograph in a file as another site has it: cropped, lit and compressed a little otherwise."""
    rng = np.random.default_rng(key)
    image = decode_image(source.read_bytes(), source.name)
    grey, quality = int(rng.integers(-1, 2)), int(rng.integers(80, 91))
    for widest in (2, 1, 0):  # less, where the drawing has much detail
        top, bottom, left, right = (int(v) for v in rng.integers(0, widest + 1, 4))
        part = image[top : SIZE - bottom, left : SIZE - right]
        twin = cv2.resize(part, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR_EXACT).astype(np.int32) + grey
        twin = np.clip(twin, 0, 255).astype(np.uint8)[..., ::-1]  # OpenCV's BGR
        data = cv2.imencode(".jpeg", twin, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        twin = decode_image(data.tobytes(), source.name)
        if ((_thumbnail(twin) - _thumbnail(image)) ** 2).mean() < (TWIN * 0.9 * 255) ** 2:
            break
    return twin
