"""Generators are read from SavedModels of Keras 2; anything else is refused."""

from collections.abc import Iterator
from pathlib import Path
from shutil import copytree

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.base.errors import BadInput
from pipeline.competition.images import SIZE
from pipeline.systems.cyclegan import network as cyclegan
from pipeline.systems.cyclegan.savedmodel import list_files, read_generators, read_variables
from tests.helpers import keras2
from tests.helpers.settings import settings_of
from tests.helpers.trainings import same

FILTERS = 2


def build(generator: str, filters: int = FILTERS) -> keras.Model:
    return cyclegan.build(settings_of("cyclegan", generator=generator, filters=filters))


@pytest.fixture(autouse=True, scope="module")
def two_blocks() -> Iterator[None]:
    """A resnet of two residual blocks instead of nine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cyclegan, "BLOCKS", 2)
        yield


@pytest.fixture(scope="module")
def weights() -> list[list[np.ndarray]]:
    return [keras2.lively("resnet", FILTERS, seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def one(tmp_path_factory, weights) -> Path:
    folder = tmp_path_factory.mktemp("one")
    keras2.write_one(folder, "resnet", weights[0])
    return folder


@pytest.fixture
def copied(one, tmp_path) -> Path:
    return copytree(one, tmp_path / "copied")


@pytest.mark.slow
def test_the_names_of_the_variables_are_in_no_order_that_sorting_would_find(one):
    names = sorted(name for name, _ in tf.train.list_variables(str(one / "variables" / "variables")))
    layers = [name.split("/")[0] for name in names if name.startswith("layer_with_weights")]
    assert layers.index("layer_with_weights-10") < layers.index("layer_with_weights-2")
    assert not any(name.startswith("variables/") for name in names)


def test_one_generator_is_read_for_both(one, weights):
    assert same(read_variables(one), weights[0])
    forward, back = read_generators(one, build("resnet"))
    assert same(forward, weights[0]) and same(back, weights[0])


@pytest.mark.slow
@pytest.mark.parametrize("generator", ["resnet", "unet"])
def test_the_network_with_the_weights_has_the_originals_output(tmp_path, generator):
    weights = keras2.lively(generator, FILTERS, 3)
    keras2.write_one(tmp_path, generator, weights)
    network = build(generator)
    read_generators(tmp_path, network)
    image = np.random.default_rng(5).uniform(-1, 1, (2, SIZE, SIZE, 3)).astype(np.float32)
    expected = keras2.GENERATORS[generator](iter(weights), image).numpy()
    assert expected.std() > 0.2
    np.testing.assert_allclose(keras.ops.convert_to_numpy(network(image, training=False)), expected, atol=1e-4)


@pytest.mark.slow
def test_it_is_read_in_a_strategys_scope_too(one, weights):
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        forward, _ = read_generators(one, build("resnet"))
    assert same(forward, weights[0])


@pytest.mark.slow
def test_two_generators_are_read_in_their_order(tmp_path, weights):
    keras2.write_two(tmp_path, "resnet", *weights)
    forward, back = read_generators(tmp_path, build("resnet"))
    assert same(forward, weights[0]) and same(back, weights[1])


@pytest.mark.slow
def test_two_generators_are_read_if_one_gets_the_others_output(tmp_path, weights):
    def chained(one: list, other: list, image: tf.Tensor) -> list[tf.Tensor]:
        return [keras2.resnet(iter(other), keras2.resnet(iter(one), image))]

    keras2.write(tmp_path, weights, chained, nested=True)
    forward, back = read_generators(tmp_path, build("resnet"))
    assert same(forward, weights[0]) and same(back, weights[1])


@pytest.mark.parametrize(("generator", "filters"), [("resnet", 3), ("unet", 2)])
def test_variables_of_another_network_are_refused_and_counted(one, weights, generator, filters):
    network = build(generator, filters)
    numbers = sum(weight.size for weight in weights[0])
    found = f"has 29 variables with {numbers:,} numbers, not the .* with {network.count_params():,} numbers"
    with pytest.raises(BadInput, match=found):
        read_generators(one, network)


@pytest.mark.slow
def test_a_network_that_computes_something_else_is_refused(tmp_path, weights):
    """Its variables are the same; only epsilon differs, or which of two variables is gamma."""

    def other_epsilon(own: list, image: tf.Tensor) -> list[tf.Tensor]:
        return [keras2.resnet(iter(own), image, epsilon=0.01)]

    def other_order(own: list, image: tf.Tensor) -> list[tf.Tensor]:
        return [keras2.resnet(iter([own[0], own[2], own[1], *own[3:]]), image)]

    for name, compute in (("epsilon", other_epsilon), ("order", other_order)):
        keras2.write(tmp_path / name, weights[:1], compute)
        with pytest.raises(BadInput, match="computes something else: on one image its output is 0."):
            read_generators(tmp_path / name, build("resnet"))


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.index"])
@pytest.mark.parametrize("fault", ["missing", "cut"])
def test_a_damaged_one_is_refused_in_one_line(copied, name, fault):
    path = copied / name
    content = path.read_bytes()
    path.unlink()
    if fault == "cut":
        path.write_bytes(content[: len(content) // 2])
    with pytest.raises(BadInput, match=r"is not a SavedModel of Keras 2, or is damaged \(.+\)") as caught:
        read_generators(copied, build("resnet"))
    assert "\n" not in str(caught.value) and str(copied) in str(caught.value)


def test_a_flipped_byte_of_the_weights_is_found(copied):
    path = copied / "variables" / "variables.data-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadInput, match="is damaged"):
        read_generators(copied, build("resnet"))


def test_a_savedmodel_that_is_not_of_keras_is_refused(tmp_path):
    tf.saved_model.save(tf.train.Checkpoint(value=tf.Variable(1.0)), str(tmp_path))
    with pytest.raises(BadInput, match="is not a SavedModel of Keras 2.*no list of a model's variables"):
        read_generators(tmp_path, build("resnet"))


def test_its_files_are_those_of_the_graph_and_the_variables(copied):
    (copied / "README.md").write_text("what it is")
    files = {path.relative_to(copied).as_posix() for path in list_files(copied)}
    assert files == {"saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"}
