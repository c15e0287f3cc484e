"""Send the submission to Kaggle, wait for its score, and enter it in the ledger: `python -m pipeline.upload -m "..."`.

What is sent is a zip of the CSV, a tenth of its bytes: Kaggle takes one where it takes a CSV, and its limit is on the
size of the file sent (github.com/Kaggle/kaggle-cli, issues 503 and 504). The description it is sent with ends in the
start of the CSV's sha256. So a submission that reached Kaggle, though the connection died before the ledger had it, is
found by the next run instead of sent again.
"""

import argparse
import json
import math
import shutil
import time
import zipfile
from datetime import UTC, datetime
from pathlib import Path

from pipeline import paths
from pipeline.base.command import lock, run
from pipeline.base.errors import BadInput
from pipeline.base.files import replacing, sha256
from pipeline.base.progress import SECONDS_BETWEEN_LINES, say
from pipeline.competition import submission
from pipeline.competition.index import boxes_of, read_index
from pipeline.history import repo
from pipeline.kaggle import client as kaggle
from pipeline.kaggle.ledger import ERROR, WAITING_TAG, add_row, read_ledger, set_row, write_ledger
from pipeline.params import Params, load_params

DEADLINE = 1800.0  # seconds
LONGEST_PAUSE = 5.0  # seconds between two looks at the score
LONGEST_DESCRIPTION = 200  # letters of the message in it, so that Kaggle does not cut off what follows
LAST_STAGE = "evaluate"  # the ledger's validation RMSE must be of the same model as the CSV
ZIP = paths.WORK / "submission.csv.zip"

Row = dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(prog="upload", description="Send submissions/submission.csv and await its score.")
    parser.add_argument("-m", "--message", help="what is new, for the ledger and for Kaggle")
    parser.add_argument(
        "--tag", nargs="?", const=WAITING_TAG, metavar="NAME", help="tag the commit; without NAME as score-0.16714"
    )
    parser.add_argument("--force", action="store_true", help="send what is stale, not committed or sent before")
    parser.add_argument("--refresh", action="store_true", help="send nothing; fill in scores that were not out in time")
    parser.add_argument("--deadline", type=float, default=DEADLINE, metavar="SECONDS", help="for Kaggle, %(default)s")
    arguments = parser.parse_args()
    if arguments.refresh == (arguments.message is not None):
        parser.error('say what is new with -m "...", or --refresh without it')
    if arguments.refresh and (arguments.tag or arguments.force):
        parser.error("--refresh goes without --tag and --force: a tag that waits for its score is made with it")
    if not arguments.deadline > 0:
        parser.error("--deadline is a number of seconds above 0")

    params = load_params()
    if arguments.refresh:
        refresh(params.fetch.competition, arguments.deadline)
    else:
        upload(params, clean(arguments.message), arguments.tag, arguments.force, arguments.deadline)


def clean(message: str) -> str:
    """The message on one line. Raises BadInput where it says nothing or is not UTF-8."""
    line = " ".join(message.split())
    if not line:
        raise BadInput('the message is empty; say what is new with -m "..."')
    if not line.isprintable():  # nor are the bytes that Python could not decode
        raise BadInput("the message has signs that cannot be printed; write it in UTF-8")
    return line


def upload(params: Params, message: str, tag: str | None, force: bool, deadline: float) -> None:
    """Send the submission unless Kaggle has it, wait for its score, tag its commit. The deadline is in seconds.

    Each step looks first whether it was done: run again, it goes on where it stopped.
    """
    with lock("."):  # neither a stage that writes another submission now, nor a second upload of this one
        check_submission()
        if not force and (stages := repo.stale(LAST_STAGE)):
            raise BadInput(f"{paths.SUBMISSION} is stale: {', '.join(sorted(stages))} changed; `dvc repro`, or --force")
        until = time.monotonic() + deadline
        row = known_or_sent(params, message, tag, force, until)
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


def known_or_sent(params: Params, message: str, tag: str | None, force: bool, until: float) -> Row:
    """The ledger's row of the submission: the one it has unless forced, otherwise a new one, of what Kaggle has now."""
    ledger = read_ledger()
    digest = sha256(paths.SUBMISSION)
    known = ledger[ledger["sha256"] == digest].to_dict("records")
    if known and not force:
        row = known[-1]
        say(f"upload: this file is submission {row['ref']} already; --force sends it again")
        if tag and tag != WAITING_TAG:
            repo.check_tag(tag, row["commit"])
        return row
    check_commit(tag, force)
    row = describe(params, message, digest)
    return row | find_or_send(params.fetch.competition, row, set(ledger["ref"]), until)


def check_submission() -> None:
    """Every row of the CSV against the test images it was made for. Raises BadInput naming the first that is wrong."""
    if not paths.SUBMISSION.is_file():
        raise BadInput(f"{paths.SUBMISSION} is missing; `dvc repro` makes it")
    index = read_index(paths.INDEX)
    test = index[index["split"] == "test"]
    submission.read(paths.SUBMISSION, test["filename"].tolist(), boxes_of(test))


def check_commit(tag: str | None, force: bool) -> None:
    """That HEAD brings the submission back. Raises BadInput where it would not, unless forced, and never for a tag."""
    files = repo.uncommitted()
    if files and (tag or not force):
        some = ", ".join(files[:5]) + (" and more" if len(files) > 5 else "")
        remedy = "`git add -A && git commit` first" + ("; a tag needs it" if tag else ", or --force")
        raise BadInput(f"the commit would not bring this submission back, since {some} changed: {remedy}")
    if tag and tag != WAITING_TAG:
        repo.check_tag(tag, repo.head_commit())


