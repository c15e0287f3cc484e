"""How the residual U-Net is trained: Adam with decoupled decay, a cosine to zero, a moving average of the weights."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from pipeline import paths
from pipeline.base.progress import progress
from pipeline.competition.images import read_image
from pipeline.competition.index import whole_path
from pipeline.models import residual
from pipeline.params import Residual
from pipeline.training.adam import FusedAdam
from pipeline.training.batches import ALL, part_here
from pipeline.training.devices import on_all_replicas, part_of_all, update
from pipeline.training.loop import Training, snapshot

MODEL = residual
WARM_UP = 100  # steps, at most a tenth of all
BETA_2 = 0.99
CLIP = 1.0  # the gradient's norm over all variables
PREFETCHED = 4  # batches


def begin(settings: Residual, precision: str, seed: int) -> Training:
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
    return Training(average, {"network": network, "average": average}, {"optimizer": optimizer}, snapshot(average))


def make_step(training: Training, settings: Residual) -> Callable[..., dict[str, tf.Tensor]]:
    """One step on what `batches` gives, compiled; it returns the loss, in squared units of [-1, 1]."""
    network, average = training.networks["network"], training.networks["average"]
    optimizer = training.optimizers["optimizer"]

    def step(given: tf.Tensor, wanted: tf.Tensor, weights: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = part_of_all(weights) * residual.loss(wanted, network(given, training=True), weights)
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
    small: np.ndarray, batch_size: int, seed: int, start: int = 0, parts: tf.distribute.InputContext = ALL
) -> tf.data.Dataset:
    """Endless batches (given, wanted, weights) from step `start` on, as residual.examples and draw_weights make them.

    small, uint8 [n, h, h, 3], are whole photographs. What a step sees is a function of the seed and its number. On
    several devices these are the parts of the devices here, one after the other, as training_batches gives them.
    """
    side, here = small.shape[1], part_here(batch_size, parts)
    share = batch_size // parts.num_replicas_in_sync
    shapes = [(None, share, side, side, *channels) for channels in ((4,), (3,), ())]

    def draw(step: np.ndarray) -> list[np.ndarray]:
        rng = np.random.default_rng((seed, int(step)))
        photographs = small[rng.integers(len(small), size=batch_size)]
        mirrored = rng.random((batch_size, 1, 1, 1)) < 0.5
        photographs = np.where(mirrored, photographs[:, :, ::-1], photographs)
        weights = residual.draw_weights(rng, batch_size, side)
        weights = weights[here]
        drawn = (*residual.examples(photographs[here], weights), weights)
        return [part.reshape(-1, share, *part.shape[1:]) for part in drawn]

    def batch(step: tf.Tensor) -> tuple[tf.Tensor, ...]:
        drawn = tf.numpy_function(draw, [step], [tf.float32] * 3)
        return tuple(tf.ensure_shape(part, shape) for part, shape in zip(drawn, shapes, strict=True))

    steps = tf.data.Dataset.range(start, np.iinfo(np.int64).max)
    return steps.map(batch, num_parallel_calls=2, deterministic=True).unbatch().prefetch(PREFETCHED)


def sources(_: Residual, trained: pd.DataFrame) -> list[Path]:
    """The files that a checkpoint depends on beside the index: the photographs themselves."""
    return [whole_path(paths.RAW, row) for row in trained.to_dict("records")]


def batches(
    settings: Residual,
    index: pd.DataFrame,
    keep: np.ndarray,
    seed: int,
    start: int,
    parts: tf.distribute.InputContext = ALL,
) -> tf.data.Dataset:
    """The training's batches from step `start` on."""
    whole = sources(settings, index[keep])
    with ThreadPoolExecutor() as pool:
        read = pool.map(lambda path: residual.shrink(read_image(path)[None], settings.resolution)[0], whole)
        small = np.stack(list(progress(read, "read photographs", len(whole))))
    levels = np.round(small).astype(np.uint8)
    return draw_batches(levels, settings.batch_size, seed, start, parts)


def preparation(*_: object) -> Callable[[keras.Model], None]:
    """What is to be done to the average before it is measured: nothing."""
    return lambda average: None
