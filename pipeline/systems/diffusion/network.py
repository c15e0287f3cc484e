"""Stable Diffusion 2 for inpainting, pretrained, in the implementation of diffusers.

Rombach et al., 2022: a U-Net removes noise step by step in the latents of an autoencoder, given a text, the mask and
the known pixels (9 channels: noisy latents, mask, latents of the masked photograph). Either low-rank adapters of the
U-Net's attention (LoRA, Hu et al., 2022) or the whole U-Net are trained. PyTorch and diffusers are an extra, so they
are imported inside functions; Keras is not used.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from pipeline import paths
from pipeline.base.errors import BadInput
from pipeline.base.files import sha256
from pipeline.competition.boxes import paste, unknown_mask
from pipeline.competition.images import SIZE, to_uint8
from pipeline.params import Diffusion
from pipeline.systems.shared.hub import locate

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionInpaintPipeline, UNet2DConditionModel

INPUT_VERSION = 1  # grey level / 127.5 - 1, holes at 0, resized bicubically; a mask, 1 in the holes
WEIGHTS = (
    "text_encoder/model.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
)
FILES = ("model_index.json", "scheduler/*", "tokenizer/*", "*/config.json", *WEIGHTS)  # needed of a hub repository
BFLOAT16 = "mixed_bfloat16"
CHANNELS = 9
UNREADABLE = (OSError, ValueError, LookupError, RuntimeError, TypeError)  # what from_pretrained raises on damaged files
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]  # layers that get adapters


@contextmanager
def extra() -> Iterator[None]:
    """Around imports of PyTorch and packages built on it. Raises BadInput if they are not installed."""
    # Read when PyTorch is loaded. Otherwise idle threads spin, which is forty times slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it warns that torchvision is absent, which is not needed
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS is not deterministic
    try:
        yield
    except ImportError as error:
        raise BadInput(
            f"diffusion: {error}; `pip install -r requirements-diffusion.txt -c constraints.txt` installs it"
        ) from None


@dataclass(frozen=True)
class Variable:
    """A tensor with the methods of loop.Variable."""

    tensor: "torch.Tensor"

    def numpy(self) -> np.ndarray:
        return np.array(self.tensor.numpy(force=True))

    def assign(self, value: np.ndarray) -> None:
        """Raises ValueError if the shape differs: torch would broadcast it."""
        if value.shape != tuple(self.tensor.shape):
            raise ValueError(f"a weight has shape {value.shape}, expected {tuple(self.tensor.shape)}")
        self.tensor.data.copy_(self.tensor.new_tensor(value))


@dataclass(frozen=True)
class Inpainter:
    """The pipeline of diffusers and how it fills; a loop.Model.

    Its weights are the trained ones, float32: the adapters, or the whole U-Net.
    """

    pipeline: "StableDiffusionInpaintPipeline"
    checksum: str  # of the pretrained weights
    resolution: int
    prompt: str
    inference_steps: int
    samples: int
    noise_seed: int
    dtype: str  # a Keras precision policy

    @property
    def trained(self) -> dict[str, "torch.nn.Parameter"]:
        """The trained parameters by name."""
        return {name: value for name, value in self.pipeline.unet.named_parameters() if value.requires_grad}

    @property
    def variables(self) -> list[Variable]:
        return [Variable(parameter) for parameter in self.trained.values()]

    def get_weights(self) -> list[np.ndarray]:
        return [variable.numpy() for variable in self.variables]

    def set_weights(self, weights: list[np.ndarray]) -> None:
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)

    def save_weights(self, path: Path) -> None:
        """Write the trained weights and the checksum of the pretrained ones as HDF5, the same bytes each time."""
        with h5py.File(path, "w") as file:
            file.attrs["pretrained"] = self.checksum
            for name, weight in zip(self.trained, self.get_weights(), strict=True):
                file[name] = weight

    def load_weights(self, path: Path) -> None:
        """Raises BadInput if other pretrained weights were used, OSError, KeyError or ValueError on other faults."""
        with h5py.File(path) as file:
            if file.attrs["pretrained"] != self.checksum:
                raise BadInput(
                    f"{path} was trained on other pretrained weights than diffusion.pretrained now names; restore "
                    "those, or train again with `dvc repro train`"
                )
            self.set_weights([file[name][()] for name in self.trained])

    def count_params(self) -> int:
        """The parameters of the U-Net with its adapters, the autoencoder and the text encoder."""
        parts = (self.pipeline.unet, self.pipeline.vae, self.pipeline.text_encoder)
        return sum(parameter.numel() for part in parts for parameter in part.parameters())

    def precision(self) -> "torch.autocast":
        """The autocast context for its computations."""
        import torch

        return torch.autocast(self.pipeline.device.type, torch.bfloat16, enabled=self.dtype == BFLOAT16)

    def describe(self, class_name: str) -> str:
        """The text for a photograph of a class."""
        return self.prompt.replace("{}", class_name.lower() or "animal")


def build(settings: Diffusion, dtype: str = "float32") -> Inpainter:
    """The pretrained parts, from a folder or a revision of a hub id, ready to be trained; on a GPU if there is one.

    tune is "lora", adapters of this rank with random weights that change nothing until they are trained, or "whole".
    dtype is "float32" or "mixed_bfloat16". PyTorch is deterministic from here on.
    Raises BadInput if something is missing, damaged or not for inpainting.
    """
    with extra():
        import torch
    torch.use_deterministic_algorithms(True)
    files = list_weights(settings)
    lora = settings.tune == "lora"
    # A U-Net that is not trained needs no float32: bfloat16 halves the memory and saves a cast at each call.
    pipeline = load_pipeline(files[0].parents[1], torch.bfloat16 if lora and dtype == BFLOAT16 else torch.float32)
    if lora:
        add_adapters(pipeline.unet, settings.rank)
    else:
        pipeline.unet.requires_grad_(True)
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    checksum = hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()
    names = ("resolution", "prompt", "inference_steps", "samples", "noise_seed")
    return Inpainter(pipeline, checksum, dtype=dtype, **{name: getattr(settings, name) for name in names})


def list_weights(settings: Diffusion) -> list[Path]:
    """The files of the pretrained weights, downloaded if need be. Raises BadInput if one is missing."""
    folder = locate(settings.pretrained, settings.revision, paths.WORK / "hub", FILES)
    for name in WEIGHTS:
        if not (folder / name).is_file():
            raise BadInput(f"{folder / name} is missing: diffusion.pretrained needs the folder layout of diffusers")
    return [folder / name for name in WEIGHTS]


def load_pipeline(folder: Path, unet_dtype: "torch.dtype") -> "StableDiffusionInpaintPipeline":
    """The pipeline in a folder in the layout of diffusers, in evaluation mode, frozen, float32 but for the U-Net."""
    with extra():
        import torch
        import transformers
        from diffusers import StableDiffusionInpaintPipeline
        from diffusers.utils import logging
        from safetensors import SafetensorError
    for library in (logging, transformers.utils.logging):
        library.disable_progress_bar()
    dtypes = {"unet": unet_dtype, "default": torch.float32}
    unused = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    try:
        pipeline = StableDiffusionInpaintPipeline.from_pretrained(
            folder, dtype=dtypes, use_safetensors=True, local_files_only=True, **unused
        )
    except (*UNREADABLE, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise BadInput(f"{folder}, named by diffusion.pretrained, cannot be loaded ({reason})") from None
    if (channels := pipeline.unet.config.in_channels) != CHANNELS:
        raise BadInput(f"{folder} is not for inpainting: its U-Net takes {channels} channels, not {CHANNELS}")
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.requires_grad_(False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def add_adapters(unet: "UNet2DConditionModel", rank: int) -> None:
    """Add adapters, float32, the only trained part, to the attention of a U-Net; torch's seed draws them."""
    with extra():
        import torch
        from diffusers.training_utils import cast_training_params
        from peft import LoraConfig
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=ATTENTION))
    cast_training_params(unet, torch.float32)
    unet.eval()  # new layers are in training mode


