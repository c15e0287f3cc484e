"""Stage 3, once for each system: `python -m pipeline.train residual`; data/model/residual has its weights and card."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from pipeline.competition.index import masked_path, read_index, read_pairs, split_validation, target_path
from pipeline.competition.metric import rmse
from pipeline.fills.batched import Fill, in_batches
from pipeline.params import System, load_params
from pipeline.systems.card import code_version, fingerprint, library_versions, note_seconds, read_card, write_card
from pipeline.training import loop
from pipeline.training.checkpoints import load_checkpoint, save_checkpoint
from pipeline.training.devices import check_batch, describe, is_chief, sync_replicas, use_devices, wait_for_all
from pipeline.training.runtime import keep_freed_memory, usable_precision
from pipeline.training.shards import REMEDY

FILLED_AT_ONCE = 8  # validation images


def main() -> None:
    keep_freed_memory()
    name = system_named()
    params = load_params()
    common, own = params.train, getattr(params, name)
    tf.config.threading.set_intra_op_parallelism_threads(common.threads)
    strategy = use_devices(common.strategy)
    check_batch(strategy, name, own.batch_size)
    precision = usable_precision(common.precision)
    system = import_module(
        f"pipeline.systems.{name}.training"
    )  # by name, so that one system's code is no other's dependency

    index = read_index(paths.INDEX)
    held = split_validation(index, common.validation_pairs, common.seed)
    keep = (index["split"] == "train").to_numpy() & ~held
    pairs = index[held]
    with strategy.scope():
        training = system.begin(own, precision, common.seed)
        step = system.make_step(training, own)
    settings = own.model_dump() | {"precision": precision, "threads": common.threads, "seed": common.seed}
    devices = training.devices or describe(strategy)
    facts = settings | {"system": name, "devices": devices, "code": code_version(), "libraries": library_versions()}
    images = [path(paths.RAW, row) for row in pairs.to_dict("records") for path in (masked_path, target_path)]
    files = [paths.INDEX, *system.sources(own, index, keep), *images]
    work = paths.WORK / "checkpoints" / fingerprint(files, facts)[:16]

    chief = is_chief(strategy)
    if chief and (kept := load_checkpoint(work)):
        loop.restore(training, *kept)
        say(f"train: going on from step {training.step}, kept in {work}")
    sync_replicas(strategy, training)
    batches = strategy.distribute_datasets_from_function(
        partial(system.batches, own, index, keep, common.seed, training.step)
    )
    say(f"train: {name}, {keep.sum()} pairs, {len(pairs)} for validation, {training.model.count_params():,} parameters")
    say(f"train: on {devices}, in {precision}")

    validate = None
    if chief:
        prepare = system.before_validation(own, index, keep, common.seed)
        validate = validation(partial(system.MODEL.fill, training.model), pairs, partial(prepare, training.model))

    def checkpoint(now: loop.TrainingState) -> None:
        if chief:
            save_checkpoint(work, now.step, *loop.dump(now))

    with losses_explained(strategy):
        with stop_signals() as stopped:
            loop.train(training, own, step, batches, validate, checkpoint, stopped)
        if chief:
            write_outputs(name, training, settings, devices, system.MODEL.NORMALISATION, pairs)
            remove(work)
        wait_for_all(strategy)


def system_named() -> str:
    """The system named on the command line."""
    parser = argparse.ArgumentParser(prog="train", description=__doc__)
    parser.add_argument("system", choices=get_args(System))
    return parser.parse_args().system


def validation(fill: Fill, pairs: pd.DataFrame, prepare: Callable[[], None]) -> Callable[[], float]:
    """A call that prepares the model, fills the validation pairs, and gives their RMSE at `unit` scale."""
    (masked, truth, boxes), classes = read_pairs(paths.RAW, pairs), pairs["class"].to_numpy()

    def validate() -> float:
        prepare()
        filled = in_batches(fill, masked, boxes, FILLED_AT_ONCE, "fill validation pairs", classes)
        return rmse(cut(filled, boxes) / 255, cut(truth, boxes) / 255)

    return validate


@contextmanager
def losses_explained(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Around a training: BadInput where a shard or, of several workers, one is lost to it."""
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.NotFoundError) as error:
        raise BadInput(f"a shard in {paths.AUGMENTED} changed while it was read ({error.message}); {REMEDY}") from None
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.InternalError) as error:
        if not strategy.cluster_resolver:
            raise
        raise BadInput(
            f"a worker is gone ({error.message.splitlines()[0]}); start all of them again: they go on from the last "
            "checkpoint, which worker 0 has"
        ) from None


def write_outputs(
    name: str, training: loop.TrainingState, settings: dict, devices: str, normalisation: str, held: pd.DataFrame
) -> None:
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
            parameters=training.model.count_params(),
            devices=devices,
            settings=settings,
            normalisation=normalisation,
            best=min(training.validation, key=lambda row: row["rmse"]),
            last=training.validation[-1],
            validation=held.index.tolist(),
        )
        note_seconds(paths.TIMES, read_card(folder), training.seconds)
        pd.DataFrame(training.losses).to_csv(curves / "losses.csv", index=False)
        pd.DataFrame(training.validation).to_csv(curves / "validation.csv", index=False)


if __name__ == "__main__":
    run_stage("train", main)
