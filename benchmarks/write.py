"""200 filled images into 6,750,000 rows: the write stage and the loop of the competition's notebooks."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from benchmarks.measure import main
from pipeline import paths, write
from pipeline.competition import submission
from pipeline.competition.boxes import BOX
from pipeline.competition.index import boxes_of, filled_path, read_index
from pipeline.params import load_params


def alone() -> None:
    """The write stage without its check."""
    index = read_index(paths.INDEX)
    test = index[index["split"] == "test"]
    values = write.encode_all(test, load_params().submission)
    submission.write(paths.SUBMISSION, test["filename"].tolist(), boxes_of(test), values)


def plain() -> None:
    """Append a tuple for each pixel and channel, then call DataFrame.to_csv."""
    index = read_index(paths.INDEX)
    rows = []
    for row in index[index["split"] == "test"].to_dict("records"):
        image = cv2.imread(str(filled_path(paths.FILLED, row))).astype(np.float64)
        image = cv2.merge([cv2.normalize(channel, None, 0, 1, cv2.NORM_MINMAX) for channel in cv2.split(image)])
        for box in ("box1", "box2"):
            top, left = row[f"{box}_row"], row[f"{box}_col"]
            for i in range(top, top + BOX):
                for j in range(left, left + BOX):
                    for channel in range(3):
                        rows.append((f"{row['filename']}_{box}_{i}_{j}_{channel}", image[i, j, channel]))
    frame = pd.DataFrame(rows, columns=["filename_box_pixel", "value"])
    frame.to_csv("plain.csv", index=False, float_format="%.5f")


def same() -> bool:
    """Whether both wrote the same rows; a tie may round differently in the fifth decimal."""
    with paths.SUBMISSION.open() as ours, Path("plain.csv").open() as theirs:
        return all(a == b or close(a, b) for a, b in zip(ours, theirs, strict=True))


def close(ours: str, theirs: str) -> bool:
    (ours_id, _, ours_value), (theirs_id, _, theirs_value) = ours.rpartition(","), theirs.rpartition(",")
    return ours_id == theirs_id and abs(float(ours_value) - float(theirs_value)) < 1.5e-5


if __name__ == "__main__":
    main({"alone": alone, "ours": write.main, "plain": plain, "same": same})
