"""Shards: what is written is read, always as the same bytes, and damage is noticed."""

import errno
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from pipeline.base.errors import BadInput
from pipeline.training.shards import CONTENT, Record, list_shards, parse, write_shards


def some_records(n: int) -> list[Record]:
    rng = np.random.default_rng(n)
    return [Record(rng.bytes(40 + i), rng.integers(0, 182, (2, 2)).astype(np.int32), 100 + i) for i in range(n)]


def write(folder, records: list[Record], shards: int) -> None:
    folder.mkdir(exist_ok=True)
    write_shards(folder, ((i % shards, record) for i, record in enumerate(records)), shards, 1)


def read(names: list[str]) -> list[Record]:
    rows = tf.data.TFRecordDataset(names).map(parse).as_numpy_iterator()
    return [Record(row["image"], row["boxes"], int(row["pair"])) for row in rows]


def same(a: Record, b: Record) -> bool:
    return a.image == b.image and a.pair == b.pair and np.array_equal(a.boxes, b.boxes)


def test_records_are_read_as_they_were_written(tmp_path):
    records = some_records(7)
    write(tmp_path, records, 3)
    names, _ = list_shards(tmp_path)
    assert len(names) == 3
    for shard, name in enumerate(names):
        found = read([name])
        assert len(found) == len(records[shard::3]) and all(map(same, found, records[shard::3]))


def test_a_record_has_the_types_that_the_batches_expect(tmp_path):
    write(tmp_path / "shards", some_records(1), 1)
    (record,) = tf.data.TFRecordDataset(list_shards(tmp_path / "shards")[0]).map(parse)
    assert record["image"].dtype == tf.string and record["image"].shape == ()
    assert record["boxes"].dtype == tf.int64 and record["boxes"].shape == (2, 2)
    assert record["pair"].dtype == tf.int64 and record["pair"].shape == ()


def test_the_same_records_give_the_same_bytes(tmp_path):
    for name in ("once", "again"):
        write(tmp_path / name, some_records(6), 2)
    once, again = ([path.read_bytes() for path in sorted((tmp_path / name).iterdir())] for name in ("once", "again"))
    assert once == again and len(once) == 3


def refused(folder, path) -> str:
    with pytest.raises(BadInput) as refusal:
        list_shards(folder)
    assert str(path) in str(refusal.value) and "dvc repro -sf augment" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_any_flipped_byte_of_a_shard_is_noticed_before_and_while_it_is_read(tmp_path):
    write(tmp_path, [Record(b"image", np.array([[1, 2], [3, 4]]), 5)], 1)
    path = tmp_path / "000-of-001.tfrecord"
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        assert "is damaged" in refused(tmp_path, path)
        with pytest.raises(tf.errors.DataLossError):
            read([str(path)])


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_shard_cut_between_two_records_is_noticed(tmp_path, kept):
    """TensorFlow reads such a file without an error."""
    write(tmp_path, some_records(3), 1)
    write(tmp_path / "part", some_records(3)[:kept], 1)
    path = tmp_path / "000-of-001.tfrecord"
    cut = (tmp_path / "part" / path.name).read_bytes()
    assert path.read_bytes().startswith(cut)
    path.write_bytes(cut)
    assert len(read([str(path)])) == kept
    assert "is damaged" in refused(tmp_path, path)


def test_a_shard_cut_inside_a_record_is_noticed(tmp_path):
    write(tmp_path, some_records(2), 1)
    path = tmp_path / "000-of-001.tfrecord"
    path.write_bytes(path.read_bytes()[:-1])
    assert "is damaged" in refused(tmp_path, path)
    with pytest.raises(tf.errors.DataLossError):
        read([str(path)])


def test_swapped_shards_are_noticed(tmp_path):
    write(tmp_path, some_records(4), 2)
    one, other = sorted(tmp_path.glob("*.tfrecord"))
    one.rename(tmp_path / "third")
    other.rename(one)
    (tmp_path / "third").rename(other)
    assert "is damaged" in refused(tmp_path, one)


@pytest.mark.parametrize("missing", range(3))
def test_a_missing_shard_is_refused(tmp_path, missing):
    write(tmp_path, some_records(6), 3)
    path = tmp_path / f"{missing:03d}-of-003.tfrecord"
    path.unlink()
    assert "is missing" in refused(tmp_path, path)


def test_a_folder_without_shards_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        assert "is missing" in refused(folder, folder / CONTENT)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'"text"', b"7"])
def test_damaged_checksums_are_refused(tmp_path, content):
    write(tmp_path, some_records(2), 1)
    (tmp_path / CONTENT).write_bytes(content)
    assert "is damaged" in refused(tmp_path, tmp_path / CONTENT)


def test_shards_not_written_to_the_end_are_refused(tmp_path):
    with pytest.raises(ZeroDivisionError):
        write_shards(tmp_path, ((1 // (3 - i), record) for i, record in enumerate(some_records(4))), 2, 1)
    assert "is missing" in refused(tmp_path, tmp_path / CONTENT)


def test_shards_are_listed_in_order(tmp_path):
    write(tmp_path, some_records(12), 11)
    assert list_shards(tmp_path)[0] == [str(tmp_path / f"{shard:03d}-of-011.tfrecord") for shard in range(11)]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_is_the_systems_own_error(tmp_path):
    path = tmp_path / "000-of-001.tfrecord"
    path.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as error:
        write(tmp_path, some_records(3), 1)
    assert error.value.errno == errno.ENOSPC and error.value.filename == str(path)
