"""Make a tag's submission again and compare it with the one that was uploaded: `python -m pipeline.reproduce TAG`.

The tag is checked out in a git worktree of its own, below .work. There its data and its model come from DVC's cache or
remote, or are made again; in any case the model fills the test images once more. Nothing outside .work and DVC's cache
is written, and the worktree goes when the command ends.
"""

import argparse
import difflib
import importlib.metadata
import json
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from pipeline import paths
from pipeline.base.command import run
from pipeline.base.errors import BadInput
from pipeline.base.files import remove, sha256
from pipeline.base.progress import say
from pipeline.competition import submission
from pipeline.competition.index import boxes_of, read_index
from pipeline.competition.metric import rmse
from pipeline.history import repo
from pipeline.history.worktree import link, run_dvc, worktree
from pipeline.kaggle.ledger import read_ledger
from pipeline.systems.card import CARD, read_card

TOLERANCE = 0.005
FROM_NOTHING = ("repro", "--force", "--no-run-cache", "--no-commit")  # DVC's cache is neither read nor written
ROUNDING = ("precision", "threads")  # settings of the training by which a machine may give other weights

Outputs = dict[str, dict[str, str]]  # the md5 of each output of each stage, by its path
Card = dict[str, Any]
Verdict = tuple[bool, str]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="reproduce",
        description="Make a tag's submission again. Status 0: identical, or the same within the tolerance. 1: not.",
    )
    parser.add_argument("tag", help="as `python -m pipeline.upload --tag` made it")
    parser.add_argument("--from-scratch", action="store_true", help="take nothing from DVC's cache, train again")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        metavar="RMSE",
        help="between two submissions that count as the same; their values are from 0 to 1 (default %(default)s)",
    )
    arguments = parser.parse_args()
    if not arguments.tolerance >= 0:
        parser.error("--tolerance is a number from 0 on")
    if repo.git("rev-parse", "--show-prefix"):
        raise BadInput("this is a folder of the repository; run from its root")
    if not reproduce(arguments.tag, find_commit(arguments.tag), arguments.from_scratch, arguments.tolerance):
        sys.exit(1)


def find_commit(tag: str) -> str:
    """The commit of a tag. Raises BadInput naming the nearest tags where there is none of this name."""
    if commit := repo.commit_of(tag):
        return commit
    tags = repo.tags()
    if not tags:
        raise BadInput("there is no tag yet; `python -m pipeline.upload --tag` makes one")
    near = difflib.get_close_matches(tag, tags, cutoff=0) or tags
    raise BadInput(f"there is no tag {tag!r}; the nearest: {', '.join(near[:3])}")


