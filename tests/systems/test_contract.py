"""Every system of Keras keeps its contract in pipeline/systems/__init__.py; diffusion's own tests show the same."""

from collections.abc import Iterator
from functools import partial

import keras
import numpy as np
import pytest

from pipeline.competition.boxes import BOX, count_boxes, hole_mask
from pipeline.systems import load_network, load_training
from pipeline.systems.trained import load_fill
from pipeline.training import loop
from tests.helpers.pictures import masked_photographs, some_boxes, unknown
from tests.helpers.settings import settings_of
from tests.helpers.trainings import lively, same, save

SYSTEMS = [
    ("pix2pix", {"mask_channel": True}),
    ("vanilla_gan", {}),
    ("cyclegan", {"generator": "resnet"}),
    ("residual", {"blocks": 1, "resolution": 64}),
]
OTHERS = [("pix2pix", {}), ("cyclegan", {"generator": "unet"}), ("residual", {"blocks": 2, "resolution": 128})]
IMAGES, BOXES, CLASSES = masked_photographs(3), some_boxes(3), unknown(3)
HOLE, INNER = hole_mask(BOXES), count_boxes(BOXES, BOX - 1) > 0


@pytest.fixture(autouse=True, scope="module")
def small_networks() -> Iterator[None]:
    """A resnet of one residual block, U-Nets of five levels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.systems.cyclegan.network.BLOCKS", 1)
        patch.setattr("pipeline.systems.shared.unet.DOWN", (1, 2, 4, 8, 8))
        yield


def params() -> list:
    """Those of `system`."""
    marked = [(system, ()) for system in SYSTEMS] + [(system, pytest.mark.slow) for system in OTHERS]
    names = ["-".join(map(str, [name, *own.values()])) for (name, own), _ in marked]
    return [pytest.param(system, marks=mark, id=name) for (system, mark), name in zip(marked, names, strict=True)]


@pytest.fixture(scope="module", params=params())
def system(request):
    """A small system: its name, settings, network and a model whose fill depends on its input."""
    name, own = request.param
    settings, network = settings_of(name, filters=2, **own), load_network(name)
    return name, settings, network, lively(network.build(settings, "float32"), 3)


@pytest.fixture(scope="module")
def fill(system):
    *_, network, model = system
    return partial(network.fill, model)


@pytest.fixture(scope="module")
def filled(fill) -> np.ndarray:
    return fill(IMAGES, BOXES, CLASSES)


def test_known_pixels_stay_byte_for_byte_and_filling_again_gives_the_same(system, fill, filled):
    model, images = system[-1], IMAGES.copy()
    before = [variable.numpy() for variable in model.variables]
    assert (fill(images, BOXES, CLASSES) == filled).all() and (images == IMAGES).all()
    assert same(before, [variable.numpy() for variable in model.variables])
    assert filled.shape == IMAGES.shape and filled.dtype == np.uint8
    assert (filled[~HOLE] == IMAGES[~HOLE]).all()
    assert (filled[HOLE] != IMAGES[HOLE]).mean() > 0.9 and filled[HOLE].std() > 5


def test_pixels_in_the_holes_change_nothing_and_known_pixels_change_the_fill(fill, filled):
    inside, outside = (np.where(where[..., None], 255 - IMAGES, IMAGES) for where in (INNER, ~HOLE))
    assert (fill(inside, BOXES, CLASSES)[HOLE] == filled[HOLE]).all()
    assert np.abs(fill(outside, BOXES, CLASSES)[HOLE].astype(int) - filled[HOLE]).mean() > 1


def test_an_image_is_filled_alike_whatever_others_are_in_its_batch(fill, filled):
    for i in range(3):
        alone = fill(IMAGES[i : i + 1], BOXES[i : i + 1], CLASSES[i : i + 1])[0]
        assert np.abs(alone.astype(int) - filled[i]).max() <= 1


def test_a_saved_model_is_loaded_with_its_settings_and_fills_alike(system, filled, tmp_path):
    _, settings, network, model = system
    save(tmp_path, network, settings, last=model)
    assert (load_fill(tmp_path, "last")(IMAGES, BOXES, CLASSES) == filled).all()


def test_in_mixed_precision_the_layers_compute_in_bfloat16_and_the_output_is_float32(system):
    _, settings, network, _ = system
    for build in filter(None, (network.build, getattr(network, "build_discriminator", None))):
        model = build(settings, "mixed_bfloat16")
        parts = [layer for layer in model.layers if isinstance(layer, keras.Model)]
        layers = [layer for part in parts or [model] for layer in part.layers]
        assert {layer.compute_dtype for layer in layers if "conv" in layer.name} == {"bfloat16"}
        assert {weight.dtype for weight in model.weights} == {"float32"}
        assert {output.dtype for output in model.outputs} == {"float32"}


def test_a_training_begins_with_weights_in_the_shapes_of_the_settings(system):
    name, settings, _, model = system
    state = load_training(name).begin(settings, "float32", 1)
    assert any(state.model is network for network in state.networks.values()) and state.step == 0
    assert same(state.best, state.model.get_weights())
    assert [weight.shape for weight in state.best] == [weight.shape for weight in model.get_weights()]


@pytest.mark.parametrize("name", ["cyclegan", "residual"])
def test_a_training_begins_with_weights_of_the_seed(name):
    """pix2pix and vanilla_gan begin as cyclegan does."""
    settings = settings_of(name, filters=2)
    once, twice, other = (loop.dump(load_training(name).begin(settings, "float32", seed))[0] for seed in (1, 1, 2))
    assert same(once.values(), twice.values()) and not same(once.values(), other.values())
