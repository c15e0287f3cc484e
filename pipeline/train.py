"""Stage 4, once for each system: `python -m pipeline.train residual` writes weights and card to data/model/residual."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from pipeline import paths
from pipeline.base.command import run_stage, stop_signals
from pipeline.base.errors import BadInput
from pipeline.base.files import remove, replacing, sha256
from pipeline.base.progress import say
from pipeline.competition.boxes import cut
from pipeline.competition.index import masked_path, read_index, read_pairs, target_path
from pipeline.competition.metric import rmse
from pipeline.fills.batched import in_batches
from pipeline.params import SYSTEMS, Params, SystemSettings, load_params
from pipeline.systems import load_network, load_training
from pipeline.systems.card import code_version, library_versions, note_seconds, read_card, write_card
from pipeline.training import loop
from pipeline.training.board import remove_after, write_events
from pipeline.training.checkpoints import fingerprint, load_checkpoint, save_checkpoint
from pipeline.training.data import TrainingData, training_data
from pipeline.training.devices import check_batch, describe, is_chief, sync_replicas, use_devices, wait_for_all
from pipeline.training.runtime import keep_freed_memory, set_threads, usable_precision
from pipeline.training.shards import REMEDY

FILLED_AT_ONCE = 8  # validation images
SHOWN = 4  # of them in TensorBoard


@dataclass(frozen=True)
class Run:
    """One training: its system, settings and data."""

    name: str
    settings: SystemSettings
    card_settings: dict[str, Any]  # these and the shared ones, as the model's card has them
    data: TrainingData
    validation: pd.DataFrame  # rows of the validation pairs


def main() -> None:
    keep_freed_memory()
    name, params = system_named(), load_params()
    set_threads(params.train.threads)
    strategy = use_devices(params.train.strategy)
    run = load_run(name, params, strategy)
    with losses_explained(strategy):
        state, work = train(run, strategy)
        if is_chief(strategy):
            with stop_signals():  # a Ctrl-C after the last step is too late: the model is written
                write_outputs(run, state)
                remove(work)
        wait_for_all(strategy)


def system_named() -> str:
    """The system named on the command line."""
    parser = argparse.ArgumentParser(prog="train", description=__doc__)
    parser.add_argument("system", choices=SYSTEMS)
    return parser.parse_args().system


def load_run(name: str, params: Params, strategy: tf.distribute.Strategy) -> Run:
    """What is to be trained, on what. Raises BadInput if the batch cannot be cut into the devices' parts."""
    common, settings = params.train, getattr(params, name)
    check_batch(strategy, name, settings.batch_size)
    shared = {"precision": usable_precision(common.precision), "threads": common.threads, "seed": common.seed}
    split = read_index(paths.SPLIT)
    validation = split[split["split"] == "validation"]
    return Run(name, settings, settings.model_dump() | shared, training_data(split, common.seed), validation)


def train(run: Run, strategy: tf.distribute.Strategy) -> tuple[loop.TrainingState, Path]:
    """Train from the latest checkpoint, or from the start: the state after the last step, the checkpoints' folder."""
    training, settings, seed = load_training(run.name), run.settings, run.card_settings["seed"]
    with strategy.scope():
        state = training.begin(settings, run.card_settings["precision"], seed)
        step = training.make_step(state, settings)
    state.name, state.devices = run.name, state.devices or describe(strategy)
    work = checkpoint_folder(run, state)
    validate, checkpoint = None, lambda _: None
    if is_chief(strategy):
        checkpoint = resume(state, work)
        remove_after(paths.TENSORBOARD / run.name, state.step)
        validate = validation_of(run, state) if len(run.validation) else None
    sync_replicas(strategy, state)
    batches = strategy.distribute_datasets_from_function(partial(training.batches, settings, run.data, state.step))
    say(
        f"train: {run.name}, {len(run.data.pairs)} training pairs, {len(run.validation)} validation pairs, "
        f"{state.model.count_params():,} parameters"
    )
    say(f"train: on {state.devices}, in {run.card_settings['precision']}")
    with stop_signals() as stopped:
        loop.train(state, settings, step, batches, validate, checkpoint, stopped)
    return state, work