def reproduce(tag: str, commit: str, from_scratch: bool, tolerance: float) -> bool:
    """Make the tag's submission again and say how it compares; whether it is the same within the tolerance."""
    then = read_outputs(repo.file_at(commit, "dvc.lock"), f"dvc.lock of {tag}")
    uploaded = uploaded_sha256(tag, commit)
    if uploaded is None and md5_of_submission(then) is None:
        raise BadInput(
            f"{tag} has nothing to compare with: its submission is neither in the ledger nor in its dvc.lock"
        )
    archive = archive_of(tag, commit)
    with worktree(commit, archive) as tree:
        kept = tree.parent / "kept"
        card = keep_results(tree, kept, then)
        say(f"reproduce: {tag}: " + compare_versions(card))
        if archive:
            bring_data(tree, Path(archive), from_scratch)
        if from_scratch:
            set_precision(tree, card)
            run_dvc(tree, *FROM_NOTHING)
        else:
            run_dvc(tree, "repro", "--pull", "train")
            run_dvc(tree, *FROM_NOTHING, "--downstream", "predict")

        outputs = read_outputs((tree / "dvc.lock").read_text(encoding="utf-8"), "the new dvc.lock")
        new = read_card(tree / model_of(outputs))
        for name in ROUNDING if card else ():
            if (was := card["settings"][name]) != (now := new["settings"][name]):
                say(f"reproduce: {tag}: train.{name} was {was}, here it is {now}")
        # In order, which a dvc.lock need not be: a stage that was added later stands last in it.
        stages = yaml.safe_load((tree / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
        then = {name: made for stage in stages for name, made in then.items() if name.partition("@")[0] == stage}
        same, verdict = judge(uploaded, then, outputs, tree, kept / paths.SUBMISSION.name, tolerance)
        before = local_score(repo.file_at(commit, paths.METRICS.as_posix()))
        after = local_score((tree / paths.METRICS).read_text(encoding="utf-8"))
    say(f"reproduce: {tag}: {verdict}; validation RMSE {before} then, {after} now")
    return same


def uploaded_sha256(tag: str, commit: str) -> str | None:
    """The sha256 of the CSV that was uploaded with a tag or, where none was, last from its commit."""
    ledger = read_ledger()
    rows = ledger[ledger["tag"] == tag]
    if rows.empty:
        rows = ledger[ledger["commit"] == commit]
    return None if rows.empty else rows["sha256"].iloc[-1]


def archive_of(tag: str, commit: str) -> str:
    """The archive that a tag's data came from, "" where it came from elsewhere."""
    try:
        fetch = yaml.safe_load(repo.file_at(commit, paths.PARAMS.as_posix()) or "")["fetch"]
        return str(fetch["archive"]) if fetch["source"] == "archive" else ""
    except (yaml.YAMLError, LookupError, TypeError):
        raise BadInput(
            f"{paths.PARAMS} of {tag} does not say where its data is from; is it of this pipeline?"
        ) from None


def read_outputs(text: str | None, name: str) -> Outputs:
    """What a dvc.lock says of its stages' outputs, in order; nothing where there is no file."""
    try:
        stages = yaml.safe_load(text)["stages"] if text else {}
        return {stage: {out["path"]: out["md5"] for out in entry.get("outs", [])} for stage, entry in stages.items()}
    except (yaml.YAMLError, LookupError, TypeError, AttributeError):
        raise BadInput(f"{name} is damaged: it does not say what each stage made") from None


def md5_of_submission(outputs: Outputs) -> str | None:
    """Of the CSV, None where no stage made it."""
    name = paths.SUBMISSION.as_posix()
    return next((made[name] for made in outputs.values() if name in made), None)


def model_of(outputs: Outputs) -> Path:
    """The folder of a model that a stage made; where several were, one of them: precision and threads are shared."""
    made = [Path(path) for outs in outputs.values() for path in outs if Path(path).is_relative_to(paths.MODELS)]
    return made[0] if made else paths.MODELS


def keep_results(tree: Path, kept: Path, then: Outputs) -> Card | None:
    """Put the CSV and a model's card that the tag had into `kept`, where cache or remote have them; the card."""
    wanted = (paths.SUBMISSION, model_of(then) / CARD)
    run_dvc(tree, "pull", "--quiet", "--allow-missing", *(path.as_posix() for path in wanted))
    kept.mkdir()
    for path in wanted:
        if (tree / path).exists():
            shutil.copyfile(tree / path, kept / path.name)
            remove(tree / path)
    return read_card(kept) if (kept / CARD).exists() else None


def bring_data(tree: Path, archive: Path, from_scratch: bool) -> None:
    """Put the tag's data into the worktree or, where it must be fetched again, a link to this repository's archive.

    Raises BadInput where neither is there.
    """
    data = (paths.RAW, paths.INDEX)
    if not from_scratch:
        run_dvc(tree, "pull", "--quiet", "--allow-missing", *(path.as_posix() for path in data))
    fetched = all((tree / path).exists() for path in data)
    if not fetched and not archive.exists():
        raise BadInput(f"the tag's data must be fetched again, and {archive} is not there; put the archive back")
    if archive.is_absolute():
        return
    if fetched:
        remove(tree / archive)  # DVC pays no heed to an archive that is absent, only to one that changed
    else:
        link(archive, tree / archive)


def compare_versions(card: Card | None) -> str:
    """What is said of the versions of Python and of the libraries beside those on the model's card."""
    if card is None:
        return "neither cache nor remote has its model, nor the versions it was made with"
    was = {"python": card["python"]} | card["libraries"]
    now = {name: platform.python_version() if name == "python" else installed(name) for name in was}
    other = [f"{name} {was[name]} (here {now[name]})" for name in was if was[name] != now[name]]
    return (
        f"made with {', '.join(other)}" if other else "made with the versions of Python and the libraries in use here"
    )


def installed(library: str) -> str:
    """The version of a library here."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def set_precision(tree: Path, card: Card | None) -> None:
    """Train as the tag's model was trained, where its machine could not do what its params.yaml asks for."""
    params = yaml.safe_load((tree / paths.PARAMS).read_text(encoding="utf-8"))
    if card and params["train"]["precision"] != (precision := card["settings"]["precision"]):
        params["train"]["precision"] = precision
        (tree / paths.PARAMS).write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
        say(f"reproduce: train.precision is set to {precision}, in which the tag's model was trained")


def judge(uploaded: str | None, then: Outputs, now: Outputs, tree: Path, old: Path, tolerance: float) -> Verdict:
    """Whether the submission in `tree` is the tag's within the tolerance, and the sentence that says so.

    `uploaded` is the sha256 that the ledger has, `old` the tag's CSV, which may not be there.
    """
    new = tree / paths.SUBMISSION
    as_locked = md5_of_submission(now) == md5_of_submission(then)
    if (sha256(new) == uploaded) if uploaded else as_locked:
        return True, f"identical, by the {'sha256 in the ledger' if uploaded else 'md5 in its dvc.lock'}"
    if as_locked:
        return False, "different: another CSV was uploaded than the one in the tag's dvc.lock, which is made here too"
    where = parting(then, now)
    if not old.exists() or (uploaded and sha256(old) != uploaded):
        return False, f"different{where}; by how much is not known: no cache or remote has the CSV that was uploaded"
    try:
        largest, error = difference(old, new, read_index(tree / paths.INDEX))
    except BadInput:
        return False, f"different{where}: the two are not of the same test images"
    word = "same" if error <= tolerance else "different"
    return word == "same", f"{word}{where}; RMSE between the two {error:.6f}, largest difference {largest:.5f}"


def parting(then: Outputs, now: Outputs) -> str:
    """The first stage whose outputs are not those of the tag's dvc.lock, as the second part of a sentence."""
    for stage, made in then.items():
        parted = [path for path, md5 in made.items() if now.get(stage, {}).get(path) != md5]
        if parted:
            return f" from stage {stage} on ({', '.join(parted)})"
    return ""


def difference(old: Path, new: Path, index: pd.DataFrame) -> tuple[float, float]:
    """The largest difference between the values of two submissions, and the RMSE between them.

    Raises BadInput where one is not of the test images in the index.
    """
    test = index[index["split"] == "test"]
    names, boxes = test["filename"].tolist(), boxes_of(test)
    before, after = (submission.read(path, names, boxes) for path in (old, new))
    return float(np.abs(before - after).max()), rmse(before, after)


def local_score(metrics: str | None) -> str:
    """The submission's validation RMSE in a metrics.json."""
    try:
        return f"{json.loads(metrics or '')['validation']['submission']['all']:.5f}"
    except (ValueError, LookupError, TypeError):
        return "unknown"


if __name__ == "__main__":
    run("reproduce", main, again="the same command")
