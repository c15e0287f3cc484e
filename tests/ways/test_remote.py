"""A training at a Kaggle on this machine, which really runs what is pushed: from the push to the stage found done."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copy, copytree, make_archive

import psutil
import pytest
import yaml
from PIL import Image

from pipeline import paths, remote
from pipeline.base.errors import BadInput
from pipeline.base.files import sha256
from pipeline.kaggle import client
from tests.helpers.children import wait_for, wait_for_checkpoint
from tests.helpers.repository import Repository
from tools.kaggle_server.contest import FILES as DOWNLOAD
from tools.kaggle_server.kernels import Kernels
from tools.kaggle_server.server import COMPETITION, KEY, STORE, USER, Answer, KaggleServer, download, redirect

pytestmark = pytest.mark.slow
FEW = {"steps": 6, "batch_size": 2, "validate_every": 3, "checkpoint_every": 2, "filters": 2}
SETTINGS = {
    "systems": ["residual"],
    "fetch.source": "archive",
    "split.validation_pairs": 3,
    "augment.turns": ["original"],
    "augment.shards": 1,
    **{f"residual.{name}": value for name, value in FEW.items()},
}


@dataclass
class Laptop(Repository):
    """A repository whose account is at `kernels`."""

    kernels: Kernels = field(kw_only=True)

    def remote(self, *arguments: str, status: int = 0) -> str:
        output = self.run(sys.executable, "-m", "pipeline.remote", "residual", *arguments, status=status)
        assert KEY not in output and "Traceback" not in output, output
        return output

    def start_remote(self, *arguments: str) -> subprocess.Popen:
        return self.start(sys.executable, "-m", "pipeline.remote", "residual", *arguments)

    def repro(self, *stages: str) -> str:
        return self.run("dvc", "repro", *stages)


@pytest.fixture(scope="module")
def archive(tmp_path_factory, demo_competition) -> Path:
    return copytree(demo_competition.raw, tmp_path_factory.mktemp("archive") / "photo-reconstruction")


@pytest.fixture(scope="module")
def new_laptop(tmp_path_factory, new_project, archive, repo, environment_of):
    """`new_laptop(kernels, {"residual.steps": 3})`: a repository that has made everything that a training needs."""

    def make(kernels: Kernels, changes: dict) -> Laptop:
        folder = tmp_path_factory.mktemp("laptop")
        new_project(folder, SETTINGS | {"fetch.archive": str(archive)} | changes)
        for name in ("requirements.txt", "requirements-gpu.txt", "requirements-diffusion.txt", "constraints.txt"):
            copy(repo / name, folder / name)
        home = tmp_path_factory.mktemp("home")
        laptop = Laptop(folder, environment_of(home) | kernels.server.environment(home), kernels=kernels)
        laptop.repro("split", "augment")
        laptop.commit()
        return laptop

    return make


@pytest.fixture(scope="module")
def kernels(tmp_path_factory, archive):
    with KaggleServer() as server, Kernels(server, tmp_path_factory.mktemp("kaggle"), archive) as kernels:
        yield kernels
        assert not [request for request in server.requests if request.method == "CONNECT"], "it tried the real site"


@dataclass(frozen=True)
class Walk:
    """The first training: a repository before it and after it, what the commands printed."""

    before: Path
    laptop: Laptop
    output: str


@pytest.fixture(scope="module")
def walk(tmp_path_factory, new_laptop, kernels) -> Walk:
    """A training whose first command is interrupted while its kernel runs; the second brings the model back."""
    laptop = new_laptop(kernels, {})
    before = copytree(laptop.folder, tmp_path_factory.mktemp("before") / "laptop", symlinks=True)
    process = laptop.start_remote()
    assert any("remote: pushed" in line for line in process.stdout)
    assert "another command is waiting for this training" in laptop.remote(status=1)
    process.send_signal(signal.SIGINT)
    end, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    page = f"https://www.kaggle.com/code/{USER}/{kernels.pushed[0]}"
    assert end.endswith(f"remote: interrupted while {page} runs on; the same command goes on from here\n")
    return Walk(before, laptop, laptop.remote())


@pytest.fixture
def again(walk, tmp_path) -> Laptop:
    """The repository as it was before the training, which Kaggle has finished."""
    folder = copytree(walk.before, tmp_path / "laptop", symlinks=True)
    return Laptop(folder, walk.laptop.environment, kernels=walk.laptop.kernels)


@pytest.fixture
def remote_here(again, monkeypatch, capsys):
    """`remote_here()` runs the command in this process, in that repository, and returns what it printed."""
    monkeypatch.chdir(again.folder)
    for name, value in again.environment.items():
        monkeypatch.setenv(name, value)

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["remote", *(arguments or ["residual"])])
        client.client.cache_clear()
        remote.main()
        return capsys.readouterr().err

    yield call
    client.client.cache_clear()


def nothing_placed(folder: Path) -> bool:
    return not (folder / paths.MODELS / "residual").exists() and not (folder / paths.CURVES / "residual").exists()


def test_a_system_is_trained_there_and_dvc_finds_its_stage_done(walk, kernels):
    laptop = walk.laptop
    assert kernels.pushed == [slug for slug in kernels.pushed if slug.startswith("train-residual-")]
    assert "was pushed before" in walk.output and len(kernels.pushed) == 1
    for line in ("kernel: images, split and shards are those at home", "step 6: validation RMSE", "kernel: done"):
        assert walk.output.count(line) == 1
    assert "data/model/residual is in place, trained on 1 x CPU in" in walk.output
    card = json.loads((laptop.folder / paths.MODELS / "residual/card.json").read_text())
    assert card["split"] == sha256(laptop.folder / paths.SPLIT) and card["devices"] == "1 x CPU"
    assert laptop.run("git", "status", "--porcelain").split() == ["M", "dvc.lock", "??", "reports/"]
    output = laptop.run("dvc", "repro", "--dry", "train@residual", "match")
    assert "Stage 'train@residual' didn't change, skipping" in output and "Running stage 'match'" in output
    assert "train@residual is up to date; nothing to train" in laptop.remote()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"residual.steps": 7}, "residual.steps"),
        ({"train.seed": 8}, "train.seed"),
        ("data/split.csv", "data/split.csv"),
        ("data/augmented/shard-00000.tfrecord", "data/augmented"),
        ("pipeline/train.py", "pipeline/train.py"),
        ("pipeline/systems/residual/network.py", "pipeline/systems/residual"),
    ],
    ids=str,
)
def test_a_stage_that_changed_meanwhile_is_named_and_nothing_is_placed(
    walk, again, kernels, params_file, monkeypatch, change, named
):
    monkeypatch.chdir(again.folder)
    output = kernels.output(kernels.pushed[0])
    if isinstance(change, dict):
        params = yaml.safe_load(Path("params.yaml").read_text())
        ((name, value),) = change.items()
        section, key = name.split(".")
        params[section][key] = value
        Path("params.yaml").write_text(yaml.safe_dump(params))
    else:
        path = Path(change) if Path(change).exists() else next(Path(change).parent.iterdir())
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data + b"\n")
    with pytest.raises(BadInput, match=f"not placed: {named} here differ"):
        remote.place(remote.Job("residual", "", {}, "", 0.0), output)
    assert nothing_placed(again.folder)


@pytest.mark.parametrize(
    ("change", "named"), [({"split": "0"}, "split"), ({"settings": {"steps": 7}}, "steps"), ({"model": "x"}, "system")]
)
def test_a_card_of_another_training_is_refused(again, kernels, tmp_path, monkeypatch, change, named):
    monkeypatch.chdir(again.folder)
    output = copytree(kernels.output(kernels.pushed[0]), tmp_path / "output")
    card = json.loads((output / "model/card.json").read_text())
    for name, value in change.items():
        card[name] = card[name] | value if isinstance(value, dict) else value
    (output / "model/card.json").write_text(json.dumps(card))
    with pytest.raises(BadInput, match=f"not placed: its card differs in {named};"):
        remote.place(remote.Job("residual", "", {}, "", 0.0), output)
    assert nothing_placed(again.folder)


@pytest.mark.parametrize("damage", ["cut off", "missing", "error page", "no result"])
def test_a_damaged_output_is_named_and_nothing_is_placed(again, remote_here, kernels, damage):
    slug = kernels.pushed[0]
    name = "result.json" if damage == "no result" else "model/last.weights.h5"
    path, key = kernels.output(slug) / name, ("GET", f"/output/{slug}/{name}")
    data, known = path.read_bytes(), kernels.server.answers.get(key)
    if damage in ("cut off", "error page"):
        kernels.server.answers[key] = Answer(body=data[:-1]) if damage == "cut off" else Answer(503, b"<html>")
    else:
        path.unlink()
    with pytest.raises(BadInput, match="has no usable result" if damage == "no result" else f"{name} in the output of"):
        remote_here()
    path.write_bytes(data)
    kernels.server.answers[key] = known or Answer(body=path)
    assert nothing_placed(again.folder) and not again.run("git", "status", "--porcelain")
    if damage == "cut off":
        assert "is in place" in remote_here() and len(kernels.pushed) == 1


def test_what_cannot_be_trained_there_is_refused_before_anything_is_sent(remote_here, kernels):
    asked, params = len(kernels.server.requests), Path("params.yaml").read_text()
    with pytest.raises(BadInput, match="systems` in params.yaml does not list pix2pix"):
        remote_here("pix2pix")
    for change, message in {
        "source: demo": "fetch.source is demo, but Kaggle has the real competition",
        "source: kaggle": "params.yaml changed since the commit: `git add -A && git commit` first",
    }.items():
        Path("params.yaml").write_text(params.replace("source: archive", change))
        with pytest.raises(BadInput, match=message):
            remote_here()
    Path("params.yaml").write_text(params)
    paths.SPLIT.unlink()
    with pytest.raises(BadInput, match="split must be up to date first: `dvc repro split augment`"):
        remote_here()
    assert len(kernels.server.requests) == asked


def test_the_submission_has_the_bytes_of_a_local_training(walk, again, tmp_path):
    placed = copytree(walk.laptop.folder, tmp_path / "placed", symlinks=True)
    remote_one = Laptop(placed, walk.laptop.environment, kernels=walk.laptop.kernels)
    assert "Running stage 'train" not in remote_one.repro("write")
    assert "Running stage 'train" in again.repro("write")
    assert (placed / paths.SUBMISSION).read_bytes() == (again.folder / paths.SUBMISSION).read_bytes()


@pytest.mark.parametrize(
    "appears", [".work/remote/*/output.partial/result.json", "data/model/residual.partial", "data/model/residual"]
)
def test_after_kill_9_the_same_command_finishes(walk, again, appears):
    process = again.start_remote()
    while process.poll() is None and not list(again.folder.glob(appears)):
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert "is in place" in again.remote() or "up to date" in again.remote()
    for folder in (paths.MODELS, paths.CURVES):
        files = {path.name: path.read_bytes() for path in (again.folder / folder / "residual").iterdir()}
        assert files == {path.name: path.read_bytes() for path in (walk.laptop.folder / folder / "residual").iterdir()}
    assert (again.folder / "dvc.lock").read_bytes() == (walk.laptop.folder / "dvc.lock").read_bytes()
    assert not list(again.folder.glob("**/*.partial"))


def test_a_kernel_that_failed_or_was_cancelled_is_pushed_again_only_when_asked(again, kernels):
    slug = kernels.pushed[0]
    for status, what in (("CANCEL_ACKNOWLEDGED", "was cancelled"), ("ERROR", "failed: exit 0")):
        kernels.ends[slug] = status
        output = again.remote(status=1)
        assert "kernel: done" in output and f"{slug} {what}" in output.splitlines()[-1]
    count = len(kernels.pushed)
    assert nothing_placed(again.folder)
    assert "is in place" in again.remote("--again") and kernels.pushed[count:] == [slug]


def test_other_images_there_end_the_kernel_before_the_training(new_laptop, kernels, archive, tmp_path, monkeypatch):
    zipped = make_archive(str(tmp_path / COMPETITION), "zip", archive)
    kernels.server.answers[DOWNLOAD] = redirect(f"{STORE}/{COMPETITION}.zip")
    kernels.server.answers["GET", f"/{COMPETITION}.zip"] = download(Path(zipped))
    # With a seed of its own, or it would find the kernel of the first training.
    laptop = new_laptop(kernels, {"fetch.source": "kaggle", "fetch.checksum": "", "train.seed": 8})
    other = copytree(archive, tmp_path / "other")
    path = next(other.rglob("*.png"))
    image = Image.open(path)
    image.load()
    image.save(path, compress_level=1)
    monkeypatch.setattr(kernels, "archive", other)
    output = laptop.remote(status=1)
    assert (
        "kernel: data/raw, data/augmented made here differ from those at home" in output
        and "Running stage 'train" not in output
    )
    assert output.splitlines()[-1].startswith("remote: the kernel https://") and nothing_placed(laptop.folder)
    monkeypatch.setattr(kernels, "archive", archive)
    monkeypatch.setattr(kernels, "mount", "{}")
    assert "is in place" in laptop.remote("--again")


@contextmanager
def stopped(group: int) -> Iterator[None]:
    os.killpg(group, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(group, signal.SIGCONT)


def test_a_training_that_runs_out_of_time_goes_on_in_the_next_kernel(new_laptop, kernels, tmp_path, monkeypatch):
    laptop = new_laptop(kernels, {"residual.steps": 60, "residual.validate_every": 30})
    whole = Laptop(copytree(laptop.folder, tmp_path / "whole", symlinks=True), laptop.environment, kernels=kernels)
    pushed = len(kernels.pushed)
    monkeypatch.setattr(kernels, "limit", "100")  # its training begins within that on a busy machine too
    process = laptop.start_remote()
    assert any("remote: pushed" in line for line in process.stdout)
    monkeypatch.setattr(kernels, "limit", "")
    kernel = kernels.folder / kernels.pushed[pushed]
    wait_for_checkpoint(kernel / "scratch", process)
    (training,) = psutil.Process(kernels.running[kernel.name].pid).children()
    with stopped(training.pid):  # or it might end in time
        whole.repro("train@residual")
        wait_for(lambda: "100 s are over" in (kernel / "log").read_text(encoding="utf-8"), process)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert kernels.pushed[pushed:] == [kernel.name, f"{kernel.name}-2"]
    assert "ran out at step" in output and f"where {kernel.name} stopped" in output
    assert re.search(r"train: resuming after step [1-9]", output)
    for name in ("best", "last"):
        model = paths.MODELS / "residual" / f"{name}.weights.h5"
        assert sha256(laptop.folder / model) == sha256(whole.folder / model)