def checkpoint_folder(run: Run, state: loop.TrainingState) -> Path:
    """The folder of this training's checkpoints, named after everything that its weights depend on."""
    rows = run.validation.to_dict("records")
    images = [path(paths.RAW, row) for row in rows for path in (masked_path, target_path)]
    files = [paths.SPLIT, *load_training(run.name).input_files(run.settings, run.data), *images]
    facts = run.card_settings | {"system": run.name, "devices": state.devices}
    facts |= {"code": code_version(), "libraries": library_versions()}
    return paths.WORK / "checkpoints" / fingerprint(files, facts)[:16]


def resume(state: loop.TrainingState, folder: Path) -> Callable[[loop.TrainingState], None]:
    """Bring the state to the latest checkpoint in a folder, if there is one; a function that saves the next ones."""
    if found := load_checkpoint(folder):
        loop.restore(state, *found)
        say(f"train: resuming after step {state.step}, saved in {folder}")
    return lambda state: save_checkpoint(folder, state.step, *loop.dump(state))


def validation_of(run: Run, state: loop.TrainingState) -> Callable[[], float]:
    """A function that fills the validation pairs, writes TensorBoard's events and returns the RMSE at `unit` scale."""
    network, training = load_network(run.name), load_training(run.name)
    masked, target, boxes = read_pairs(paths.RAW, run.validation)
    classes = run.validation["class"].to_numpy()
    shown = np.linspace(0, len(masked) - 1, SHOWN).astype(int)

    def validate() -> float:
        training.before_validation(state.model, run.settings, run.data)
        fill = partial(network.fill, state.model)
        filled = in_batches(fill, (masked, boxes, classes), FILLED_AT_ONCE, "fill validation pairs")
        value = rmse(cut(filled, boxes) / 255, cut(target, boxes) / 255)
        strip = np.vstack(
            [np.hstack(images) for images in zip(masked[shown], filled[shown], target[shown], strict=True)]
        )
        write_events(paths.TENSORBOARD / run.name, state, value, strip)
        return value

    return validate


@contextmanager
def losses_explained(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Around a training: BadInput if a shard or, of several workers, one of them is lost."""
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.NotFoundError) as error:
        raise BadInput(f"a shard in {paths.AUGMENTED} changed while it was read ({error.message}); {REMEDY}") from None
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.InternalError) as error:
        if not strategy.cluster_resolver:
            raise
        raise BadInput(
            f"a worker is gone ({error.message.splitlines()[0]}); start all of them again: they resume from worker 0's "
            "last checkpoint"
        ) from None


def write_outputs(run: Run, state: loop.TrainingState) -> None:
    """Write the weights and the card to data/model/<system>, the curves to reports/curves/<system>."""
    with replacing(paths.MODELS / run.name) as folder, replacing(paths.CURVES / run.name) as curves:
        folder.mkdir()
        curves.mkdir()
        state.model.save_weights(folder / "last.weights.h5")
        pd.DataFrame(state.losses).to_csv(curves / "losses.csv", index=False)
        if state.validation:
            state.model.set_weights(state.best)
            state.model.save_weights(folder / "best.weights.h5")
            pd.DataFrame(state.validation).to_csv(curves / "validation.csv", index=False)
        write_card(
            folder,
            model=run.name,
            parameters=state.model.count_params(),
            devices=state.devices,
            settings=run.card_settings,
            input_version=load_network(run.name).INPUT_VERSION,
            split=sha256(paths.SPLIT),
            best=min(state.validation, key=lambda row: row["rmse"], default=None),
            last=state.validation[-1] if state.validation else {"step": state.step},
        )
        note_seconds(paths.TIMES, read_card(folder), state.seconds)


if __name__ == "__main__":
    run_stage("train", main)
