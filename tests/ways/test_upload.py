"""Uploads with the unmodified kaggle client, git and DVC to a contest on this machine."""

import io
import json
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import yaml

from pipeline import paths
from pipeline.archive.tables import list_images
from pipeline.base.errors import BadInput
from pipeline.base.files import sha256
from pipeline.competition import submission
from pipeline.competition.images import read_images, to_uint8
from pipeline.competition.index import COLUMNS, boxes_of, masked_path, read_index, read_pairs
from pipeline.fills import harmonic
from pipeline.kaggle.ledger import read_ledger
from pipeline.report import conventions
from tools.kaggle_server.contest import BOARD, CREATE, LIST, START, Contest, scorer
from tools.kaggle_server.server import KEY, Answer, KaggleServer, Request, refusal, reply, wait_first

MADE = Path("made.csv")  # the stage copies it to submission.csv
DVC = {
    "stages": {
        "write": {"cmd": f"cp {MADE} {paths.SUBMISSION}", "deps": [str(MADE)], "outs": [str(paths.SUBMISSION)]},
        "evaluate": {
            "cmd": f"cp made.json {paths.METRICS}",
            "deps": [str(paths.SUBMISSION), "made.json"],
            "metrics": [{str(paths.METRICS): {"cache": False}}],
        },
    }
}


