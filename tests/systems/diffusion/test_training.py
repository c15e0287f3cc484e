"""How the diffusion model is fine-tuned: its loss by hand, its batches, resuming from a checkpoint, its card."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.settings import settings_of
from tests.helpers.trainings import check_resumed, same, save
from tools import tiny_diffusion

pytestmark = pytest.mark.slow
torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from pipeline import paths  # noqa: E402
from pipeline.base.errors import BadInput  # noqa: E402
from pipeline.competition.boxes import LAST, hole_mask  # noqa: E402
from pipeline.competition.images import SIZE  # noqa: E402
from pipeline.params import Diffusion  # noqa: E402
from pipeline.systems.diffusion import network as diffusion  # noqa: E402
from pipeline.systems.diffusion import training as system  # noqa: E402
from pipeline.systems.trained import load_fill  # noqa: E402
from pipeline.training import loop  # noqa: E402

SEED = 3
Batch = tuple[np.ndarray, np.ndarray, list[str], int]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_diffusion.make(tmp_path_factory.mktemp("pretrained") / "model")


@pytest.fixture
def settings(folder):
    own = {"pretrained": str(folder), "revision": "", "rank": 4, "resolution": 64, "inference_steps": 2}
    own |= {"steps": 4, "batch_size": 2, "validate_every": 3, "checkpoint_every": 1, "learning_rate": 1e-3}

    def make(**changes) -> Diffusion:
        return settings_of("diffusion", **(own | changes))

    return make


@pytest.fixture(scope="module")
def batch(photographs) -> Batch:
    return photographs[:2], np.array([[[20, 30], [100, 150]], [[0, 0], [LAST, LAST]]]), ["Cat", "Dog"], 11


def begin(chosen: Diffusion, precision: str = "float32", seed: int = SEED) -> loop.TrainingState:
    return system.begin(chosen, precision, seed)


def test_a_training_begins_with_adapters_of_the_seed(settings):
    states = [begin(settings(), seed=seed) for seed in (1, 1, 2)]
    once, again, other = (state.model.get_weights() for state in states)
    assert same(once, again) and not same(once, other) and same(states[0].best, once)
    assert states[0].networks == {"model": states[0].model}


def test_the_optimizer_is_torchs_with_its_state_from_the_start(settings):
    weights = [torch.nn.Parameter(torch.linspace(-1, 1, 6).reshape(2, 3)) for _ in range(2)]
    ours, theirs = system.AdamW(weights[:1], 0.1), torch.optim.AdamW(weights[1:], lr=0.1)
    step, *means = ours.variables
    assert step.numpy() == 0 and all((mean.numpy() == 0).all() for mean in means)
    for number in (1, 2):
        for optimizer, weight in zip((ours, theirs), weights, strict=True):
            weight.grad = torch.full((2, 3), 0.3 / number)
            optimizer.step()
        assert (weights[0] == weights[1]).all()
        assert step.numpy() == number and all((mean.numpy() != 0).all() for mean in means)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_loss_is_of_the_noise_or_of_the_velocity_as_the_models_scheduler_says(
    settings, batch, tmp_path, prediction_type
):
    """Everything is drawn again, in the order of the step, and latents and noise are mixed by the formula."""
    chosen = settings(pretrained=str(tiny_diffusion.make(tmp_path / "model", prediction_type=prediction_type)))
    target, boxes, classes, draw = batch
    state = begin(chosen)
    pipe, random = state.model.pipeline, diffusion.generator(draw)

    def latents(images: torch.Tensor) -> torch.Tensor:
        found = pipe.vae.encode(2 * images - 1).latent_dist
        return (found.mean + found.std * torch.randn(found.mean.shape, generator=random)) * 0.18215

    with torch.no_grad():
        known, mask = diffusion.network_input(target, hole_mask(boxes), 64)
        clean = latents(diffusion.resize(diffusion.to_tensor(target), 64))
        conditions = torch.cat([mask[:, :, ::8, ::8], latents(known)], dim=1)
        noise = torch.randn(clean.shape, generator=random)
        times = torch.randint(1000, (2,), generator=random)
        kept = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, dim=0)[times, None, None, None]
        noisy = kept.sqrt() * clean + (1 - kept).sqrt() * noise
        goal = noise if prediction_type == "epsilon" else kept.sqrt() * noise - (1 - kept).sqrt() * clean
        tokens = pipe.tokenizer(["a photo of a cat", "a photo of a dog"], padding="max_length", return_tensors="pt")
        text = pipe.text_encoder(tokens.input_ids)[0]
        expected = ((pipe.unet(torch.cat([noisy, conditions], dim=1), times, text).sample - goal) ** 2).mean()
    loss = system.make_step(state, chosen)(*batch)["loss"]
    assert loss == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize(("tune", "share"), [("lora", 0.99), ("whole", 0.7)])
def test_steps_lower_the_loss_on_one_batch_and_change_only_trained_weights(settings, batch, tune, share, precision):
    chosen = settings(tune=tune, learning_rate=3e-3)
    state = begin(chosen, precision)
    before, frozen = state.model.get_weights(), state.model.pipeline.vae.state_dict()
    frozen = {name: value.clone() for name, value in frozen.items()}
    step = system.make_step(state, chosen)
    losses = [step(*batch)["loss"] for _ in range(8)]
    assert losses[-1] < share * losses[0]
    assert not any((a == b).all() for a, b in zip(before, state.model.get_weights(), strict=True))
    assert all((value == frozen[name]).all() for name, value in state.model.pipeline.vae.state_dict().items())
    assert same(before, state.best)


def test_a_step_is_a_function_of_the_weights_and_the_batch(settings, batch):
    chosen, losses = settings(), []
    for draw in (1, 1, 2):
        state = begin(chosen)
        torch.manual_seed(len(losses))  # torch's own random numbers are not used
        losses.append(system.make_step(state, chosen)(*batch[:3], draw)["loss"])
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(("tune", "at"), [("lora", 1), ("whole", 3)])
def test_interrupted_it_ends_with_the_same_bits(settings, tmp_path, project, tune, at):
    check_resumed(system, settings(tune=tune), project, tmp_path, at)


def test_batches_are_a_function_of_the_seed_and_the_step(settings, project):
    def drawn(seed: int, start: int, steps: int) -> list[Batch]:
        return list(islice(system.batches(settings(batch_size=3), replace(project, seed=seed), start), steps))

    first, later, other = drawn(1, 0, 6), drawn(1, 4, 2), drawn(2, 0, 6)
    for a, b in zip(first[4:], later, strict=True):
        assert (a[0] == b[0]).all() and (a[1] == b[1]).all() and a[2:] == b[2:]
    assert all((a[1] != b[1]).any() and a[3] != b[3] for a, b in zip(first, other, strict=True))
    assert len({draw for *_, draw in first}) == 6
    assert (first[0][1] != first[1][1]).any()  # other holes at each step


def test_a_batch_has_training_photographs_and_their_mirror_images_with_their_classes(settings, project, photographs):
    own, seen = photographs[[0, 2, 3]], set()
    for target, boxes, classes, _ in islice(system.batches(settings(batch_size=4), project, 0), 10):
        assert target.shape == (4, SIZE, SIZE, 3) and target.dtype == np.uint8
        assert boxes.shape == (4, 2, 2) and boxes.min() >= 0 and boxes.max() <= LAST
        for photograph, class_name in zip(target, classes, strict=True):
            (name,) = [
                (i, mirrored)
                for i, image in enumerate(own)
                for mirrored, turned in ((False, image), (True, image[:, ::-1]))
                if (photograph == turned).all()
            ]
            assert class_name == ("Cat", "Dog", "Dog")[name[0]]
            seen.add(name)
    assert len(seen) == 6


def test_a_checkpoint_depends_on_the_pretrained_weights_and_on_the_photographs(settings, project, folder):
    found = system.input_files(settings(), project)
    assert found[:3] == [folder / name for name in diffusion.WEIGHTS]
    assert [path.relative_to(paths.RAW / "Training_Data").as_posix() for path in found[3:]] == [
        f"{class_name}/Unmasked_Train/{name}"
        for class_name, name in (("Cat", "a.png"), ("Dog", "a.png"), ("Dog", "b.png"))
    ]
    assert all(path.is_file() for path in found)


@pytest.mark.parametrize("tune", ["lora", "whole"])
def test_a_trained_model_is_loaded_by_its_card_and_fills_the_same(settings, batch, tmp_path, tune):
    chosen = settings(tune=tune, learning_rate=0.01)
    state = begin(chosen)
    masked, boxes, classes = batch[0], batch[1], np.array(batch[2])
    fresh = diffusion.fill(state.model, masked, boxes, classes)
    system.make_step(state, chosen)(*batch)
    save(tmp_path, diffusion, chosen, best=state.model)
    found = load_fill(tmp_path, "best")(masked, boxes, classes)
    assert (found == diffusion.fill(state.model, masked, boxes, classes)).all()
    assert (found != fresh).any()


def test_several_devices_are_refused(settings):
    cpu = tf.config.list_logical_devices("CPU")[0].name
    with tf.distribute.MirroredStrategy([cpu]).scope(), pytest.raises(BadInput, match=r"train\.strategy.*none"):
        begin(settings())
