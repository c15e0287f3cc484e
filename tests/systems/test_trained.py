"""A saved model fills as it did before, or is refused with a line that says why."""

import json
from pathlib import Path
from shutil import copytree

import keras
import numpy as np
import pytest

from pipeline.base.errors import BadInput
from pipeline.systems import Fill
from pipeline.systems.card import CARD, read_card
from pipeline.systems.pix2pix import network as pix2pix
from pipeline.systems.trained import load_fill
from tests.helpers.pictures import masked_photographs, some_boxes, unknown
from tests.helpers.settings import settings_of
from tests.helpers.trainings import lively, save

SMALL = settings_of("pix2pix", filters=2)


@pytest.fixture(scope="module")
def models_once(tmp_path_factory) -> tuple[dict[str, keras.Model], Path]:
    """Two generators, and a folder in which they are saved as the train stage saves them. Tests copy it."""
    folder = tmp_path_factory.mktemp("models")
    models = {"best": lively(pix2pix.build(SMALL), 1), "last": lively(pix2pix.build(SMALL), 2)}
    save(folder, pix2pix, SMALL, **models)
    return models, folder


@pytest.fixture
def models(models_once, tmp_path) -> dict[str, keras.Model]:
    """Two generators, saved in tmp_path."""
    copytree(models_once[1], tmp_path, dirs_exist_ok=True)
    return models_once[0]


def change_card(folder: Path, **changes: object) -> None:
    """Change these facts or settings on the card; None removes one."""
    card = read_card(folder)
    for name, value in changes.items():
        section = card if name in card else card["settings"]
        section[name] = value
        if value is None:
            del section[name]
    (folder / CARD).write_text(json.dumps(card), encoding="utf-8")


def fills_as(fill: Fill, model: keras.Model) -> bool:
    inputs = masked_photographs(2), some_boxes(2), unknown(2)
    return (fill(*inputs) == pix2pix.fill(model, *inputs)).all()


@pytest.mark.parametrize("weights", ["best", "last"])
def test_a_loaded_model_fills_as_before_it_was_saved(models, tmp_path, weights):
    fill = load_fill(tmp_path, weights)
    assert [name for name, model in models.items() if fills_as(fill, model)] == [weights]


@pytest.mark.parametrize("weights", ["best", "last"])
def test_a_model_trained_without_validation_pairs_fills_with_its_last_weights(tmp_path, weights):
    model = lively(pix2pix.build(SMALL), 1)
    save(tmp_path, pix2pix, SMALL, last=model)
    assert fills_as(load_fill(tmp_path, weights), model)


def test_another_input_version_is_refused(models, tmp_path):
    change_card(tmp_path, input_version=0)
    with pytest.raises(BadInput, match="trained on input version 0, this code has version 1; `dvc repro train`"):
        load_fill(tmp_path, "best")


@pytest.mark.parametrize("changes", [{"mask_channel": None}, {"loss": "squares"}, {"filters": 65}])
def test_other_settings_than_the_system_has_now_are_refused(models, tmp_path, changes):
    change_card(tmp_path, **changes)
    with pytest.raises(
        BadInput, match=rf"settings that pix2pix has no longer \({[*changes][0]} is .*`dvc repro train`"
    ):
        load_fill(tmp_path, "best")


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_weights_of_another_network_are_refused(models, tmp_path):
    change_card(tmp_path, filters=3)
    with pytest.raises(BadInput, match=r"best\.weights\.h5"):
        load_fill(tmp_path, "best")


def test_missing_weights_are_refused(models, tmp_path):
    (tmp_path / "last.weights.h5").unlink()
    with pytest.raises(BadInput, match=r"last\.weights\.h5 cannot be loaded"):
        load_fill(tmp_path, "last")
    load_fill(tmp_path, "best")


@pytest.mark.parametrize("share", [0, 0.5, 0.999])
def test_truncated_weights_are_refused(models, tmp_path, share):
    path = tmp_path / "best.weights.h5"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(BadInput, match=r"best\.weights\.h5 .*dvc checkout"):
        load_fill(tmp_path, "best")


def test_a_flipped_byte_of_a_weight_is_refused(models, tmp_path):
    """The file format has no checksum: the card must."""
    path = tmp_path / "best.weights.h5"
    data = bytearray(path.read_bytes())
    kernel = max((weight.numpy() for weight in models["best"].weights), key=np.size)
    data[data.index(kernel.tobytes()[:64]) + 3] ^= 0x40
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"best\.weights\.h5 cannot be loaded \(its checksum"):
        load_fill(tmp_path, "best")
