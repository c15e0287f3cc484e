"""What an upload is made of. With a server, the real client, git and DVC: tests/real/test_upload_real.py."""

import subprocess
import sys
import time
import zipfile

import pytest

from pipeline import paths
from pipeline.base.errors import BadInput
from pipeline.upload import clean, compress, validation_rmse


@pytest.mark.parametrize("message", ["", "  \n", "a\x00b", "a\x1b[31mb", "\udcff"])
def test_a_message_that_says_nothing_or_cannot_be_printed_is_refused(message):
    with pytest.raises(BadInput, match="the message"):
        clean(message)


def test_a_message_is_one_line():
    assert clean(" more\n steps,\tless  noise ") == "more steps, less noise"


def test_the_zip_has_the_same_bytes_whenever_it_is_made(tmp_path):
    source = tmp_path / "submission.csv"
    source.write_bytes(b"id,value\n" * 300_000)
    compress(source, tmp_path / "1.zip")
    time.sleep(2)  # a zip's dates have two seconds
    source.touch()
    compress(source, tmp_path / "2.zip")
    first = (tmp_path / "1.zip").read_bytes()
    assert first == (tmp_path / "2.zip").read_bytes() and len(first) < 30_000
    with zipfile.ZipFile(tmp_path / "1.zip") as archive:
        assert archive.read("submission.csv") == source.read_bytes()


@pytest.mark.parametrize("content", [None, "{", "[]", '{"validation": {"telea": {"all": 1}}}', "nan", "null"])
def test_metrics_that_lack_the_models_score_are_named(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    if content == "nan":
        content = '{"validation": {"submission": {"all": NaN}}}'
    if content is not None:
        paths.METRICS.write_text(content, encoding="utf-8")
    with pytest.raises(BadInput, match=r"metrics.json has no RMSE of the submission .*`dvc repro evaluate` makes it"):
        validation_rmse()


@pytest.mark.parametrize(
    "arguments",
    [(), ("-m", "a", "--refresh"), ("--refresh", "--tag"), ("--refresh", "--force"), ("-m", "a", "--deadline", "0")],
)
def test_arguments_that_make_no_sense_are_refused(tmp_path, repo, arguments):
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.upload", *arguments],
        cwd=tmp_path,
        env={"PYTHONPATH": str(repo)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "upload: error: " in done.stderr
