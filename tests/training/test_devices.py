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
    "pix2pix.shuffle_buffer": 10,
    "pix2pix.loss": "holes",
    "pix2pix.random_holes": True,
}
PROGRAM = Path(__file__).parents[1] / "helpers" / "on_devices.py"


@pytest.fixture(scope="module")
def augmented(tmp_path_factory, params_file, run_stage) -> Path:
    """A folder after the first three stages. Look, do not touch."""
    folder = tmp_path_factory.mktemp("augmented")
    params_file(folder, **SETTINGS)
    for stage in ("fetch", "split", "augment"):
        done = run_stage(stage, folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def start(augmented, tmp_path_factory, params_file, code_here) -> Callable[..., tuple[Path, subprocess.Popen]]:
    """`start("mirrored", 2, "residual")`: a folder, and the stage running in it on two devices."""

    def begin(strategy: str, devices: int, system: str, **environment: str) -> tuple[Path, subprocess.Popen]:
        folder = copytree(augmented, tmp_path_factory.mktemp("on_devices") / strategy)
        params_file(folder, **SETTINGS, **{"train.strategy": strategy})
        command = [sys.executable, str(PROGRAM), str(devices), system]
        return folder, children.start(command, folder, os.environ | code_here | environment)

    return begin


@pytest.fixture(scope="module")
def trained(start) -> Callable[[str, int, str], tuple[Path, str]]:
    """`trained("mirrored", 2, "residual")`: the folder after the stage, and its output."""

    @cache
    def train(strategy: str, devices: int, system: str) -> tuple[Path, str]:
        folder, process = start(strategy, devices, system)
        output, _ = process.communicate(timeout=200)
        assert process.returncode == 0, output
        return folder, output

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
def two_workers(start) -> Callable[[str], list[tuple[Path, str]]]:
    """`two_workers("residual")`: each worker's folder after the stage, and its output."""

    @cache
    def train(system: str) -> list[tuple[Path, str]]:
        ports = free_ports(2)
        both = [start("multi_worker", 1, system, TF_CONFIG=cluster(ports, worker)) for worker in (0, 1)]
        done = [(folder, process.communicate(timeout=200)[0], process.returncode) for folder, process in both]
        assert [status for _, _, status in done] == [0, 0], done
        return [(folder, output) for folder, output, _ in done]

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


@pytest.mark.parametrize("system", ["residual", pytest.param("pix2pix", marks=pytest.mark.slow)])
def test_two_devices_have_the_loss_curve_of_one_with_twice_the_batch(trained, system):
    (one, _), (two, output) = trained("none", 1, system), trained("mirrored", 2, system)
    assert_same_curves(two, one, system)
    assert "on 2 x CPU" in output and read_card(two / paths.MODELS / system)["devices"] == "2 x CPU"


@pytest.mark.parametrize("system", ["residual", pytest.param("pix2pix", marks=pytest.mark.slow)])
def test_two_workers_have_the_loss_curve_of_one_with_twice_the_batch(trained, two_workers, system):
    (one, _), ((first, _), _) = trained("none", 1, system), two_workers(system)
    assert_same_curves(first, one, system)


def test_only_the_first_worker_validates_and_writes(two_workers):
    (first, told), (second, told_less) = two_workers("residual")
    assert (first / paths.MODELS / "residual").is_dir() and not (second / paths.MODELS).exists()
    assert not list((second / paths.WORK).rglob("step-*"))
    assert "validation RMSE" in told and "validation RMSE" not in told_less


@pytest.mark.slow
def test_a_killed_worker_ends_the_other_and_both_resume_from_the_first_ones_checkpoint(
    start, params_file, trained, code_here
):
    ports = free_ports(2)
    both = [start("multi_worker", 1, "residual", TF_CONFIG=cluster(ports, worker)) for worker in (0, 1)]
    for folder, process in both:
        process.kill()
        process.communicate()
        changes = {"train.strategy": "multi_worker", "residual.checkpoint_every": 2}
        params_file(folder, **(SETTINGS | changes))

    def begin(folder: Path, worker: int) -> subprocess.Popen:
        environment = os.environ | code_here | {"TF_CONFIG": cluster(ports, worker)}
        return children.start([sys.executable, str(PROGRAM), "1", "residual"], folder, environment)

    first, second = (begin(folder, worker) for worker, (folder, _) in enumerate(both))
    for line in first.stdout:
        if line.startswith("step 3:"):
            break
    second.kill()
    output, _ = first.communicate(timeout=200)
    assert first.returncode, output
    again = [begin(folder, worker) for worker, (folder, _) in enumerate(both)]
    outputs = [process.communicate(timeout=200)[0] for process in again]
    assert [process.returncode for process in again] == [0, 0], outputs
    assert "resuming after step" in outputs[0]
    assert_same_curves(both[0][0], trained("none", 1, "residual")[0], "residual")


TASKS = [{"type": "worker", "index": 2}, {"type": "chief", "index": 0}]
CLUSTERS = [json.dumps({"cluster": {"worker": ["a:1", "b:1"]}, "task": task}) for task in TASKS]


@pytest.mark.parametrize("config", ["", "{", "[]", "{}", '{"cluster": {"worker": ["a:1"]}}', *CLUSTERS])
def test_without_named_workers_the_message_says_how_to_set_them(config):
    with pytest.raises(BadInput, match="multi_worker needs TF_CONFIG.*; set it as") as refusal:
        check_workers(config)
    assert ("its task is not one of its workers" in str(refusal.value)) == (config in CLUSTERS)


def test_a_cluster_in_tensorflows_format_is_accepted():
    check_workers(cluster([1, 2], 1))


def test_a_batch_that_cannot_be_cut_is_refused(start):
    folder, process = start("mirrored", 3, "pix2pix")
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 1 and not (folder / paths.MODELS).exists()
    assert output.splitlines()[-1].startswith("train: pix2pix.batch_size is 4, shared by 3 devices")


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
