"""Checkpoints: what is saved is loaded to the bit, a damaged one never, and two are kept."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.training.checkpoints import list_checkpoints, load_checkpoint, save_checkpoint


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
    arrays, state = found
    expected = some_arrays(step)
    return (
        state == some_state(step)
        and arrays.keys() == expected.keys()
        and all(
            arrays[name].dtype == value.dtype
            and arrays[name].shape == value.shape
            and arrays[name].tobytes() == value.tobytes()
            for name, value in expected.items()
        )
    )


def save(folder, *steps: int) -> None:
    for step in steps:
        save_checkpoint(folder, step, some_arrays(step), some_state(step))


def test_a_checkpoint_comes_back_to_the_bit(tmp_path):
    save(tmp_path, 3)
    assert same(load_checkpoint(tmp_path), 3)


def test_where_there_is_none_there_is_none(tmp_path):
    assert load_checkpoint(tmp_path) is None
    assert load_checkpoint(tmp_path / "absent") is None


def test_the_latest_is_loaded_and_two_are_kept(tmp_path):
    save(tmp_path, 2, 9, 10, 100)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000010.npz", "step-00000100.npz"]
    assert sorted(tmp_path.iterdir()) == list_checkpoints(tmp_path)
    assert same(load_checkpoint(tmp_path), 100)


def test_the_same_state_gives_the_same_bytes(tmp_path):
    for name in ("once", "again"):
        save(tmp_path / name, 4)
    once, again = (list_checkpoints(tmp_path / name)[0].read_bytes() for name in ("once", "again"))
    assert once == again


def test_what_a_killed_save_left_behind_is_not_a_checkpoint(tmp_path):
    save(tmp_path, 5)
    (tmp_path / "step-00000006.npz.partial").write_bytes(b"PK")
    assert same(load_checkpoint(tmp_path), 5)
    save(tmp_path, 6)
    assert same(load_checkpoint(tmp_path), 6) and len(list(tmp_path.iterdir())) == 2


def test_a_flipped_byte_anywhere_is_noticed_or_changes_nothing(tmp_path, capsys):
    """Anywhere: in the data, in the headers of the arrays, in the zip's own tables."""
    save(tmp_path, 1, 2)
    latest = list_checkpoints(tmp_path)[-1]
    data = latest.read_bytes()
    noticed = 0
    for at in range(len(data)):
        latest.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        found = load_checkpoint(tmp_path)
        if same(found, 2):  # a time stamp, or padding
            assert latest.exists()
            continue
        assert same(found, 1) and not latest.exists()
        assert str(latest) in capsys.readouterr().err
        noticed += 1
    assert noticed > len(data) / 2


@pytest.mark.parametrize("share", [0, 0.3, 0.7, 0.999])
def test_a_cut_checkpoint_is_named_removed_and_the_earlier_one_used(tmp_path, capsys, share):
    save(tmp_path, 1, 2)
    latest = list_checkpoints(tmp_path)[-1]
    latest.write_bytes(latest.read_bytes()[: int(share * latest.stat().st_size)])
    assert same(load_checkpoint(tmp_path), 1)
    message = capsys.readouterr().err
    assert str(latest) in message and "damaged" in message and len(message.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.npz"]


CHANGES = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=6)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(CHANGES, st.floats(0, 1))
def test_whatever_bytes_are_changed_or_cut_what_is_loaded_was_saved(changes, kept):
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


def test_an_array_of_absurd_size_is_refused_before_it_is_made(tmp_path, capsys):
    save(tmp_path, 1, 2)
    latest = list_checkpoints(tmp_path)[-1]
    data = latest.read_bytes()
    assert data.count(b"(3, 2), }        ") == 1
    latest.write_bytes(data.replace(b"(3, 2), }        ", b"(3, 2999999999), }"[:17]))
    assert same(load_checkpoint(tmp_path), 1)
    assert "checksum" in capsys.readouterr().err


def test_when_all_are_damaged_there_is_none(tmp_path, capsys):
    save(tmp_path, 1, 2)
    for path in list_checkpoints(tmp_path):
        path.write_bytes(b"")
    assert load_checkpoint(tmp_path) is None
    assert len(capsys.readouterr().err.splitlines()) == 2 and not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_earlier_ones(tmp_path):
    save(tmp_path, 1, 2)
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path, 3, some_arrays(3), {"step": object()})
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000001.npz", "step-00000002.npz"]
    assert same(load_checkpoint(tmp_path), 2)
