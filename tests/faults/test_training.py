"""The train stage stopped, or with damaged or changed inputs: no work is lost, and it never trains on damaged data."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from shutil import copytree

import cv2
import pytest
import yaml

from pipeline import paths, train
from pipeline.base.errors import BadInput
from pipeline.competition.index import masked_path, read_index, target_path
from pipeline.params import load_params
from pipeline.systems.card import CARD, read_card
from pipeline.systems.residual import training as residual
from pipeline.training.checkpoints import save_checkpoint
from pipeline.training.devices import describe, use_devices
from pipeline.training.shards import list_shards
from tests.helpers.stages import train_here

SYSTEMS = ("pix2pix", "residual")
Interrupted = tuple[Path, subprocess.CompletedProcess]


def set_params(folder: Path, system: str, **changes) -> None:
    path = folder / paths.PARAMS
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content[system] |= changes
    path.write_text(yaml.safe_dump(content), encoding="utf-8")


def train_to_step_10(start_stage, folder: Path, system: str, **changes) -> subprocess.Popen:
    """The stage with changed settings, when it has validated at step 10."""
    set_params(folder, system, **changes)
    process = start_stage(f"train {system}", folder)
    for line in process.stdout:
        if line.startswith("step 10:"):
            return process
    pytest.fail("it ended before step 10")


def checkpoints(folder: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("step-")) for path in (folder / paths.WORK).rglob("step-*.npz"))


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory, augmented_once, start_stage) -> Callable[..., Interrupted]:
    """`interrupted("pix2pix")`: a folder whose training was interrupted by Ctrl-C, and the stage's end."""

    @cache
    def interrupt(system: str, number: signal.Signals = signal.SIGINT) -> Interrupted:
        folder = copytree(augmented_once, tmp_path_factory.mktemp("interrupted") / "folder")
        process = train_to_step_10(start_stage, folder, system, checkpoint_every=1000)
        process.send_signal(number)
        output, _ = process.communicate(timeout=120)
        return folder, subprocess.CompletedProcess(process.args, process.returncode, output)

    return interrupt


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [*((system,) for system in SYSTEMS), ("pix2pix", signal.SIGTERM)])
def test_ctrl_c_or_sigterm_saves_a_checkpoint_and_one_line_says_how_to_continue(interrupted, stopped):
    folder, done = interrupted(*stopped)
    assert done.returncode == 130
    (step,) = checkpoints(folder)
    assert 10 <= step < 40
    line = f"train: interrupted after step {step}, which was saved; `dvc repro` goes on from here"
    assert done.stdout.splitlines()[-1] == line and "Traceback" not in done.stdout
    assert not (folder / paths.MODELS).exists() and not list(folder.rglob("*.partial"))


@pytest.mark.slow
def test_a_signal_stops_a_training_after_its_step_and_the_next_one_begins_there(augmented, monkeypatch):
    """The signal comes when step 2 has been saved."""

    def save_and_stop(*checkpoint: object) -> None:
        save_checkpoint(*checkpoint)
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="after step 3, which was saved"):
        patch.setattr(train, "save_checkpoint", save_and_stop)
        train_here(augmented, "residual")
    assert checkpoints(augmented) == [2, 3]
    monkeypatch.chdir(augmented)
    strategy = use_devices("none")
    run = train.load_run("residual", load_params(), strategy)
    state = residual.begin(run.settings, "float32", run.data.seed)
    state.devices = describe(strategy)
    train.resume(state, train.checkpoint_folder(run, state))
    assert state.step == 3


@pytest.mark.slow
def test_a_signal_after_the_last_step_loses_nothing(augmented, start_stage):
    set_params(augmented, "residual", steps=2)
    model = augmented / paths.MODELS / "residual"
    process = start_stage("train residual", augmented)
    while process.poll() is None and not list(augmented.glob(f"{paths.MODELS}/residual*")):
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0 and read_card(model)["last"]["step"] == 2 and checkpoints(augmented) == []


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_the_next_run_resumes_there_and_ends_with_the_same_bytes(
    interrupted, tmp_path, finished_once, run_stage, system
):
    folder = copytree(interrupted(system)[0], tmp_path / "folder")
    (step,) = checkpoints(folder)
    done = run_stage(f"train {system}", folder)
    assert done.returncode == 0 and f"resuming after step {step}" in done.stderr
    for where in (paths.MODELS / system, paths.CURVES / system):
        files = sorted(path.name for path in (finished_once / where).iterdir())
        assert sorted(path.name for path in (folder / where).iterdir()) == files
        for path in (where / name for name in files if name != CARD):
            assert (folder / path).read_bytes() == (finished_once / path).read_bytes(), path
    card, expected = (read_card(one / paths.MODELS / system) for one in (folder, finished_once))
    expected["settings"]["checkpoint_every"] = 1000
    assert card == expected
    assert checkpoints(folder) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("system", "part", "split"),
    [
        ("pix2pix", masked_path, "validation"),
        ("pix2pix", target_path, "validation"),
        ("residual", target_path, "train"),
    ],
)
def test_with_a_changed_image_training_starts_anew(interrupted, tmp_path, start_stage, system, part, split):
    """An image of a validation pair, or a target that residual reads without the shards."""
    folder = copytree(interrupted(system)[0], tmp_path / "folder")
    path = part(folder / paths.RAW, pairs_of(folder, split)[-1])
    cv2.imwrite(str(path), 255 - cv2.imread(str(path)))
    process = start_stage(f"train {system}", folder)
    line = next(line for line in process.stdout if line.startswith("train: "))
    process.kill()
    process.communicate(timeout=60)
    assert "parameters" in line and "resuming" not in line


