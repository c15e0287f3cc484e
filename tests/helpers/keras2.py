"""SavedModels as Keras 2 wrote them, with CycleGAN's generators in TensorFlow's own operations.

Objects and names are those of real ones: a layer's variables are under layer_with_weights-N or, if layers are nested,
under numbers. All of them are in a list `variables`.
"""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
import tensorflow as tf

from pipeline.competition.images import SIZE
from pipeline.systems.cyclegan import network as cyclegan
from pipeline.systems.shared import unet as shared
from tests.helpers.settings import settings_of

Weights = list[np.ndarray]
Generator = Callable[[Iterator, tf.Tensor], tf.Tensor]


def norm(left: Iterator, x: tf.Tensor, epsilon: float) -> tf.Tensor:
    mean, variance = tf.nn.moments(x, [1, 2], keepdims=True)
    gamma, beta = next(left), next(left)
    return tf.nn.batch_normalization(x, mean, variance, beta, gamma, epsilon)


def transposed(left: Iterator, x: tf.Tensor) -> tf.Tensor:
    kernel, (n, height, width, _) = next(left), tf.unstack(tf.shape(x))
    return tf.nn.conv2d_transpose(x, kernel, [n, 2 * height, 2 * width, kernel.shape[2]], 2, "SAME")


def resnet(left: Iterator, x: tf.Tensor, epsilon: float = 1e-3) -> tf.Tensor:
    """keras.io's generator; `left` yields the variables in their order."""

    def mirrored(x: tf.Tensor, size: int) -> tf.Tensor:
        padded = tf.pad(x, [[0, 0], [size, size], [size, size], [0, 0]], "REFLECT")
        return tf.nn.conv2d(padded, next(left), 1, "VALID")

    x = tf.nn.relu(norm(left, mirrored(x, 3), epsilon))
    for _ in range(2):
        x = tf.nn.relu(norm(left, tf.nn.conv2d(x, next(left), 2, "SAME"), epsilon))
    for _ in range(cyclegan.BLOCKS):
        y = tf.nn.relu(norm(left, mirrored(x, 1), epsilon))
        x += norm(left, mirrored(y, 1), epsilon)
    for _ in range(2):
        x = tf.nn.relu(norm(left, transposed(left, x), epsilon))
    return tf.tanh(mirrored(x, 3) + next(left))


def unet(left: Iterator, x: tf.Tensor) -> tf.Tensor:
    """The generator of TensorFlow's tutorial."""
    skips = []
    for number in range(len(shared.DOWN)):
        x = tf.nn.conv2d(x, next(left), 2, "SAME")
        x = tf.nn.leaky_relu(norm(left, x, 1e-5) if number else x, 0.3)
        skips.append(x)
    for skip in skips[-2::-1]:
        x = tf.concat([tf.nn.relu(norm(left, transposed(left, x), 1e-5)), skip], -1)
    return tf.tanh(transposed(left, x) + next(left))


GENERATORS = {"resnet": resnet, "unet": unet}


def lively(generator: str, filters: int, seed: int) -> Weights:
    """Weights with which the output depends on the image and has all levels."""
    rng, weights = np.random.default_rng(seed), []
    for weight in cyclegan.build(settings_of("cyclegan", generator=generator, filters=filters)).weights:
        scale = np.sqrt(2 / np.prod(weight.shape[:3])) if weight.path.endswith("kernel") else 0.2
        weights.append(rng.normal(weight.path.endswith("gamma"), scale, weight.shape).astype(np.float32))
    return weights


def write(folder: Path, sets: list[Weights], compute: Callable, nested: bool = False) -> None:
    """The SavedModel of a model with these sets of variables; `compute(*sets, image)` returns its outputs."""
    root = tf.train.Checkpoint()
    variables = [[tf.Variable(weight) for weight in weights] for weights in sets]
    if not nested:
        name_layers(root, variables[0])
    root.variables = [variable for own in variables for variable in own]

    @tf.function(input_signature=[tf.TensorSpec([None, SIZE, SIZE, 3], name="image")])
    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = compute(*variables, image)
        return {f"output_{i}": output for i, output in enumerate(outputs)}

    tf.saved_model.save(root, str(folder), {"serving_default": serve})


def name_layers(root: tf.train.Checkpoint, variables: list[tf.Variable]) -> None:
    """The layers of a model whose layers are not nested: each kernel and each gamma begins one."""
    numbers, names = count(), {"kernel": "bias", "gamma": "beta"}
    for i, variable in enumerate(variables):
        if len(variable.shape) == 4 or len(variables[i - 1].shape) == 4 and i < len(variables) - 1:
            layer, first = tf.train.Checkpoint(), "kernel" if len(variable.shape) == 4 else "gamma"
            setattr(root, f"layer_with_weights-{next(numbers)}", layer)
            setattr(layer, first, variable)
        else:
            setattr(layer, names[first], variable)


def write_one(folder: Path, generator: str, weights: Weights) -> None:
    """The SavedModel of one generator, as keras-io/CycleGAN."""
    network = GENERATORS[generator]
    write(folder, [weights], lambda own, image: [network(iter(own), image)], nested=generator == "unet")


def write_two(folder: Path, generator: str, one: Weights, other: Weights) -> None:
    """The SavedModel of two generators, an output of each, as Rietta/CycleGAN_DL."""
    network = GENERATORS[generator]
    write(folder, [one, other], lambda *sets: [network(iter(own), sets[-1]) for own in sets[:-1]], nested=True)
