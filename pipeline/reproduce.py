"""Make a tag's submission again and compare it with the one that was uploaded: `python -m pipeline.reproduce TAG`.

The tag is checked out in a git clone below .work and runs its own code there. Its data and models come from DVC's
cache or remote if they have them; otherwise the stages make them again. The stages from predict on always run again.
Only .work and DVC's cache are written, and the clone is removed at the end.
"""

import argparse
import difflib
import importlib.metadata
import json
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from ruamel.yaml import YAML

from pipeline import paths
from pipeline.base.command import run
from pipeline.base.errors import BadInput
from pipeline.base.files import remove, sha256
from pipeline.base.progress import say
from pipeline.competition import submission
from pipeline.competition.index import boxes_of, read_index
from pipeline.competition.metric import rmse
from pipeline.history import repo
from pipeline.history.clone import clone, link, run_dvc
from pipeline.history.store import restore
from pipeline.kaggle.ledger import read_ledger
from pipeline.systems.card import CARD, read_card

TOLERANCE = 0.005
FROM_NOTHING = ("repro", "--force", "--no-run-cache", "--no-commit")  # DVC's cache is neither read nor written
ROUNDING = ("precision", "threads")  # training settings that change rounding and may differ between machines

Outputs = dict[str, dict[str, str]]  # stage -> path of an output -> its md5
Card = dict[str, Any]


@dataclass(frozen=True)
class Tag:
    name: str
    commit: str


@dataclass(frozen=True)
class Made:
    """A tag's submission, made then or now."""

    outputs: Outputs
    csv: Path  # may not exist
    sha256: str | None  # of the CSV; None if it was not uploaded


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="reproduce",
        description="Make a tag's submission again. Status 0: identical, or the same within the tolerance. 1: not.",
    )
    parser.add_argument("tag", help="as `python -m pipeline.upload --tag` made it")
    parser.add_argument("--from-scratch", action="store_true", help="take nothing from DVC's cache, train again")
    parser.add_argument("--archive", type=Path, help="where the tag's archive is here, if its data must be fetched")
    same = "the largest RMSE between two submissions that count as the same (default %(default)s)"
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, metavar="RMSE", help=same)
    arguments = parser.parse_args()
    if not arguments.tolerance >= 0:
        parser.error("--tolerance must be 0 or more")
    if repo.git("rev-parse", "--show-prefix"):
        raise BadInput("this is not the repository's root; run from there")
    if not reproduce(Tag(arguments.tag, find_commit(arguments.tag)), arguments):
        sys.exit(1)


def find_commit(tag: str) -> str:
    """The commit of a tag. Raises BadInput naming the most similar tags if there is no such tag."""
    if commit := repo.commit_of(tag):
        return commit
    if tag in read_ledger()["tag"].tolist():
        raise BadInput(f"{paths.LEDGER} names the tag {tag}, but this clone lacks it: `git fetch --tags` brings it")
    tags = repo.tags()
    if not tags:
        raise BadInput("there is no tag yet; `python -m pipeline.upload --tag` makes one")
    near = difflib.get_close_matches(tag, tags, cutoff=0) or tags
    raise BadInput(f"there is no tag {tag!r}; the most similar: {', '.join(near[:3])}")


def reproduce(tag: Tag, options: argparse.Namespace) -> bool:
    """Make the tag's submission again and print how it compares. True if it is the same within the tolerance."""
    params, stages = (read_yaml(tag, name) for name in (paths.PARAMS.as_posix(), "dvc.yaml"))
    outputs = of_stages(read_outputs(repo.file_at(tag.commit, "dvc.lock"), f"dvc.lock of {tag.name}"), stages, params)
    uploaded = uploaded_sha256(tag)
    if uploaded is None and md5_of_submission(outputs) is None:
        raise BadInput(
            f"{tag.name} has nothing to compare with: neither the ledger nor its dvc.lock has its submission"
        )
    archive = archive_of(params, tag)
    with clone(tag.commit, archive) as tree:
        kept, csv = tree.parent / "kept", tree / paths.SUBMISSION
        card = keep_results(tree, kept, outputs)
        say(f"reproduce: {tag.name}: " + compare_versions(card))
        lacking = [] if options.from_scratch else restore(tree, before_predict(outputs))
        if archive:
            bring_archive(tree, Path(archive), options.archive)
        if options.from_scratch:
            set_precision(tree, card)
            run_dvc(tree, *FROM_NOTHING)
        else:
            if lacking:
                say(f"reproduce: {tag.name}: neither cache nor remote has {', '.join(lacking)}: their stages run again")
            run_dvc(tree, "repro", "--pull" if lacking else "--allow-missing", "train")
            run_dvc(tree, *FROM_NOTHING, "--downstream", "predict")

        then = Made(outputs, kept / csv.name, uploaded)
        lock = read_outputs((tree / "dvc.lock").read_text(encoding="utf-8"), "the new dvc.lock")
        now = Made(of_stages(lock, stages, params), csv, sha256(csv))
        for difference in compare_rounding(card, read_card(tree / model_of(now.outputs))):
            say(f"reproduce: {tag.name}: {difference}")
        same, verdict = judge(then, now, tree / paths.INDEX, options.tolerance)
        before = local_score(repo.file_at(tag.commit, paths.METRICS.as_posix()))
        after = local_score((tree / paths.METRICS).read_text(encoding="utf-8"))
    say(f"reproduce: {tag.name}: {verdict}; validation RMSE {before} then, {after} now")
    return same