def pairs_of(folder: Path, split: str) -> list[dict]:
    """The training pairs or the validation pairs."""
    index = read_index(folder / paths.SPLIT)
    return index[index["split"] == split].to_dict("records")


@pytest.mark.slow
@pytest.mark.parametrize("split", ["validation", "train"])
def test_a_damaged_photograph_ends_the_residual_training_in_one_line(augmented, run_stage, split):
    path = target_path(augmented / paths.RAW, pairs_of(augmented, split)[0])
    path.write_bytes(path.read_bytes()[:200])
    done = run_stage("train residual", augmented)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("train: ") and path.name in last and done.stderr.count(path.name) == 1
    assert not (augmented / paths.MODELS).exists()


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "fault"), [((), "required: system"), (("gan",), "'pix2pix', 'residual'")])
def test_without_a_known_system_the_message_lists_them(monkeypatch, capsys, arguments, fault):
    monkeypatch.setattr(sys, "argv", ["train", *arguments])
    with pytest.raises(SystemExit) as end:
        train.main()
    said = capsys.readouterr().err
    assert end.value.code == 2 and fault in said.splitlines()[-1] and "{pix2pix,residual," in said


@pytest.mark.parametrize("fault", ["cut", "flipped", "missing"])
def test_a_damaged_shard_ends_it_in_one_line_before_the_first_step(augmented, fault):
    shard = augmented / paths.AUGMENTED / "001-of-003.tfrecord"
    data = bytearray(shard.read_bytes())
    first = 16 + int.from_bytes(data[:8], "little")  # TFRecord: length, its checksum, the record, its checksum
    data[len(data) // 2] ^= 0x40
    shard.write_bytes(data if fault == "flipped" else data[:first])
    if fault == "missing":
        shard.unlink()
    with pytest.raises(BadInput) as refusal:
        train_here(augmented, "pix2pix")
    (line,) = str(refusal.value).splitlines()
    assert line.startswith(f"{paths.AUGMENTED}/001-of-003.tfrecord is ") and "`dvc repro -sf augment`" in line
    assert not (augmented / paths.WORK).exists() and not (augmented / paths.MODELS).exists()


@pytest.mark.slow
def test_the_named_remedy_works_although_dvc_sees_no_damage_and_its_cache_is_damaged_too(
    tmp_path, new_project, tiny_settings, run
):
    folder = new_project(tmp_path / "project", tiny_settings)
    run(folder, "dvc", "repro", "augment")
    for name in ("data/augmented", ".dvc/cache"):
        for path in (folder / name).rglob("*"):
            if path.is_file() and path.stat().st_size > 100_000:  # a shard
                damage_unseen(path)
    with pytest.raises(BadInput, match="is damaged"):
        list_shards(folder / paths.AUGMENTED)
    assert "didn't change" in run(folder, "dvc", "repro", "augment").stdout
    run(folder, "dvc", "repro", "-sf", "augment")
    assert len(list_shards(folder / paths.AUGMENTED)[0]) == 3


def damage_unseen(path: Path) -> None:
    """Change bytes of a file, but neither its size nor its time."""
    before = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(b"damage")
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.slow
def test_a_shard_damaged_while_it_is_read_ends_it_in_one_line(augmented, start_stage):
    process = train_to_step_10(start_stage, augmented, "pix2pix", steps=100_000, checkpoint_every=1)
    for path in (augmented / paths.AUGMENTED).glob("*.tfrecord"):
        with path.open("r+b") as file:
            file.write(b"\xff" * 20)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 1 and "Traceback" not in output
    last = output.splitlines()[-1]
    assert last.startswith("train: a shard in data/augmented changed while it was read (") and "dvc repro" in last
    assert checkpoints(augmented)


@pytest.mark.slow
def test_weights_that_are_not_finite_end_it_in_one_line(augmented, run_stage):
    set_params(augmented, "pix2pix", learning_rate=1e39, steps=1)
    done = run_stage("train pix2pix", augmented)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("train: after step 1 the weights are not finite") and "learning_rate" in last
    assert not (augmented / paths.MODELS).exists()


def without_avx512(command: list[str], flags: Path) -> list[str]:
    """The command, run where Linux and oneDNN report a processor without AVX-512."""
    mounted = 'mount --bind "$0" /proc/cpuinfo && exec "$@"'
    return ["unshare", "--mount", "env", "ONEDNN_MAX_CPU_ISA=AVX2", "sh", "-c", mounted, str(flags), *command]


@pytest.mark.slow
def test_a_bfloat16_model_fills_where_the_processor_cannot_compute_in_it(finished, code_here, run_stage, tree):
    """TensorFlow would abort the process."""
    flags = finished / "cpuinfo"
    flags.write_text("flags : fpu sse avx avx2\n", encoding="ascii")
    if subprocess.run(without_avx512(["true"], flags), capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount over /proc/cpuinfo")
    float32 = tree(finished / paths.FILLED)
    for system in SYSTEMS:
        card = finished / paths.MODELS / system / CARD
        card.write_text(card.read_text(encoding="utf-8").replace('"float32"', '"mixed_bfloat16"'), encoding="utf-8")
    done = subprocess.run(
        without_avx512([sys.executable, "-m", "pipeline.predict"], flags),
        cwd=finished,
        env=os.environ | code_here,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "this processor cannot compute in mixed_bfloat16" in done.stderr
    assert tree(finished / paths.FILLED).keys() == float32.keys()
