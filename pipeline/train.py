"""Stage 3, once for each system: `python -m pipeline.train residual`; data/model/residual has its weights and card."""

import argparse
from functools import partial
from importlib import import_module
from typing import get_args

import pandas as pd
import tensorflow as tf

from pipeline import paths
from pipeline.base.command import run_stage, stop_signals
from pipeline.base.errors import BadInput
from pipeline.base.files import remove, replacing
from pipeline.base.progress import say
from pipeline.competition.boxes import cut
from pipeline.competition.index import masked_path, read_index, read_pairs, split_validation, whole_path
from pipeline.competition.metric import rmse
from pipeline.fills.batched import in_batches
from pipeline.params import System, load_params
from pipeline.training import loop
from pipeline.training.card import code_version, fingerprint, library_versions, write_card
from pipeline.training.checkpoints import load_checkpoint, save_checkpoint
from pipeline.training.memory import keep_freed_memory
from pipeline.training.precision import usable_precision
from pipeline.training.shards import REMEDY

FILLED_AT_ONCE = 8  # validation images


def main() -> None:
    keep_freed_memory()
    name = system_named()
    params = load_params()
    common, own = params.train, getattr(params, name)
    tf.config.threading.set_intra_op_parallelism_threads(common.threads)
    precision = usable_precision(common.precision)
    system = import_module(f"pipeline.systems.{name}")  # by name, so that one system's code is no other's dependency

    index = read_index(paths.INDEX)
    held = split_validation(index, common.validation_pairs, common.seed)
    keep = (index["split"] == "train").to_numpy() & ~held
    pairs = index[held]
    masked, truth, boxes = read_pairs(paths.RAW, pairs)
    settings = own.model_dump() | {"precision": precision, "threads": common.threads, "seed": common.seed}
    facts = settings | {"system": name, "code": code_version(), "libraries": library_versions()}
    images = [path(paths.RAW, row) for row in pairs.to_dict("records") for path in (masked_path, whole_path)]
    work = paths.WORK / "checkpoints" / fingerprint([paths.INDEX, *system.sources(index[keep]), *images], facts)[:16]

    training = system.begin(own, precision, common.seed)
    if kept := load_checkpoint(work):
        loop.restore(training, *kept)
        say(f"train: going on from step {training.step}, kept in {work}")
    batches, prepare = system.batches(own, index, keep, common.seed, training.step)
    say(f"train: {name}, {keep.sum()} pairs, {len(pairs)} for validation, {training.model.count_params():,} parameters")

    def validate() -> float:
        prepare(training.model)
        fill = partial(system.MODEL.fill, training.model)
        filled = in_batches(fill, masked, boxes, FILLED_AT_ONCE, "fill validation pairs")
        return rmse(cut(filled, boxes) / 255, cut(truth, boxes) / 255)

    def checkpoint(now: loop.Training) -> None:
        save_checkpoint(work, now.step, *loop.dump(now))

    try:
        with stop_signals() as stopped:
            step = system.make_step(training, own)
            loop.train(training, own, step, batches, validate, checkpoint, stopped)
    except (tf.errors.DataLossError, tf.errors.NotFoundError) as error:
        raise BadInput(f"a shard in {paths.AUGMENTED} changed while it was read ({error.message}); {REMEDY}") from None
    write_outputs(name, training, settings, system.MODEL.NORMALISATION, pairs)
    remove(work)


def system_named() -> str:
    """The system named on the command line."""
    parser = argparse.ArgumentParser(prog="train", description=__doc__)
    parser.add_argument("system", choices=get_args(System))
    return parser.parse_args().system


def write_outputs(name: str, training: loop.Training, settings: dict, normalisation: str, held: pd.DataFrame) -> None:
    """The weights and the card of a system into data/model, its curves into reports/curves."""
    with replacing(paths.MODELS / name) as folder, replacing(paths.CURVES / name) as curves:
        folder.mkdir()
        curves.mkdir()
        training.model.save_weights(folder / "last.weights.h5")
        training.model.set_weights(training.best)
        training.model.save_weights(folder / "best.weights.h5")
        write_card(
            folder,
            model=name,
            settings=settings,
            normalisation=normalisation,
            best=min(training.validation, key=lambda row: row["rmse"]),
            last=training.validation[-1],
            validation=held.index.tolist(),
        )
        pd.DataFrame(training.losses).to_csv(curves / "losses.csv", index=False)
        pd.DataFrame(training.validation).to_csv(curves / "validation.csv", index=False)


if __name__ == "__main__":
    run_stage("train", main)
