"""Send the submission to Kaggle, wait for its score, and add it to the ledger: `python -m pipeline.upload -m "..."`.

The upload is a zip of the CSV, a tenth of its size: Kaggle accepts a zip instead of a CSV, and its size limit applies
to the uploaded file (github.com/Kaggle/kaggle-cli, issues 503 and 504). The submission's description at Kaggle ends in
the first digits of the CSV's sha256. If the connection breaks after the upload but before the ledger is written, the
next run finds the submission by these digits and does not send it again.
"""

import argparse
import io
import json
import math
import re
import shutil
import time
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from pipeline import paths
from pipeline.base.command import lock, run
from pipeline.base.errors import BadInput
from pipeline.base.files import replacing, sha256
from pipeline.base.progress import SECONDS_BETWEEN_LINES, say
from pipeline.competition import submission
from pipeline.competition.index import boxes_of, read_index
from pipeline.history import repo
from pipeline.kaggle import client as kaggle
from pipeline.kaggle.client import COMPETITION_PAGE, NUMBER
from pipeline.kaggle.ledger import ERROR, WAITING_TAG, add_row, read_ledger, set_row, write_ledger
from pipeline.params import Params, load_params
from pipeline.report import conventions

DEADLINE = 1800.0  # seconds
LONGEST_PAUSE = 5.0  # seconds between two requests for the score
LONGEST_DESCRIPTION = 200  # characters of the message in it, so that Kaggle does not cut off the sha256
LAST_STAGE = "evaluate"  # must be up to date: the ledger's validation RMSE is its output
ZIP = paths.WORK / "submission.csv.zip"

Row = dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(prog="upload", description="Send submissions/submission.csv and await its score.")
    parser.add_argument("-m", "--message", help="what is new; shown in the ledger and at Kaggle")
    parser.add_argument(
        "--tag", nargs="?", const=WAITING_TAG, metavar="NAME", help="tag the commit; the default is like score-0.16714"
    )
    parser.add_argument("--force", action="store_true", help="send even if stale, not committed or already sent")
    parser.add_argument("--dry-run", action="store_true", help="check everything, send nothing and change nothing")
    parser.add_argument("--refresh", action="store_true", help="send nothing; fill in missing scores")
    parser.add_argument("--deadline", type=float, default=DEADLINE, metavar="SECONDS", help="default: %(default)s")
    arguments = parser.parse_args()
    if arguments.refresh == (arguments.message is not None):
        parser.error('say what is new with -m "...", or --refresh without it')
    if arguments.refresh and (arguments.tag or arguments.force or arguments.dry_run):
        parser.error(
            "--refresh takes no --tag, --force or --dry-run; it makes the tags that wait for a score by itself"
        )
    if not arguments.deadline > 0:
        parser.error("--deadline must be more than 0 seconds")

    params = load_params()
    if arguments.refresh:
        refresh(params.fetch.competition, arguments.deadline)
    else:
        act = dry_run if arguments.dry_run else upload
        act(params, clean(arguments.message), arguments.tag, arguments.force, arguments.deadline)


def clean(message: str) -> str:
    """The message on one line. Raises BadInput if it is empty or not printable UTF-8."""
    line = " ".join(message.split())
    if not line:
        raise BadInput('the message is empty; say what is new with -m "..."')
    if not line.isprintable():  # undecodable bytes are not printable either
        raise BadInput("the message has characters that cannot be printed; write it in UTF-8")
    return line


def upload(params: Params, message: str, tag: str | None, force: bool, deadline: float) -> None:
    """Send the submission unless Kaggle has it, wait for its score, tag its commit. The deadline is in seconds.

    Each step is skipped if it was done before, so that an interrupted upload can be run again.
    """
    with lock("."):  # no stage may rewrite the submission now, and no second upload may send it
        row = checked(params, message, tag, force)
        if not row["public_score"]:
            kaggle.client()  # importing it takes seconds that are not Kaggle's
        until = time.monotonic() + deadline
        if "ref" not in row:
            row |= find(params.fetch.competition, row, until) or send(params.fetch.competition, row, until)
        if tag and (tag != WAITING_TAG or not row["tag"]):
            row["tag"] = tag
        record(row)
    if row["tag"] != WAITING_TAG:
        tag_commit(row)
    if not row["public_score"]:
        row = wait(params.fetch.competition, row, until)
    if row["public_score"] == ERROR:
        raise BadInput(f"Kaggle could not score submission {row['ref']}: {row['message']}")
    tag_commit(row)
    tell(row)


def dry_run(params: Params, message: str, tag: str | None, force: bool, deadline: float) -> None:
    """Do what upload does before it sends, and say what it would send. Nothing is changed."""
    competition = params.fetch.competition
    with lock("."):
        row = checked(params, message, tag, force)
        until = time.monotonic() + deadline
        if "ref" not in row and not find(competition, row, until):
            say(f"upload: would send {pack(competition, until)}, described as {description(row)!r}")
            ZIP.unlink()
    if tag and (tag != WAITING_TAG or not row["tag"]):
        name = f"{WAITING_TAG} followed by its public score" if tag == WAITING_TAG else tag
        say(f"upload: would tag commit {row['commit'][:7]} as {name}")
    say("upload: this was a dry run; nothing was sent and nothing was changed")


