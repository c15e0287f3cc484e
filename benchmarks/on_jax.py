"""Train a system by Keras on JAX, for a GPU without TensorFlow: `python -m benchmarks.on_jax residual OUT`.

Networks, losses, schedule and random draws are the pipeline's; samples are made on the GPU. It reads params.yaml,
data/split.csv and data/raw in the current folder. OUT gets validation.csv and the weights, as float16; those of pix2pix
are too large to be moved, so it gets the holdout pairs' boxes as they fill them, for benchmarks/table.py.
"""

import argparse
import os
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline import paths
from pipeline.base.files import sha256
from pipeline.competition.boxes import LAST, TURNS, count_boxes, cut, paste
from pipeline.competition.images import SIZE, read_images, to_uint8
from pipeline.competition.index import boxes_of, masked_path, read_index, read_pairs
from pipeline.competition.metric import rmse
from pipeline.fills.batched import in_batches
from pipeline.fills.harmonic import WEIGHTS
from pipeline.params import Params, load_params

# After `pipeline`, which sets TensorFlow and removes others, and before Keras.
os.environ |= {"KERAS_BACKEND": "jax", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}

import jax
import jax.numpy as jnp
import keras

from pipeline.systems import Fill
from pipeline.systems.pix2pix import network as pix2pix
from pipeline.systems.residual import network as residual
from pipeline.systems.residual import samples
from pipeline.systems.residual.optimizers import build_optimizers
from pipeline.systems.shared import unet
from pipeline.training.data import training_data

CHUNK = 20  # steps in one call
AT_ONCE = 16  # images filled
JITTER = 286  # as in training/batches.py
NEAREST = ((np.arange(JITTER) + 0.5) * SIZE / JITTER).astype(int)  # as tf.image.resize
Arrays = dict[str, np.ndarray]
State = dict[str, list]


# Laplace's equation, as fills/harmonic.py solves it, for arrays [height, width, n].


def solve(images: jax.Array, hole: jax.Array) -> jax.Array:
    """Fill the hole, bool [n, h, w], of images float32 [n, h, w, 3], with one V-cycle on each level."""
    n, height, width, channels = images.shape
    levels = [jnp.repeat(hole.transpose(1, 2, 0), channels, axis=2).astype(jnp.float32)]
    while min(levels[-1].shape[:2]) > 1:
        levels.append(blocks(levels[-1]).min(axis=(1, 3)))
    known = images.transpose(1, 2, 0, 3).reshape(height, width, n * channels) * (1 - levels[0])
    return full_multigrid(known, levels).reshape(height, width, n, channels).transpose(2, 0, 1, 3)


def full_multigrid(known: jax.Array, levels: list[jax.Array]) -> jax.Array:
    """harmonic.full_multigrid, one cycle."""
    hole = levels[0]
    if len(levels) == 1:
        guess = known + hole * (known.sum(axis=(0, 1)) / jnp.maximum((1 - hole).sum(axis=(0, 1)), 1))
    else:
        share = blocks(1 - hole).mean(axis=(1, 3))
        coarse = blocks(known).mean(axis=(1, 3)) / jnp.maximum(share, 0.25) * (share > 0)
        guess = known + hole * enlarge(full_multigrid(coarse, levels[1:]))
    return guess + v_cycle(hole * (neighbours(guess) - 4 * guess), levels)


def v_cycle(right: jax.Array, levels: list[jax.Array]) -> jax.Array:
    """harmonic.v_cycle."""
    hole = levels[0]
    solution = WEIGHTS[0] * 0.25 * hole * right
    for weight in WEIGHTS[1:]:
        solution += weight * (0.25 * hole * (neighbours(solution) + right) - solution)
    if len(levels) > 1:
        rest = hole * (right - 4 * solution + neighbours(solution))
        solution += hole * enlarge(v_cycle(4 * levels[1] * blocks(rest).mean(axis=(1, 3)), levels[1:]))
    for weight in WEIGHTS:
        solution += weight * (0.25 * hole * (neighbours(solution) + right) - solution)
    return solution


def neighbours(values: jax.Array) -> jax.Array:
    """harmonic.neighbours."""
    padded = jnp.pad(values, ((1, 1), (1, 1), (0, 0)), mode="edge")
    return padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]


