"""How the diffusion model is fine-tuned: to tell the noise in a photograph's latents, on holes drawn anew each step."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf

from pipeline import paths
from pipeline.base.errors import BadInput
from pipeline.competition.boxes import LAST, hole_mask
from pipeline.competition.images import read_images
from pipeline.competition.index import target_path
from pipeline.params import Diffusion
from pipeline.systems.diffusion import network as diffusion
from pipeline.training.loop import TrainingState, snapshot

with diffusion.extra():
    import torch
    from diffusers import DDPMScheduler
    from diffusers.utils.torch_utils import randn_tensor
    from torch.nn import functional

MODEL = diffusion
CLIP = 1.0  # the gradient's norm over all variables

Batch = tuple[np.ndarray, np.ndarray, list[str], int]


class AdamW(torch.optim.AdamW):
    """torch.optim.AdamW, its state made at once instead of at the first step, and known as `variables`."""

    def __init__(self, parameters: list[torch.nn.Parameter], learning_rate: float) -> None:
        super().__init__(parameters, lr=learning_rate)
        for parameter in parameters:
            means = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            self.state[parameter] = {"step": torch.tensor(0.0), **means}
        self.variables = [diffusion.Variable(value) for state in self.state.values() for value in state.values()]


def begin(settings: Diffusion, precision: str, seed: int) -> TrainingState:
    """The pretrained model, its adapters fresh from the seed, and the optimizer.

    PyTorch gets as many threads as TensorFlow has. Raises BadInput under a strategy for several devices.
    """
    if tf.distribute.has_strategy():
        raise BadInput("train.strategy: diffusion is trained on one device; set it to none")
    threads = tf.config.threading.get_intra_op_parallelism_threads() or torch.get_num_threads()
    known = settings.model_dump() | {"seed": seed, "threads": threads}
    model = diffusion.build(*(known[name] for name in diffusion.SHAPE), precision)
    optimizer = AdamW(list(model.trained.values()), settings.learning_rate)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return TrainingState(model, {"model": model}, {"optimizer": optimizer}, snapshot(model), devices=f"1 x {device}")


def make_step(training: TrainingState, _: Diffusion) -> Callable[..., dict[str, float]]:
    """One step on what `batches` gives; it returns the loss, the mean squared error over the latents.

    That is the simple loss of Ho et al., 2020 (equation 14), of the noise or, where the model's scheduler says so, of
    the velocity (Salimans & Ho, 2022, appendix D).
    """
    model, optimizer = training.model, training.optimizers["optimizer"]
    pipeline, device = model.pipeline, model.pipeline.device
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)

    def encode(images: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        sampled = pipeline.vae.encode(2 * images.to(device) - 1).latent_dist.sample(random)
        return pipeline.vae.config.scaling_factor * sampled.float()

    def step(whole: np.ndarray, boxes: np.ndarray, classes: list[str], draw: int) -> dict[str, float]:
        random = diffusion.generator(draw)
        known, mask = diffusion.network_input(whole, hole_mask(boxes), model.resolution)
        with torch.no_grad(), model.precision():
            latents = encode(diffusion.resize(diffusion.to_tensor(whole), model.resolution), random)
            texts, _ = pipeline.encode_prompt([model.describe(kind) for kind in classes], device, 1, False)
            given = [functional.interpolate(mask, latents.shape[2:]).to(device), encode(known, random)]
        noise = randn_tensor(latents.shape, random, device)
        times = torch.randint(scheduler.config.num_train_timesteps, (len(whole),), generator=random).to(device)
        noisy = scheduler.add_noise(latents, noise, times)
        velocity = scheduler.config.prediction_type == "v_prediction"
        wanted = scheduler.get_velocity(latents, noise, times) if velocity else noise
        with model.precision():
            predicted = pipeline.unet(torch.cat([noisy, *given], dim=1), times, texts).sample
        loss = functional.mse_loss(predicted.float(), wanted)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.trained.values(), CLIP)
        optimizer.step()
        return {"loss": loss.item()}

    return step


def sources(settings: Diffusion, index: pd.DataFrame, keep: np.ndarray) -> list[Path]:
    """The files that a checkpoint depends on beside the index: the pretrained weights and the photographs."""
    photographs = [target_path(paths.RAW, row) for row in index[keep].to_dict("records")]
    return diffusion.list_weights(settings.pretrained, settings.revision) + photographs


def batches(
    settings: Diffusion, index: pd.DataFrame, keep: np.ndarray, seed: int, start: int, _: object = None
) -> Iterator[Batch]:
    """Endless batches (whole, boxes, classes, draw) from step `start` on, each a function of the seed and its number.

    Photographs or their mirror images, uint8 [n, 256, 256, 3], boxes int [n, 2, 2] drawn anew, and a number from which
    the step draws the rest. They are read as they are needed: that takes far less than the step.
    """
    rows = index[keep].to_dict("records")
    for step in count(start):
        rng = np.random.default_rng((seed, step))
        drawn = [rows[i] for i in rng.integers(len(rows), size=settings.batch_size)]
        whole = read_images(target_path(paths.RAW, row) for row in drawn)
        mirrored = rng.random((len(whole), 1, 1, 1)) < 0.5
        boxes = rng.integers(0, LAST + 1, (len(whole), 2, 2))
        classes = [row["class"] for row in drawn]
        yield np.where(mirrored, whole[:, :, ::-1], whole), boxes, classes, int(rng.integers(2**63))


def before_validation(*_: object) -> Callable[[diffusion.Inpainter], None]:
    """What is to be done to the model before it is measured: nothing."""
    return lambda model: None