@dataclass
class Project:
    """A repository with a submission, and its contest."""

    folder: Path
    contest: Contest
    server: KaggleServer
    environment: dict[str, str]

    def start(self, *command: str, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess:
        process = self.start(*command, **environment)
        out, error = process.communicate(timeout=120)
        assert KEY not in out + error + (self.ledger_file.read_text("utf-8") if self.ledger_file.exists() else "")
        return subprocess.CompletedProcess(command, process.returncode, out, error)

    def upload(self, *arguments: str, message: str | None = "a try", **environment: str):
        options = () if message is None else ("-m", message)
        return self.run(sys.executable, "-m", "pipeline.upload", *options, *arguments, **environment)

    def git(self, *arguments: str) -> str:
        done = self.run("git", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "a run")
        return self.git("rev-parse", "HEAD")

    def change(self) -> str:
        """Make and commit another submission; its commit."""
        path = self.folder / MADE
        head, row, rest = path.read_bytes().split(b"\n", 2)
        digit = (int(row[-1:]) + 1) % 10
        path.write_bytes(b"\n".join([head, row[:-1] + str(digit).encode(), rest]))
        assert self.run(sys.executable, "-m", "dvc", "repro", "--quiet").returncode == 0
        return self.commit()

    @property
    def ledger_file(self) -> Path:
        return self.folder / paths.LEDGER

    def rows(self) -> list[dict[str, str]]:
        return read_ledger(self.ledger_file).to_dict("records")

    def sent(self) -> int:
        """The number of submissions that the contest received."""
        return len(self.server.asked(CREATE))


@pytest.fixture(scope="module")
def made(tmp_path_factory, demo_competition, params_file, repo, environment, code_here) -> Path:
    """The project's repository, committed. Tests copy it."""
    folder = tmp_path_factory.mktemp("made")
    index = list_images(demo_competition.raw).assign(group=0)[COLUMNS]
    test = index[index["split"] == "test"]
    for path in (paths.MODELS, paths.SUBMISSION.parent):
        (folder / path).mkdir(parents=True)
    index.to_csv(folder / paths.INDEX, index=False)
    values = np.random.default_rng(1).random((len(test), 2, 75, 75, 3)).round(2)
    submission.write(folder / MADE, test["filename"].tolist(), boxes_of(test), values)
    metrics = '{"validation": {"residual": 0.2, "submission": 0.345678, "without_twins": 0.1}}'
    (folder / "made.json").write_text(metrics, encoding="utf-8")
    (folder / "dvc.yaml").write_text(yaml.safe_dump(DVC), encoding="utf-8")
    params_file(folder)
    (folder / ".gitignore").write_text(f"/data\n/{MADE}\n/.work\n*.partial\n", encoding="utf-8")
    ignore = (repo / "submissions" / ".gitignore").read_text(encoding="utf-8")
    (folder / "submissions" / ".gitignore").write_text(ignore, encoding="utf-8")
    project = Project(folder, None, None, environment | code_here)
    project.git("init", "--quiet")
    for command in ("init", "repro"):
        done = project.run(sys.executable, "-m", "dvc", command, "--quiet")
        assert done.returncode == 0, done.stderr
    project.commit()
    return folder


@pytest.fixture(scope="module")
def score(made, demo_competition) -> Callable[[bytes], float]:
    return scorer(made / paths.INDEX, demo_competition.truth)


@pytest.fixture
def project(made, score, tmp_path, environment_of, code_here):
    """A copy of the repository, with its own server."""
    folder = copytree(made, tmp_path / "project", symlinks=True)
    (tmp_path / "home").mkdir()
    with KaggleServer() as server:
        environment = environment_of(tmp_path / "home") | code_here | server.environment(tmp_path / "home")
        yield Project(folder, Contest(server, score, polls=1), server, environment)
        assert not [request for request in server.requests if request.method == "CONNECT"], "it tried the real site"


def refused(done, message: str) -> None:
    """It ended with status 1 and without a traceback; its last line has the message."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.rstrip().splitlines()[-1]
    assert last.startswith(("upload: ", "leaderboard: ")) and message in last, done.stderr


def test_a_submission_is_sent_scored_and_added_to_the_ledger(project, score):
    done = project.upload(message='  what\nis, "new" ü ')
    assert done.returncode == 0, done.stderr
    csv = (project.folder / paths.SUBMISSION).read_bytes()
    digest = sha256(project.folder / paths.SUBMISSION)
    (row,) = project.rows()
    assert row == {
        "time": row["time"],
        "commit": project.git("rev-parse", "HEAD"),
        "tag": "",
        "sha256": digest,
        "recipe": "demo",
        "validation_rmse": "0.34568",
        "public_score": f"{score(csv):.5f}",
        "private_score": "",
        "ref": "1000",
        "message": 'what is, "new" ü',
    }
    assert "upload: submission 1000 is being scored" in done.stderr
    assert f"submission 1000 scored {row['public_score']} (validation 0.34568)" in done.stderr
    assert project.contest.submissions[0]["description"] == f'what is, "new" ü [sha256:{digest[:16]}]'
    (put,) = (request for request in project.server.requests if request.method == "PUT")
    with zipfile.ZipFile(io.BytesIO(put.body)) as archive:
        (entry,) = archive.infolist()
        assert entry.filename == "submission.csv" and entry.date_time[0] == 1980
        assert archive.read(entry) == csv
    assert len(put.body) < len(csv) / 2
    assert project.git("status", "--porcelain") == f"?? {paths.LEDGER}"


@pytest.fixture(scope="module")
def fitting(made, demo_competition, tmp_path_factory, environment, code_here) -> Path:
    """The repository with a good fill as submission, half harmonic and half truth, and the scores for it."""
    project = Project(copytree(made, tmp_path_factory.mktemp("fitting") / "it", symlinks=True), None, None, {})
    project.environment = environment | code_here
    index = read_index(made / paths.INDEX)
    train, test = (index[index["split"] == name] for name in ("train", "test"))
    masked, target, boxes = read_pairs(demo_competition.raw, train)
    known = conventions.score_conventions(half_right(masked, target, boxes), target, boxes)
    names, boxes = test["filename"].tolist(), boxes_of(test)
    masked = read_images(masked_path(demo_competition.raw, row) for row in test.to_dict("records"))
    target = read_images(demo_competition.truth / name for name in names)
    submission.write(project.folder / MADE, names, boxes, half_right(masked, target, boxes))
    metrics = json.dumps({"validation": {"submission": known["bgr minmax"]}})
    (project.folder / "made.json").write_text(metrics, encoding="utf-8")
    (project.folder / paths.SCORES).parent.mkdir()
    rows = "".join(f"convention,submission,{name},{value}\n" for name, value in known.items())
    (project.folder / paths.SCORES).write_text(f"set,fill,subset,rmse\n{rows}", encoding="utf-8")
    assert project.run(sys.executable, "-m", "dvc", "repro", "--quiet").returncode == 0
    project.commit()
    return project.folder


def half_right(masked: np.ndarray, target: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The values of the mean of the harmonic fill and the target, as a submission in bgr minmax."""
    filled = to_uint8((harmonic.fill(masked, boxes).astype(float) + target) / 2)
    return submission.encode(filled, boxes, "bgr", "minmax")


CHANNELS = r"another truth fits 0\.\d+ better: set submission\.channels: rgb, then expect about 0\.\d+"
NONE = r"no channel order and scale fit 0\.90000: on the validation pairs they give 0\.\d+ to 0\.\d+"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("truth", "said"),
    [("bgr minmax", ""), ("bgr unit", ""), ("rgb minmax", CHANNELS), ("rgb unit", CHANNELS), ("none", NONE)],
)
def test_a_score_tells_which_convention_the_truth_has(project, fitting, demo_competition, truth, said):
    copytree(fitting, project.folder, symlinks=True, dirs_exist_ok=True)
    of_none = truth == "none"
    project.contest.score = (
        (lambda _: 0.9) if of_none else scorer(fitting / paths.INDEX, demo_competition.truth, *truth.split())
    )
    project.contest.polls = 100
    assert project.upload("--deadline", "6").returncode == 0
    project.contest.submissions[0]["polls"] = 0
    for done in (project.upload("--refresh", message=None), project.upload()):
        _, told = done.stderr.split("upload: submission 1000 scored")
        _, *lines = told.splitlines()
        assert len(lines) == bool(said) and all(re.fullmatch(f"upload: {said}", line) for line in lines)