def blocks(values: jax.Array) -> jax.Array:
    """harmonic.blocks."""
    height, width, n = values.shape
    return values.reshape(height // 2, 2, width // 2, 2, n)


def enlarge(values: jax.Array) -> jax.Array:
    """harmonic.enlarge."""
    for axis in (0, 1):
        values = jnp.moveaxis(values, axis, 0)
        padded = jnp.concatenate([values[:1], values, values[-1:]])
        both = jnp.stack([0.75 * values + 0.25 * padded[:-2], 0.75 * values + 0.25 * padded[2:]], axis=1)
        values = jnp.moveaxis(both.reshape(2 * len(values), *values.shape[1:]), 0, axis)
    return values


# What each step draws, by numpy, and its samples from that.


def draw_residual(params: Params, n: int, step: int) -> Arrays:
    """Photographs, mirrored or not, the parts of them, and holes."""
    return samples.draw(n, params.residual, np.random.default_rng((params.train.seed, step)))._asdict()


def residual_samples(photographs: jax.Array, drawn: dict[str, jax.Array], side: int) -> tuple[jax.Array, ...]:
    """The batch of samples.draw_batch."""
    boxes = drawn["boxes"]
    images, known = cut_parts(photographs, drawn, side)
    weights = residual.weigh(boxes, side)
    target, hole = jnp.round(images) / 127.5 - 1, (weights > 0) | ~known
    smooth = solve(target, hole)
    whole = jnp.concatenate([smooth, hole[..., None]], axis=-1), target - smooth, weights * known

    boxes = boxes[samples.RIMS]
    images, known = cut_parts(photographs, {name: value[samples.RIMS] for name, value in drawn.items()}, SIZE)
    count = count_boxes(boxes)
    large, hole = jnp.round(images) / 127.5 - 1, (count > 0) | ~known
    filled = solve(large, hole)
    seen = jnp.concatenate([filled, hole[..., None], jnp.ones_like(filled[..., :1]), large - filled], axis=-1)
    seen = look(jnp.concatenate([seen, (count * known)[..., None]], axis=-1), boxes)
    rows, columns = (sampling(boxes[..., axis].ravel(), side) for axis in (0, 1))
    return *whole, seen[..., :5], seen[..., 5:8], seen[..., 8], rows, columns


def cut_parts(photographs: jax.Array, drawn: dict[str, jax.Array], side: int) -> tuple[jax.Array, jax.Array]:
    """Parts of photographs [n, side, side, 3], each pixel the mean of its area, and which pixels are wholly known."""
    edges = drawn["start"][..., None] + jnp.arange(side + 1) * drawn["length"][..., None] / side
    low, high, pixel = edges[..., :-1, None], edges[..., 1:, None], jnp.arange(SIZE)
    area = jnp.clip(jnp.minimum(high, pixel + 1) - jnp.maximum(low, pixel), 0, 1) / (high - low)
    images = photographs[drawn["chosen"]].astype(jnp.float32)
    highest = jax.lax.Precision.HIGHEST
    parts = jnp.einsum("nih,nhwc,njw->nijc", area[:, 0], images, area[:, 1], precision=highest)
    parts = jnp.where(drawn["mirrored"], parts[:, :, ::-1], parts)
    return parts[..., :3], parts[..., 3] > samples.KNOWN - 0.1


def look(images: jax.Array, boxes: jax.Array) -> jax.Array:
    """residual.look."""
    margin, near = residual.MARGIN, residual.NEAR
    padded = jnp.pad(images, ((0, 0), (margin, near), (margin, near), (0, 0)))

    def one(image: jax.Array, box: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (box[0], box[1], 0), (near, near, image.shape[-1]))

    return jax.vmap(one)(jnp.repeat(padded, 2, axis=0), boxes.reshape(-1, 2))


def sampling(starts: jax.Array, side: int) -> jax.Array:
    """residual.sampling."""
    position = (starts[:, None] - residual.MARGIN + jnp.arange(residual.NEAR) + 0.5) * (side / SIZE) - 0.5
    return jnp.maximum(1 - jnp.abs(jnp.clip(position, 0, side - 1)[..., None] - jnp.arange(side)), 0)


def draw_pix2pix(params: Params, boxes: np.ndarray, step: int) -> Arrays:
    """Photographs in a new order each epoch, each in all its turns; where each is cropped after its enlargement."""
    size, turns, seed = params.pix2pix.batch_size, params.augment.turns, params.train.seed
    drawn = []
    for position in range(step * size, (step + 1) * size):
        epoch, place = divmod(position, len(boxes) * len(turns))
        number, turn = divmod(int(order(seed, epoch, len(boxes) * len(turns))[place]), len(turns))
        rng = np.random.default_rng((seed, position))
        corner = rng.integers(0, JITTER - SIZE + 1, 2)
        own = rng.integers(0, LAST + 1, (2, 2)) if params.pix2pix.random_holes else boxes[number]
        drawn.append((number, list(TURNS).index(turns[turn]), corner, own))
    return dict(zip(("chosen", "turn", "corner", "boxes"), map(np.array, zip(*drawn, strict=True)), strict=True))


orders: dict[tuple, np.ndarray] = {}


def order(*key: int) -> np.ndarray:
    """The order of an epoch's images, from seed, epoch and their number."""
    if key not in orders:
        orders.clear()
        orders[key] = np.random.default_rng(key[:2]).permutation(key[2])
    return orders[key]


def pix2pix_samples(photographs: jax.Array, drawn: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
    """masked, target and hole, as training/batches.py's example makes them, from boxes before the turn."""
    hole = count_boxes(drawn["boxes"]) > 0
    images = jnp.concatenate([photographs[drawn["chosen"]][..., :3], hole[..., None]], axis=-1)

    def one(image: jax.Array, turn: jax.Array, corner: jax.Array) -> jax.Array:
        turned = jnp.stack([image[:, ::-1] if k is None else jnp.rot90(image, k) for k in TURNS.values()])[turn]
        rows, columns = (jnp.array(NEAREST)[corner[axis] + jnp.arange(SIZE)] for axis in (0, 1))
        return turned[rows][:, columns]

    images = jax.vmap(one)(images, drawn["turn"], drawn["corner"])
    target, hole = images[..., :3] / 127.5 - 1, images[..., 3:].astype(jnp.float32)
    return jnp.where(hole > 0, -1.0, target), target, hole


# The trainings: each returns the model, the state, what is drawn, the samples, the step, how the state goes back into
# the model, and the ways to fill.


def values(variables: list) -> list[jax.Array]:
    """The values of Keras variables, copied: a step may overwrite them."""
    return [jnp.array(variable.value) for variable in variables]


def assign(variables: list, new: list[jax.Array]) -> None:
    """Put values back into Keras variables."""
    for variable, value in zip(variables, new, strict=True):
        variable.assign(value)


def apply(optimizers: list, state: State, gradients: list) -> State:
    """The optimizers' steps of their networks."""
    pairs = [
        optimizer.stateless_apply(own, gradient, weights)
        for optimizer, own, gradient, weights in zip(
            optimizers, state["optimizers"], gradients, state["weights"], strict=True
        )
    ]
    return {"weights": [list(new) for new, _ in pairs], "optimizers": [list(own) for _, own in pairs]}


def residual_training(params: Params, photographs: np.ndarray, train: pd.DataFrame) -> tuple:
    """How residual is trained."""
    settings = params.residual
    model = residual.build(settings, params.train.precision)
    by_part = build_optimizers(model, settings)
    parts, optimizers = [model.get_layer(name) for name in by_part], list(by_part.values())
    weights = [values(part.trainable_variables) for part in parts]
    state = {
        "weights": weights,
        "average": jax.tree.map(jnp.array, weights),
        "optimizers": [values(optimizer.variables) for optimizer in optimizers],
    }

    def losses(weights: list, batch: tuple) -> tuple:
        inputs, residuals, weigh, near, lacking, rim_weights, rows, columns = batch
        predicted, _ = parts[0].stateless_call(weights[0], [], inputs, training=True)
        loss = residual.loss(residuals, predicted, weigh)
        seen = residual.add_residual(near, jax.lax.stop_gradient(predicted[samples.RIMS]), rows, columns)
        mended, _ = parts[1].stateless_call(weights[1], [], seen, training=True)
        rim = residual.loss(lacking - (seen - near)[..., :3], mended, rim_weights)
        return loss + rim, {"loss": loss, "rim": rim}

    def step(state: State, batch: tuple) -> tuple:
        gradients, named = jax.grad(losses, has_aux=True)(state["weights"], batch)
        new = apply(optimizers, state, gradients)
        count = new["optimizers"][0][0].astype(jnp.float32)  # Adam's first variable: its steps
        share = 1 - jnp.minimum(settings.average, (1 + count) / (10 + count))
        average = jax.tree.map(lambda mean, weight: mean + share * (weight - mean), state["average"], new["weights"])
        return new | {"average": average}, named

    def put_back(state: State) -> None:
        for part, average in zip(parts, state["average"], strict=True):
            assign(part.trainable_variables, average)

    draw = partial(draw_residual, params, len(photographs))
    make = partial(residual_samples, side=settings.resolution)
    return model, state, draw, make, step, put_back, {"rmse": partial(residual.fill, model)}


def pix2pix_training(params: Params, photographs: np.ndarray, train: pd.DataFrame) -> tuple:
    """How pix2pix is trained."""
    settings = params.pix2pix
    networks = [
        pix2pix.build(settings, params.train.precision),
        pix2pix.build_discriminator(settings, params.train.precision),
    ]
    optimizers = [keras.optimizers.Adam(settings.learning_rate, beta_1=settings.beta_1) for _ in networks]
    for optimizer, part in zip(optimizers, networks, strict=True):
        optimizer.build(part.trainable_variables)
    state = {
        "weights": [values(part.trainable_variables) for part in networks],
        "others": [values(part.non_trainable_variables) for part in networks],
        "optimizers": [values(optimizer.variables) for optimizer in optimizers],
    }

    def generate(own: list, critic: list, others: list, batch: tuple) -> tuple:
        masked, target, hole = batch
        seen = pix2pix.generator_input(masked, hole, settings.mask_channel)
        filled, new = networks[0].stateless_call(own, others[0], seen, training=True)
        weights = hole if settings.loss == "holes" else jnp.ones_like(hole)
        named = pix2pix.differences(target, filled, weights)
        fake, _ = networks[1].stateless_call(critic, others[1], [masked, filled], training=True)
        named["generator_gan"] = unet.cross_entropy(fake, 1.0)
        total = settings.lambda_l1 * named["generator_l1"] + settings.lambda_l2 * named["generator_l2"]
        return total + settings.lambda_gan * named["generator_gan"], (filled, new, named)

    def judge(critic: list, others: list, batch: tuple, filled: jax.Array) -> tuple:
        masked, target, _ = batch
        real, others = networks[1].stateless_call(critic, others, [masked, target], training=True)
        fake, others = networks[1].stateless_call(critic, others, [masked, filled], training=True)
        return unet.cross_entropy(real, 1.0) + unet.cross_entropy(fake, 0.0), others

    def step(state: State, batch: tuple) -> tuple:
        (own, critic), others = state["weights"], state["others"]
        gradient, (filled, new, named) = jax.grad(generate, has_aux=True)(own, critic, others, batch)
        filled = jax.lax.stop_gradient(filled)
        (named["discriminator"], seen), critical = jax.value_and_grad(judge, has_aux=True)(
            critic, others[1], batch, filled
        )
        return apply(optimizers, state, [gradient, critical]) | {"others": [list(new), list(seen)]}, named

    first = jax.jit(lambda number: pix2pix_samples(jnp.array(photographs[:64]), number)[0])

    def put_back(state: State) -> None:
        assign(networks[0].trainable_variables, state["weights"][0])
        assign(networks[0].non_trainable_variables, state["others"][0])
        some = {"chosen": np.arange(64), "turn": np.arange(64) % 5, "corner": np.full((64, 2), 15), "boxes": boxes[:64]}
        unet.calibrate(networks[0], first(some).reshape(-1, settings.batch_size, SIZE, SIZE, 3))

    as_trained = jax.jit(lambda own, others, seen: networks[0].stateless_call(own, others, seen, training=True)[0])

    def fill_as_trained(masked: np.ndarray, corners: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """With dropout and with the statistics of the image itself."""
        own, others = values(networks[0].trainable_variables), values(networks[0].non_trainable_variables)
        filled = [as_trained(own, others, image[None]) for image in unet.normalise(masked, corners)]
        return paste(to_uint8((np.concatenate(filled) + 1) * 127.5), masked, corners)

    boxes = boxes_of(train)
    ways = {"rmse": partial(pix2pix.fill, networks[0]), "rmse_as_trained": fill_as_trained}
    return networks[0], state, partial(draw_pix2pix, params, boxes), pix2pix_samples, step, put_back, ways


def fill_boxes(fill: Fill, masked: np.ndarray, rows: pd.DataFrame, name: str) -> np.ndarray:
    """The boxes' pixels as filled: uint8 [n, 2, 75, 75, 3]."""
    boxes = boxes_of(rows)
    return cut(in_batches(fill, (masked, boxes, rows["class"].to_numpy()), AT_ONCE, name), boxes)


def main() -> None:
    parser = argparse.ArgumentParser(prog="on_jax", description=__doc__)
    parser.add_argument("system", choices=("residual", "pix2pix"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="then validate and end")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    params, split, began = load_params(), read_index(paths.SPLIT), time.monotonic()
    settings, data = getattr(params, arguments.system), training_data(split, params.train.seed)
    learned = {} if arguments.system == "residual" else {"masked_images": False}
    photographs = samples.read_photographs(params.residual.model_copy(update=learned), data)
    keras.utils.set_random_seed(params.train.seed)
    train = {"residual": residual_training, "pix2pix": pix2pix_training}[arguments.system]
    model, state, draw, make, step, put_back, ways = train(params, photographs, data.pairs)
    say = partial(print, arguments.system, flush=True)
    say(f"{model.count_params():,} parameters, {len(photographs)} photographs, on {jax.devices()[0]}")

    @partial(jax.jit, donate_argnums=0)
    def run(state: State, everything: jax.Array, drawn: dict[str, jax.Array]) -> tuple:
        return jax.lax.scan(step, state, jax.vmap(partial(make, everything))(drawn))

    validation = split[split["split"] == "validation"]
    masked, target, boxes = read_pairs(paths.RAW, validation)
    everything, done, seconds, since, rows = jnp.array(photographs), 0, 0.0, time.monotonic(), []

    def validate(named: dict) -> None:
        put_back(state)
        row = {"step": done, "seconds": round(seconds, 1)}
        for name, fill in ways.items():
            row[name] = rmse(fill_boxes(fill, masked, validation, name) / 255, cut(target, boxes) / 255)
        rows.append(row | {name: float(np.mean(loss)) for name, loss in named.items()})
        say(rows[-1])
        pd.DataFrame(rows).to_csv(arguments.out / "validation.csv", index=False)

    named, last = {}, False
    while not last:
        drawn = [draw(done + k) for k in range(CHUNK)]
        jax.block_until_ready(named)  # one call ahead, no more
        state, named = run(state, everything, {name: np.stack([one[name] for one in drawn]) for name in drawn[0]})
        done += CHUNK
        last = done >= settings.steps or time.monotonic() - began > arguments.seconds
        validating, logging = last or done % settings.validate_every == 0, done == CHUNK or done % 1000 == 0
        if validating or logging:
            jax.block_until_ready(state)
            seconds += time.monotonic() - since
            if logging:
                say(done, round(seconds, 1), {name: round(float(np.mean(loss)), 5) for name, loss in named.items()})
            if validating:
                validate(named)
            since = time.monotonic()
    if arguments.system == "residual":
        weights = {str(i): weight.astype(np.float16) for i, weight in enumerate(model.get_weights())}
        np.savez(arguments.out / "weights.npz", **weights)
    elif len(chosen := split[split["split"] == "holdout"]):
        images = read_images([masked_path(paths.RAW, row) for row in chosen.to_dict("records")])
        filled = fill_boxes(ways["rmse"], images, chosen, "holdout")
        np.savez_compressed(arguments.out / "holdout.npz", filled=filled, split=sha256(paths.SPLIT))


if __name__ == "__main__":
    main()
