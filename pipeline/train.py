"""Stage 3: train pix2pix from the shards; data/model holds its best and its last generator, and their card."""

from functools import partial

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from pipeline import paths
from pipeline.base.command import run_stage, stop_signals
from pipeline.base.errors import BadInput
from pipeline.base.files import remove, replacing
from pipeline.base.progress import say
from pipeline.competition.boxes import TURNS, cut
from pipeline.competition.index import masked_path, read_index, read_pairs, split_validation, whole_path
from pipeline.competition.metric import rmse
from pipeline.models import pix2pix
from pipeline.params import Train, load_params
from pipeline.training import loop
from pipeline.training.batches import training_batches
from pipeline.training.card import code_version, fingerprint, library_versions, write_card
from pipeline.training.checkpoints import load_checkpoint, save_checkpoint
from pipeline.training.memory import keep_freed_memory
from pipeline.training.precision import usable_precision
from pipeline.training.shards import CHECKSUMS, REMEDY, list_shards
from pipeline.training.trained import in_batches

FILLED_AT_ONCE = 8  # validation images
CALIBRATED_ON = 64  # training images


def main() -> None:
    keep_freed_memory()
    settings = load_params().train
    tf.config.threading.set_intra_op_parallelism_threads(settings.threads)
    settings = settings.model_copy(update={"precision": usable_precision(settings.precision)})
    index = read_index(paths.INDEX)
    held = split_validation(index, settings.validation_pairs, settings.seed)
    pairs = index[held]
    masked, truth, boxes = read_pairs(paths.RAW, pairs)
    shards = list_shards(paths.AUGMENTED)

    facts = settings.model_dump() | {"code": code_version(), "libraries": library_versions()}
    images = [path(paths.RAW, row) for row in pairs.to_dict("records") for path in (masked_path, whole_path)]
    # The shards' checksums stand for the shards, just compared with them.
    work = paths.WORK / "checkpoints" / fingerprint([paths.INDEX, paths.AUGMENTED / CHECKSUMS, *images], facts)[:16]
    training = loop.begin(settings)
    if kept := load_checkpoint(work):
        loop.restore(training, *kept)
        say(f"train: going on from step {training.step}, kept in {work}")

    keep = (index["split"] == "train").to_numpy() & ~held
    batches = partial(
        training_batches,
        shards,
        keep,
        int(keep.sum()) * len(TURNS),
        settings.batch_size,
        settings.shuffle_buffer,
        settings.seed,
    )
    calibration = batches(start=0).take(-(-CALIBRATED_ON // settings.batch_size))
    say(
        f"train: {keep.sum()} pairs, {len(pairs)} more for validation, {training.generator.count_params():,} parameters"
    )

    def validate(generator: keras.Model) -> float:
        pix2pix.calibrate(generator, (masked for masked, _ in calibration))
        fill = partial(pix2pix.fill, generator)
        filled = np.stack(list(in_batches(fill, masked, boxes, FILLED_AT_ONCE, "fill validation pairs")))
        return rmse(cut(filled, boxes) / 255, cut(truth, boxes) / 255)

    def checkpoint(now: loop.Training) -> None:
        save_checkpoint(work, now.step, *loop.dump(now))

    try:
        with stop_signals() as stopped:
            loop.train(training, settings, batches(start=training.step), validate, checkpoint, stopped)
    except (tf.errors.DataLossError, tf.errors.NotFoundError) as error:
        raise BadInput(f"a shard in {paths.AUGMENTED} changed while it was read ({error.message}); {REMEDY}") from None
    write_outputs(training, settings, pairs)
    remove(work)


def write_outputs(training: loop.Training, settings: Train, held: pd.DataFrame) -> None:
    """The weights and the card into data/model, the curves into reports/."""
    with (
        replacing(paths.MODEL) as folder,
        replacing(paths.LOSSES) as losses,
        replacing(paths.VALIDATION) as validation,
    ):
        folder.mkdir()
        training.generator.save_weights(folder / "last.weights.h5")
        training.generator.set_weights(training.best)
        training.generator.save_weights(folder / "best.weights.h5")
        write_card(
            folder,
            model="pix2pix",
            settings=settings.model_dump(),
            normalisation=pix2pix.NORMALISATION,
            best=min(training.validation, key=lambda row: row["rmse"]),
            last=training.validation[-1],
            validation=held.index.tolist(),
        )
        pd.DataFrame(training.losses).to_csv(losses, index=False)
        pd.DataFrame(training.validation).to_csv(validation, index=False)


if __name__ == "__main__":
    run_stage("train", main)