def describe(params: Params, message: str, digest: str) -> Row:
    """The ledger's row of the submission as it lies here, but for what Kaggle says of it."""
    return {
        "commit": repo.head_commit(),
        "tag": "",
        "sha256": digest,
        "recipe": " ".join(params.recipe.split()),
        "validation_rmse": f"{validation_rmse():.5f}",
        "public_score": "",
        "private_score": "",
        "message": message,
    }


def validation_rmse() -> float:
    """Of validation pairs filled as the submission was, as evaluate has it."""
    try:
        rmse = float(json.loads(paths.METRICS.read_text(encoding="utf-8"))["validation"]["submission"]["all"])
        if not math.isfinite(rmse):
            raise ValueError(f"it is {rmse}")
        return rmse
    except (FileNotFoundError, ValueError, LookupError, TypeError) as error:
        raise BadInput(
            f"{paths.METRICS} has no RMSE of the submission ({error}); `dvc repro evaluate` makes it"
        ) from None


def find_or_send(competition: str, row: Row, known: set[str], until: float) -> Row:
    """The submission's number at Kaggle and its time: of one of these bytes that the ledger lacks, or else sent now."""
    mark = f"[sha256:{row['sha256'][:16]}]"
    for found in kaggle.submissions(competition, until):
        if mark in found.description and found.ref not in known:
            say(f"upload: an earlier run sent this file as submission {found.ref}; taken into {paths.LEDGER}")
            return {"ref": found.ref, "time": found.time.isoformat(timespec="seconds")}
    with replacing(ZIP) as partial:
        compress(paths.SUBMISSION, partial)
    say(f"upload: sending {ZIP.stat().st_size / 1e6:.1f} MB to {competition}")
    ref = kaggle.submit(competition, ZIP, f"{row['message'][:LONGEST_DESCRIPTION]} {mark}", until)
    ZIP.unlink()
    return {"ref": ref, "time": datetime.now(UTC).isoformat(timespec="seconds")}


def compress(source: Path, target: Path) -> None:
    """A zip of one file, with the same bytes whenever it is made."""
    entry = zipfile.ZipInfo(source.name)  # its date is 1980
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.file_size = source.stat().st_size
    with source.open("rb") as file, zipfile.ZipFile(target, "w") as archive, archive.open(entry, "w") as packed:
        shutil.copyfileobj(file, packed, 2**20)


def record(row: Row) -> None:
    """Put a row into the ledger, in place of the one of the same submission."""
    ledger = read_ledger()
    write_ledger(set_row(ledger, **row) if row["ref"] in set(ledger["ref"]) else add_row(ledger, row))


def wait(competition: str, row: Row, until: float) -> Row:
    """The row with the score once there is one, or as it is when the time is over; the ledger has the same."""
    start = shown = time.monotonic()
    pause = 0.0
    while time.monotonic() + pause < until:
        time.sleep(pause)
        for found in kaggle.submissions(competition, until):
            if found.ref == row["ref"]:
                row = enter(row, found)
                break
        if row["public_score"]:
            break
        if not pause or time.monotonic() - shown >= SECONDS_BETWEEN_LINES:
            shown = time.monotonic()
            say(f"upload: submission {row['ref']} is being scored ({shown - start:.0f} s)")
        pause = min(pause + 1, LONGEST_PAUSE)
    return row


def enter(row: Row, found: kaggle.Submitted) -> Row:
    """The row with what Kaggle says of its submission; the ledger has the same."""
    news: Row = {}
    if found.status == "ERROR":
        news = {"public_score": ERROR, "message": f"{row['message']} (Kaggle: {found.error or 'no reason given'})"}
        news |= {"tag": ""} if row["tag"] == WAITING_TAG else {}
    elif found.status == "COMPLETE":
        news = {"public_score": found.public_score, "private_score": found.private_score}
    if news:
        record(row | news)
    return row | news


def tag_commit(row: Row) -> None:
    """Make the tag that the row wants, if it wants one and the score it waits for is there."""
    name = row["tag"]
    if name == WAITING_TAG:
        if row["public_score"] in ("", ERROR):
            return
        name += row["public_score"]
        if repo.commit_of(name) not in (None, row["commit"]):  # two commits of one score
            name += f"-{row['commit'][:7]}"
    if name:
        repo.make_tag(name, row["commit"])
        row["tag"] = name
        record(row)


def refresh(competition: str, deadline: float) -> None:
    """Fill in the scores that the ledger lacks, private ones too, and make the tags that waited for them."""
    rows = [row for row in read_ledger().to_dict("records") if row["public_score"] != ERROR]
    lacking = {row["ref"]: row for row in rows if not row["public_score"] or not row["private_score"]}
    if not lacking:
        say(f"upload: {paths.LEDGER} lacks no score")
        return
    for found in kaggle.submissions(competition, time.monotonic() + deadline):
        if row := lacking.pop(found.ref, None):
            row = enter(row, found)
            tag_commit(row)
            tell(row)
        if not lacking:
            break
    for ref in lacking:
        say(f"upload: Kaggle lists no submission {ref}; is it another account's?")


def tell(row: Row) -> None:
    """One line that says how a submission stands."""
    if row["public_score"] == ERROR:
        state = f"could not be scored: {row['message']}"
    elif not row["public_score"]:
        state = "has no score yet; `python -m pipeline.upload --refresh` fills it in"
    else:
        state = f"scored {row['public_score']} (validation {row['validation_rmse']})"
        state += f", private {row['private_score']}" if row["private_score"] else ""
        state += f"; the tag {row['tag']} brings it back" if row["tag"] else ""
    say(f"upload: submission {row['ref']} {state}")


if __name__ == "__main__":
    run("upload", main, again="the same command")
