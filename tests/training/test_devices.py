"""Training on several devices and workers: the loss curve of one device with the same batch, and one worker writes."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from shutil import copytree

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from pipeline import paths
from pipeline.base.errors import BadInput
from pipeline.systems.card import read_card
from pipeline.training.batches import local_part
from pipeline.training.devices import check_batch, check_workers, is_chief, on_all_replicas, replica_share
from tests.helpers import children
from tests.helpers.stages import run_here

SMALL = {
    "batch_size": 4,
    "steps": 5,
    "validate_every": 3,
    "checkpoint_every": 100,
    "filters": 4,
    "learning_rate": 1e-4,
}
SETTINGS = {
    "fetch.demo.pairs_per_class": 4,
    "fetch.demo.test_images": 2,
    "augment.shards": 2,
    "split.validation_pairs": 2,
    "train.precision": "float32",
    **{f"{system}.{name}": value for system in ("pix2pix", "residual") for name, value in SMALL.items()},
    "residual.batch_size": 16,  # one photograph in eight is seen twice: of 8 for each device, the same as of 16
    "pix2pix.shuffle_buffer": 10,
    "pix2pix.loss": "holes",
    "pix2pix.random_holes": True,
}
PROGRAM = Path(__file__).parents[1] / "helpers" / "on_devices.py"
TINY = PROGRAM.with_name("tiny_on_devices.py")


@pytest.fixture(scope="module")
def augmented(tmp_path_factory, params_file) -> Path:
    """A folder after the first three stages. Look, do not touch."""
    folder = tmp_path_factory.mktemp("augmented")
    params_file(folder, **SETTINGS)
    run_here(folder, "fetch", "split", "augment")
    return folder


@pytest.fixture(scope="module")
def new_folder(augmented, tmp_path_factory, params_file) -> Callable[..., Path]:
    """`new_folder("mirrored")`: a copy of that folder to train in."""

    def make(strategy: str, **changes: int) -> Path:
        folder = copytree(augmented, tmp_path_factory.mktemp("on_devices") / strategy)
        params_file(folder, **(SETTINGS | {"train.strategy": strategy} | changes))
        return folder

    return make


@pytest.fixture(scope="module")
def start(code_here) -> Callable[..., subprocess.Popen]:
    """`start(2, "residual", folder)`: the train stage running on two devices, in one folder after the other."""

    def begin(devices: int, system: str, *folders: Path, **environment: str) -> subprocess.Popen:
        command = [sys.executable, str(PROGRAM), str(devices), system, *map(str, folders)]
        return children.start(command, folders[0], os.environ | code_here | environment)

    return begin


@pytest.fixture(scope="module")
def trained(new_folder, start) -> Callable[[str], tuple[list[Path], str]]:
    """`trained("residual")`: three folders after the stage, and its output, on two devices.

    The first was trained on one of them, the second on both, the third was refused: its batch is odd.
    """

    @cache
    def train(system: str) -> tuple[list[Path], str]:
        folders = [new_folder("none"), new_folder("mirrored"), new_folder("mirrored", **{f"{system}.batch_size": 3})]
        output, _ = start(2, system, *folders).communicate(timeout=300)
        return folders, output

    return train


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def cluster(ports: list[int], worker: int) -> str:
    """TF_CONFIG of one worker on loopback."""
    workers = [f"127.0.0.1:{port}" for port in ports]
    return json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": worker}})


@pytest.fixture(scope="module")
def two_workers(new_folder, start) -> Callable[[str], list[tuple[Path, str]]]:
    """`two_workers("residual")`: each worker's folder after the stage, and its output."""

    @cache
    def train(system: str) -> list[tuple[Path, str]]:
        ports = free_ports(2)
        folders = [new_folder("multi_worker") for _ in ports]
        both = [start(1, system, folder, TF_CONFIG=cluster(ports, i)) for i, folder in enumerate(folders)]
        outputs = [process.communicate(timeout=200)[0] for process in both]
        assert [process.returncode for process in both] == [0, 0], outputs
        return list(zip(folders, outputs, strict=True))

    return train


def curves(folder: Path, system: str) -> list[pd.DataFrame]:
    return [pd.read_csv(folder / paths.CURVES / system / f"{name}.csv") for name in ("losses", "validation")]


def assert_same_curves(folder: Path, other: Path, system: str) -> None:
    """Equal within rounding, which grows from step to step."""
    for found, expected in zip(curves(folder, system), curves(other, system), strict=True):
        assert list(found.columns) == list(expected.columns) and len(found) > 1
        np.testing.assert_allclose(found, expected, rtol=3e-5)
    assert not np.allclose(
        *curves(folder, system)[0].to_numpy()[:2, 1:], rtol=1e-2
    )  # else the comparison proves little


