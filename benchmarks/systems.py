"""Samples a second of each system at its full size, as the train stage has them, and of two devices beside one."""

import json
import time
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import get_args

import tensorflow as tf

from benchmarks.measure import main
from pipeline import paths
from pipeline.competition.index import read_index
from pipeline.params import System, load_params
from pipeline.training.devices import use_devices
from pipeline.training.runtime import keep_freed_memory

WARM_UP, SECONDS = 2, 20.0  # steps that are not timed, and how long the others may take

# stabilityai/stable-diffusion-2-inpainting: the sizes in its config.json files
UNET = {
    "sample_size": 64,
    "in_channels": 9,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 768,
}
TEXT = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}


def samples_a_second(name: str, strategy_name: str = "none", devices: int = 1) -> float:
    """Of a system with its settings in params.yaml, on so many virtual devices of the CPU, its input included."""
    keep_freed_memory()
    params = load_params()
    settings, index = getattr(params, name), read_index(paths.INDEX)
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
    tf.config.threading.set_intra_op_parallelism_threads(params.train.threads)
    strategy, system = use_devices(strategy_name), import_module(f"pipeline.systems.{name}")
    with strategy.scope():
        training = system.begin(settings, params.train.precision, 7)
        step = system.make_step(training, settings)
    keep = (index["split"] == "train").to_numpy()
    batches = iter(strategy.distribute_datasets_from_function(partial(system.batches, settings, index, keep, 7, 0)))
    for _ in range(WARM_UP):
        step(*next(batches))
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        for loss in step(*next(batches)).values():
            float(loss)
        steps += 1
    return steps * settings.batch_size / (time.perf_counter() - start)


def write_stable_diffusion(folder: Path) -> None:
    """A model of Stable Diffusion 2's sizes with random weights, 5 GB, to be diffusion.pretrained."""
    import torch
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionInpaintPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    (folder / "tokenizer").mkdir(parents=True)
    tokens = [*"abcdefghijklmnopqrstuvwxyz", *(f"{letter}</w>" for letter in "abcdefghijklmnopqrstuvwxyz")]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", model_max_length=77)
    with torch.no_grad():
        text = CLIPTextModel(CLIPTextConfig(vocab_size=49408, max_position_embeddings=77, **TEXT))
        parts = (AutoencoderKL(**VAE), text, tokenizer, UNet2DConditionModel(**UNET), PNDMScheduler())
    pipeline = StableDiffusionInpaintPipeline(*parts, None, None, requires_safety_checker=False)
    pipeline.save_pretrained(folder)


if __name__ == "__main__":
    ways = {name: partial(samples_a_second, name) for name in get_args(System)}
    ways |= {"two devices": partial(samples_a_second, "residual", "mirrored", 2)}
    ways |= {"write": partial(write_stable_diffusion, Path("stable-diffusion"))}
    main(ways)
