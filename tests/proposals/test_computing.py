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
from tests.proposals.picture_sources import BrightestPixels, array_files, read_array


def calls(log):
    return log.read_text().split() if log.exists() else []


@pytest.fixture
def log(tmp_path):
    return tmp_path / "calls.txt"


def test_pictures_keep_their_order(tmp_path):
    pictures = array_files(tmp_path, 5)
    done = []
    found = compute_proposals(
        pictures, BrightestPixels(), read_array, progress=lambda count: done.append(count)
    )
    assert done == [1, 2, 3, 4, 5]
    assert found.proposals.image_ids == tuple(picture.image_id for picture in pictures)
    assert found.proposals["picture0"].tolist() == [[0, 0, 1, 1], [1, 0, 2, 1], [2, 0, 3, 1]]
    assert found.proposals.settings == BrightestPixels().settings
    assert found.seconds.shape == (5,)
    assert (found.seconds >= 0).all()
    assert found.num_reused == 0


def test_no_pictures_have_no_proposals():
    assert len(compute_proposals([], BrightestPixels(), read_array, num_workers=4).proposals) == 0


def test_the_number_of_workers_changes_nothing(tmp_path):
    pictures = array_files(tmp_path, 6, size=(30, 40))
    source = RandomBoxes(20, min_size=3)
    alone = compute_proposals(pictures, source, read_array)
    cache = tmp_path / "cache"
    beside = compute_proposals(pictures, source, read_array, num_workers=2, cache=cache)
    assert beside.proposals.fingerprint == alone.proposals.fingerprint
    assert len(list(cache.glob("*.npz"))) == 6
    # in another order, each picture has the same boxes
    reverse = compute_proposals(pictures[::-1], source, read_array, cache=cache)
    assert reverse.num_reused == 6
    for picture in pictures:
        name = picture.image_id
        assert np.array_equal(reverse.proposals[name], alone.proposals[name])


def test_a_stopped_run_continues(tmp_path, log):
    pictures, cache = array_files(tmp_path, 6), tmp_path / "cache"
    source = BrightestPixels(log=log)

    def stop_after_three(count):
        if count == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compute_proposals(pictures, source, read_array, cache=cache, progress=stop_after_three)
    assert calls(log) == ["picture0", "picture1", "picture2"]
    found = compute_proposals(pictures, source, read_array, cache=cache)
    assert calls(log) == [picture.image_id for picture in pictures]  # each once in all
    assert found.num_reused == 3
    undisturbed = compute_proposals(pictures, source, read_array)
    assert found.proposals.fingerprint == undisturbed.proposals.fingerprint


def test_an_error_keeps_what_is_done(tmp_path, log):
    pictures, cache = array_files(tmp_path, 4), tmp_path / "cache"
    with pytest.raises(RuntimeError, match="picture2"):
        compute_proposals(pictures, BrightestPixels(raises_on="picture2"), read_array, cache=cache)
    found = compute_proposals(pictures, BrightestPixels(log=log), read_array, cache=cache)
    assert calls(log) == ["picture2", "picture3"]
    assert found.num_reused == 2


@pytest.mark.parametrize("change", ["settings", "picture", "id", "nothing"])
def test_no_stale_cache_is_taken(tmp_path, log, change):
    pictures, cache = array_files(tmp_path, 2), tmp_path / "cache"
    compute_proposals(pictures, BrightestPixels(), read_array, cache=cache)
    source = BrightestPixels(log=log)
    if change == "settings":
        source = replace(source, count=2)
    elif change == "picture":
        array_files(tmp_path, 2, seed=1)  # others under the same names
    elif change == "id":
        pictures = [replace(each, image_id=f"other-{each.image_id}") for each in pictures]
    found = compute_proposals(pictures, source, read_array, cache=cache)
    assert found.num_reused == (2 if change == "nothing" else 0)
    assert len(calls(log)) == 2 - found.num_reused
    fresh = compute_proposals(pictures, source, read_array)
    assert found.proposals.fingerprint == fresh.proposals.fingerprint


