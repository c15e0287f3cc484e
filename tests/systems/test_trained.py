"""A saved model fills as it did before, or is refused with a line that says why."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from pipeline.base.errors import BadInput
from pipeline.competition.boxes import LAST, hole_mask
from pipeline.competition.images import SIZE
from pipeline.systems.card import CARD, read_card, write_card
from pipeline.systems.cyclegan import network as cyclegan
from pipeline.systems.pix2pix import network as pix2pix
from pipeline.systems.residual import network as residual
from pipeline.systems.trained import load_fill
from pipeline.systems.vanilla_gan import network as vanilla_gan

FILTERS, THREADS = 2, 2
UNUSED = {"parameters": 0, "devices": "1 x CPU", "validation": []}  # of a card, by what fills
# Only settable before TensorFlow is first used, so here, while tests are collected.
tf.config.threading.set_intra_op_parallelism_threads(THREADS)


def lively(seed: int):
    """A generator whose fill depends on its input: fresh weights give one grey."""
    generator = pix2pix.build(FILTERS)
    rng = np.random.default_rng(seed)
    for weight in generator.weights:
        if weight.path.endswith("kernel"):
            weight.assign(rng.normal(0, 0.25, weight.shape))
        elif weight.path.endswith("moving_mean"):
            weight.assign(rng.normal(0, 0.1, weight.shape))
    return generator


def pictures(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    return rng.integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8), rng.integers(0, LAST + 1, (n, 2, 2))


@pytest.fixture
def model(tmp_path):
    """A folder with two generators and a card, as the train stage leaves it, and the two."""
    generators = {"best": lively(1), "last": lively(2)}
    for name, generator in generators.items():
        generator.save_weights(tmp_path / f"{name}.weights.h5")
    write_card(
        tmp_path,
        model="pix2pix",
        settings={"filters": FILTERS, "mask_channel": False, "precision": "float32", "threads": THREADS},
        normalisation=pix2pix.NORMALISATION,
        **UNUSED,
    )
    return tmp_path, generators


def change_card(folder: Path, **changes) -> None:
    card = read_card(folder)
    for name, value in changes.items():
        (card if name in card else card["settings"])[name] = value
    (folder / CARD).write_text(json.dumps(card), encoding="utf-8")


@pytest.mark.parametrize("weights", ["best", "last"])
def test_a_loaded_model_fills_as_it_did_before_it_was_saved(model, weights):
    folder, generators = model
    images, boxes = pictures(3)
    before = pix2pix.fill(generators[weights], images, boxes)
    assert before[hole_mask(boxes)].std() > 5
    assert (load_fill(folder, weights)(images, boxes) == before).all()


SHAPES = [
    (vanilla_gan, {"filters": 1}),
    (cyclegan, {"generator": "resnet", "filters": 1}),
    (cyclegan, {"generator": "unet", "filters": 1}),
    (pix2pix, {"filters": 1, "mask_channel": True}),
    (residual, {"filters": 3, "blocks": 2, "resolution": 64}),
    (residual, {"filters": 2, "blocks": 1, "resolution": 128}),
]


@pytest.mark.parametrize(("kind", "shape"), SHAPES)
def test_every_system_is_loaded_in_the_shape_it_was_trained_in(tmp_path, kind, shape):
    network, rng = kind.build(**shape), np.random.default_rng(3)
    for weight in network.weights:
        if weight.path.endswith("kernel"):
            weight.assign(rng.normal(0, 0.25, weight.shape))
    network.save_weights(tmp_path / "last.weights.h5")
    settings = shape | {"precision": "float32", "threads": THREADS, "steps": 3}
    name = kind.__name__.rpartition(".")[2]
    write_card(tmp_path, model=name, settings=settings, normalisation=kind.NORMALISATION, **UNUSED)
    images, boxes = pictures(2)
    found = load_fill(tmp_path, "last")(images, boxes)
    assert (found == kind.fill(network, images, boxes)).all() and found[hole_mask(boxes)].std() > 5


def test_best_and_last_are_not_mixed_up(model):
    images, boxes = pictures(1)
    best, last = (load_fill(model[0], weights)(images, boxes) for weights in ("best", "last"))
    assert (best != last).any()


def test_a_missing_card_is_refused(model):
    (model[0] / CARD).unlink()
    with pytest.raises(BadInput, match=r"card\.json is missing"):
        load_fill(model[0], "best")


def test_a_damaged_card_is_refused(model):
    (model[0] / CARD).write_text((model[0] / CARD).read_text()[:-20])
    with pytest.raises(BadInput, match=r"card\.json is damaged"):
        load_fill(model[0], "best")


def test_a_card_without_the_settings_is_refused(model):
    card = read_card(model[0])
    del card["settings"]
    (model[0] / CARD).write_text(json.dumps(card))
    with pytest.raises(BadInput, match=r"card\.json"):
        load_fill(model[0], "best")


def test_another_normalisation_is_refused(model):
    change_card(model[0], normalisation="grey level / 255")
    with pytest.raises(BadInput, match="grey level / 255"):
        load_fill(model[0], "best")


def test_missing_weights_are_refused(model):
    (model[0] / "last.weights.h5").unlink()
    with pytest.raises(BadInput, match=r"last\.weights\.h5 cannot be loaded"):
        load_fill(model[0], "last")
    load_fill(model[0], "best")


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999])
def test_truncated_weights_are_refused(model, share):
    path = model[0] / "best.weights.h5"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(BadInput, match=r"best\.weights\.h5 .*dvc checkout"):
        load_fill(model[0], "best")


def test_weights_that_are_no_weights_are_refused(model):
    (model[0] / "best.weights.h5").write_bytes(np.random.default_rng(0).bytes(50_000))
    with pytest.raises(BadInput, match=r"best\.weights\.h5"):
        load_fill(model[0], "best")


def test_a_flipped_byte_of_a_weight_is_refused(model):
    """The file format has no checksum: the card must."""
    folder, generators = model
    path = folder / "best.weights.h5"
    data = bytearray(path.read_bytes())
    kernel = max((weight.numpy() for weight in generators["best"].weights), key=np.size)
    at = data.index(kernel.tobytes()[:64]) + 3
    data[at] ^= 0x40
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"best\.weights\.h5"):
        load_fill(folder, "best")


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_weights_of_another_network_are_refused(model):
    change_card(model[0], filters=FILTERS + 1)
    with pytest.raises(BadInput, match=r"best\.weights\.h5"):
        load_fill(model[0], "best")
