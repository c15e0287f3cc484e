"""How the residual networks are trained: Adam with decoupled decay, a cosine to zero, an average of the weights."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from pipeline import paths
from pipeline.base.progress import progress
from pipeline.competition.boxes import LAST, hole_mask
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
CLIP = 1.0  # the gradient's norm over all variables of a network
PREFETCHED = 4  # batches
KNOWN = 255
RIM_SHARE = 8  # one photograph in so many is also seen at full resolution


def begin(settings: Residual, dtype: str, seed: int) -> TrainingState:
    """The network with fresh weights drawn from the seed, their average, an optimizer for each part."""
    keras.utils.set_random_seed(seed)
    trained, average = (network.build(settings, dtype) for _ in range(2))
    average.set_weights(trained.get_weights())
    warm_up = min(WARM_UP, settings.steps // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, settings.steps - warm_up, warmup_target=settings.learning_rate, warmup_steps=warm_up
    )
    # One for each part: the rim's few examples have large gradients, which would clip the U-Net's.
    optimizers = {}
    for name in ("unet", "rim"):
        optimizer = FusedAdam(rate, beta_2=BETA_2, weight_decay=settings.weight_decay, global_clipnorm=CLIP)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        optimizer.build(trained.get_layer(name).trainable_variables)
        optimizers[name] = optimizer
    return TrainingState(average, {"network": trained, "average": average}, optimizers, snapshot(average))


def make_step(state: TrainingState, settings: Residual) -> Step:
    """One step on one of `batches`, compiled; it returns the losses, in squared units of [-1, 1]."""
    trained, average = state.networks["network"], state.networks["average"]
    unet, rim = trained.get_layer("unet"), trained.get_layer("rim")
    optimizers = state.optimizers

    def step(inputs: tf.Tensor, residual: tf.Tensor, weights: tf.Tensor, *rims: tf.Tensor) -> dict[str, tf.Tensor]:
        near, lacking, rim_weights, rows, columns = rims
        with tf.GradientTape() as tape:
            predicted = unet(inputs, training=True)
            loss = replica_share(weights) * network.loss(residual, predicted, weights)
            # The first photographs of the batch are also seen at full resolution.
            first = tf.stop_gradient(predicted[: near.shape[0] // 2])
            seen = network.add_residual(near, first, rows, columns)
            left = lacking - (seen - near)[..., :3]
            rim_loss = replica_share(rim_weights) * network.loss(left, rim(seen, training=True), rim_weights)
            total = loss + rim_loss
        update(tape, total, (unet, optimizers["unet"]), (rim, optimizers["rim"]))
        return {"loss": loss, "rim": rim_loss}

    def average_weights() -> None:
        count = tf.cast(optimizers["unet"].iterations.value, tf.float32)
        # A shorter average at first, or the initial weights would stay in it for long.
        share = 1 - tf.minimum(settings.average, (1 + count) / (10 + count))
        for mean, weight in zip(average.trainable_variables, trained.trainable_variables, strict=True):
            mean.assign(mean + share * (weight - mean))

    return on_all_replicas(step, then=average_weights)


def batches(
    settings: Residual, data: TrainingData, start: int, context: tf.distribute.InputContext = ONE_DEVICE
) -> tf.data.Dataset:
    """Endless batches from step `start` on: inputs, residual and weights for the U-Net, then network.rim_examples.

    Each is a function of the seed and the step's number. With several devices these are the parts of this worker's.
    """
    photographs = read_photographs(settings, data)
    side, share = settings.resolution, settings.batch_size // context.num_replicas_in_sync
    near, rims = network.NEAR, 2 * rim_photographs(share)
    shapes = [(None, share, side, side, *channels) for channels in ((4,), (3,), ())]
    shapes += [(None, rims, near, near, *channels) for channels in ((5,), (3,), ())] + 2 * [(None, rims, near, side)]

    def draw(step: np.ndarray) -> list[np.ndarray]:
        local = local_part(settings.batch_size, context)
        drawn = draw_batch(photographs, settings, np.random.default_rng((data.seed, int(step))), local, share)
        return [part.reshape(-1, *shape[1:]) for part, shape in zip(drawn, shapes, strict=True)]

    def batch(step: tf.Tensor) -> tuple[tf.Tensor, ...]:
        drawn = tf.numpy_function(draw, [step], [tf.float32] * len(shapes))
        return tuple(tf.ensure_shape(part, shape) for part, shape in zip(drawn, shapes, strict=True))

    steps = tf.data.Dataset.range(start, np.iinfo(np.int64).max)
    return steps.map(batch, num_parallel_calls=2, deterministic=True).unbatch().prefetch(PREFETCHED)


def rim_photographs(share: int) -> int:
    """How many of a device's photographs are also seen at full resolution. A rim needs fewer examples than a hole."""
    return max(1, share // RIM_SHARE)


def draw_batch(
    photographs: np.ndarray, settings: Residual, rng: np.random.Generator, local: slice, share: int
) -> tuple[np.ndarray, ...]:
    """The local part of one batch, for devices that get `share` photographs each; as `batches` describes it.

    photographs are those of read_photographs. Unknown pixels are holes of weight 0.
    """
    size, side = settings.batch_size, settings.resolution
    chosen = rng.integers(len(photographs), size=size)
    mirrored = rng.random((size, 1, 1, 1)) < 0.5
    boxes = rng.integers(0, LAST + 1, (size, 2, 2))
    start, length = draw_parts(rng, size, settings.zoom)

    def cut(rows: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
        parts = cut_parts(photographs[chosen[rows]], start[rows], length[rows], side)
        parts = np.where(mirrored[rows], parts[:, :, ::-1], parts)
        return parts[..., :3], parts[..., 3] == KNOWN

    here = np.arange(size)[local]
    images, known = cut(here, side)
    weights = network.weigh(boxes[here], side)
    first = here.reshape(-1, share)[:, : rim_photographs(share)].ravel()
    rims = network.rim_examples(*cut(first, SIZE), boxes[first], side)
    return *network.examples(images, (weights > 0) | ~known), weights * known, *rims


def draw_parts(rng: np.random.Generator, n: int, zoom: float) -> tuple[np.ndarray, np.ndarray]:
    """Half of the times the whole photograph, else a part: upper left corner and lengths, int [n, 2] each, in pixels.

    A part is 1 to `zoom` times smaller in width and height, and up to a tenth higher or lower than it is wide.
    """
    ratio = rng.uniform(1, zoom, (n, 1)) * np.hstack([rng.uniform(0.9, 1.1, (n, 1)), np.ones((n, 1))])
    ratio[(rng.random(n) < 0.5) | (zoom == 1)] = 1
    length = np.minimum(SIZE / ratio, SIZE).astype(int)
    return (rng.random((n, 2)) * (SIZE - length + 1)).astype(int), length


def cut_parts(photographs: np.ndarray, start: np.ndarray, length: np.ndarray, side: int) -> np.ndarray:
    """These parts of photographs, uint8 [n, 256, 256, 4], each resized to [side, side, 4]."""
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
    """All photographs to learn from: uint8 [n, 256, 256, 4], the last channel KNOWN outside the masked images' holes.

    They take 1.8 GB for the competition.
    """
    files = input_files(settings, data)
    photographs = np.full((len(files), SIZE, SIZE, 4), KNOWN, np.uint8)
    with ThreadPoolExecutor() as pool:
        images = progress(pool.map(read_image, files), "read photographs", len(files))
        for photograph, image in zip(photographs, images, strict=True):
            photograph[..., :3] = image
    photographs[len(data.pairs) :, ..., 3][hole_mask(boxes_of(partly_known(settings, data)))] = 0
    return photographs


def before_validation(model: keras.Model, settings: Residual, data: TrainingData) -> None:
    """Nothing: the averaged weights fill as they are."""
