"""7000 images into 35,000: the augment stage, and the loop one would write first."""

import itertools
from pathlib import Path

import cv2

from benchmarks.measure import main
from pipeline import augment, paths
from pipeline.competition.index import read_index, whole_path


def plain() -> int:
    """Read, turn and write each image as a file of its own, one after the other."""
    index = read_index(paths.INDEX)
    folder = Path("plain")
    folder.mkdir()
    for number, row in enumerate(index[index["split"] == "train"].to_dict("records")):
        image = cv2.imread(str(whole_path(paths.RAW, row)))
        turned = [image, cv2.flip(image, 1)]
        turned += [cv2.rotate(image, code) for code in (0, 1, 2)]
        for turn, result in zip(itertools.count(), turned, strict=False):
            cv2.imwrite(str(folder / f"{number}_{turn}.jpeg"), result)
    return len(list(folder.iterdir()))


if __name__ == "__main__":
    main({"ours": augment.main, "plain": plain})
