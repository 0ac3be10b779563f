import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detect.errors import DetectError
from detect.proposals import RandomBoxes, compute_proposals, computing
from tests.conftest import REPOSITORY
from tests.proposals.image_sources import BrightestPixels, array_files, read_array


def calls(log):
    return log.read_text().split() if log.exists() else []


@pytest.fixture
def log(tmp_path):
    return tmp_path / "calls.txt"


def test_images_keep_their_order(tmp_path):
    images = array_files(tmp_path, 5)
    done = []
    found = compute_proposals(
        images, BrightestPixels(), read_array, progress=lambda count: done.append(count)
    )
    assert done == [1, 2, 3, 4, 5]
    assert found.proposals.image_ids == tuple(image.image_id for image in images)
    assert found.proposals["image0"].tolist() == [[0, 0, 1, 1], [1, 0, 2, 1], [2, 0, 3, 1]]
    assert found.proposals.settings == BrightestPixels().settings
    assert found.seconds.shape == (5,)
    assert (found.seconds >= 0).all()
    assert found.num_reused == 0


def test_no_images_have_no_proposals():
    assert len(compute_proposals([], BrightestPixels(), read_array, num_workers=4).proposals) == 0


def test_the_number_of_workers_changes_nothing(tmp_path):
    images = array_files(tmp_path, 6, size=(30, 40))
    source = RandomBoxes(20, min_size=3)
    alone = compute_proposals(images, source, read_array)
    cache = tmp_path / "cache"
    beside = compute_proposals(images, source, read_array, num_workers=2, cache=cache)
    assert beside.proposals.fingerprint == alone.proposals.fingerprint
    assert len(list(cache.glob("*.npz"))) == 6
    # in another order, each image has the same boxes
    reverse = compute_proposals(images[::-1], source, read_array, cache=cache)
    assert reverse.num_reused == 6
    for image in images:
        name = image.image_id
        assert np.array_equal(reverse.proposals[name], alone.proposals[name])


def test_a_stopped_run_continues(tmp_path, log):
    images, cache = array_files(tmp_path, 6), tmp_path / "cache"
    source = BrightestPixels(log=log)

    def stop_after_three(count):
        if count == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compute_proposals(images, source, read_array, cache=cache, progress=stop_after_three)
    assert calls(log) == ["image0", "image1", "image2"]
    found = compute_proposals(images, source, read_array, cache=cache)
    assert calls(log) == [image.image_id for image in images]  # each once in all
    assert found.num_reused == 3
    undisturbed = compute_proposals(images, source, read_array)
    assert found.proposals.fingerprint == undisturbed.proposals.fingerprint


def test_an_error_keeps_what_is_done(tmp_path, log):
    images, cache = array_files(tmp_path, 4), tmp_path / "cache"
    with pytest.raises(RuntimeError, match="image2"):
        compute_proposals(images, BrightestPixels(raises_on="image2"), read_array, cache=cache)
    found = compute_proposals(images, BrightestPixels(log=log), read_array, cache=cache)
    assert calls(log) == ["image2", "image3"]
    assert found.num_reused == 2


@pytest.mark.parametrize("change", ["settings", "image", "id", "nothing"])
def test_no_stale_cache_is_taken(tmp_path, log, change):
    images, cache = array_files(tmp_path, 2), tmp_path / "cache"
    compute_proposals(images, BrightestPixels(), read_array, cache=cache)
    source = BrightestPixels(log=log)
    if change == "settings":
        source = replace(source, count=2)
    elif change == "image":
        array_files(tmp_path, 2, seed=1)  # others under the same names
    elif change == "id":
        images = [replace(each, image_id=f"other-{each.image_id}") for each in images]
    found = compute_proposals(images, source, read_array, cache=cache)
    assert found.num_reused == (2 if change == "nothing" else 0)
    assert len(calls(log)) == 2 - found.num_reused
    fresh = compute_proposals(images, source, read_array)
    assert found.proposals.fingerprint == fresh.proposals.fingerprint


