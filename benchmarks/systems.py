"""Samples a second of each system at its full size in training, and of one system on two devices."""

import json
import time
from functools import partial
from pathlib import Path

import tensorflow as tf

from benchmarks.measure import main
from pipeline import paths
from pipeline.competition.index import read_index
from pipeline.params import SYSTEMS, load_params
from pipeline.systems import load_training
from pipeline.training.data import training_data
from pipeline.training.devices import use_devices
from pipeline.training.runtime import keep_freed_memory, set_threads, usable_precision

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
    """Of a system with its settings in params.yaml, on this many virtual devices of the CPU, its input included."""
    keep_freed_memory()
    params = load_params()
    settings, data = getattr(params, name), training_data(read_index(paths.SPLIT), params.train.seed)
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
    set_threads(params.train.threads)
    strategy, training = use_devices(strategy_name), load_training(name)
    with strategy.scope():
        state = training.begin(settings, usable_precision(params.train.precision), params.train.seed)
        step = training.make_step(state, settings)
    batches = iter(strategy.distribute_datasets_from_function(partial(training.batches, settings, data, 0)))
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
    ways = {name: partial(samples_a_second, name) for name in SYSTEMS}
    ways |= {"two devices": partial(samples_a_second, "residual", "mirrored", 2)}
    ways |= {"write": partial(write_stable_diffusion, Path("stable-diffusion"))}
    main(ways)
