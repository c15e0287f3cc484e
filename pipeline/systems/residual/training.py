"""How the residual U-Net is trained: Adam with decoupled decay, a cosine to zero, a moving average of the weights."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from pipeline import paths
from pipeline.base.progress import progress
from pipeline.competition.images import SIZE, read_image
from pipeline.competition.index import boxes_of, masked_path, target_path
from pipeline.params import Residual
from pipeline.systems.residual import network
from pipeline.training.adam import FusedAdam
from pipeline.training.batches import ONE_DEVICE, local_part
from pipeline.training.data import TrainingData
from pipeline.training.devices import on_all_replicas, replica_share, update
from pipeline.training.loop import Step, TrainingState, snapshot

WARM_UP = 100  # steps, at most a tenth of all
BETA_2 = 0.99
CLIP = 1.0  # the gradient's norm over all variables
PREFETCHED = 4  # batches
KNOWN = 255


def begin(settings: Residual, dtype: str, seed: int) -> TrainingState:
    """The network with fresh weights drawn from the seed, their average, the optimizer."""
    keras.utils.set_random_seed(seed)
    trained, average = (network.build(settings, dtype) for _ in range(2))
    average.set_weights(trained.get_weights())
    warm_up = min(WARM_UP, settings.steps // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, settings.steps - warm_up, warmup_target=settings.learning_rate, warmup_steps=warm_up
    )
    decay = settings.weight_decay
    optimizer = FusedAdam(rate, beta_2=BETA_2, weight_decay=decay, global_clipnorm=CLIP)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build(trained.trainable_variables)
    return TrainingState(average, {"network": trained, "average": average}, {"optimizer": optimizer}, snapshot(average))


def make_step(state: TrainingState, settings: Residual) -> Step:
    """One step on one of `batches`, compiled; it returns the loss, in squared units of [-1, 1]."""
    trained, average = state.networks["network"], state.networks["average"]
    optimizer = state.optimizers["optimizer"]

    def step(inputs: tf.Tensor, residual: tf.Tensor, weights: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = replica_share(weights) * network.loss(residual, trained(inputs, training=True), weights)
        update(tape, loss, (trained, optimizer))
        return {"loss": loss}

    def average_weights() -> None:
        count = tf.cast(optimizer.iterations.value, tf.float32)
        # A shorter average at first, or the initial weights would stay in it for long.
        share = 1 - tf.minimum(settings.average, (1 + count) / (10 + count))
        for mean, weight in zip(average.trainable_variables, trained.trainable_variables, strict=True):
            mean.assign(mean + share * (weight - mean))

    return on_all_replicas(step, then=average_weights)


def batches(
    settings: Residual, data: TrainingData, start: int, context: tf.distribute.InputContext = ONE_DEVICE
) -> tf.data.Dataset:
    """Endless batches (inputs, residual, weights) from step `start` on, as network.examples and draw_weights make them.

    Each is a function of the seed and the step's number. With several devices these are the parts of this worker's.
    """
    photographs = read_photographs(settings, data)
    side, share = settings.resolution, settings.batch_size // context.num_replicas_in_sync
    shapes = [(None, share, side, side, *channels) for channels in ((4,), (3,), ())]

    def draw(step: np.ndarray) -> list[np.ndarray]:
        local = local_part(settings.batch_size, context)
        drawn = draw_batch(photographs, settings, np.random.default_rng((data.seed, int(step))), local)
        return [part.reshape(-1, share, *part.shape[1:]) for part in drawn]

    def batch(step: tf.Tensor) -> tuple[tf.Tensor, ...]:
        drawn = tf.numpy_function(draw, [step], [tf.float32] * 3)
        return tuple(tf.ensure_shape(part, shape) for part, shape in zip(drawn, shapes, strict=True))

    steps = tf.data.Dataset.range(start, np.iinfo(np.int64).max)
    return steps.map(batch, num_parallel_calls=2, deterministic=True).unbatch().prefetch(PREFETCHED)


def draw_batch(
    photographs: np.ndarray, settings: Residual, rng: np.random.Generator, local: slice
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The local part of one batch (inputs, residual, weights); photographs are those of read_photographs.

    Unknown pixels are holes of weight 0.
    """
    size, side = settings.batch_size, settings.resolution
    chosen = rng.integers(len(photographs), size=size)
    mirrored = rng.random((size, 1, 1, 1)) < 0.5
    weights = network.draw_weights(rng, size, side)[local]
    images = photographs[chosen[local]]
    if settings.zoom > 1:
        start, length = draw_parts(rng, size, images.shape[1], settings.zoom)
        images = cut_parts(images, start[local], length[local], side)
    images = np.where(mirrored[local], images[:, :, ::-1], images)
    known = images[..., 3] == KNOWN
    return *network.examples(images[..., :3], (weights > 0) | ~known), weights * known


def draw_parts(rng: np.random.Generator, n: int, size: int, zoom: float) -> tuple[np.ndarray, np.ndarray]:
    """Half of the times the whole photograph, else a part: upper left corner and lengths, int [n, 2] each, in pixels.

    A part is 1 to `zoom` times smaller in width and height, and up to a tenth higher or lower than it is wide.
    """
    ratio = rng.uniform(1, zoom, (n, 1)) * np.hstack([rng.uniform(0.9, 1.1, (n, 1)), np.ones((n, 1))])
    ratio[rng.random(n) < 0.5] = 1
    length = np.minimum(size / ratio, size).astype(int)
    return (rng.random((n, 2)) * (size - length + 1)).astype(int), length


def cut_parts(photographs: np.ndarray, start: np.ndarray, length: np.ndarray, side: int) -> np.ndarray:
    """These parts of photographs, uint8 [n, h, h, 4], each resized to [side, side, 4]."""
    parts = (
        photograph[top : top + height, left : left + width]
        for photograph, (top, left), (height, width) in zip(photographs, start, length, strict=True)
    )
    return np.stack([cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA) for part in parts])


def input_files(settings: Residual, data: TrainingData) -> list[Path]:
    """The photographs themselves, then the masked images that are learned from."""
    targets = [target_path(paths.RAW, row) for row in data.pairs.to_dict("records")]
    return targets + [masked_path(paths.RAW, row) for row in partly_known(settings, data).to_dict("records")]


def partly_known(settings: Residual, data: TrainingData) -> pd.DataFrame:
    """The rows to learn from whose masked image alone may be seen.

    Two images of one photograph have different holes, and one would show what is held out of the other: both are left
    out.
    """
    return data.masked_only[settings.masked_images & ~data.masked_only["group"].duplicated(keep=False)]


def read_photographs(settings: Residual, data: TrainingData) -> np.ndarray:
    """All photographs to learn from: uint8 [n, h, h, 4], the last channel KNOWN outside the masked images' holes.

    h is the resolution, or 256 with a zoom, which takes 1.8 GB for the competition.
    """
    files, side = input_files(settings, data), settings.resolution if settings.zoom == 1 else SIZE
    photographs = np.full((len(files), side, side, 4), KNOWN, np.uint8)
    with ThreadPoolExecutor() as pool:
        images = pool.map(lambda path: np.round(network.shrink(read_image(path), side)), files)
        for photograph, image in zip(photographs, progress(images, "read photographs", len(files)), strict=True):
            photograph[..., :3] = image
    boxes = boxes_of(partly_known(settings, data))
    photographs[len(data.pairs) :, ..., 3][network.hole_cells(boxes, side)] = 0
    return photographs


def before_validation(model: keras.Model, settings: Residual, data: TrainingData) -> None:
    """Nothing: the averaged weights fill as they are."""
