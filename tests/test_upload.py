"""The parts of an upload. tests/ways/test_upload.py runs it with a server, the real client, git and DVC."""

import os
import subprocess
import sys
import zipfile

import pytest

from pipeline import paths
from pipeline.base.errors import BadInput
from pipeline.upload import clean, compress, tell, validation_rmse


@pytest.mark.parametrize("message", ["", "  \n", "a\x00b", "a\x1b[31mb", "\udcff"])
def test_an_empty_or_unprintable_message_is_refused(message):
    with pytest.raises(BadInput, match="the message"):
        clean(message)


def test_a_message_becomes_one_line():
    assert clean(" more\n steps,\tless  noise ") == "more steps, less noise"


def test_the_same_csv_gives_the_same_zip(tmp_path):
    source = tmp_path / "submission.csv"
    source.write_bytes(b"id,value\n" * 300_000)
    compress(source, tmp_path / "1.zip")
    os.utime(source, (10**9, 10**9))
    compress(source, tmp_path / "2.zip")
    first = (tmp_path / "1.zip").read_bytes()
    assert first == (tmp_path / "2.zip").read_bytes() and len(first) < 30_000
    with zipfile.ZipFile(tmp_path / "1.zip") as archive:
        assert archive.read("submission.csv") == source.read_bytes()


NAN = '{"validation": {"submission": NaN}}'


@pytest.mark.parametrize("content", [None, "{", "[]", '{"validation": {"residual": 1}}', NAN, "null"])
def test_metrics_without_the_submissions_score_are_named(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        paths.METRICS.write_text(content, encoding="utf-8")
    with pytest.raises(BadInput, match=r"metrics.json has no RMSE of the submission .*`dvc repro evaluate` makes it"):
        validation_rmse()


def test_without_validation_pairs_there_is_no_rmse(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    paths.METRICS.write_text('{"test": {"submission": 0.2}}', encoding="utf-8")
    row = {"ref": "7", "public_score": "0.2", "private_score": "", "tag": "", "validation_rmse": validation_rmse()}
    assert row["validation_rmse"] == ""
    tell(row)
    assert capsys.readouterr().err == "upload: submission 7 scored 0.2\n"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("-m", "a", "--refresh"),
        ("--refresh", "--tag"),
        ("--refresh", "--force"),
        ("--refresh", "--dry-run"),
        ("-m", "a", "--deadline", "0"),
    ],
)
def test_contradictory_arguments_are_refused(tmp_path, repo, arguments):
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.upload", *arguments],
        cwd=tmp_path,
        env={"PYTHONPATH": str(repo)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "upload: error: " in done.stderr
