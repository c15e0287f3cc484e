"""From shards to batches: each epoch's order and each image's crop are functions of the seed and the position alone,
so that training can begin at any step and see what it would have seen."""

from typing import Protocol

import numpy as np
import pandas as pd
import tensorflow as tf

from pipeline import paths
from pipeline.competition.boxes import BOX, LAST, TURNS
from pipeline.competition.images import SIZE
from pipeline.training.shards import list_shards, parse

WINDOWS = 2**24  # more than an epoch has windows of `buffer` images, each shuffled by itself
ALL = tf.distribute.InputContext()  # one device, which takes whole batches
JITTER = 286  # pixels; each image is enlarged to this and cropped back, as in the pix2pix paper, section 6.2


class FromShards(Protocol):
    """What a system's settings say of how it reads the shards."""

    batch_size: int
    shuffle_buffer: int


def shard_batches(
    settings: FromShards,
    _: pd.DataFrame,
    keep: np.ndarray,
    seed: int,
    start: int,
    parts: tf.distribute.InputContext = ALL,
    random_holes: bool = False,
) -> tf.data.Dataset:
    """A system's batches from step `start` on: training_batches of what augment made, which needs no index.

    Raises BadInput where a shard is missing or damaged.
    """
    shards, records = list_shards(paths.AUGMENTED), int(keep.sum()) * len(TURNS)
    size, buffer = settings.batch_size, settings.shuffle_buffer
    return training_batches(shards, keep, records, size, buffer, seed, start, random_holes, parts)


def training_batches(
    shards: list[str],
    keep: np.ndarray,
    records: int,
    batch_size: int,
    buffer: int,
    seed: int,
    start: int = 0,
    random_holes: bool = False,
    parts: tf.distribute.InputContext = ALL,
) -> tf.data.Dataset:
    """Endless batches (masked, whole, missing) from step `start` on: images float32 [batch_size, 256, 256, 3] in
    [-1, 1], and float32 [batch_size, 256, 256, 1], 1 where a pixel is missing, else 0.

    keep, bool [rows of the index], says which pairs are trained on; `records` is how many records that leaves. The
    holes are those of the pair, or drawn anew each time. On several devices a batch is cut into as many equal parts,
    and these are the parts of the devices here, one after the other.
    Raises tf.errors.DataLossError on a shard with damaged bytes.
    """
    keep = tf.constant(keep)
    first, skip = divmod(start * batch_size, records)
    here = range(batch_size)[local_part(batch_size, parts)]

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        def shuffled(records: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
            # Dataset.shuffle would do, were its order not a function of TensorFlow's global seed too.
            return tf.random.experimental.stateless_shuffle(records, tf.stack([seed, number * WINDOWS + window]))

        return (
            tf.data.TFRecordDataset(shuffled(tf.constant(shards), tf.constant(0, tf.int64)))
            .filter(lambda record: keep[parse(record)["pair"]])
            .batch(buffer)
            .enumerate(1)
            .flat_map(lambda window, records: tf.data.Dataset.from_tensor_slices(shuffled(records, window)))
        )

    return (
        tf.data.Dataset.range(first, np.iinfo(np.int64).max)
        .flat_map(epoch)
        .skip(skip)  # before decoding: what is skipped costs only its reading
        .enumerate(start * batch_size)
        .filter(lambda position, _: position % batch_size >= here.start and position % batch_size < here.stop)
        .map(
            lambda position, record: example(position, parse(record), seed, random_holes),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        .batch(batch_size // parts.num_replicas_in_sync, drop_remainder=True)
        .prefetch(2)
    )


def local_part(batch_size: int, parts: tf.distribute.InputContext) -> slice:
    """Which of a batch's examples the devices of this worker take."""
    count = batch_size // parts.num_input_pipelines
    return slice(parts.input_pipeline_id * count, (parts.input_pipeline_id + 1) * count)


def example(
    position: tf.Tensor, record: dict[str, tf.Tensor], seed: int, random_holes: bool
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """One record as training_batches gives it, enlarged to 286 x 286 and cropped at random."""
    draw = tf.stack([tf.cast(seed, tf.int64), position])
    boxes = record["boxes"]
    if random_holes:
        own = tf.random.experimental.stateless_fold_in(draw, 1)  # not the crop's numbers again
        boxes = tf.random.stateless_uniform([2, 2], own, maxval=LAST + 1, dtype=boxes.dtype)
    # Spelled out since the default method is a faster and coarser one than every other reader's.
    image = tf.io.decode_jpeg(record["image"], channels=3, dct_method="INTEGER_ACCURATE")
    missing = hole_mask(boxes)[..., None]
    masked = tf.where(missing, tf.zeros_like(image), image)
    all_three = tf.concat([masked, image, tf.cast(missing, tf.uint8)], axis=-1)
    all_three = tf.image.resize(all_three, (JITTER, JITTER), method="nearest")
    all_three = tf.cast(tf.image.stateless_random_crop(all_three, (SIZE, SIZE, 7), seed=draw), tf.float32)
    images = all_three[..., :6] / 127.5 - 1.0
    return images[..., :3], images[..., 3:], all_three[..., 6:]


def hole_mask(boxes: tf.Tensor) -> tf.Tensor:
    """Which pixels are missing: bool [256, 256] from one image's boxes, int64 [2, 2]."""
    position = tf.range(SIZE, dtype=boxes.dtype)
    inside = (position >= boxes[..., None]) & (position < boxes[..., None] + BOX)  # [box, axis, 256]
    return tf.reduce_any(inside[:, 0, :, None] & inside[:, 1, None, :], axis=0)