def uploaded_sha256(tag: Tag) -> str | None:
    """The sha256 of the CSV uploaded with the tag or else last from its commit; None if there was no upload."""
    ledger = read_ledger()
    rows = ledger[ledger["tag"] == tag.name]
    if rows.empty:
        rows = ledger[ledger["commit"] == tag.commit]
    return None if rows.empty else rows["sha256"].iloc[-1]


def read_yaml(tag: Tag, name: str) -> dict[str, Any]:
    """A YAML file of a tag. Raises BadInput if it is missing or not readable."""
    try:
        content = yaml.safe_load(repo.file_at(tag.commit, name) or "")
    except yaml.YAMLError:
        content = None
    if not isinstance(content, dict):
        raise BadInput(f"{tag.name} has no readable {name}; is it a tag of this pipeline?")
    return content


def archive_of(params: dict[str, Any], tag: Tag) -> str:
    """The archive that a tag's data came from; "" if it came from another source."""
    try:
        return str(params["fetch"]["archive"]) if params["fetch"]["source"] == "archive" else ""
    except (LookupError, TypeError):
        raise BadInput(f"{paths.PARAMS} of {tag.name} does not name the source of its data") from None


def read_outputs(text: str | None, name: str) -> Outputs:
    """The outputs in the text of a dvc.lock, in its order; none if there is no file. `name` is for the message."""
    try:
        stages = yaml.safe_load(text)["stages"] if text else {}
        return {stage: {out["path"]: out["md5"] for out in entry.get("outs", [])} for stage, entry in stages.items()}
    except (yaml.YAMLError, LookupError, TypeError, AttributeError):
        raise BadInput(f"{name} is damaged: it does not list the outputs of each stage") from None


def of_stages(outputs: Outputs, dvc: dict[str, Any], params: dict[str, Any]) -> Outputs:
    """The outputs of the stages in dvc.yaml, in its order. DVC never removes other stages from a dvc.lock."""
    names = []
    for stage, entry in dvc.get("stages", {}).items():
        items = entry.get("foreach")
        items = params.get(items.strip("${}"), []) if isinstance(items, str) else items
        names += [stage] if items is None else [f"{stage}@{item}" for item in items]
    return {name: outputs[name] for name in names if name in outputs}


def md5_of_submission(outputs: Outputs) -> str | None:
    """The CSV's md5; None if no stage made it."""
    name = paths.SUBMISSION.as_posix()
    return next((made[name] for made in outputs.values() if name in made), None)


def model_of(outputs: Outputs) -> Path:
    """The folder of the first model: all models of a run share precision and threads."""
    made = [Path(path) for outs in outputs.values() for path in outs if Path(path).is_relative_to(paths.MODELS)]
    return made[0] if made else paths.MODELS


def before_predict(outputs: Outputs) -> dict[str, str]:
    """The outputs of the stages that run before predict: path -> md5."""
    names = list(outputs)
    upstream = names[: names.index("predict")] if "predict" in names else names
    return {path: md5 for name in upstream for path, md5 in outputs[name].items()}


def keep_results(tree: Path, kept: Path, then: Outputs) -> Card | None:
    """Move the tag's CSV and card from DVC's cache or remote into `kept`; the card, or None if they lack it."""
    made = {path: md5 for outs in then.values() for path, md5 in outs.items()}
    wanted = (paths.SUBMISSION.as_posix(), model_of(then).as_posix())
    restore(tree, {path: made[path] for path in wanted if path in made})
    kept.mkdir()
    for path in (paths.SUBMISSION, model_of(then) / CARD):
        if (tree / path).exists():
            shutil.copyfile(tree / path, kept / path.name)
    for path in wanted:
        remove(tree / path)
    return read_card(kept) if (kept / CARD).exists() else None


