"""How the diffusion model is fine-tuned: it predicts the noise in a photograph's latents, with new holes each step."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import tensorflow as tf

from pipeline import paths
from pipeline.base.errors import BadInput
from pipeline.competition.boxes import LAST, hole_mask
from pipeline.competition.images import read_images
from pipeline.competition.index import target_path
from pipeline.params import Diffusion
from pipeline.systems.diffusion import network
from pipeline.training.batches import ONE_DEVICE
from pipeline.training.data import TrainingData
from pipeline.training.loop import Step, TrainingState, snapshot

with network.extra():
    import torch
    from diffusers import DDPMScheduler
    from diffusers.utils.torch_utils import randn_tensor
    from torch.nn import functional

CLIP = 1.0  # the gradient's norm over all variables

Batch = tuple[np.ndarray, np.ndarray, list[str], int]


class AdamW(torch.optim.AdamW):
    """torch.optim.AdamW with its state created at once instead of at the first step, and listed as `variables`."""

    def __init__(self, parameters: list[torch.nn.Parameter], learning_rate: float) -> None:
        super().__init__(parameters, lr=learning_rate)
        for parameter in parameters:
            means = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            self.state[parameter] = {"step": torch.tensor(0.0), **means}
        self.variables = [network.Variable(value) for state in self.state.values() for value in state.values()]


def begin(settings: Diffusion, dtype: str, seed: int) -> TrainingState:
    """The pretrained model, its adapters drawn from the seed, and the optimizer.

    Raises BadInput under a strategy for several devices.
    """
    if tf.distribute.has_strategy():
        raise BadInput("train.strategy: diffusion is trained on one device; set it to none")
    torch.manual_seed(seed)
    model = network.build(settings, dtype)
    optimizer = AdamW(list(model.trained.values()), settings.learning_rate)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return TrainingState(model, {"model": model}, {"optimizer": optimizer}, snapshot(model), devices=f"1 x {device}")


def make_step(state: TrainingState, settings: Diffusion) -> Step:
    """One step on one of `batches`; it returns the loss, the mean squared error over the latents.

    That is the simple loss of Ho et al., 2020 (equation 14), of the noise or, if the model's scheduler says so, of the
    velocity (Salimans & Ho, 2022, appendix D).
    """
    model, optimizer = state.model, state.optimizers["optimizer"]
    pipeline, device = model.pipeline, model.pipeline.device
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)

    def encode(images: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        sampled = pipeline.vae.encode(2 * images.to(device) - 1).latent_dist.sample(random)
        return pipeline.vae.config.scaling_factor * sampled.float()

    def step(targets: np.ndarray, boxes: np.ndarray, classes: list[str], draw: int) -> dict[str, float]:
        random = network.generator(draw)
        known, mask = network.network_input(targets, hole_mask(boxes), model.resolution)
        with torch.no_grad(), model.precision():
            latents = encode(network.resize(network.to_tensor(targets), model.resolution), random)
            texts, _ = pipeline.encode_prompt([model.describe(class_name) for class_name in classes], device, 1, False)
            conditions = [functional.interpolate(mask, latents.shape[2:]).to(device), encode(known, random)]
        noise = randn_tensor(latents.shape, random, device)
        times = torch.randint(scheduler.config.num_train_timesteps, (len(targets),), generator=random).to(device)
        noisy = scheduler.add_noise(latents, noise, times)
        velocity = scheduler.config.prediction_type == "v_prediction"
        goal = scheduler.get_velocity(latents, noise, times) if velocity else noise
        with model.precision():
            predicted = pipeline.unet(torch.cat([noisy, *conditions], dim=1), times, texts).sample
        loss = functional.mse_loss(predicted.float(), goal)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.trained.values(), CLIP)
        optimizer.step()
        return {"loss": loss.item()}

    return step


def batches(
    settings: Diffusion, data: TrainingData, start: int, context: tf.distribute.InputContext = ONE_DEVICE
) -> Iterator[Batch]:
    """Endless batches (targets, boxes, classes, draw) from step `start` on, each a function of the seed and its number.

    Photographs or their mirror images, uint8 [n, 256, 256, 3], boxes int [n, 2, 2] drawn anew, and a number from which
    the step draws the rest. Photographs are read at each step, which takes far less time than the step itself.
    """
    rows = data.pairs.to_dict("records")
    for step in count(start):
        rng = np.random.default_rng((data.seed, step))
        drawn = [rows[i] for i in rng.integers(len(rows), size=settings.batch_size)]
        targets = read_images(target_path(paths.RAW, row) for row in drawn)
        mirrored = rng.random((len(targets), 1, 1, 1)) < 0.5
        boxes = rng.integers(0, LAST + 1, (len(targets), 2, 2))
        classes = [row["class"] for row in drawn]
        yield np.where(mirrored, targets[:, :, ::-1], targets), boxes, classes, int(rng.integers(2**63))


def input_files(settings: Diffusion, data: TrainingData) -> list[Path]:
    """The pretrained weights and the photographs."""
    return network.list_weights(settings) + [target_path(paths.RAW, row) for row in data.pairs.to_dict("records")]


def before_validation(model: network.Inpainter, settings: Diffusion, data: TrainingData) -> None:
    """Nothing."""
