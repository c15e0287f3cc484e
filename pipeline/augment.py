"""Stage 3: every pair's target as it is, flipped, and rotated by 90, 180 and 270 degrees, into TFRecord shards."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pandas as pd

from pipeline import paths
from pipeline.base.command import run_stage
from pipeline.base.files import replacing
from pipeline.base.progress import progress
from pipeline.competition.boxes import turn_boxes, turn_image
from pipeline.competition.images import decode_image, encode_image
from pipeline.competition.index import boxes_of, read_index, target_path
from pipeline.params import load_params
from pipeline.training.shards import Record, decode, write_shards

PAIRS_AT_ONCE = 64  # bounds the memory


def main() -> None:
    settings = load_params().augment
    index = read_index(paths.INDEX)
    pairs = index[index["split"] == "train"]
    # Shuffled, because the training's shuffle buffer is far smaller than a class.
    pairs = pairs.iloc[np.random.default_rng(settings.seed).permutation(len(pairs))]
    turns = settings.turns
    records = progress(augment(pairs, turns), "augment", len(pairs) * len(turns))
    with replacing(paths.AUGMENTED) as folder:
        folder.mkdir()
        write_shards(folder, numbered(records, len(turns), settings.shards), settings.shards, len(turns))


def augment(pairs: pd.DataFrame, turns: list[str]) -> Iterator[Record]:
    """A record of each index row for each turn, made on all cores."""
    rows = [{**row, "pair": pair} for pair, row in pairs.to_dict("index").items()]
    boxes = boxes_of(pairs)
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(rows), PAIRS_AT_ONCE):
            part = slice(start, start + PAIRS_AT_ONCE)
            for records in pool.map(partial(turn_all, turns), rows[part], boxes[part]):
                yield from records


def turn_all(turns: list[str], row: dict, boxes: np.ndarray) -> list[Record]:
    """One target in each of the turns, with its boxes. The original keeps its file's bytes if they decode to it."""
    path = target_path(paths.RAW, row)
    data = path.read_bytes()
    image = decode_image(data, str(path))

    def encoded(turn: str) -> bytes:
        same = turn == "original" and np.array_equal(decode(data), image)
        return data if same else encode_image(turn_image(image, turn), path.suffix)

    return [Record(encoded(turn), turn_boxes(boxes, turn), row["pair"]) for turn in turns]


def numbered(records: Iterable[Record], turns: int, shards: int) -> Iterator[tuple[int, Record]]:
    """Each record with the number of its shard; those of one image go to different shards if there are enough."""
    for position, record in enumerate(records):
        pair, turn = divmod(position, turns)
        yield (pair + turn) % shards, record


if __name__ == "__main__":
    run_stage("augment", main)
