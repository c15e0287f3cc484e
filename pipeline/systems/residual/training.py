"""How the residual U-Net is trained: Adam with decoupled decay, a cosine to zero, a moving average of the weights."""

from collections.abc import Callable
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
from pipeline.systems.residual import network as residual
from pipeline.training.adam import FusedAdam
from pipeline.training.batches import ALL, local_part
from pipeline.training.devices import on_all_replicas, replica_share, update
from pipeline.training.loop import TrainingState, snapshot

MODEL = residual
WARM_UP = 100  # steps, at most a tenth of all
BETA_2 = 0.99
CLIP = 1.0  # the gradient's norm over all variables
PREFETCHED = 4  # batches
KNOWN = 255


def begin(settings: Residual, precision: str, seed: int) -> TrainingState:
    """The network with fresh weights drawn from the seed, their average, the optimizer."""
    keras.utils.set_random_seed(seed)
    network, average = (
        residual.build(settings.filters, settings.blocks, settings.resolution, precision) for _ in range(2)
    )
    average.set_weights(network.get_weights())
    warm_up = min(WARM_UP, settings.steps // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, settings.steps - warm_up, warmup_target=settings.learning_rate, warmup_steps=warm_up
    )
    decay = settings.weight_decay
    optimizer = FusedAdam(rate, beta_2=BETA_2, weight_decay=decay, global_clipnorm=CLIP)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build(network.trainable_variables)
    return TrainingState(average, {"network": network, "average": average}, {"optimizer": optimizer}, snapshot(average))


def make_step(training: TrainingState, settings: Residual) -> Callable[..., dict[str, tf.Tensor]]:
    """One step on what `batches` gives, compiled; it returns the loss, in squared units of [-1, 1]."""
    network, average = training.networks["network"], training.networks["average"]
    optimizer = training.optimizers["optimizer"]

    def step(given: tf.Tensor, wanted: tf.Tensor, weights: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = replica_share(weights) * residual.loss(wanted, network(given, training=True), weights)
        update(tape, loss, network, optimizer)
        return {"loss": loss}

    def average_weights() -> None:
        count = tf.cast(optimizer.iterations.value, tf.float32)
        # Shorter at first, or the initial weights would weigh for long.
        share = 1 - tf.minimum(settings.average, (1 + count) / (10 + count))
        for mean, weight in zip(average.trainable_variables, network.trainable_variables, strict=True):
            mean.assign(mean + share * (weight - mean))

    return on_all_replicas(step, then=average_weights)


def draw_batches(
    photographs: np.ndarray, settings: Residual, seed: int, start: int = 0, parts: tf.distribute.InputContext = ALL
) -> tf.data.Dataset:
    """Endless batches (given, wanted, weights) from step `start` on, as residual.examples and draw_weights make them.

    photographs are as read_photographs gives them; where not known, they are missing and weigh nothing. What a step
    sees is a function of the seed and its number. On several devices these are the parts of the devices here, one after
    the other, as training_batches gives them.
    """
    batch_size, side, here = settings.batch_size, settings.resolution, local_part(settings.batch_size, parts)
    share = batch_size // parts.num_replicas_in_sync
    shapes = [(None, share, side, side, *channels) for channels in ((4,), (3,), ())]

    def draw(step: np.ndarray) -> list[np.ndarray]:
        rng = np.random.default_rng((seed, int(step)))
        drawn = photographs[rng.integers(len(photographs), size=batch_size)]
        mirrored = rng.random((batch_size, 1, 1, 1)) < 0.5
        boxes = residual.draw_weights(rng, batch_size, side)
        if settings.zoom > 1:
            drawn = zoom(rng, drawn, settings.zoom, side)
        drawn = np.where(mirrored, drawn[:, :, ::-1], drawn)
        drawn, boxes = drawn[here], boxes[here]
        known = drawn[..., 3] == KNOWN
        made = (*residual.examples(drawn[..., :3], (boxes > 0) | ~known), boxes * known)
        return [part.reshape(-1, share, *part.shape[1:]) for part in made]

    def batch(step: tf.Tensor) -> tuple[tf.Tensor, ...]:
        drawn = tf.numpy_function(draw, [step], [tf.float32] * 3)
        return tuple(tf.ensure_shape(part, shape) for part, shape in zip(drawn, shapes, strict=True))

    steps = tf.data.Dataset.range(start, np.iinfo(np.int64).max)
    return steps.map(batch, num_parallel_calls=2, deterministic=True).unbatch().prefetch(PREFETCHED)


def zoom(rng: np.random.Generator, photographs: np.ndarray, most: float, side: int) -> np.ndarray:
    """Half of the photographs, uint8 [n, h, h, 4], whole, of the others a part, all brought to [n, side, side, 4].

    A part is 1 to `most` times smaller in width and height, and up to a tenth higher or lower than it is wide.
    """
    n, size = photographs.shape[:2]
    ratio = rng.uniform(1, most, (n, 1)) * np.hstack([rng.uniform(0.9, 1.1, (n, 1)), np.ones((n, 1))])
    ratio[rng.random(n) < 0.5] = 1
    length = np.minimum(size / ratio, size).astype(int)
    start = (rng.random((n, 2)) * (size - length + 1)).astype(int)
    parts = (
        photograph[top : top + height, left : left + width]
        for photograph, (top, left), (height, width) in zip(photographs, start, length, strict=True)
    )
    return np.stack([cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA) for part in parts])


def partly_known(settings: Residual, index: pd.DataFrame, keep: np.ndarray) -> pd.DataFrame:
    """The rows to learn from of which only the masked image may be seen: of the test, and held out.

    Two of one photograph have different holes: one would show what is held out of the other. Neither is taken.
    """
    outside = index[~keep]
    return outside[settings.masked_images & ~outside["group"].duplicated(keep=False)]


def sources(settings: Residual, index: pd.DataFrame, keep: np.ndarray) -> list[Path]:
    """The files that a checkpoint depends on beside the index: the photographs themselves, and the masked images."""
    whole = [target_path(paths.RAW, row) for row in index[keep].to_dict("records")]
    masked = partly_known(settings, index, keep).to_dict("records")
    return whole + [masked_path(paths.RAW, row) for row in masked]


def read_photographs(settings: Residual, index: pd.DataFrame, keep: np.ndarray) -> np.ndarray:
    """All there is to learn from: uint8 [n, h, h, 4], the last channel KNOWN where the photograph is.

    h is the resolution, or with a zoom 256, which is 1.8 GB for the competition.
    """
    files, side = sources(settings, index, keep), settings.resolution if settings.zoom == 1 else SIZE
    photographs = np.full((len(files), side, side, 4), KNOWN, np.uint8)

    def read(number: int) -> None:
        photographs[number, ..., :3] = np.round(residual.shrink(read_image(files[number])[None], side)[0])

    with ThreadPoolExecutor() as pool:
        list(progress(pool.map(read, range(len(files))), "read photographs", len(files)))
    boxes = boxes_of(partly_known(settings, index, keep))
    photographs[keep.sum() :, ..., 3][residual.missing_cells(boxes, side)] = 0
    return photographs


def batches(
    settings: Residual,
    index: pd.DataFrame,
    keep: np.ndarray,
    seed: int,
    start: int,
    parts: tf.distribute.InputContext = ALL,
) -> tf.data.Dataset:
    """The training's batches from step `start` on."""
    return draw_batches(read_photographs(settings, index, keep), settings, seed, start, parts)


def before_validation(*_: object) -> Callable[[keras.Model], None]:
    """What is to be done to the average before it is measured: nothing."""
    return lambda average: None
