"""7000 images into 35,000: the augment stage and the obvious loop."""

from pathlib import Path

import cv2

from benchmarks.measure import main
from pipeline import augment, paths
from pipeline.competition.index import read_index, target_path

QUARTERS = (cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_COUNTERCLOCKWISE)


def plain() -> int:
    """Read, turn and write one image after the other, each to its own file."""
    index = read_index(paths.INDEX)
    folder = Path("plain")
    folder.mkdir()
    for number, row in enumerate(index[index["split"] == "train"].to_dict("records")):
        image = cv2.imread(str(target_path(paths.RAW, row)))
        rotated = [cv2.rotate(image, code) for code in QUARTERS]
        for turn, result in enumerate([image, cv2.flip(image, 1), *rotated]):
            cv2.imwrite(str(folder / f"{number}_{turn}.jpeg"), result)
    return len(list(folder.iterdir()))


if __name__ == "__main__":
    main({"ours": augment.main, "plain": plain})
