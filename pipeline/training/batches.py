"""From shards to batches: each epoch's order and each image's crop depend on the seed and the position alone.

So training can begin at any step and sees what it would have seen.
"""

from typing import Protocol

import numpy as np
import tensorflow as tf

from pipeline import paths
from pipeline.competition.boxes import BOX, LAST
from pipeline.competition.images import SIZE
from pipeline.training.data import TrainingData
from pipeline.training.shards import decode, list_shards, parse

WINDOWS = 2**24  # more than an epoch has windows of `shuffle_buffer` images, each shuffled by itself
ONE_DEVICE = tf.distribute.InputContext()
JITTER = 286  # pixels; each image is enlarged to this and cropped back, as in the pix2pix paper, section 6.2


class ShardSettings(Protocol):
    """A system's settings for reading the shards."""

    batch_size: int
    shuffle_buffer: int


def shard_batches(
    settings: ShardSettings,
    data: TrainingData,
    start: int,
    context: tf.distribute.InputContext = ONE_DEVICE,
    random_holes: bool = False,
) -> tf.data.Dataset:
    """Endless batches (masked, target, hole) from step `start` on.

    masked and target are float32 [batch_size, 256, 256, 3] in [-1, 1], hole is float32 [batch_size, 256, 256, 1], 1 in
    the holes, else 0. The holes are the pair's own, or drawn anew each time. With several devices a batch is cut into
    equal parts; this worker's parts follow each other.
    Raises BadInput if a shard is missing or damaged, tf.errors.DataLossError if that happens while it is read.
    """
    (shards, per_pair), batch_size = list_shards(paths.AUGMENTED), settings.batch_size
    rows = 1 + max(frame.index.max() for frame in (data.pairs, data.masked_only) if len(frame))
    train_mask = tf.constant(np.isin(np.arange(rows), data.pairs.index))
    first, skip = divmod(start * batch_size, len(data.pairs) * per_pair)
    local = range(batch_size)[local_part(batch_size, context)]
    return (
        tf.data.Dataset.range(first, np.iinfo(np.int64).max)
        .flat_map(lambda number: epoch(number, shards, train_mask, settings.shuffle_buffer, data.seed))
        .skip(skip)  # before decoding: a skipped record costs only its reading
        .enumerate(start * batch_size)
        .filter(lambda position, _: position % batch_size >= local.start and position % batch_size < local.stop)
        .map(
            lambda position, record: example(position, parse(record), data.seed, random_holes),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        .batch(batch_size // context.num_replicas_in_sync, drop_remainder=True)
        .prefetch(2)
    )


def epoch(number: tf.Tensor, shards: list[str], train_mask: tf.Tensor, buffer: int, seed: int) -> tf.data.Dataset:
    """The training pairs' records in the order of one epoch: shards, then windows of `buffer` records, are shuffled."""

    def shuffled(items: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
        # Not Dataset.shuffle: its order also depends on TensorFlow's global seed.
        return tf.random.experimental.stateless_shuffle(items, tf.stack([seed, number * WINDOWS + window]))

    return (
        tf.data.TFRecordDataset(shuffled(tf.constant(shards), tf.constant(0, tf.int64)))
        .filter(lambda record: train_mask[parse(record)["pair"]])
        .batch(buffer)
        .enumerate(1)
        .flat_map(lambda window, records: tf.data.Dataset.from_tensor_slices(shuffled(records, window)))
    )


def local_part(batch_size: int, context: tf.distribute.InputContext) -> slice:
    """The part of a batch that this worker's devices take."""
    count = batch_size // context.num_input_pipelines
    return slice(context.input_pipeline_id * count, (context.input_pipeline_id + 1) * count)


def example(
    position: tf.Tensor, record: dict[str, tf.Tensor], seed: int, random_holes: bool
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """One record as (masked, target, hole), enlarged to 286 x 286 and cropped at random."""
    draw = tf.stack([tf.cast(seed, tf.int64), position])
    boxes = record["boxes"]
    if random_holes:
        own = tf.random.experimental.stateless_fold_in(draw, 1)  # not the crop's numbers again
        boxes = tf.random.stateless_uniform([2, 2], own, maxval=LAST + 1, dtype=boxes.dtype)
    target = decode(record["image"])
    hole = hole_mask(boxes)[..., None]
    masked = tf.where(hole, tf.zeros_like(target), target)
    layers = tf.concat([masked, target, tf.cast(hole, tf.uint8)], axis=-1)
    layers = tf.image.resize(layers, (JITTER, JITTER), method="nearest")
    layers = tf.cast(tf.image.stateless_random_crop(layers, (SIZE, SIZE, 7), seed=draw), tf.float32)
    images = layers[..., :6] / 127.5 - 1.0
    return images[..., :3], images[..., 3:], layers[..., 6:]


def hole_mask(boxes: tf.Tensor) -> tf.Tensor:
    """The pixels in the boxes of one image: bool [256, 256] from int64 [2, 2]."""
    position = tf.range(SIZE, dtype=boxes.dtype)
    inside = (position >= boxes[..., None]) & (position < boxes[..., None] + BOX)  # [box, axis, 256]
    return tf.reduce_any(inside[:, 0, :, None] & inside[:, 1, None, :], axis=0)