def checked(params: Params, message: str, tag: str | None, force: bool) -> Row:
    """The submission's row in the ledger; a new row without `ref` if there is none or with `force`.

    Raises BadInput if the submission may not be sent.
    """
    check_submission()
    if not force and (stages := repo.stale(LAST_STAGE)):
        raise BadInput(f"{paths.SUBMISSION} is stale: {', '.join(sorted(stages))} changed; `dvc repro`, or --force")
    ledger = read_ledger()
    digest = sha256(paths.SUBMISSION)
    known = ledger[ledger["sha256"] == digest].to_dict("records")
    if known and not force:
        row = known[-1]
        say(f"upload: this file was already sent as submission {row['ref']}; --force sends it again")
        if tag and tag != WAITING_TAG:
            repo.check_tag(tag, row["commit"])
        return row
    check_commit(tag, force)
    return describe(params, message, digest)


def check_submission() -> None:
    """Check every row of the CSV against the test images. Raises BadInput naming the first wrong row."""
    if not paths.SUBMISSION.is_file():
        raise BadInput(f"{paths.SUBMISSION} is missing; `dvc repro` makes it")
    index = read_index(paths.INDEX)
    test = index[index["split"] == "test"]
    submission.read(paths.SUBMISSION, test["filename"].tolist(), boxes_of(test))


def check_commit(tag: str | None, force: bool) -> None:
    """Raise BadInput if HEAD cannot reproduce the submission, which `force` allows except with a tag."""
    files = repo.uncommitted()
    if files and (tag or not force):
        some = ", ".join(files[:5]) + (" and more" if len(files) > 5 else "")
        remedy = "`git add -A && git commit` first" + ("; a tag needs it" if tag else ", or --force")
        raise BadInput(f"the commit cannot reproduce this submission, because {some} changed: {remedy}")
    if tag and tag != WAITING_TAG:
        repo.check_tag(tag, repo.head_commit())


def describe(params: Params, message: str, digest: str) -> Row:
    """The submission's row in the ledger, without the columns that come from Kaggle."""
    return {
        "commit": repo.head_commit(),
        "tag": "",
        "sha256": digest,
        "recipe": " ".join(params.recipe.split()),
        "validation_rmse": validation_rmse(),
        "public_score": "",
        "private_score": "",
        "message": message,
    }


def validation_rmse() -> str:
    """The submission's RMSE on the validation pairs, from metrics.json; "" if no pairs were held out."""
    try:
        validation = json.loads(paths.METRICS.read_text(encoding="utf-8")).get("validation")
        if validation is None:
            return ""
        rmse = float(validation["submission"])
        if not math.isfinite(rmse):
            raise ValueError(f"it is {rmse}")
        return f"{rmse:.5f}"
    except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{paths.METRICS} has no RMSE of the submission ({error}); `dvc repro evaluate` makes it"
        ) from None


def mark(row: Row) -> str:
    """The end of the submission's description at Kaggle, by which a later run finds it."""
    return f"[sha256:{row['sha256'][:16]}]"


def description(row: Row) -> str:
    """The submission's description at Kaggle."""
    return f"{row['message'][:LONGEST_DESCRIPTION]} {mark(row)}"


def find(competition: str, row: Row, until: float) -> Row:
    """Kaggle's number and time of an earlier upload of this file that is not in the ledger; empty if there is none."""
    known = set(read_ledger()["ref"])
    for found in kaggle.submissions(competition, until):
        if mark(row) in found.description and found.ref not in known:
            say(f"upload: an earlier run sent this file as submission {found.ref}, which is not yet in {paths.LEDGER}")
            return {"ref": found.ref, "time": found.time.isoformat(timespec="seconds")}
    return {}


def pack(competition: str, until: float) -> str:
    """Write the zip to upload; its size, where it goes and how many submissions are left, as a phrase."""
    with replacing(ZIP) as partial:
        compress(paths.SUBMISSION, partial)
    left = kaggle.submissions_left(competition, until)
    size = f"{paths.SUBMISSION}, {ZIP.stat().st_size / 1e6:.1f} MB as a zip,"
    return f"{size} to {competition}" + (f" ({left})" if left else "")


def send(competition: str, row: Row, until: float) -> Row:
    """Upload the submission; its number and time."""
    say(f"upload: sending {pack(competition, until)}")
    ref = kaggle.submit(competition, ZIP, description(row), until)
    ZIP.unlink()
    return {"ref": ref, "time": datetime.now(UTC).isoformat(timespec="seconds")}


def compress(source: Path, target: Path) -> None:
    """Zip a file. The same content gives the same bytes."""
    entry = zipfile.ZipInfo(source.name)  # dated 1980
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.file_size = source.stat().st_size
    with source.open("rb") as file, zipfile.ZipFile(target, "w") as archive, archive.open(entry, "w") as packed:
        shutil.copyfileobj(file, packed, 2**20)