@pytest.mark.slow
def test_the_same_bytes_are_sent_once_unless_forced(project):
    assert project.upload().returncode == 0
    asked = len(project.server.requests)
    again = project.upload(message="another word")
    assert again.returncode == 0 and "was already sent as submission 1000" in again.stderr
    assert len(project.server.requests) == asked and len(project.rows()) == 1
    assert project.upload("--force", message="once more").returncode == 0
    assert project.sent() == 2 and [row["ref"] for row in project.rows()] == ["1000", "1001"]


@pytest.mark.slow
def test_a_stale_submission_is_refused_unless_forced(project):
    path = project.folder / MADE
    path.write_bytes(path.read_bytes() + b"\n")
    refused(project.upload(), "submissions/submission.csv is stale: write changed; `dvc repro`, or --force")
    assert not project.server.requests and not project.ledger_file.exists()
    assert project.upload("--force").returncode == 0
    assert project.sent() == 1


@pytest.mark.slow
def test_uncommitted_changes_are_refused_unless_forced_and_always_with_a_tag(project):
    (project.folder / ".dvcignore").write_text("# changed\n", encoding="utf-8")
    (project.folder / "pipeline").mkdir()
    (project.folder / "pipeline" / "new model.py").write_text("", encoding="utf-8")
    refused(project.upload(), ".dvcignore, pipeline/new model.py changed: `git add -A && git commit` first, or --force")
    refused(project.upload("--force", "--tag"), "a tag needs it")
    assert not project.server.requests
    assert project.upload("--force").returncode == 0


