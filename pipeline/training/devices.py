"""The devices that a training runs on: one, all of a machine, or those of several machines.

A batch is cut into as many equal parts as there are devices; each holds a replica of the networks and computes the
gradient of its part; their sum, the gradient of the whole batch, updates all replicas alike. A step therefore says of
each loss what its part adds to that of the whole batch.
"""

import json
import os
from collections.abc import Callable

import keras
import tensorflow as tf

from pipeline.base.errors import BadInput
from pipeline.training.loop import TrainingState
from pipeline.training.runtime import grow_gpu_memory

SUM = tf.distribute.ReduceOp.SUM
Step = Callable[..., dict[str, tf.Tensor]]


def use_devices(name: str) -> tf.distribute.Strategy:
    """The strategy of params.yaml: "none", "mirrored" or "multi_worker"; GPUs where there are any, else the CPU.

    Must come before any other use of TensorFlow. Raises BadInput where TF_CONFIG does not name the workers.
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
    """Raises BadInput where the text of TF_CONFIG is not as TensorFlow wants it."""
    example = '{"cluster": {"worker": ["host-a:2222", "host-b:2222"]}, "task": {"type": "worker", "index": 0}}'
    try:
        content = json.loads(config)
        workers, task = content["cluster"]["worker"], content["task"]
        if task["type"] != "worker" or not 0 <= task["index"] < len(workers):
            raise ValueError("its task is none of its workers")
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(
            f"train.strategy: multi_worker needs TF_CONFIG, which is {config!r} ({error}); set it as {example}"
        ) from None


def describe(strategy: tf.distribute.Strategy) -> str:
    """How many devices of which kind there are, as "2 x NVIDIA A100" or "1 x CPU"."""
    gpus = tf.config.list_physical_devices("GPU")
    kind = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU") if gpus else "CPU"
    return f"{strategy.num_replicas_in_sync} x {kind}"


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this is the process that validates and writes: the only one, or worker 0."""
    resolver = strategy.cluster_resolver
    return resolver is None or not resolver.task_id


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Wait until every worker is here: while one is at work the others must not end."""
    if strategy.cluster_resolver:
        strategy.run(tf.function(lambda: tf.distribute.get_replica_context().all_reduce(SUM, tf.constant(1.0))))


def check_batch(strategy: tf.distribute.Strategy, system: str, batch_size: int) -> None:
    """Raises BadInput where a batch cannot be cut into equal parts."""
    if batch_size % strategy.num_replicas_in_sync:
        raise BadInput(
            f"{system}.batch_size is {batch_size}: it is that of all {strategy.num_replicas_in_sync} devices, "
            "so make it a multiple of their number"
        )


def on_all_replicas(step: Step, then: Callable[[], None] = lambda: None) -> Step:
    """A step that runs on every replica, compiled, and gives the losses of the whole batch.

    `step` takes one replica's part of a batch and gives its losses, each a scalar and a part of that of the whole
    batch; `then` is done once, after it. Call it where the strategy's scope is.
    """
    strategy = tf.distribute.get_strategy()

    @tf.function
    def run(*batch: tf.Tensor) -> dict[str, tf.Tensor]:
        parts = strategy.run(step, args=batch)
        then()
        return {name: strategy.reduce(SUM, part, axis=None) for name, part in parts.items()}

    return run


def update(tape: tf.GradientTape, loss: tf.Tensor, network: keras.Model, optimizer: keras.Optimizer) -> None:
    """In a step: the optimizer's step of a network down the gradient of a loss."""
    gradients = tape.gradient(loss, network.trainable_variables)
    optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))


def replica_share(weights: tf.Tensor | float = 1.0) -> tf.Tensor:
    """In a step: the sum of these weights beside the sum of those of all replicas; exactly 1 where there is but one."""
    own = tf.reduce_sum(weights)
    return own / tf.distribute.get_replica_context().all_reduce(SUM, own)


def sync_replicas(strategy: tf.distribute.Strategy, training: TrainingState) -> None:
    """Bring every replica to the state of the first one, each with random numbers of its own.

    Statistics of batch normalisation are then those of the whole batch. With one replica nothing changes.
    """
    if strategy.num_replicas_in_sync == 1:
        return

    def of_first(value: tf.Tensor) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        first = context.replica_id_in_sync_group == 0
        return context.all_reduce(SUM, tf.where(first, value, tf.zeros_like(value)))

    @tf.function
    def copy() -> tf.Tensor:
        for variable in training.variables().values():
            variable.assign(of_first(tf.convert_to_tensor(variable.value)))
        for network in training.networks.values():
            for layer in network.layers:
                if generator := getattr(layer, "seed_generator", None):
                    offset_seeds(generator)
        return of_first(tf.constant(training.step))

    training.step = int(strategy.experimental_local_results(strategy.run(copy))[0])
    for network in training.networks.values():
        for layer in network.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True


def offset_seeds(generator: keras.random.SeedGenerator) -> None:
    """In a replica: random numbers that no other replica draws."""
    seed, count = tf.unstack(tf.convert_to_tensor(generator.state.value))
    replica = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, seed.dtype)
    generator.state.assign(tf.stack([seed + replica, count]))