def record(row: Row) -> None:
    """Write a row to the ledger, replacing the row of the same submission."""
    ledger = read_ledger()
    write_ledger(set_row(ledger, **row) if row["ref"] in set(ledger["ref"]) else add_row(ledger, row))


def wait(competition: str, row: Row, until: float) -> Row:
    """Wait for the score and return the row with it, or the unchanged row at the deadline; update the ledger."""
    start = shown = time.monotonic()
    pause, status = 0.0, ""
    while time.monotonic() + pause < until:
        time.sleep(pause)
        for found in kaggle.submissions(competition, until):
            if found.ref == row["ref"]:
                if odd := odd_score(competition, found):
                    raise BadInput(odd)
                row = enter(row, found)
                status = "" if found.status == "PENDING" else f", status {found.status}"
                break
        if row["public_score"]:
            break
        if not pause or time.monotonic() - shown >= SECONDS_BETWEEN_LINES:
            shown = time.monotonic()
            say(f"upload: submission {row['ref']} is being scored ({shown - start:.0f} s{status})")
        pause = min(pause + 1, LONGEST_PAUSE)
    return row


def enter(row: Row, found: kaggle.Submitted) -> Row:
    """The row with the score or error that Kaggle reports; update the ledger."""
    news: Row = {}
    if found.status == "ERROR":
        news = {"public_score": ERROR, "message": f"{row['message']} (Kaggle: {found.error or 'no reason given'})"}
        news |= {"tag": ""} if row["tag"] == WAITING_TAG else {}
    elif found.status == "COMPLETE":
        scores = {"public_score": found.public_score, "private_score": found.private_score}
        news = {name: score for name, score in scores.items() if score}
    if news:
        record(row | news)
    return row | news


def odd_score(competition: str, found: kaggle.Submitted) -> str:
    """What is wrong with a score that is neither a number nor empty; "" if there is none."""
    for score in (found.public_score, found.private_score):
        if not re.fullmatch(f"({NUMBER})?", score):
            page = f"{COMPETITION_PAGE}{competition}/submissions"
            return f"Kaggle gives submission {found.ref} the score {score!r}, which is not a number; look at {page}"
    return ""


def tag_commit(row: Row) -> None:
    """Make the row's tag, if it has one that does not still wait for a score."""
    name = row["tag"]
    if name == WAITING_TAG:
        if row["public_score"] in ("", ERROR):
            return
        name += row["public_score"]
        if repo.commit_of(name) not in (None, row["commit"]):  # another commit has the same score
            name += f"-{row['commit'][:7]}"
    if name:
        repo.make_tag(name, row["commit"])
        row["tag"] = name
        record(row)


def refresh(competition: str, deadline: float) -> None:
    """Fill in missing public and private scores, and make the tags that waited for them."""
    rows = [row for row in read_ledger().to_dict("records") if row["public_score"] != ERROR]
    missing = {row["ref"]: row for row in rows if not row["public_score"] or not row["private_score"]}
    if not missing:
        say(f"upload: no score is missing in {paths.LEDGER}")
        return
    for found in kaggle.submissions(competition, time.monotonic() + deadline):
        if (row := missing.pop(found.ref, None)) and (odd := odd_score(competition, found)):
            say(f"upload: {odd}")
        elif row:
            row = enter(row, found)
            tag_commit(row)
            tell(row)
        if not missing:
            break
    for ref in missing:
        say(f"upload: Kaggle lists no submission {ref}; does it belong to another account?")


def tell(row: Row) -> None:
    """Print the state of a submission in one line."""
    if row["public_score"] == ERROR:
        state = f"could not be scored: {row['message']}"
    elif not row["public_score"]:
        state = "has no score yet; `python -m pipeline.upload --refresh` fills it in"
    else:
        state = f"scored {row['public_score']}"
        state += f" (validation {row['validation_rmse']})" if row["validation_rmse"] else ""
        state += f", private {row['private_score']}" if row["private_score"] else ""
        state += f"; the tag {row['tag']} reproduces it" if row["tag"] else ""
    say(f"upload: submission {row['ref']} {state}")
    if found := explain(row):
        say(f"upload: {found}")


def explain(row: Row) -> str:
    """What the public score says of the truth's channel order and scale, by the scores in the row's commit.

    "" if it says nothing, if there are no scores, or if they are of another submission, as after --force.
    """
    if row["public_score"] in ("", ERROR) or not row["validation_rmse"]:
        return ""
    try:
        table = pd.read_csv(io.StringIO(repo.file_at(row["commit"], paths.SCORES.as_posix()) or ""))
        rows = table[(table["set"] == conventions.SET) & (table["fill"] == conventions.FILL)]
        known = dict(zip(rows["subset"], rows["rmse"].astype(float), strict=True))
    except (BadInput, ValueError, KeyError):  # no such commit here, or no such table in it
        return ""
    current = [name for name, value in known.items() if f"{value:.5f}" == row["validation_rmse"]]
    return conventions.explain(float(row["public_score"]), current[0], known) if current else ""


if __name__ == "__main__":
    run("upload", main, again="the same command")