def generator(*key: int) -> "torch.Generator":
    """Random numbers that depend on the key alone, on a CPU or GPU."""
    import torch

    return torch.Generator().manual_seed(int(np.random.default_rng(key).integers(2**63)))


def resize(images: "torch.Tensor", side: int) -> "torch.Tensor":
    """Resize images float32 [n, 3, h, w] in [0, 1] with an antialiased bicubic filter."""
    from torch.nn import functional

    return functional.interpolate(images, (side, side), mode="bicubic", antialias=True).clamp(0, 1)


def to_tensor(photographs: np.ndarray) -> "torch.Tensor":
    """uint8 [n, h, w, 3] as float32 [n, 3, h, w] in [0, 1]."""
    import torch

    return torch.from_numpy(photographs / np.float32(255)).permute(0, 3, 1, 2)


def network_input(photographs: np.ndarray, hole: np.ndarray, side: int) -> tuple["torch.Tensor", "torch.Tensor"]:
    """The network's images and masks for photographs uint8 [n, 256, 256, 3] with holes bool [n, 256, 256].

    Images float32 [n, 3, side, side] in [0, 1], grey in the holes; masks [n, 1, side, side], 1 if a hole touches it.
    """
    import torch
    from torch.nn import functional

    holes = torch.from_numpy(hole[:, None])
    mask = functional.interpolate(holes.float(), (side, side), mode="area") > 0
    # Grey before resizing too, or the boxes' black would bleed into the known pixels.
    known = resize(to_tensor(photographs).where(~holes, 0.5), side)
    return known.where(~mask, 0.5), mask.float()


def fill(model: Inpainter, masked: np.ndarray, boxes: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Fill the boxes, as systems.Network says. The classes go into the texts.

    The fill is the mean of several samples, since the score is a squared error. Each sample starts from the same noise
    for every image. There is no classifier-free guidance, which would trade the mean for contrast.
    """
    known, mask = network_input(masked, unknown_mask(masked, boxes), model.resolution)

    def sample(number: int) -> np.ndarray:
        with model.precision():
            filled = model.pipeline(
                [model.describe(class_name) for class_name in classes],
                image=known,
                mask_image=mask,
                height=model.resolution,
                width=model.resolution,
                num_inference_steps=model.inference_steps,
                guidance_scale=1.0,
                generator=[generator(model.noise_seed, number) for _ in masked],
                output_type="pt",
            ).images
        return resize(filled.float().cpu(), SIZE).permute(0, 2, 3, 1).numpy()

    mean = np.mean([sample(number) for number in range(model.samples)], axis=0)
    return paste(to_uint8(255 * mean), masked, boxes)
