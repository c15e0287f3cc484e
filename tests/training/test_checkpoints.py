"""Checkpoints are loaded to the bit, a damaged one never; two are kept, and none is deleted for a fault."""

import hashlib
import json
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.training.checkpoints import fingerprint, list_checkpoints, load_checkpoint, save_checkpoint


def some_arrays(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "generator/0": rng.normal(size=(3, 2)).astype(np.float32),
        "generator/1": np.array([np.nan, -0.0, 1e-45, np.inf], np.float32),
        "optimizer/0": np.array(rng.integers(0, 2**40), np.int64),
        "seed/0": rng.integers(0, 2**32, 2, dtype=np.uint32),
        "best/0": np.empty((0, 4), np.float32),
    }


def some_state(step: int) -> dict:
    return {"step": step, "losses": [{"step": 1, "generator": 0.1 + 0.2}], "sums": {"a": 1e-300}, "validation": []}


def same(found, step: int) -> bool:
    """Whether these are the arrays and the state of a step, to the bit."""
    arrays, expected = (
        {name: (v.dtype, v.shape, v.tobytes()) for name, v in a.items()} for a in (found[0], some_arrays(step))
    )
    return found[1] == some_state(step) and arrays == expected


def save(folder: Path, *steps: int) -> None:
    for step in steps:
        save_checkpoint(folder, step, some_arrays(step), some_state(step))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_is_loaded_as_saved_to_the_bit(tmp_path):
    save(tmp_path, 3)
    assert same(load_checkpoint(tmp_path), 3)


def test_without_checkpoints_there_is_none(tmp_path):
    assert load_checkpoint(tmp_path) is None
    assert load_checkpoint(tmp_path / "absent") is None


def test_the_latest_is_loaded_and_two_are_kept(tmp_path):
    save(tmp_path, 2, 9, 10, 100)
    assert names(tmp_path) == ["step-00000010.npz", "step-00000100.npz"]
    assert list_checkpoints(tmp_path) == sorted(tmp_path.iterdir())
    assert same(load_checkpoint(tmp_path), 100)


def test_the_same_state_is_written_as_the_same_bytes(tmp_path):
    for name in ("once", "again"):
        save(tmp_path / name, 4)
    once, again = (list_checkpoints(tmp_path / name)[0].read_bytes() for name in ("once", "again"))
    assert once == again


def test_a_fingerprint_changes_with_the_facts_and_with_every_byte_of_the_files(tmp_path):
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    for path, content in ((one, b"1"), (two, b"2"), (three, b"1")):
        path.write_bytes(content)
    key = fingerprint([one, two], {"a": 1, "b": 2})
    assert key == fingerprint([three, two], {"b": 2, "a": 1})
    others = [fingerprint(files, {"a": 1, "b": 2}) for files in ([two, one], [one], [one, one])]
    others += [fingerprint([one, two], facts) for facts in ({"a": 1}, {"a": 1, "b": 3})]
    assert len({key, *others}) == 6


def test_a_fingerprint_is_the_same_in_every_process():
    """It is a name on disk: no hash that each process salts."""
    assert fingerprint([], {"a": 1}) == hashlib.sha256(b'{"a": 1}').hexdigest()


def test_a_killed_save_leaves_no_checkpoint_and_the_next_one_replaces_it(tmp_path):
    save(tmp_path, 5)
    (tmp_path / "step-00000006.npz.partial").write_bytes(b"PK")
    assert same(load_checkpoint(tmp_path), 5)
    save(tmp_path, 6)
    assert same(load_checkpoint(tmp_path), 6) and len(names(tmp_path)) == 2


