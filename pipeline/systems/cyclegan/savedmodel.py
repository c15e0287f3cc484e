"""Read generators from a SavedModel of Keras 2, which Keras 3 cannot load.

The weights are read from its checkpoint, without running its graph. Then the network with these weights is compared
with the SavedModel itself, which does run its graph: take one only from a source whose programs you would run.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from pipeline.base.errors import BadInput

FILES = ("saved_model.pb", "variables/*")  # needed of a hub repository
OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"  # where TensorFlow's checkpoints hold what is in them
TOLERANCE = 1e-3  # mean difference of outputs in [-1, 1]: rounding in float32 makes 1e-6, another epsilon more
# What TensorFlow and protobuf raise for files that are damaged or no SavedModel.
UNREADABLE = (OSError, ValueError, LookupError, RuntimeError, DecodeError, tf.errors.OpError)

Weights = list[np.ndarray]


def list_files(folder: Path) -> list[Path]:
    """The files that a SavedModel's weights and outputs depend on."""
    return sorted(path for pattern in FILES for path in folder.glob(pattern))


def read_generators(folder: Path, network: keras.Model) -> tuple[Weights, Weights]:
    """The weights of the two generators in a SavedModel, or those of its only one twice.

    `network`, in float32, is run with these weights and keeps the last ones. Raises BadInput if the folder is no such
    SavedModel or is damaged, or if its variables or its outputs are not the network's.
    """
    try:
        variables = read_variables(folder)
    except UNREADABLE as error:
        raise unreadable(folder, error) from None
    found, expected = [value.shape for value in variables], [tuple(weight.shape) for weight in network.weights]
    if found not in (expected, 2 * expected):
        raise BadInput(
            f"{folder} has {count(found)}, not the {count(expected)} of one generator or those of two; "
            "set generator and filters to what its network is"
        )
    sets = [variables[i : i + len(expected)] for i in range(0, len(found), len(expected))]
    compare(folder, network, sets)
    return sets[0], sets[-1]


def read_variables(folder: Path) -> Weights:
    """The variables of a Keras model in the order of its layers.

    Their names in the checkpoint do not tell the order. The list `variables` among every Keras model's objects does.
    """
    checkpoint = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
    nodes = TrackableObjectGraph.FromString(checkpoint.get_tensor(OBJECTS)).nodes
    top = {child.local_name: nodes[child.node_id] for child in nodes[0].children}
    if "variables" not in top:
        raise ValueError("it has no list of a model's variables")
    ordered = sorted(top["variables"].children, key=lambda child: int(child.local_name))
    return [checkpoint.get_tensor(nodes[child.node_id].attributes[0].checkpoint_key) for child in ordered]


def compare(folder: Path, network: keras.Model, sets: list[Weights]) -> None:
    """Raises BadInput if the SavedModel's outputs are not those of the network with these sets of weights.

    With two generators, an output may be that of one generator, or of one applied to the other's output.
    """
    image = np.random.default_rng(0).uniform(-1, 1, (1, *network.input_shape[1:])).astype(np.float32)
    alone = [run(network, weights, image) for weights in sets]
    known = alone + [run(network, weights, output) for weights, output in zip(reversed(sets), alone, strict=True)]
    try:
        originals = run_original(folder, image)
        off = max(min(np.abs(original - output).mean() for output in known) for original in originals)
    except UNREADABLE as error:
        raise unreadable(folder, error) from None
    if not off <= TOLERANCE:
        raise BadInput(
            f"{folder} has the variables of the network but computes something else: on one image its output is "
            f"{off:.2g} away on average, of which {TOLERANCE} may be rounding; it cannot be used"
        )


def run(network: keras.Model, weights: Weights, image: np.ndarray) -> np.ndarray:
    """The network's output with these weights, in evaluation mode."""
    network.set_weights(weights)
    return keras.ops.convert_to_numpy(network(image, training=False))


def run_original(folder: Path, image: np.ndarray) -> list[np.ndarray]:
    """The outputs of a SavedModel that gets the image as each of its inputs."""

    def run_outside() -> list[np.ndarray]:
        loaded = tf.saved_model.load(str(folder))
        serve = loaded.signatures["serving_default"]
        _, inputs = serve.structured_input_signature
        return [output.numpy() for output in serve(**dict.fromkeys(inputs, tf.constant(image))).values()]

    # Its graph cannot run in a strategy's scope; another thread is outside of it.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run_outside).result()


def count(shapes: list[tuple[int, ...]]) -> str:
    """The number of variables and of values, in words."""
    return f"{len(shapes)} variables with {sum(int(np.prod(shape)) for shape in shapes):,} numbers"


def unreadable(folder: Path, error: Exception) -> BadInput:
    """The error for a folder that holds no SavedModel of Keras 2, or a damaged one."""
    reason = str(error).strip().partition("\n")[0]
    return BadInput(f"{folder} is not a SavedModel of Keras 2, or is damaged ({reason}); download it again")
