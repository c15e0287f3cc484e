"""How the residual networks are trained; the model is an average of their weights."""

import keras
import numpy as np
import tensorflow as tf

from pipeline.params import Residual
from pipeline.systems.residual import network, samples
from pipeline.systems.residual.optimizers import build_optimizers
from pipeline.training.adam import FusedAdam
from pipeline.training.batches import ONE_DEVICE, local_part
from pipeline.training.data import TrainingData
from pipeline.training.devices import on_all_replicas, replica_share, update
from pipeline.training.loop import Step, TrainingState, snapshot

PREFETCHED = 4  # batches

input_files = samples.input_files


def begin(settings: Residual, dtype: str, seed: int) -> TrainingState:
    """The network with fresh weights drawn from the seed, their average, an optimizer for each part."""
    keras.utils.set_random_seed(seed)
    trained, average = (network.build(settings, dtype) for _ in range(2))
    average.set_weights(trained.get_weights())
    optimizers = build_optimizers(trained, settings, FusedAdam)
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
            seen = network.add_residual(near, tf.stop_gradient(predicted[samples.RIMS]), rows, columns)
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
    photographs = samples.read_photographs(settings, data)
    side, share = settings.resolution, settings.batch_size // context.num_replicas_in_sync
    near, rims = network.NEAR, 2 * len(range(share)[samples.RIMS])
    shapes = [(None, share, side, side, *channels) for channels in ((4,), (3,), ())]
    shapes += [(None, rims, near, near, *channels) for channels in ((5,), (3,), ())] + 2 * [(None, rims, near, side)]

    def draw(step: np.ndarray) -> list[np.ndarray]:
        local = local_part(settings.batch_size, context)
        rng = np.random.default_rng((data.seed, int(step)))
        drawn = samples.draw_batch(photographs, settings, rng, local, share)
        return [part.reshape(-1, *shape[1:]) for part, shape in zip(drawn, shapes, strict=True)]

    def batch(step: tf.Tensor) -> tuple[tf.Tensor, ...]:
        drawn = tf.numpy_function(draw, [step], [tf.float32] * len(shapes))
        return tuple(tf.ensure_shape(part, shape) for part, shape in zip(drawn, shapes, strict=True))

    steps = tf.data.Dataset.range(start, np.iinfo(np.int64).max)
    return steps.map(batch, num_parallel_calls=2, deterministic=True).unbatch().prefetch(PREFETCHED)


def before_validation(model: keras.Model, settings: Residual, data: TrainingData) -> None:
    """Nothing: the averaged weights fill as they are."""
