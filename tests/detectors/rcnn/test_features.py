import os
import shutil
from collections import namedtuple

import pytest
import torch
from torch.testing import assert_close

from detect.detectors.rcnn import features as module
from detect.detectors.rcnn.features import (
    FeatureSizes,
    StoredFeatures,
    StreamedFeatures,
    feature_address,
    first_fully_connected,
)
from detect.detectors.rcnn.regions import tabulate_regions
from detect.errors import DetectError
from tests.detectors.rcnn.training_images import DrawnImages, Silent

DIM, TRUNK_DIM = 3, 5


def embed(batch, boxes):
    """Numbers that depend on the image and on the box."""
    mean = batch.images.float().mean()
    return boxes[:, :DIM] + mean, torch.cat((boxes, boxes[:, :1]), dim=1) - mean


def table_of(images):
    return tabulate_regions(images, 2, 100, 0.3, 0.6, Silent())


def stored(folder, images, budget=1e9):
    table = table_of(images)
    sizes = FeatureSizes(table.num_images, table.num_regions, DIM, len(table.classes), TRUNK_DIM)
    return StoredFeatures(folder, sizes, images, table, embed, budget)


def everything(features, table):
    wanted = torch.ones(table.num_regions, dtype=torch.bool)
    rows, values = zip(*features.rows(wanted, Silent()), strict=True)
    return torch.cat(rows), torch.cat(values), features.regressed(Silent())


def assert_equal(one, other):
    for mine, theirs in zip(one, other, strict=True):
        assert_close(mine, theirs, rtol=0, atol=0)


@pytest.fixture
def images():
    return DrawnImages(6)


@pytest.fixture
def expected(images):
    table = table_of(images)
    return everything(StreamedFeatures(images, table, embed), table)


def test_a_stream_gives_what_the_network_gives(images, expected):
    rows, values, regressed = expected
    table = table_of(images)
    assert rows.tolist() == list(range(table.num_regions))
    batches = list(images.batches())
    by_hand = [
        embed(batch, torch.cat((batch.truths[0].boxes, batch.proposals[0]))) for batch in batches
    ]
    assert_close(values, torch.cat([own for own, _ in by_hand]).half())
    trunk = torch.cat([own for _, own in by_hand])
    assert_close(regressed, trunk[table.regressed].half())


def test_the_disk_gives_what_the_stream_gives(images, expected, tmp_path):
    features = stored(tmp_path / "kept", images)
    assert_equal(everything(features, features.table), expected)
    before = images.num_read
    assert_equal(everything(stored(tmp_path / "kept", images), features.table), expected)
    assert images.num_read == before  # nothing is computed twice
    features.remove()
    assert not (tmp_path / "kept").exists()


def test_only_wanted_rows_come(images, expected, tmp_path):
    features = stored(tmp_path, images)
    wanted = torch.zeros(features.table.num_regions, dtype=torch.bool)
    wanted[[1, 7, 8]] = True
    for source in (features, StreamedFeatures(images, features.table, embed)):
        rows, values = zip(*source.rows(wanted, Silent()), strict=True)
        assert torch.cat(rows).tolist() == [1, 7, 8]
        assert torch.equal(torch.cat(values), expected[1][wanted])


@pytest.mark.parametrize("until", range(1, 6))
def test_work_that_was_stopped_goes_on(images, expected, tmp_path, until, monkeypatch):
    monkeypatch.setattr(module, "WRITE_INTERVAL", 0)
    with pytest.raises(KeyboardInterrupt):
        stored(tmp_path, images).complete(Silent(until))
    before = images.num_read
    again = stored(tmp_path, images)
    again.complete(Silent())
    assert images.num_read - before == len(images) - until
    assert_equal(everything(again, again.table), expected)


def test_what_a_killed_process_left_half_written_is_written_again(images, expected, tmp_path):
    first = stored(tmp_path, images)
    first.complete(Silent())
    (tmp_path / "progress.json").write_text('{"num_images": 3}')
    with (tmp_path / "features.f16").open("r+b") as file:
        file.seek(first._ends(3)[0])
        file.write(os.urandom(7))
        file.truncate()
    again = stored(tmp_path, images)
    assert_equal(everything(again, again.table), expected)