def test_two_devices_train_a_tiny_network_as_one_does_and_cut_no_odd_batch(code_here):
    done = subprocess.run(
        [sys.executable, str(TINY)], env=os.environ | code_here, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    one, two = found["none"], found["mirrored"]
    assert (one["devices"], two["devices"]) == ("1 x CPU", "2 x CPU")
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-5)
    np.testing.assert_allclose(two["weights"], one["weights"], rtol=1e-4, atol=1e-6)
    assert one["losses"][-1] < 0.9 * one["losses"][0]
    assert found["refused"].startswith("residual.batch_size is 3, shared by 2 devices")


@pytest.mark.slow
@pytest.mark.parametrize("system", ["residual", "pix2pix"])
def test_two_devices_have_the_loss_curve_of_one_with_twice_the_batch(trained, system):
    (one, two, _), output = trained(system)
    assert (two / paths.MODELS).exists(), output
    assert_same_curves(two, one, system)
    devices = [read_card(folder / paths.MODELS / system)["devices"] for folder in (one, two)]
    assert devices == ["1 x CPU", "2 x CPU"] and "on 1 x CPU" in output and "on 2 x CPU" in output


@pytest.mark.slow
def test_a_batch_that_cannot_be_cut_is_refused(trained):
    (*_, refused), output = trained("residual")
    assert output.splitlines()[-1].startswith("train: residual.batch_size is 3, shared by 2 devices")
    assert not (refused / paths.MODELS).exists()


@pytest.mark.slow
@pytest.mark.parametrize("system", ["residual", "pix2pix"])
def test_two_workers_have_the_loss_curve_of_one_with_twice_the_batch(trained, two_workers, system):
    ((one, *_), _), ((first, _), _) = trained(system), two_workers(system)
    assert_same_curves(first, one, system)


@pytest.mark.slow
def test_only_the_first_worker_validates_and_writes(two_workers):
    (first, told), (second, told_less) = two_workers("residual")
    assert (first / paths.MODELS / "residual").is_dir() and not (second / paths.MODELS).exists()
    assert not list((second / paths.WORK).rglob("step-*"))
    assert "validation RMSE" in told and "validation RMSE" not in told_less


@pytest.mark.slow
def test_a_killed_worker_ends_the_other_and_both_resume_from_the_first_ones_checkpoint(new_folder, start, trained):
    ports = free_ports(2)
    folders = [new_folder("multi_worker", **{"residual.checkpoint_every": 2}) for _ in ports]

    def begin() -> list[subprocess.Popen]:
        return [start(1, "residual", folder, TF_CONFIG=cluster(ports, i)) for i, folder in enumerate(folders)]

    first, second = begin()
    for line in first.stdout:
        if line.startswith("step 3:"):
            break
    second.kill()
    output, _ = first.communicate(timeout=200)
    assert first.returncode, output
    again = begin()
    outputs = [process.communicate(timeout=200)[0] for process in again]
    assert [process.returncode for process in again] == [0, 0], outputs
    assert "resuming after step" in outputs[0]
    (one, *_), _ = trained("residual")
    assert_same_curves(folders[0], one, "residual")


TASKS = [{"type": "worker", "index": 2}, {"type": "chief", "index": 0}]
CLUSTERS = [json.dumps({"cluster": {"worker": ["a:1", "b:1"]}, "task": task}) for task in TASKS]


@pytest.mark.parametrize("config", ["", "{", "[]", "{}", '{"cluster": {"worker": ["a:1"]}}', *CLUSTERS])
def test_without_named_workers_the_message_says_how_to_set_them(config):
    with pytest.raises(BadInput, match="multi_worker needs TF_CONFIG.*; set it as") as refusal:
        check_workers(config)
    assert ("its task is not one of its workers" in str(refusal.value)) == (config in CLUSTERS)


def test_a_cluster_in_tensorflows_format_is_accepted():
    check_workers(cluster([1, 2], 1))


def test_one_device_takes_whole_batches_and_is_the_chief():
    strategy = tf.distribute.get_strategy()
    assert is_chief(strategy)
    check_batch(strategy, "pix2pix", 3)
    assert float(replica_share(tf.constant([0.1, 0.7]))) == float(replica_share()) == 1.0
    done = []
    step = on_all_replicas(lambda number: {"twice": 2 * number}, then=lambda: done.append(1))
    assert float(step(tf.constant(3.0))["twice"]) == 6.0 and done


def test_the_workers_parts_make_up_the_batch():
    workers = [tf.distribute.InputContext(3, worker, 6) for worker in range(3)]
    assert [number for worker in workers for number in range(12)[local_part(12, worker)]] == list(range(12))
    assert local_part(12, workers[1]) == slice(4, 8)
