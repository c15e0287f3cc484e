"""The drawn competition: the layout and the traps of the real one, and the same bytes for the same seed."""

import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from pipeline.competition.boxes import BOX
from pipeline.competition.images import SIZE, read_image
from pipeline.demo.competition import CLASSES, TWIN, draw_competition
from pipeline.demo.drawing import draw_animal

PAIRS, TESTS = 20, 18


def draw(root: Path, pairs: int, tests: int, seed: int) -> tuple[Path, Path, list[Path]]:
    folder, truth = root / "Dataset", root / "truth"
    folder.mkdir()
    truth.mkdir()
    return folder, truth, draw_competition(folder, truth, pairs, tests, seed)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("demo"), PAIRS, TESTS, 5)


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "masked_info.csv", index_col=0)


def photographs(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".csv")


def hole_mask(row) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[row.box1_row : row.box1_row + BOX, row.box1_col : row.box1_col + BOX] = True
    mask[row.box2_row : row.box2_row + BOX, row.box2_col : row.box2_col + BOX] = True
    return mask


def masked_folders(folder: Path) -> list[Path]:
    return [*(folder / "Training_Data" / name / "Masked_Train" for name in CLASSES), folder / "Testing_Data"]


def target_folders(folder: Path, truth: Path) -> list[Path]:
    return [*(folder / "Training_Data" / name / "Unmasked_Train" for name in CLASSES), truth]


def test_every_file_is_written_and_returned_once(drawn):
    folder, truth, paths = drawn
    assert len(paths) == len(set(paths)) == 4 * PAIRS + TESTS
    assert all(path.is_file() for path in paths)
    for masked, target in zip(masked_folders(folder), target_folders(folder, truth), strict=True):
        names = photographs(target)
        assert names == photographs(masked) == sorted(table(masked).filename)
        assert len(names) == (TESTS if target == truth else PAIRS)
    assert photographs(folder) == ["Testing_Data", "Training_Data"]


def test_names_look_like_the_competitions(drawn):
    folder, _, _ = drawn
    tests = photographs(folder / "Testing_Data")
    for class_name in CLASSES:
        stem = class_name if class_name == "Tiger" else f"{class_name}-Train"
        pattern = re.compile(rf"{stem} \((\d+)\)\.(jpeg|jpg|png)")
        names = photographs(folder / "Training_Data" / class_name / "Unmasked_Train")
        numbers = sorted({int(pattern.fullmatch(name)[1]) for name in names})
        assert numbers != list(range(numbers[0], numbers[0] + len(numbers)))
        suffixes = [Path(name).suffix for name in names]
        assert suffixes.count(".jpeg") > PAIRS / 2 and {".jpg", ".png"} < set(suffixes)
        ours = [name for name in tests if pattern.fullmatch(name)]
        assert len(ours) in (TESTS // 4, TESTS // 4 + 1) and not set(ours) & set(names)


def test_tables_look_like_the_archives(drawn):
    folder, _, _ = drawn
    for masked in masked_folders(folder):
        text = (masked / "masked_info.csv").read_text()
        assert text.startswith(",filename,box1_row,box1_col,box2_row,box2_col\n0,")
        info = table(masked)
        assert list(info.index) == list(range(len(info)))
        assert list(info.filename) != sorted(info.filename)
        assert info.iloc[:, 1:].to_numpy().min() >= 0 and info.iloc[:, 1:].to_numpy().max() <= SIZE - BOX - 1
        near = [(info[f"box1_{axis}"] - info[f"box2_{axis}"]).abs() < BOX for axis in ("row", "col")]
        overlapping = near[0] & near[1]
        assert overlapping.any() and not overlapping.all()


def test_masked_images_are_the_targets_outside_the_boxes_and_dark_inside(drawn):
    folder, truth, _ = drawn
    noisy = 0
    for masked, target in zip(masked_folders(folder), target_folders(folder, truth), strict=True):
        for row in table(masked).itertuples():
            image, original = (read_image(home / row.filename) for home in (masked, target))
            inside = hole_mask(row)
            away = ~cv2.dilate(inside.astype(np.uint8), np.ones((33, 33), np.uint8)).astype(bool)
            error = np.abs(image.astype(int) - original.astype(int))
            assert error[away].mean() < 1.5 and error[~inside].mean() < 3
            assert image[inside].mean() < 8
            if row.filename.endswith(".png"):
                assert error[~inside].max() == 0 and image[inside].max() == 0
            else:
                noisy += image[inside].max() > 0
    assert noisy > 70


def distances(paths: list[Path]) -> np.ndarray:
    small = [cv2.resize(read_image(p), (32, 32), interpolation=cv2.INTER_AREA).ravel() / 255 for p in paths]
    return np.sqrt(((np.stack(small)[:, None] - np.stack(small)) ** 2).mean(axis=2))


def test_two_files_of_one_stem_differ(drawn):
    targets = drawn[0] / "Training_Data" / "Cat" / "Unmasked_Train"
    first = next(p for p in targets.glob("*.jpeg") if p.with_suffix(".jpg").exists())
    assert distances([first, first.with_suffix(".jpg")])[0, 1] > 0.06


def test_twins_are_near_and_all_others_far(drawn):
    folder, truth, _ = drawn
    paths = [path for target in target_folders(folder, truth) for path in sorted(target.iterdir())]
    gaps = distances(paths)
    pairs = [(i, j) for i in range(len(paths)) for j in range(i) if gaps[i, j] < 0.06]
    assert all(0 < gaps[i, j] <= TWIN for i, j in pairs)
    tested = [(i, j) for i, j in pairs if paths[i].parent == truth]
    assert len({i for i, _ in tested}) == round(TESTS * 0.225)
    assert len(pairs) - len(tested) == 4  # one inside each class
    assert all(paths[i].name.split()[0] == paths[j].name.split()[0] for i, j in pairs)


def test_a_seed_gives_the_same_bytes(tmp_path):
    found = []
    for n, seed in enumerate((1, 1, 2)):
        root = tmp_path / str(n)
        root.mkdir()
        draw(root, 3, 5, seed)
        found.append({str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()})
    assert found[0] == found[1]
    assert not set(found[0].values()) & set(found[2].values())


@pytest.mark.parametrize(("pairs", "tests"), [(0, 2), (1, 0), (1, 5), (2, 1)])
def test_the_smallest_competitions(tmp_path, pairs, tests):
    folder, truth, paths = draw(tmp_path, pairs, tests, 0)
    assert len(paths) == 4 * pairs + tests and len(list(truth.iterdir())) == tests
    assert all(len(table(masked)) in (pairs, tests) for masked in masked_folders(folder))


@pytest.mark.parametrize("class_name", CLASSES)
def test_an_animal_is_a_photograph_that_only_its_seed_decides(class_name):
    images = [draw_animal(class_name, np.random.default_rng([seed])) for seed in (3, 3, 4)]
    assert images[0].shape == (SIZE, SIZE, 3) and images[0].dtype == np.uint8
    assert (images[0] == images[1]).all() and (images[0] != images[2]).mean() > 0.5
    assert images[0].std() > 15
