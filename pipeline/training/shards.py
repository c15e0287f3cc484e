"""TFRecord shards: how an image is written to them and parsed again.

A record holds `image` (the bytes of an encoded file), `boxes` (int64 [4]: row and column of box 1, of box 2) and
`pair` (the row of data/index.csv that it comes from). TFRecord keeps a checksum with each record; a file beside the
shards holds those of the whole shards, since nothing in one tells that its last records are gone.
"""

import errno
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pipeline.base.errors import BadInput
from pipeline.base.files import sha256

CONTENT = "content.json"  # how many records each pair has, and the sha256 of each shard by its name
# Forced, since DVC's copy may be a link to the same bytes, and DVC looks at times and sizes before it looks at bytes.
REMEDY = "`dvc repro -sf augment` writes it again"


class Record(NamedTuple):
    image: bytes
    boxes: np.ndarray  # int [2, 2]
    pair: int


FEATURES = {
    "image": tf.io.FixedLenFeature([], tf.string),
    "boxes": tf.io.FixedLenFeature([2, 2], tf.int64),
    "pair": tf.io.FixedLenFeature([], tf.int64),
}


def write_shards(folder: Path, records: Iterable[tuple[int, Record]], shards: int, per_pair: int) -> None:
    """Append each record, in order, to the shard of the number before it; then write CONTENT.

    Every pair has `per_pair` records. Raises OSError if the disk is full.
    """
    paths = [folder / f"{shard:03d}-of-{shards:03d}.tfrecord" for shard in range(shards)]
    with named_errors(), ExitStack() as stack:
        writers = [stack.enter_context(tf.io.TFRecordWriter(str(path))) for path in paths]
        for shard, record in records:
            writers[shard].write(serialize(record))
    content = {"per_pair": per_pair, "sha256": {path.name: sha256(path) for path in paths}}
    (folder / CONTENT).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@contextmanager
def named_errors() -> Iterator[None]:
    """Around a TFRecordWriter: its errors, which have the system's only in words, as OSError."""
    try:
        yield
    except tf.errors.OpError as error:
        path, _, reason = error.message.rpartition("; ")
        code = {os.strerror(code): code for code in errno.errorcode}.get(reason, errno.EIO)
        raise OSError(code, reason, path) from None


def serialize(record: Record) -> bytes:
    """A record as a tf.train.Example, the same bytes each time."""
    integers = {"boxes": np.ravel(record.boxes).tolist(), "pair": [record.pair]}
    feature = {name: tf.train.Feature(int64_list=tf.train.Int64List(value=value)) for name, value in integers.items()}
    feature["image"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[record.image]))
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString(deterministic=True)


def list_shards(folder: Path) -> tuple[list[str], int]:
    """The shards' paths, in order, and the number of records of each pair.

    Raises BadInput naming a shard that is missing or damaged.
    """
    try:
        content = json.loads((folder / CONTENT).read_text(encoding="utf-8"))
        per_pair, checksums = int(content["per_pair"]), dict(content["sha256"])
        for name, checksum in checksums.items():
            if sha256(folder / name) != checksum:
                raise BadInput(f"{folder / name} is damaged: its checksum does not match; {REMEDY}")
    except FileNotFoundError as error:
        raise BadInput(f"{error.filename} is missing; {REMEDY}") from None
    except (ValueError, TypeError, LookupError) as error:
        raise BadInput(f"{folder / CONTENT} is damaged ({error!r}); {REMEDY}") from None
    return [str(folder / name) for name in checksums], per_pair


def parse(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """One record: image string [], boxes int64 [2, 2], pair int64 []."""
    return tf.io.parse_single_example(serialized, FEATURES)


def decode(image: tf.Tensor | bytes) -> tf.Tensor:
    """A JPEG or PNG file as uint8 [256, 256, 3] RGB. It does not turn an image by its EXIF orientation."""
    # The default method is faster and coarser than every other reader's.
    return tf.io.decode_jpeg(image, channels=3, dct_method="INTEGER_ACCURATE")