@pytest.mark.parametrize("damage", ["empty", "half", "other"])
def test_a_damaged_cache_is_computed_anew(tmp_path, log, damage):
    images, cache = array_files(tmp_path, 1), tmp_path / "cache"
    first = compute_proposals(images, BrightestPixels(), read_array, cache=cache)
    (kept,) = cache.glob("*.npz")
    whole = kept.read_bytes()
    if damage == "other":
        np.savez(kept, boxes=np.ones((2, 3)), seconds=np.array(1.0))
    else:
        kept.write_bytes(b"" if damage == "empty" else whole[: len(whole) // 2])
    again = compute_proposals(images, BrightestPixels(log=log), read_array, cache=cache)
    assert calls(log) == ["image0"]
    assert again.proposals.fingerprint == first.proposals.fingerprint
    assert compute_proposals(images, BrightestPixels(), read_array, cache=cache).num_reused == 1


@pytest.mark.parametrize("num_workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_unreadable_image_is_named(tmp_path, num_workers):
    images = array_files(tmp_path, 3)
    images[1].path.unlink()
    # what this reader raises; read_image raises an error of ours, with the path
    with pytest.raises(OSError, match=r"1\.npy"):
        compute_proposals(
            images, BrightestPixels(), read_array, cache=tmp_path / "c", num_workers=num_workers
        )


def test_an_image_of_another_size_is_named(tmp_path):
    images = array_files(tmp_path, 2)
    images[1] = replace(images[1], size=(9, 6))
    with pytest.raises(
        DetectError, match=r"1\.npy: expected \(height, width\) \(9, 6\) .*\(6, 9\)"
    ):
        compute_proposals(images, BrightestPixels(), read_array)


def test_a_dead_worker_is_told_by_its_image(tmp_path, log):
    images, cache = array_files(tmp_path, 4), tmp_path / "cache"
    with pytest.raises(DetectError, match=r"a worker process died while working on .*image3"):
        compute_proposals(
            images, BrightestPixels(dies_on="image3"), read_array, cache=cache, num_workers=2
        )
    found = compute_proposals(images, BrightestPixels(log=log), read_array, cache=cache)
    assert "image0" not in calls(log)
    assert "image3" in calls(log)
    assert len(found.proposals) == 4


def test_a_full_disk_stops_before_the_work(tmp_path, monkeypatch, log):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 30_000))
    cache = tmp_path / "not" / "there"
    images = array_files(tmp_path, 2)
    message = "proposals of 2 images take about .* MiB, the disk has 0 MiB left; make room"
    with pytest.raises(DetectError, match=message):
        compute_proposals(images, BrightestPixels(log=log), read_array, cache=cache)
    assert calls(log) == []
    assert not cache.exists()
    assert len(compute_proposals(images, BrightestPixels(), read_array).proposals) == 2


def test_a_failed_write_is_named(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(DetectError, match=r"cannot be written: No space left .* are kept"):
        compute_proposals(
            array_files(tmp_path, 1), BrightestPixels(), read_array, cache=tmp_path / "cache"
        )
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_same_id_twice_is_refused(tmp_path):
    images = array_files(tmp_path, 1) * 2
    with pytest.raises(DetectError, match="different ids"):
        compute_proposals(images, BrightestPixels(), read_array)
    with pytest.raises(DetectError, match="workers: expected 1 or more, found 0"):
        compute_proposals(images[:1], BrightestPixels(), read_array, num_workers=0)


def group_members(group):
    """Processes of a group that are alive; the state of a dead one is Z."""
    alive = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            alive.append(int(folder.name))
    return alive


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_workers_of_a_killed_parent_end(tmp_path):
    images = array_files(tmp_path, 2)
    code = (
        "import sys, pathlib, time\n"
        "from detect.proposals import compute_proposals\n"
        "from tests.proposals.image_sources import *\n"
        "if __name__ == '__main__':\n"
        f"    folder = pathlib.Path({str(tmp_path)!r})\n"
        "    wait = lambda count: time.sleep(600)\n"
        "    compute_proposals(array_files(folder, 2), BrightestPixels(), read_array,\n"
        "                      cache=folder / 'cache', num_workers=2, progress=wait)\n"
    )
    del images
    (tmp_path / "run.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        [sys.executable, tmp_path / "run.py"], env=environment, start_new_session=True
    ) as process:
        wait_until(lambda: len(list((tmp_path / "cache").glob("[!.]*.npz"))) == 2)
        assert len(group_members(process.pid)) >= 3
        process.kill()
    wait_until(lambda: group_members(process.pid) == [])


def wait_until(condition):
    end = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_workers_leave_ctrl_c_to_their_parent(monkeypatch):
    handlers = {}
    monkeypatch.setattr(
        signal, "signal", lambda number, handler: handlers.update({number: handler})
    )
    monkeypatch.setattr(computing.threading, "Thread", lambda **_: namedtuple("T", "start")(int))
    monkeypatch.setattr(computing.multiprocessing, "parent_process", lambda: object())
    monkeypatch.setattr(computing, "_work_of_this_process", None)
    work = computing._Work(BrightestPixels(), read_array, None, "{}")
    computing._start_worker(work)
    assert handlers == {signal.SIGINT: signal.SIG_IGN}
    assert computing._work_of_this_process is work
