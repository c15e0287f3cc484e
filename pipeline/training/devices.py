"""The devices that a training runs on: one, all of one machine, or those of several machines.

A batch is cut into one equal part for each device. Each device holds a replica of the networks and computes the
gradient of its part. Their sum is the gradient of the whole batch and updates all replicas alike, so a step scales each
loss to its part's share in the loss of the whole batch.
"""

import json
import os
from collections.abc import Callable

import keras
import tensorflow as tf

from pipeline.base.errors import BadInput
from pipeline.training.loop import Step, TrainingState
from pipeline.training.runtime import grow_gpu_memory

SUM = tf.distribute.ReduceOp.SUM


def use_devices(name: str) -> tf.distribute.Strategy:
    """The strategy named in params.yaml, "none", "mirrored" or "multi_worker", on GPUs if there are any, else the CPU.

    Call it before any other use of TensorFlow. Raises BadInput if TF_CONFIG does not name the workers.
    """
    grow_gpu_memory()
    if name == "multi_worker":
        check_workers(os.environ.get("TF_CONFIG", ""))
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()


def check_workers(config: str) -> None:
    """Raises BadInput if the text of TF_CONFIG is not what TensorFlow expects."""
    example = '{"cluster": {"worker": ["host-a:2222", "host-b:2222"]}, "task": {"type": "worker", "index": 0}}'
    try:
        content = json.loads(config)
        workers, task = content["cluster"]["worker"], content["task"]
        if task["type"] != "worker" or not 0 <= task["index"] < len(workers):
            raise ValueError("its task is not one of its workers")
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(
            f"train.strategy: multi_worker needs TF_CONFIG, which is {config!r} ({error}); set it as {example}"
        ) from None


def describe(strategy: tf.distribute.Strategy) -> str:
    """Number and name of the devices, as "2 x NVIDIA A100" or "1 x CPU"."""
    gpus = tf.config.list_physical_devices("GPU")
    name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU") if gpus else "CPU"
    return f"{strategy.num_replicas_in_sync} x {name}"


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process validates and writes: it is the only one, or worker 0."""
    resolver = strategy.cluster_resolver
    return resolver is None or not resolver.task_id


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Wait until every worker is here: none may end while another is still running."""
    if strategy.cluster_resolver:
        strategy.run(tf.function(lambda: tf.distribute.get_replica_context().all_reduce(SUM, tf.constant(1.0))))


def check_batch(strategy: tf.distribute.Strategy, system: str, batch_size: int) -> None:
    """Raises BadInput if a batch cannot be cut into equal parts."""
    if batch_size % strategy.num_replicas_in_sync:
        raise BadInput(
            f"{system}.batch_size is {batch_size}, shared by {strategy.num_replicas_in_sync} devices: make it a "
            "multiple of their number"
        )


def on_all_replicas(step: Step, then: Callable[[], None] = lambda: None) -> Step:
    """A compiled step that runs on every replica and returns the losses of the whole batch.

    `step` takes one replica's part of a batch and returns its share of each loss, a scalar. `then` runs once, after it.
    Call this inside the strategy's scope.
    """
    strategy = tf.distribute.get_strategy()

    @tf.function(autograph=False)  # no step branches on a tensor, and the conversion takes seconds
    def run(*batch: tf.Tensor) -> dict[str, tf.Tensor]:
        parts = strategy.run(step, args=batch)
        then()
        return {name: strategy.reduce(SUM, part, axis=None) for name, part in parts.items()}

    return run


def update(tape: tf.GradientTape, loss: tf.Tensor, *trained: tuple[keras.Model, keras.Optimizer]) -> None:
    """In a step: each optimizer's step of its network down the gradient of one loss."""
    variables = [network.trainable_variables for network, _ in trained]
    for (_, optimizer), own, gradients in zip(trained, variables, tape.gradient(loss, variables), strict=True):
        optimizer.apply_gradients(zip(gradients, own, strict=True))


def replica_share(weights: tf.Tensor | float = 1.0) -> tf.Tensor:
    """In a step: the sum of these weights divided by their sum on all replicas; exactly 1 on a single one."""
    own = tf.reduce_sum(weights)
    return own / tf.distribute.get_replica_context().all_reduce(SUM, own)


def sync_replicas(strategy: tf.distribute.Strategy, state: TrainingState) -> None:
    """Copy the first replica's state to all others, each with random numbers of its own.

    From then on, batch normalisation takes the statistics of the whole batch. With one replica nothing changes.
    """
    if strategy.num_replicas_in_sync == 1:
        return

    def from_first(value: tf.Tensor) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        first = context.replica_id_in_sync_group == 0
        return context.all_reduce(SUM, tf.where(first, value, tf.zeros_like(value)))

    @tf.function(autograph=False)
    def copy() -> tf.Tensor:
        for variable in state.variables().values():
            variable.assign(from_first(tf.convert_to_tensor(variable.value)))
        for network in state.networks.values():
            for layer in network.layers:
                if generator := getattr(layer, "seed_generator", None):
                    offset_seeds(generator)
        return from_first(tf.constant(state.step))

    state.step = int(strategy.experimental_local_results(strategy.run(copy))[0])
    for network in state.networks.values():
        for layer in network.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True


def offset_seeds(generator: keras.random.SeedGenerator) -> None:
    """In a replica: draw random numbers that no other replica draws."""
    seed, count = tf.unstack(tf.convert_to_tensor(generator.state.value))
    replica = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, seed.dtype)
    generator.state.assign(tf.stack([seed + replica, count]))