def bring_archive(tree: Path, archive: Path, here: Path | None) -> None:
    """Have the stage fetch find the tag's archive, `here` if it has moved, unless its data is in the clone.

    Raises BadInput if neither the data nor the archive exists.
    """
    fetched = all((tree / path).exists() for path in (paths.RAW, paths.INDEX))
    if not fetched and not (here or archive).exists():
        raise BadInput(
            f"the tag's data must be fetched again, but there is no {here or archive}; name its archive with --archive"
        )
    if here and not fetched:
        change_params(tree, "fetch", "archive", str(here.resolve()))
    elif archive.is_absolute():
        return
    elif fetched:
        remove(tree / archive)  # in an older layout it is a dependency: DVC ignores a missing one, not a changed one
    else:
        link(archive, tree / archive)


def compare_versions(card: Card | None) -> str:
    """A sentence that compares the versions on the model's card with those in use."""
    if card is None:
        return "its model is in no cache or remote, so the versions it was made with are unknown"
    was = {"python": card["python"]} | card["libraries"]
    now = {name: platform.python_version() if name == "python" else installed(name) for name in was}
    other = [f"{name} {was[name]} (here {now[name]})" for name in was if was[name] != now[name]]
    return (
        f"made with {', '.join(other)}" if other else "made with the versions of Python and the libraries in use here"
    )


def compare_rounding(then: Card | None, now: Card) -> list[str]:
    """A sentence for each setting in ROUNDING that differs between the cards; none without the tag's card."""
    values = [(name, then["settings"][name], now["settings"][name]) for name in ROUNDING] if then else []
    return [f"train.{name} was {was}, here it is {here}" for name, was, here in values if was != here]


def installed(library: str) -> str:
    """The installed version of a library."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def set_precision(tree: Path, card: Card | None) -> None:
    """Write the precision of the tag's model to params.yaml: its machine may have fallen back to another one."""
    if card and change_params(tree, "train", "precision", card["settings"]["precision"]):
        precision = card["settings"]["precision"]
        say(f"reproduce: train.precision is set to {precision}, the precision of the tag's model")


def change_params(tree: Path, section: str, key: str, value: str) -> bool:
    """Set a value in a clone's params.yaml; False if it is there already."""
    path, editor = tree / paths.PARAMS, YAML()  # it keeps every other value as it is written
    params = editor.load(path)
    if params[section][key] == value:
        return False
    params[section][key] = value
    editor.dump(params, path)
    return True


def judge(then: Made, now: Made, index: Path, tolerance: float) -> tuple[bool, str]:
    """Whether the two submissions are the same within the tolerance, and a sentence that says so."""
    same_md5 = md5_of_submission(now.outputs) == md5_of_submission(then.outputs)
    if (now.sha256 == then.sha256) if then.sha256 else same_md5:
        return True, f"identical, by the {'sha256 in the ledger' if then.sha256 else 'md5 in its dvc.lock'}"
    if same_md5:
        return False, "different: the CSV is the one in the tag's dvc.lock, but another one was uploaded"
    where = first_difference(then.outputs, now.outputs)
    if not then.csv.exists() or (then.sha256 and sha256(then.csv) != then.sha256):
        return False, f"different{where}; by how much is unknown: the uploaded CSV is in no cache or remote"
    try:
        largest, error = distance(then.csv, now.csv, read_index(index))
    except BadInput:
        return False, f"different{where}: the two are not of the same test images"
    word = "same" if error <= tolerance else "different"
    return word == "same", f"{word}{where}; RMSE between the two {error:.6f}, largest difference {largest:.5f}"


def first_difference(then: Outputs, now: Outputs) -> str:
    """The end of a sentence that names the first stage with other outputs; "" if there is none."""
    for stage, made in then.items():
        if changed := [path for path, md5 in made.items() if now.get(stage, {}).get(path) != md5]:
            return f" from stage {stage} on ({', '.join(changed)})"
    return ""


def distance(old: Path, new: Path, index: pd.DataFrame) -> tuple[float, float]:
    """The largest difference between the values of two submissions, and the RMSE between them.

    Raises BadInput if one of them is not of the index's test images.
    """
    test = index[index["split"] == "test"]
    names, boxes = test["filename"].tolist(), boxes_of(test)
    before, after = (submission.read(path, names, boxes) for path in (old, new))
    return float(np.abs(before - after).max()), rmse(before, after)


def local_score(metrics: str | None) -> str:
    """The submission's validation RMSE in the text of a metrics.json; "unknown" if it has none."""
    try:
        rmse = json.loads(metrics or "")["validation"]["submission"]
        return f"{rmse['all'] if isinstance(rmse, dict) else rmse:.5f}"  # a dict in an older layout
    except (ValueError, LookupError, TypeError):
        return "unknown"


if __name__ == "__main__":
    run("reproduce", main, again="the same command")