@pytest.mark.parametrize("every", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_a_flipped_byte_anywhere_is_noticed_or_changes_nothing(tmp_path, capsys, every):
    """Anywhere: in the data, in the headers of the arrays, in the zip's own tables."""
    save(tmp_path, 1, 2)
    latest = list_checkpoints(tmp_path)[-1]
    data, noticed = latest.read_bytes(), 0
    for at in range(0, len(data), every):
        latest.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        found = load_checkpoint(tmp_path)
        if same(found, 2):  # a time stamp, or padding
            assert latest.exists()
            continue
        assert same(found, 1) and not latest.exists()
        assert str(latest) in capsys.readouterr().err
        noticed += 1
    assert noticed > len(data) / every / 2


@pytest.mark.parametrize("share", [0, 0.3, 0.7, 0.999])
def test_a_cut_checkpoint_is_moved_aside_and_the_earlier_one_loaded(tmp_path, capsys, share):
    save(tmp_path, 1, 2)
    latest = list_checkpoints(tmp_path)[-1]
    cut = latest.read_bytes()[: int(share * latest.stat().st_size)]
    latest.write_bytes(cut)
    assert same(load_checkpoint(tmp_path), 1)
    aside = latest.with_name("step-00000002.npz.damaged")
    (message,) = capsys.readouterr().err.splitlines()
    assert f"{latest} is damaged" in message and message.endswith(f"it is now {aside}")
    assert names(tmp_path) == ["step-00000001.npz", aside.name] and aside.read_bytes() == cut
    save(tmp_path, 2, 3)
    assert same(load_checkpoint(tmp_path), 3) and aside.read_bytes() == cut


@pytest.mark.parametrize("broken", [(json, "loads"), (np, "load"), (zipfile.ZipFile, "testzip")])
def test_a_type_error_while_reading_is_raised_and_no_checkpoint_is_lost(tmp_path, capsys, monkeypatch, broken):
    """It is a fault of the code. Only damage moves a checkpoint aside."""

    def fail(*_: object, **__: object) -> None:
        raise TypeError("a fault of the code")

    save(tmp_path, 1, 2)
    with monkeypatch.context() as patch, pytest.raises(TypeError, match="a fault of the code"):
        patch.setattr(*broken, fail)
        load_checkpoint(tmp_path)
    assert names(tmp_path) == ["step-00000001.npz", "step-00000002.npz"] and not capsys.readouterr().err
    assert same(load_checkpoint(tmp_path), 2)


CHANGES = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=6)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(CHANGES, st.floats(0, 1))
def test_whatever_bytes_are_changed_or_cut_only_a_saved_state_is_loaded(changes, kept):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save(folder, 1, 2)
        latest = list_checkpoints(folder)[-1]
        data = bytearray(latest.read_bytes())
        for share, change in changes:
            data[int(share * len(data))] ^= change
        latest.write_bytes(data[: round(kept * len(data))])
        found = load_checkpoint(folder)
        assert same(found, 2 if latest.exists() else 1)


def test_an_array_of_absurd_size_is_refused_before_it_is_allocated(tmp_path, capsys):
    save(tmp_path, 1, 2)
    latest = list_checkpoints(tmp_path)[-1]
    data = latest.read_bytes()
    assert data.count(b"(3, 2), }        ") == 1
    latest.write_bytes(data.replace(b"(3, 2), }        ", b"(3, 2999999999), }"[:17]))
    assert same(load_checkpoint(tmp_path), 1)
    assert "checksum" in capsys.readouterr().err


def test_without_an_undamaged_checkpoint_there_is_none(tmp_path, capsys):
    save(tmp_path, 1, 2)
    for path in list_checkpoints(tmp_path):
        path.write_bytes(b"")
    assert load_checkpoint(tmp_path) is None
    assert len(capsys.readouterr().err.splitlines()) == 2 and not list_checkpoints(tmp_path)


def test_a_failed_save_leaves_the_earlier_ones(tmp_path):
    save(tmp_path, 1, 2)
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path, 3, some_arrays(3), {"step": object()})
    assert names(tmp_path) == ["step-00000001.npz", "step-00000002.npz"]
    assert same(load_checkpoint(tmp_path), 2)
