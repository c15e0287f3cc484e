"""A tiny training on one of two virtual devices and on both: prints its losses, weights and devices as JSON.

Weights of the samples differ between the devices' parts, and batch normalisation takes statistics of the whole batch.
"""

import json
from types import SimpleNamespace

import keras
import numpy as np
import tensorflow as tf

from pipeline.base.errors import BadInput
from pipeline.training.batches import local_part
from pipeline.training.devices import (
    check_batch,
    describe,
    on_all_replicas,
    replica_share,
    sync_replicas,
    update,
    use_devices,
)
from pipeline.training.loop import TrainingState, snapshot, train

BATCH, STEPS = 6, 5
SCHEDULE = SimpleNamespace(steps=STEPS, validate_every=STEPS, checkpoint_every=STEPS)


def samples(context: tf.distribute.InputContext) -> tf.data.Dataset:
    """Batches of (inputs, target, weights), cut into the devices' parts."""
    rng, share = np.random.default_rng(2), BATCH // context.num_replicas_in_sync
    parts = [
        rng.normal(size=(STEPS, BATCH, 4)),
        rng.normal(size=(STEPS, BATCH, 1)),
        rng.uniform(size=(STEPS, BATCH, 1)),
    ]
    local = [np.float32(part[:, local_part(BATCH, context)]) for part in parts]
    return tf.data.Dataset.from_tensor_slices(tuple(part.reshape(-1, share, part.shape[-1]) for part in local))


def trained(name: str) -> dict[str, object]:
    """Train with this strategy."""
    strategy = use_devices(name)
    with strategy.scope():
        keras.utils.set_random_seed(3)
        layers = [keras.layers.Dense(8), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
        model, optimizer = keras.Sequential([keras.Input((4,)), *layers]), keras.optimizers.SGD(0.1)
        optimizer.build(model.trainable_variables)

        def step(inputs: tf.Tensor, target: tf.Tensor, weights: tf.Tensor) -> dict[str, tf.Tensor]:
            with tf.GradientTape() as tape:
                error = tf.reduce_sum(weights * tf.square(target - model(inputs, training=True)))
                loss = replica_share(weights) * error / tf.reduce_sum(weights)
            update(tape, loss, (model, optimizer))
            return {"loss": loss}

        run = on_all_replicas(step)
    state = TrainingState(model, {"model": model}, {"optimizer": optimizer}, snapshot(model))
    sync_replicas(strategy, state)
    train(state, SCHEDULE, run, strategy.distribute_datasets_from_function(samples), None, lambda _: None)
    losses, weights = [row["loss"] for row in state.losses], np.concatenate([np.ravel(w) for w in snapshot(model)])
    return {"losses": losses, "weights": weights.tolist(), "devices": describe(strategy)}


def refused() -> str:
    """What is said of a batch of three."""
    try:
        check_batch(use_devices("mirrored"), "residual", 3)
    except BadInput as error:
        return str(error)
    return ""


if __name__ == "__main__":
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    print(json.dumps({"none": trained("none"), "mirrored": trained("mirrored"), "refused": refused()}))
