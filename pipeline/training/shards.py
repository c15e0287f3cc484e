"""TFRecord shards: how an image is written into them and parsed again.

A record holds `image` (the bytes of an encoded file), `boxes` (int64 [4]: row and column of box 1, of box 2) and
`pair` (the row of data/index.csv that it comes from). TFRecord keeps a checksum with each record.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pipeline.base.errors import BadInput


class Record(NamedTuple):
    image: bytes
    boxes: np.ndarray  # int [2, 2]
    pair: int


FEATURES = {
    "image": tf.io.FixedLenFeature([], tf.string),
    "boxes": tf.io.FixedLenFeature([2, 2], tf.int64),
    "pair": tf.io.FixedLenFeature([], tf.int64),
}


def write_shards(folder: Path, records: Iterable[tuple[int, Record]], shards: int) -> Iterator[Record]:
    """Append each record to the shard whose number stands before it, in order, yielding it when written."""
    with ExitStack() as stack:
        writers = [
            stack.enter_context(tf.io.TFRecordWriter(str(folder / f"{shard:03d}-of-{shards:03d}.tfrecord")))
            for shard in range(shards)
        ]
        for shard, record in records:
            writers[shard].write(serialize(record))
            yield record


def serialize(record: Record) -> bytes:
    """A record as a tf.train.Example, whose bytes are the same each time."""
    integers = {"boxes": np.ravel(record.boxes).tolist(), "pair": [record.pair]}
    feature = {name: tf.train.Feature(int64_list=tf.train.Int64List(value=value)) for name, value in integers.items()}
    feature["image"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[record.image]))
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString(deterministic=True)


def list_shards(folder: Path) -> list[str]:
    """The shards' paths, in order. Raises BadInput where there is none or one of them is missing."""
    names = sorted(str(path) for path in folder.glob("*-of-*.tfrecord"))
    if not names or len(names) != int(names[0].removesuffix(".tfrecord").rsplit("-", 1)[1]):
        raise BadInput(f"{folder} does not hold a full set of shards; `dvc repro augment` makes it")
    return names


def parse(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """One record: image string [], boxes int64 [2, 2], pair int64 []."""
    return tf.io.parse_single_example(serialized, FEATURES)
