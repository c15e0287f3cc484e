"""The augment stage: five of each training image, boxes carried along, in shards whose bytes the input decides."""

from contextlib import chdir

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipeline import augment, fetch, paths
from pipeline.base.errors import BadInput
from pipeline.competition.boxes import TURNS, hole_mask, turn_boxes, turn_image
from pipeline.competition.images import decode_image, read_image
from pipeline.competition.index import boxes_of, read_index, target_path
from pipeline.training.shards import decode, list_shards, parse

SHARDS = 5


def run(folder, params_file, **changes) -> None:
    folder.mkdir(exist_ok=True)
    demo = {"fetch.demo.pairs_per_class": 3, "fetch.demo.test_images": 2, "augment.shards": SHARDS}
    params_file(folder, **(demo | changes))
    with chdir(folder):
        if not paths.INDEX.exists():
            fetch.main()
        augment.main()


@pytest.fixture(scope="module")
def augmented(tmp_path_factory, params_file):
    folder = tmp_path_factory.mktemp("augmented")
    run(folder, params_file)
    return folder


@pytest.fixture(scope="module")
def records(augmented) -> list[dict]:
    """Every record, with its shard's number and the turn whose image it looks like."""
    index = read_index(augmented / paths.INDEX)
    found = []
    for shard, name in enumerate(list_shards(augmented / paths.AUGMENTED)[0]):
        for record in tf.data.TFRecordDataset(name).map(parse).as_numpy_iterator():
            row = index.loc[int(record["pair"])].to_dict()
            path = target_path(augmented / paths.RAW, row)
            target = read_image(path)
            image = decode_image(record["image"], "a record")
            gaps = {turn: np.abs(turn_image(target, turn).astype(int) - image).mean() for turn in TURNS}
            found.append(record | {"shard": shard, "path": path, "turn": min(gaps, key=gaps.get), "gaps": gaps})
    return found


def test_every_training_image_is_there_in_every_turn_and_no_test_image(augmented, records):
    index = read_index(augmented / paths.INDEX)
    pairs = index.index[index["split"] == "train"]
    assert len(records) == 5 * len(pairs) == 5 * 12
    expected = sorted((pair, turn) for pair in pairs for turn in TURNS)
    assert sorted((int(record["pair"]), record["turn"]) for record in records) == expected


def test_a_turned_image_is_the_image_turned(records):
    for record in records:
        others = [gap for turn, gap in record["gaps"].items() if turn != record["turn"]]
        assert record["gaps"][record["turn"]] < 3 and min(others) > 2 * record["gaps"][record["turn"]]
        if record["path"].suffix == ".png":
            assert record["gaps"][record["turn"]] == 0


def test_the_original_keeps_its_files_bytes(records):
    originals = [record for record in records if record["turn"] == "original"]
    assert len(originals) == 12
    assert all(record["image"] == record["path"].read_bytes() for record in originals)


def test_a_photograph_that_its_exif_orientation_turns_is_turned_in_its_record(tmp_path, params_file):
    run(tmp_path, params_file)
    row = read_index(tmp_path / paths.INDEX).iloc[0].to_dict()
    path = target_path(tmp_path / paths.RAW, row)
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as image:
        image.save(path, quality=95, exif=exif)
    run(tmp_path, params_file)
    records = map(parse, tf.data.TFRecordDataset(list_shards(tmp_path / paths.AUGMENTED)[0]))
    images = [decode(record["image"]).numpy() for record in records if record["pair"] == 0]
    upright = [turn_image(read_image(path), turn) for turn in TURNS]
    for image in images:
        assert min(np.abs(other - image.astype(int)).mean() for other in upright) < 3
    assert any(np.array_equal(image, decode(path.read_bytes())) for image in images) is False


def test_a_turned_image_is_a_file_of_the_same_kind(records):
    starts = {".png": b"\x89PNG", ".jpeg": b"\xff\xd8\xff", ".jpg": b"\xff\xd8\xff"}
    assert {record["path"].suffix for record in records} == set(starts)
    assert all(record["image"].startswith(starts[record["path"].suffix]) for record in records)


def test_the_boxes_are_carried_to_where_the_holes_go(augmented, records):
    boxes = boxes_of(read_index(augmented / paths.INDEX))
    for record in records:
        before = boxes[record["pair"]]
        assert (record["boxes"] == turn_boxes(before, record["turn"])).all()
        hole = hole_mask(before[None])[0].astype(np.uint8)
        assert (hole_mask(record["boxes"][None])[0] == turn_image(hole, record["turn"])).all()


def test_the_five_of_an_image_lie_in_five_shards(records):
    places = {}
    for record in records:
        places.setdefault(int(record["pair"]), set()).add(record["shard"])
    assert all(len(shards) == 5 for shards in places.values())
    assert np.ptp(np.bincount([record["shard"] for record in records])) <= SHARDS


def test_no_shard_holds_the_classes_one_after_the_other(records):
    for shard in range(SHARDS):
        pairs = [int(record["pair"]) for record in records if record["shard"] == shard]
        assert pairs != sorted(pairs)


def test_a_second_run_gives_the_same_bytes(augmented, tmp_path, params_file):
    run(tmp_path, params_file)
    once, again = (
        {path.name: path.read_bytes() for path in (folder / paths.AUGMENTED).iterdir()}
        for folder in (augmented, tmp_path)
    )
    assert once == again and len(once) == SHARDS + 1


def test_another_seed_gives_another_order_of_the_same_records(augmented, tmp_path, params_file):
    run(tmp_path, params_file, **{"augment.seed": 2})
    once, again = (
        [
            raw
            for name in list_shards(folder / paths.AUGMENTED)[0]
            for raw in tf.data.TFRecordDataset(name).as_numpy_iterator()
        ]
        for folder in (augmented, tmp_path)
    )
    assert once != again and sorted(once) == sorted(again)


def test_fewer_shards_hold_all_records_too(augmented, tmp_path, params_file):
    run(tmp_path, params_file, **{"augment.shards": 2})
    names, _ = list_shards(tmp_path / paths.AUGMENTED)
    assert len(names) == 2 and sum(1 for _ in tf.data.TFRecordDataset(names)) == 60


def test_the_turns_are_those_of_the_settings(tmp_path, params_file):
    run(tmp_path, params_file, **{"augment.turns": ["original", "rot90"]})
    names, per_pair = list_shards(tmp_path / paths.AUGMENTED)
    assert per_pair == 2 and sum(1 for _ in tf.data.TFRecordDataset(names)) == 24


def test_a_damaged_photograph_is_named_and_the_shards_stay_as_they_were(tmp_path, params_file):
    run(tmp_path, params_file)
    before = {path.name: path.read_bytes() for path in (tmp_path / paths.AUGMENTED).iterdir()}
    path = next((tmp_path / paths.RAW / "Training_Data" / "Dog" / "Unmasked_Train").iterdir())
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(BadInput, match="does not decode as an image") as caught:
        run(tmp_path, params_file)
    assert path.name in str(caught.value)
    assert {path.name: path.read_bytes() for path in (tmp_path / paths.AUGMENTED).iterdir()} == before
