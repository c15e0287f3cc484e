"""Kernels through the unmodified client, at a Kaggle on this machine that really runs their scripts."""

import math
import time

import pytest

from pipeline.base.errors import BadInput
from pipeline.kaggle import kernels
from tools.kaggle_server.kernels import FILES, SAVE, STATUS, Kernels
from tools.kaggle_server.server import COMPETITION, Answer, refusal, reply

SLUG = "train-residual-0123456789ab"
PAGE = f"https://www.kaggle.com/code/tester/{SLUG}"
WRITE = """
import os, pathlib
print("hello")
folder = pathlib.Path(os.environ["REMOTE_OUTPUT"], "model")
folder.mkdir()
for name in "abcde":
    (folder / name).write_text(name)
(folder / "f g").write_text("not asked for")
print("tab\\tand\\x1b[1m colours")
"""


@pytest.fixture
def kaggle(server, account, tmp_path):
    account()
    (tmp_path / "archive").mkdir()
    with Kernels(server, tmp_path / "kaggle", tmp_path / "archive") as kaggle:
        yield kaggle


@pytest.fixture
def push(tmp_path):
    def call(source: str, before: str = "") -> None:
        kernels.push(tmp_path / "push", kernels.describe(SLUG, COMPETITION, before), source, "NvidiaTeslaT4")

    return call


def follow(until: float = math.inf) -> tuple[tuple[str, str], list[str]]:
    lines: list[str] = []
    return kernels.follow(COMPETITION, SLUG, until, lines.append), lines


def test_a_script_runs_its_log_is_shown_and_its_output_fetched(kaggle, push, server, tmp_path):
    push(WRITE)
    sent = server.asked(SAVE)[0].json
    assert sent["machineShape"] == "NvidiaTeslaT4" and sent["competitionDataSources"] == [COMPETITION]
    assert sent["isPrivate"] and sent["enableInternet"] and sent["enableGpu"] and sent["text"] == WRITE
    assert follow() == (("COMPLETE", ""), ["hello", "taband[1m colours"])
    kernels.fetch(COMPETITION, SLUG, tmp_path / "output", r"^model/\w$")
    files = [path for path in (tmp_path / "output").rglob("*") if path.is_file()]
    assert {path.name for path in files if path.parent.name == "model"} == set("abcde")
    assert len(server.asked(FILES)) > 1


def test_a_failed_script_is_told_with_its_log(kaggle, push):
    push("import sys; print('no data'); sys.exit(3)")
    assert follow() == (("ERROR", "exit 3"), ["no data"])


def test_a_log_that_breaks_off_and_starts_again_is_shown_once(kaggle, push, monkeypatch):
    monkeypatch.setattr(kernels, "LONGEST_PAUSE", 0.1)
    push("import time\nfor k in range(4):\n    print(k, flush=True)\n    time.sleep(0.7)")
    assert follow() == (("COMPLETE", ""), list("0123"))


def test_at_the_deadline_it_says_that_the_kernel_runs_on(kaggle, push):
    push("import time; time.sleep(60)")
    with pytest.raises(BadInput, match=f"{PAGE} still runs; the same command goes on waiting"):
        follow(time.monotonic() + 0.5)


def test_a_kernel_that_was_never_pushed_has_no_state(kaggle):
    assert kernels.state(COMPETITION, SLUG, 0) is None


@pytest.mark.parametrize("answer", [refusal(503), Answer(200, b"x" * 100, cut=10)], ids=["503", "hung up"])
def test_while_the_network_is_gone_it_asks_again(kaggle, push, server, answer, capsys):
    push("")
    known = server.answers[STATUS]
    server.answers[STATUS] = lambda request: (server.answers.update({STATUS: known}), answer)[1]
    assert kernels.state(COMPETITION, SLUG, math.inf)
    assert capsys.readouterr().err.count("asking again until it works") == 1
    server.answers[STATUS] = answer
    with pytest.raises(BadInput, match="Kaggle"):
        kernels.state(COMPETITION, SLUG, 0)


QUOTA = "Maximum weekly GPU quota of 30.00 hours reached."


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (reply({"error": QUOTA}), "no GPU for this account now: Maximum weekly GPU quota of 30.00 hours reached; run"),
        (refusal(400, QUOTA), "no GPU for this account now: Maximum weekly GPU quota of 30.00 hours reached; run"),
        (reply({"error": "Maximum batch GPU session count of 2 reached."}), "no GPU for this account now"),
        (reply({"error": "Invalid title"}), "Kaggle refuses the kernel: Invalid title; look at"),
        (reply({"invalidCompetitionSources": [COMPETITION]}), f"accept its rules at .*{COMPETITION}/rules, then run"),
        (refusal(403, "You must accept this competition's rules"), f"accept its rules at .*{COMPETITION}/rules"),
        (reply({"invalidKernelSources": ["tester/x"]}), "does not give the kernel the output of tester/x"),
    ],
)
def test_a_push_that_kaggle_refuses_says_why_and_what_to_do(kaggle, push, server, answer, message):
    server.answers[SAVE] = answer
    with pytest.raises(BadInput, match=message):
        push("")


def test_a_source_that_kaggle_would_not_take_is_not_sent(kaggle, push, server):
    with pytest.raises(BadInput, match="1,000,001 bytes, but Kaggle takes 1,000,000"):
        push("#" * 1_000_001)
    assert not server.requests


def test_without_an_account_it_says_how_to_set_one_up(server, account):
    account(credentials=False)
    with pytest.raises(BadInput, match="no Kaggle account is set up"):
        kernels.state(COMPETITION, SLUG, 0)