@pytest.mark.parametrize("note", ["", "{}", '{"num_images": 99}', '{"num_images": "x"}', "[1"])
def test_a_note_that_makes_no_sense_begins_anew(images, expected, tmp_path, note):
    stored(tmp_path, images).complete(Silent())
    (tmp_path / "progress.json").write_text(note)
    again = stored(tmp_path, images)
    assert_equal(everything(again, again.table), expected)


def test_files_shorter_than_the_note_says_begin_anew(images, expected, tmp_path):
    stored(tmp_path, images).complete(Silent())
    with (tmp_path / "regressed.f16").open("r+b") as file:
        file.truncate(2)
    again = stored(tmp_path, images)
    assert_equal(everything(again, again.table), expected)


def test_a_budget_too_small_stops_before_the_work(images, tmp_path):
    features = stored(tmp_path / "kept", images, budget=10)
    images.num_read = 0
    with pytest.raises(DetectError, match=r"6 images × .*feature_budget is 0.00 GB; raise"):
        features.complete(Silent())
    assert images.num_read == 0
    assert not (tmp_path / "kept").exists()


def test_a_disk_too_full_stops_before_the_work(images, tmp_path, monkeypatch):
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100, 90, 10))
    with pytest.raises(DetectError, match=r"the disk has 0.00 GB left; make room, set data.cache"):
        stored(tmp_path / "kept", images).complete(Silent())
    assert images.num_read == 0


def test_a_disk_that_fills_up_says_so_and_loses_nothing(images, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WRITE_INTERVAL", 0)
    calls = []

    def fail_late(descriptor):
        calls.append(descriptor)
        if len(calls) > 4:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail_late)
        with pytest.raises(DetectError, match="No space left on device; they take 6 images"):
            stored(tmp_path, images).complete(Silent())
    again = stored(tmp_path, images)
    assert again._num_done() == 1
    assert_equal(everything(again, again.table), expected)


def test_voc07_takes_82_gb():
    sizes = FeatureSizes(5011, 5011 * 2000, 4096, 0, 0)
    assert str(sizes) == ("5,011 images × 2,000.0 regions × 4,096 numbers × 2 bytes = 82.10 GB")


def test_an_address_is_made_of_settings_and_weights():
    torch.manual_seed(0)
    layer = torch.nn.BatchNorm1d(2)
    address = feature_address({"layer": "head"}, layer)
    assert feature_address({"layer": "head"}, layer) == address
    assert feature_address({"layer": "trunk"}, layer) != address
    layer.running_mean[0] = 1
    changed = feature_address({"layer": "head"}, layer)
    assert changed != address
    layer.num_batches_tracked += 1
    assert feature_address({"layer": "head"}, layer) != changed


def test_an_address_does_not_depend_on_how_weights_lie_in_memory():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(8, 8, 3, groups=8)  # whose weight has a dimension of one
    address = feature_address({}, layer)
    assert feature_address({}, layer.to(memory_format=torch.channels_last)) == address


def test_numbers_too_large_for_half_precision_stay_finite(images):
    table = table_of(images)
    features = StreamedFeatures(images, table, lambda _, boxes: (boxes * 1e6, boxes * -1e6))
    _, values, regressed = everything(features, table)
    assert values.isfinite().all()
    assert regressed.isfinite().all()


def test_fc6_is_the_first_of_two_fully_connected_layers():
    linear, other, relu, dropout = (
        torch.nn.Linear(4, 3), torch.nn.Linear(3, 2), torch.nn.ReLU(), torch.nn.Dropout(),
    )  # fmt: skip
    head = torch.nn.Sequential(torch.nn.Flatten(), linear, relu, dropout, other, torch.nn.ReLU())
    assert first_fully_connected(head) == [head[0], linear, relu, dropout]
    assert first_fully_connected(torch.nn.Sequential(torch.nn.Flatten(), linear, relu)) is None