@pytest.mark.slow
def test_untracked_notes_and_the_ledger_need_no_commit(project):
    (project.folder / "notes.txt").write_text("tomorrow", encoding="utf-8")
    assert project.upload().returncode == 0
    project.change()
    assert project.upload().returncode == 0
    assert [row["ref"] for row in project.rows()] == ["1000", "1001"]


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_a_broken_csv_is_never_sent(project, force):
    path = project.folder / paths.SUBMISSION
    data = path.read_bytes()
    path.unlink()  # it may be a link to DVC's cache
    path.write_bytes(data[: len(data) // 2])
    refused(project.upload(*force), "submission.csv")
    path.unlink()
    refused(project.upload(*force), "submissions/submission.csv is missing; `dvc repro` makes it")
    assert not project.server.requests


def test_a_dry_run_tells_what_it_would_send_and_changes_nothing(project):
    project.git("tag", "taken", "HEAD")
    head, before = project.git("rev-parse", "HEAD"), everything(project)
    done = project.upload("--dry-run", "--tag")
    assert done.returncode == 0, done.stderr
    digest = sha256(project.folder / paths.SUBMISSION)[:16]
    send, tag, end = done.stderr.splitlines()
    assert send.startswith("upload: would send submissions/submission.csv, 1.") and send.endswith(
        " MB as a zip, to photo-reconstruction (submissions left today: 20, sent: 0), "
        f"described as 'a try [sha256:{digest}]'"
    )
    assert tag == f"upload: would tag commit {head[:7]} as score- followed by its public score"
    assert end == "upload: this was a dry run; nothing was sent and nothing was changed"
    assert everything(project) == before and not project.sent() and not project.contest.promised


@pytest.mark.slow
def test_a_dry_run_finds_what_was_sent(project):
    head = project.git("rev-parse", "HEAD")
    assert "(submissions left today: 20, sent: 0)" in project.upload().stderr
    before = everything(project)
    done = project.upload("--dry-run", "--tag", "later")
    assert done.returncode == 0 and "already sent as submission 1000" in done.stderr
    assert f"upload: would tag commit {head[:7]} as later" in done.stderr and "would send" not in done.stderr
    project.ledger_file.unlink()
    assert "an earlier run sent this file as submission 1000, which is not yet in" in project.upload("--dry-run").stderr
    assert not project.ledger_file.exists() and everything(project) == before - {paths.LEDGER.as_posix()}
    assert project.sent() == 1


def everything(project: Project) -> set[str]:
    """The repository's files and tags, without what git and DVC keep for themselves."""
    files = (path.relative_to(project.folder).as_posix() for path in project.folder.rglob("*") if path.is_file())
    return {name for name in files if not name.startswith((".git/", ".dvc/"))} | set(project.git("tag").split())


@pytest.mark.slow
def test_a_named_tag_is_made_on_the_commit(project):
    head = project.git("rev-parse", "HEAD")
    done = project.upload("--tag", "first")
    assert done.returncode == 0 and "the tag first reproduces it" in done.stderr
    assert project.git("rev-parse", "first") == head and project.rows()[0]["tag"] == "first"


@pytest.mark.slow
def test_a_tag_is_named_after_the_score_and_for_an_equal_score_after_the_commit_too(project):
    assert project.upload("--tag").returncode == 0
    (row,) = project.rows()
    assert row["tag"] == f"score-{row['public_score']}"
    assert project.git("rev-parse", row["tag"]) == row["commit"]
    commit = project.change()  # one of 303,750 values, so the score has the same five decimals
    assert project.upload("--tag").returncode == 0
    assert project.rows()[1]["tag"] == f"{row['tag']}-{commit[:7]}"
    assert project.git("rev-parse", project.rows()[1]["tag"]) == commit


@pytest.mark.slow
def test_an_impossible_tag_is_refused_before_anything_is_sent(project):
    project.git("tag", "taken")
    project.change()
    refused(project.upload("--tag", "taken"), "the tag taken already names commit ")
    refused(project.upload("--tag", "two words"), "'two words' is not a valid tag name")
    assert not project.server.requests


@pytest.mark.slow
def test_a_later_tag_is_made_on_the_commit_that_was_uploaded(project):
    head = project.git("rev-parse", "HEAD")
    project.upload()
    project.commit()
    assert project.upload("--tag", "later").returncode == 0
    assert project.git("rev-parse", "later") == head and project.sent() == 1


@pytest.mark.slow
def test_refresh_fills_in_a_late_score_and_makes_its_tag(project):
    project.contest.polls = 100
    done = project.upload("--tag", "--deadline", "6")
    assert done.returncode == 0 and "has no score yet; `python -m pipeline.upload --refresh`" in done.stderr
    assert project.rows()[0]["public_score"] == "" and project.rows()[0]["tag"] == "score-"
    assert project.git("tag") == ""
    project.contest.submissions[0]["polls"] = 1
    done = project.upload("--refresh", message=None)
    assert done.returncode == 0 and "has no score yet" in done.stderr
    done = project.upload("--refresh", message=None)
    (row,) = project.rows()
    assert done.returncode == 0 and row["public_score"] and row["tag"] == f"score-{row['public_score']}"
    assert project.git("tag") == row["tag"]
    project.contest.submissions[0]["privateScore"] = 0.25  # published at the competition's end, here as a number
    project.upload("--refresh", message=None)
    assert project.rows()[0]["private_score"] == "0.25"
    asked = len(project.server.requests)
    assert "no score is missing" in project.upload("--refresh", message=None).stderr
    assert len(project.server.requests) == asked and project.sent() == 1


@pytest.mark.slow
def test_ctrl_c_while_waiting_loses_nothing(project):
    project.contest.polls = 100
    process = project.start(sys.executable, "-m", "pipeline.upload", "-m", "a try")
    assert any("is being scored" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130 and error == "\nupload: interrupted; the same command goes on from here\n"
    project.contest.submissions[0]["polls"] = 0
    assert project.upload().returncode == 0
    assert project.sent() == 1 and project.rows()[0]["public_score"]


@pytest.mark.slow
def test_two_at_once_send_once(project):
    first = start_unanswered(project)
    refused(project.upload(), "another stage is ")
    first.kill()
    first.communicate()
    assert project.sent() == 1


@pytest.mark.slow
def test_refresh_names_submissions_that_kaggle_does_not_list(project):
    project.contest.polls = 100
    project.upload("--deadline", "6")
    project.contest.submissions.clear()
    done = project.upload("--refresh", message=None)
    assert done.returncode == 0 and "Kaggle lists no submission 1000" in done.stderr


@pytest.mark.slow
def test_an_error_of_the_scoring_is_reported_and_added_to_the_ledger(project):
    def fail(_: bytes) -> float:
        raise BadInput("Row 5: ID is\nmissing")

    project.contest.score = fail
    refused(project.upload("--tag"), "Kaggle could not score submission 1000: a try (Kaggle: Row 5: ID is missing)")
    (row,) = project.rows()
    assert (row["public_score"], row["tag"]) == ("error", "")
    assert row["message"] == "a try (Kaggle: Row 5: ID is missing)"
    refused(project.upload(), "Kaggle could not score submission 1000")
    assert project.sent() == 1 and project.rows() == [row]


@pytest.mark.slow
def test_a_file_that_the_store_refuses_is_an_error(project):
    answer_put(project, Answer(413, b"<Error><Message>Too large</Message></Error>"))
    refused(
        project.upload(), "the file store of Kaggle refuses .work/submission.csv.zip (413): Too large; look at http"
    )
    assert not project.sent() and not project.ledger_file.exists()


def answer_put(project: Project, answer: Answer) -> None:
    """Let the store answer the next upload so."""
    answer_start = project.server.answers[START]

    def start(request: Request) -> Answer:
        started = answer_start(request)
        project.server.answers["PUT", "/upload/token0"] = answer
        return started

    project.server.answers[START] = start


def lose_answers(project: Project, answer: Answer) -> None:
    """Let uploads arrive from now on, but with this answer."""
    create = project.server.answers[CREATE]

    def accept(request: Request) -> Answer:
        create(request)
        return answer

    project.server.answers[CREATE] = accept


def start_unanswered(project: Project) -> subprocess.Popen:
    """An upload that has arrived and waits for an answer that never comes."""
    lose_answers(project, Answer(stall=-1))
    process = project.start(sys.executable, "-m", "pipeline.upload", "-m", "a try", "--tag")
    deadline = time.monotonic() + 60
    while not project.contest.submissions and time.monotonic() < deadline:
        time.sleep(0.05)
    return process


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer",
    [
        refusal(500),
        pytest.param(Answer(200, b"x" * 100, cut=10), marks=pytest.mark.slow),
        pytest.param(Answer(stall=-1), marks=pytest.mark.slow),
        pytest.param(reply({"message": "queued"}), marks=pytest.mark.slow),
    ],
    ids=["500", "hung up", "stalled", "no number"],
)
def test_an_upload_whose_answer_is_lost_is_found_by_the_next_run_and_not_sent_again(project, answer):
    lose_answers(project, answer)
    done = project.upload("--deadline", "8")
    refused(done, "upload: ")
    assert not project.ledger_file.exists() and len(project.contest.submissions) == 1
    project.contest.submissions[0:0] = [
        {"ref": 5000 + k, "date": "2023-03-01T08:00:00Z", "description": "by hand", "status": "ERROR"}
        for k in range(30)
    ]  # the upload is on the second page
    done = project.upload()
    assert done.returncode == 0 and "sent this file as submission 1000, which is not yet in" in done.stderr, done.stderr
    assert project.sent() == 1 and [row["ref"] for row in project.rows()] == ["1000"]
    assert project.rows()[0]["public_score"]


@pytest.mark.slow
def test_an_upload_that_is_killed_is_found_by_the_next_run(project):
    process = start_unanswered(project)
    process.kill()
    process.communicate()
    done = project.upload("--tag")
    assert done.returncode == 0, done.stderr
    assert project.sent() == 1 and project.rows()[0]["tag"].startswith("score-0")


@pytest.mark.slow
@pytest.mark.parametrize("where", [*(pytest.param(key, marks=pytest.mark.slow) for key in (LIST, START)), "put"])
def test_a_server_that_stalls_is_given_up_at_the_deadline(project, where):
    if where == "put":
        answer_put(project, Answer(stall=-1))
    else:
        project.server.answers[where] = Answer(stall=-1)
    start_time = time.monotonic()
    refused(project.upload("--deadline", "7"), "Kaggle sent nothing for")
    assert time.monotonic() - start_time < 20
    assert not project.ledger_file.exists()


@pytest.mark.slow
def test_an_unknown_status_is_shown_and_nothing_is_lost(project):
    known = project.server.answers[LIST]

    def listed(request: Request) -> Answer:
        entries = known(request).body
        return Answer(200, entries.replace(b"PENDING", b"PONDERED"), {"Content-Type": "application/json"})

    project.server.answers[LIST] = listed
    project.contest.polls = 100
    done = project.upload("--deadline", "6")
    assert done.returncode == 0 and "is being scored (0 s, status PONDERED)" in done.stderr, done.stderr
    assert project.rows()[0]["public_score"] == ""
    project.contest.submissions[0]["polls"] = 0
    assert project.upload().returncode == 0
    assert project.rows()[0]["public_score"] and project.sent() == 1


@pytest.mark.slow
def test_a_score_that_is_not_a_number_is_reported(project):
    project.contest.score = lambda _: float("nan")
    message = "Kaggle gives submission 1000 the score 'nan', which is not a number; look at https://www.kaggle.com/"
    refused(project.upload(), message)
    done = project.upload("--refresh", message=None)
    assert done.returncode == 0 and message in done.stderr
    assert project.rows()[0]["public_score"] == ""


@pytest.mark.slow
def test_it_obeys_retry_after_and_shows_kaggles_message(project):
    project.contest.daily = 0
    start = project.server.answers[START]
    project.server.answers[START] = [wait_first(1), start]
    done = project.upload()
    refused(done, "Kaggle refuses (400): Your team has used its daily Submission allowance (0) today; look at https://")
    assert "trying again in 1 s" in done.stderr
    project.server.answers[START] = refusal(403, "The deadline has passed")
    refused(project.upload(), "Kaggle refuses access to photo-reconstruction (403): The deadline has passed; look at")
    assert not project.ledger_file.exists()


def test_without_an_account_nothing_is_sent_or_written(project):
    del project.environment["KAGGLE_USERNAME"], project.environment["KAGGLE_KEY"]
    done = project.upload()
    refused(done, "no Kaggle account is set up")
    assert not project.server.requests and not project.ledger_file.exists()


@pytest.mark.slow
def test_a_damaged_ledger_is_named_before_anything_is_sent(project):
    project.ledger_file.write_text("<<<<<<< HEAD\n", encoding="utf-8")
    refused(project.upload(), "submissions/ledger.csv is damaged: line 1")
    assert not project.server.requests and project.ledger_file.read_text(encoding="utf-8") == "<<<<<<< HEAD\n"


@pytest.mark.slow
def test_the_leaderboard_shows_the_ledger_among_the_teams(project):
    project.contest.teams = [
        {"teamId": k, "teamName": f"team {k}\x1b[31m", "score": f"{0.1 + k / 100:.5f}"} for k in range(50)
    ] + [{"teamId": 99, "teamName": "has none yet", "score": ""}]
    assert project.upload("--tag", "mine", message="the first").returncode == 0
    (row,) = project.rows()
    done = project.run(sys.executable, "-m", "pipeline.leaderboard", "--top", "3")
    assert done.returncode == 0, done.stderr
    title, _, head, *table, _, best = done.stdout.splitlines()
    assert title == "photo-reconstruction: 50 teams" and head.split()[:2] == ["rank", "public"]
    rank = 1 + sum(float(team["score"]) < float(row["public_score"]) for team in project.contest.teams if team["score"])
    assert [line.split()[:2] for line in table] == [
        ["1", "0.10000"],
        ["2", "0.11000"],
        ["3", "0.12000"],
        [str(rank), row["public_score"]],
    ]
    assert "mine" in table[3] and "the first" in table[3] and "\x1b" not in done.stdout
    assert best == f"best: {row['public_score']} (mine), rank {rank} of 50"
    assert len(project.server.asked(BOARD)) == 3


def test_the_leaderboard_without_an_account_says_so(project):
    del project.environment["KAGGLE_USERNAME"], project.environment["KAGGLE_KEY"]
    done = project.run(sys.executable, "-m", "pipeline.leaderboard")
    refused(done, "no Kaggle account is set up")
    assert done.stdout == ""