@pytest.mark.parametrize("damage", ["empty", "half", "other"])
def test_a_damaged_cache_is_computed_anew(tmp_path, log, damage):
    pictures, cache = array_files(tmp_path, 1), tmp_path / "cache"
    first = compute_proposals(pictures, BrightestPixels(), read_array, cache=cache)
    (kept,) = cache.glob("*.npz")
    whole = kept.read_bytes()
    if damage == "other":
        np.savez(kept, boxes=np.ones((2, 3)), seconds=np.array(1.0))
    else:
        kept.write_bytes(b"" if damage == "empty" else whole[: len(whole) // 2])
    again = compute_proposals(pictures, BrightestPixels(log=log), read_array, cache=cache)
    assert calls(log) == ["picture0"]
    assert again.proposals.fingerprint == first.proposals.fingerprint
    assert compute_proposals(pictures, BrightestPixels(), read_array, cache=cache).num_reused == 1


@pytest.mark.parametrize("num_workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_unreadable_picture_is_named(tmp_path, num_workers):
    pictures = array_files(tmp_path, 3)
    pictures[1].path.unlink()
    # what this reader raises; read_image raises an error of ours, with the path
    with pytest.raises(OSError, match=r"1\.npy"):
        compute_proposals(
            pictures, BrightestPixels(), read_array, cache=tmp_path / "c", num_workers=num_workers
        )


def test_a_picture_of_another_size_is_named(tmp_path):
    pictures = array_files(tmp_path, 2)
    pictures[1] = replace(pictures[1], size=(9, 6))
    with pytest.raises(
        DetectError, match=r"1\.npy: expected \(height, width\) \(9, 6\) .*\(6, 9\)"
    ):
        compute_proposals(pictures, BrightestPixels(), read_array)


def test_a_dead_worker_is_told_by_its_picture(tmp_path, log):
    pictures, cache = array_files(tmp_path, 4), tmp_path / "cache"
    with pytest.raises(DetectError, match=r"a worker process died while working on .*picture3"):
        compute_proposals(
            pictures, BrightestPixels(dies_on="picture3"), read_array, cache=cache, num_workers=2
        )
    found = compute_proposals(pictures, BrightestPixels(log=log), read_array, cache=cache)
    assert "picture0" not in calls(log)
    assert "picture3" in calls(log)
    assert len(found.proposals) == 4


def test_a_full_disk_stops_before_the_work(tmp_path, monkeypatch, log):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 30_000))
    cache = tmp_path / "not" / "there"
    pictures = array_files(tmp_path, 2)
    message = "proposals of 2 pictures take about .* MiB, the disk has 0 MiB left; make room"
    with pytest.raises(DetectError, match=message):
        compute_proposals(pictures, BrightestPixels(log=log), read_array, cache=cache)
    assert calls(log) == []
    assert not cache.exists()
    assert len(compute_proposals(pictures, BrightestPixels(), read_array).proposals) == 2


def test_a_failed_write_is_named(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(DetectError, match=r"cannot be written: No space left .* is kept"):
        compute_proposals(
            array_files(tmp_path, 1), BrightestPixels(), read_array, cache=tmp_path / "cache"
        )
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_same_id_twice_is_refused(tmp_path):
    pictures = array_files(tmp_path, 1) * 2
    with pytest.raises(DetectError, match="different ids"):
        compute_proposals(pictures, BrightestPixels(), read_array)
    with pytest.raises(DetectError, match="workers: expected 1 or more, found 0"):
        compute_proposals(pictures[:1], BrightestPixels(), read_array, num_workers=0)


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
    pictures = array_files(tmp_path, 2)
    code = (
        "import sys, pathlib, time\n"
        "from detect.proposals import compute_proposals\n"
        "from tests.proposals.picture_sources import *\n"
        "if __name__ == '__main__':\n"
        f"    folder = pathlib.Path({str(tmp_path)!r})\n"
        "    wait = lambda count: time.sleep(600)\n"
        "    compute_proposals(array_files(folder, 2), BrightestPixels(), read_array,\n"
        "                      cache=folder / 'cache', num_workers=2, progress=wait)\n"
    )
    del pictures
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
