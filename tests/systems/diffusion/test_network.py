"""Stable Diffusion's inpainting: its network's input, what a fill promises, its saved weights, its refusals."""

import json
import subprocess
import sys
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest

from tests.helpers.pictures import masked_photographs, some_boxes, unknown
from tests.helpers.settings import settings_of
from tests.helpers.trainings import same
from tools import tiny_diffusion

pytestmark = pytest.mark.slow
torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from pipeline.base.errors import BadInput  # noqa: E402
from pipeline.competition.boxes import cut, hole_mask  # noqa: E402
from pipeline.competition.images import SIZE  # noqa: E402
from pipeline.params import Diffusion  # noqa: E402
from pipeline.systems.diffusion import network as diffusion  # noqa: E402

UNET = "unet/diffusion_pytorch_model.safetensors"
CLASSES = np.array(["Cat", "Dog", ""])


def photographs(n: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(SIZE // 8, axis=1).repeat(SIZE // 8, axis=2)


def settings(folder: Path | str, **changes) -> Diffusion:
    own = {"pretrained": str(folder), "revision": "", "rank": 4, "resolution": 64, "inference_steps": 2}
    return settings_of("diffusion", **(own | {"noise_seed": 5} | changes))


def build(folder: Path, dtype: str = "float32", **changes) -> diffusion.Inpainter:
    torch.manual_seed(5)
    return diffusion.build(settings(folder, **changes), dtype)


def lively(model: diffusion.Inpainter) -> diffusion.Inpainter:
    """The model with weights as after a training: fresh adapters change nothing."""
    rng = np.random.default_rng(1)
    model.set_weights([weight + rng.normal(0, 0.2, weight.shape) for weight in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_diffusion.make(tmp_path_factory.mktemp("pretrained") / "model")


@pytest.fixture(scope="module")
def model(folder) -> diffusion.Inpainter:
    return lively(build(folder))


@pytest.fixture
def broken(folder, tmp_path) -> Path:
    return copytree(folder, tmp_path / "broken")


def test_the_settings_make_the_model(folder):
    model = build(folder, samples=3, prompt="a {}")
    assert (model.resolution, model.inference_steps, model.samples, model.noise_seed, model.prompt) == (
        64,
        2,
        3,
        5,
        "a {}",
    )


def test_adapters_of_the_rank_are_added_to_all_attention_layers(folder):
    """Each of 4 transformer blocks has two attentions, to the image and to the text, of 4 layers each."""
    for rank in (2, 4):
        model = build(folder, rank=rank)
        assert len(model.variables) == 4 * 2 * 4 * 2
        assert all(rank in weight.shape for weight in model.get_weights())
    whole = build(folder, tune="whole")
    assert len(whole.variables) == len(list(whole.pipeline.unet.parameters()))
    added = sum(weight.size for weight in model.get_weights())
    assert model.count_params() == whole.count_params() + added


def test_they_have_a_five_hundredth_of_the_parameters_of_stable_diffusion_2s_u_net():
    from diffusers import UNet2DConditionModel

    shape = {"attention_head_dim": (5, 10, 20, 20), "cross_attention_dim": 1024, "use_linear_projection": True}
    with torch.device("meta"):  # sizes, no memory
        unet = UNet2DConditionModel(in_channels=9, **shape).requires_grad_(False)
        size = unet.num_parameters()
        diffusion.add_adapters(unet, 8)
    assert size == 865_925_124 and unet.num_parameters(only_trainable=True) == 1_659_904


def test_only_the_u_net_is_ever_trained(folder):
    for tune in ("lora", "whole"):
        pipeline = build(folder, tune=tune).pipeline
        frozen = [*pipeline.vae.parameters(), *pipeline.text_encoder.parameters()]
        assert not any(parameter.requires_grad for parameter in frozen)
        parts = (pipeline.unet, pipeline.vae, pipeline.text_encoder)
        assert not any(module.training for part in parts for module in part.modules())


@pytest.mark.parametrize(("tune", "frozen"), [("lora", torch.bfloat16), ("whole", torch.float32)])
def test_in_mixed_precision_trained_weights_are_float32_and_the_rest_of_the_u_net_bfloat16(folder, tune, frozen):
    model = build(folder, "mixed_bfloat16", tune=tune)
    assert {weight.dtype for weight in model.get_weights()} == {np.dtype(np.float32)}
    assert model.pipeline.unet.conv_in.weight.dtype == frozen
    exact = diffusion.fill(build(folder, tune=tune), masked_photographs(2), some_boxes(2), CLASSES[:2])
    found = diffusion.fill(model, masked_photographs(2), some_boxes(2), CLASSES[:2])
    assert (found != exact).any() and np.abs(found.astype(int) - exact).max() < 20


def test_fresh_adapters_change_nothing(folder, model):
    masked, boxes = masked_photographs(1), some_boxes(1)
    fresh = diffusion.fill(build(folder), masked, boxes, unknown(1))
    assert (fresh == diffusion.fill(build(folder, tune="whole"), masked, boxes, unknown(1))).all()
    assert (fresh != diffusion.fill(model, masked, boxes, unknown(1))).any()


def test_known_pixels_stay_byte_for_byte(model):
    masked, boxes = masked_photographs(3), some_boxes(3)
    before, hole = masked.copy(), hole_mask(boxes)
    filled = diffusion.fill(model, masked, boxes, CLASSES)
    assert filled.shape == masked.shape and filled.dtype == np.uint8
    np.testing.assert_array_equal(filled[~hole], before[~hole])
    np.testing.assert_array_equal(masked, before)
    assert (filled != before)[hole].mean() > 0.9


def test_pixels_in_the_holes_change_nothing_and_those_around_them_do(model):
    masked, boxes = masked_photographs(2), some_boxes(2)
    hole = hole_mask(boxes)[..., None]
    filled, inside, around = (
        diffusion.fill(model, images, boxes, unknown(2))
        for images in (
            masked,
            np.where(hole, masked_photographs(2, seed=1), masked),
            np.where(hole, masked, masked_photographs(2, seed=1)),
        )
    )
    np.testing.assert_array_equal(filled, inside)
    assert (cut(filled, boxes) != cut(around, boxes)).any()


def test_an_image_is_filled_alike_whatever_others_are_in_its_batch(model):
    masked, boxes = masked_photographs(3), some_boxes(3)
    together = diffusion.fill(model, masked, boxes, CLASSES).astype(int)
    for i in range(3):
        part = slice(i, i + 1)
        assert np.abs(together[part] - diffusion.fill(model, masked[part], boxes[part], CLASSES[part])).max() <= 2


def test_the_text_names_the_class(model):
    assert [model.describe(class_name) for class_name in CLASSES] == [
        "a photo of a cat",
        "a photo of a dog",
        "a photo of a animal",
    ]
    masked, boxes = masked_photographs(1).repeat(3, axis=0), some_boxes(1).repeat(3, axis=0)
    cat, dog, unknown = diffusion.fill(model, masked, boxes, CLASSES)
    assert (cat != dog).any() and (dog != unknown).any()
    alone = diffusion.fill(model, masked[:1], boxes[:1], CLASSES[2:])[0].astype(int)
    # On some processors another batch size changes the summation order, and so the rounding of a value or two.
    assert np.abs(alone - unknown).max() <= 1 and np.mean(alone != unknown) < 0.001
    assert np.mean(alone != dog) > 0.001


def test_a_fill_is_the_mean_of_several_samples(folder):
    masked, boxes = masked_photographs(1), some_boxes(1)
    one, two, three = (
        diffusion.fill(lively(build(folder, samples=n)), masked, boxes, unknown(1))[hole_mask(boxes)].astype(int)
        for n in (1, 2, 3)
    )
    second, third = 2 * two - one, 3 * three - 2 * two  # recovered from the means
    assert (second != one).mean() > 0.5 and (third != second).mean() > 0.5
    inside = [(values >= -2).all() and (values <= 258).all() for values in (second, third)]
    assert all(inside)


def test_the_seed_and_the_number_of_steps_change_the_fill(folder):
    masked, boxes = masked_photographs(1), some_boxes(1)
    once, again, other, longer = (
        diffusion.fill(build(folder, **changes), masked, boxes, unknown(1))
        for changes in ({}, {}, {"noise_seed": 6}, {"inference_steps": 3})
    )
    assert (once == again).all() and (once != other).any() and (once != longer).any()


@pytest.mark.parametrize("side", [64, 256, 512])
def test_the_network_sees_the_known_pixels_grey_holes_and_a_mask(side):
    image = np.full((1, SIZE, SIZE, 3), 51, np.uint8)
    boxes = np.array([[[10, 20], [150, 101]]])
    hole = hole_mask(boxes)
    image[hole] = 255
    known, mask = (tensor.numpy() for tensor in diffusion.network_input(image, hole, side))
    assert known.shape == (1, 3, side, side) and mask.shape == (1, 1, side, side)
    assert known.dtype == mask.dtype == np.float32 and set(np.unique(mask)) == {0, 1}
    cell = max(SIZE // side, 1)
    touched = hole.reshape(1, SIZE // cell, cell, SIZE // cell, cell).any(axis=(2, 4))
    times = side // (SIZE // cell)
    np.testing.assert_array_equal(mask[:, 0] > 0, touched.repeat(times, axis=1).repeat(times, axis=2))
    assert (known[mask.repeat(3, axis=1) > 0] == 0.5).all()
    seen = known[0][:, :, -side // 8 :]  # away from the boxes
    np.testing.assert_allclose(seen, 0.2, atol=1e-6)


def test_resizing_to_a_side_and_back_loses_little():
    smooth = np.linspace(0, 255, SIZE).astype(np.uint8)[:, None, None].repeat(SIZE, axis=1).repeat(3, axis=2)[None]
    images = diffusion.to_tensor(smooth)
    assert images.shape == (1, 3, SIZE, SIZE) and float(images.max()) == 1
    for side in (128, 512):
        back = diffusion.resize(diffusion.resize(images, side), SIZE)
        assert float((back - images).abs().max()) < 0.01


def test_weights_are_loaded_as_saved_and_saved_in_the_same_bytes(folder, model, tmp_path):
    for name in ("a", "b"):
        model.save_weights(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    fresh = build(folder)
    fresh.load_weights(tmp_path / "a")
    assert same(fresh.get_weights(), model.get_weights())
    inputs = (masked_photographs(2), some_boxes(2), CLASSES[:2])
    assert (diffusion.fill(fresh, *inputs) == diffusion.fill(model, *inputs)).all()


def test_get_weights_returns_copies(folder):
    model = build(folder)
    before = model.get_weights()
    kept = [weight.copy() for weight in before]
    lively(model)
    assert same(before, kept)


@pytest.mark.parametrize("change", [{"rank": 3}, {"tune": "whole"}])
def test_weights_of_other_adapters_are_refused(folder, model, tmp_path, change):
    model.save_weights(tmp_path / "weights")
    with pytest.raises((ValueError, KeyError)):
        build(folder, **change).load_weights(tmp_path / "weights")


def test_weights_trained_on_another_base_are_refused(model, broken, tmp_path):
    path = broken / UNET
    data = bytearray(path.read_bytes())
    data[-1] ^= 0x01
    path.write_bytes(data)
    model.save_weights(tmp_path / "weights")
    with pytest.raises(BadInput, match=r"weights was trained on other pretrained weights.*diffusion\.pretrained"):
        build(broken).load_weights(tmp_path / "weights")


@pytest.mark.parametrize("name", diffusion.WEIGHTS)
def test_a_base_without_its_weights_is_refused(broken, name):
    (broken / name).unlink()
    with pytest.raises(BadInput, match=rf"{name} is missing: diffusion\.pretrained"):
        build(broken)


@pytest.mark.parametrize("name", [*diffusion.WEIGHTS, "model_index.json", "unet/config.json"])
def test_a_damaged_base_is_refused_in_one_line(broken, name):
    path = broken / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BadInput, match=r"broken, named by diffusion\.pretrained, cannot be loaded \(.+\)") as refusal:
        build(broken)
    assert "\n" not in str(refusal.value)


def test_a_base_that_is_not_for_inpainting_is_refused(broken):
    config = json.loads((broken / "unet" / "config.json").read_text(encoding="utf-8"))
    folder = tiny_diffusion.make(broken.with_name("plain"), channels=4)
    assert config["in_channels"] == 9
    with pytest.raises(BadInput, match="not for inpainting: its U-Net takes 4 channels, not 9"):
        build(folder)


def test_a_base_with_the_hubs_index_is_loaded(broken):
    """An old version wrote it, and it names classes that no longer exist, of parts that are not used."""
    path = broken / "model_index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    index |= {"_diffusers_version": "0.8.0", "feature_extractor": ["transformers", "CLIPFeatureExtractor"]}
    path.write_text(json.dumps(index), encoding="utf-8")
    assert build(broken).pipeline.feature_extractor is None


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(BadInput, match="nowhere"):
        build(tmp_path / "nowhere")


def test_the_module_itself_needs_no_extra(tmp_path, code_here):
    code = "import sys, pipeline.systems.diffusion.network as _; print({'torch', 'diffusers'} & set(sys.modules))"
    environment = {**code_here, "HOME": str(tmp_path)}
    assert subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, env=environment, text=True) == "set()\n"


@pytest.mark.parametrize("library", ["torch", "diffusers"])
def test_without_the_extra_one_line_says_how_to_install_it(folder, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)  # its import fails
    with pytest.raises(BadInput, match=f"{library}.*pip install -r requirements-diffusion.txt -c constraints.txt"):
        diffusion.build(settings(folder))
