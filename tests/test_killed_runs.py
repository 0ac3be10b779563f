"""Runs that are killed, anywhere, and continued: they end in the same bits."""

import json
import multiprocessing
import os
import random
import signal
from pathlib import Path

import pytest
import torch

from detect.config import resolve
from detect.data import draw_shapes
from detect.experiment.training import train
from detect.settings import Settings
from detect.training import load_checkpoint

# imports torch once, for all runs that are started
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["detect.experiment.training"])
PATIENCE = 300  # seconds
CLOCKED = ("images_per_second", "data_wait", "seconds", "peak_memory_mib")

DETECTORS = {
    "yolo": {"name": "yolo", "head": "convolutional", "hidden_features": 16},
    "faster_rcnn": {
        "name": "faster_rcnn",
        "shorter_side": 64,
        "level": "C3",
        "head": "mlp",
        "hidden_features": [32],
        "region_size": 3,
        "rpn_channels": 16,
        "regions_per_image": 16,
        "train_proposals": [100, 30],
        "test_proposals": [60, 10],
    },
    "rcnn": {
        "name": "rcnn",
        "input_size": 64,
        "proposals": "random-boxes",
        "proposal_options": {"count": 6},
        "windows_per_step": 8,
        "context": 4,
    },
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    draw_shapes(folder, 24, seed=5, image_size=(64, 64))
    return folder


def make_config(name, root, **engine):
    detector = DETECTORS[name]
    values = {
        "data": {
            "kind": "voc",
            "root": str(root),
            "classes": "auto",
            "num_workers": 2,
            "cache": str(root / f"cache_{name}"),
            "augmentation": {"horizontal_flip": 0.5, "scale": 0.2, "saturation": 1.3},
        },
        "backbone": {"name": "tiny", "image_size": 64},
        "detector": {"input_size": 64, **detector},
        "training": {"epochs": 3, "batch_size": 4, "evaluate_every": 3, "log_interval": 2},
        "engine": {"checkpoint_steps": 1, **engine},
    }
    return resolve(Settings(values, {}), "test")


def _train(config, folder, death):
    multiprocessing.set_start_method("fork", force=True)  # of loader workers, as it is usually
    torch.set_num_threads(1)
    if death is not None:
        _arrange(*death)
    train(config, folder, resume=True, device="cpu")


def _arrange(event, number):
    """Kill this process within the `number`-th call of an event."""
    import detect.training.descent as descent

    targets = {
        "step": (descent.Descent, "step"),
        "save": (torch, "save"),
        "flush": (os, "fsync"),
        "rename": (os, "replace"),
        "link": (Path, "hardlink_to"),
    }
    owner, name = targets[event]
    function, calls, parent = getattr(owner, name), 0, os.getpid()

    def counted(*arguments, **options):
        nonlocal calls
        calls += os.getpid() == parent  # loader workers have their own
        if calls == number and os.getpid() == parent:
            if event == "save":  # half of it is on the disk
                function(*arguments, **options)
                path = Path(arguments[1])
                os.truncate(path, path.stat().st_size // 2)
            os.kill(parent, signal.SIGKILL)
        return function(*arguments, **options)

    setattr(owner, name, counted)


def run(config, folder, death=None, seconds=None):
    """Take a run up in a process of its own; returns how that ended, 0 when it is complete."""
    process = _CONTEXT.Process(target=_train, args=(config, folder, death))
    process.start()
    if seconds is not None:
        process.join(seconds)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
    process.join(PATIENCE)
    assert not process.is_alive(), "the run hangs"
    return process.exitcode


def weights_of(folder):
    last = load_checkpoint(folder / "checkpoints" / "last.pt")
    best = load_checkpoint(folder / "checkpoints" / "best.pt")
    states = {"last": last["detector"], "best": best["detector"]}
    return {
        (kind, name): (value.dtype, tuple(value.shape), value.numpy().tobytes())
        for kind, state in states.items()
        for name, value in state.items()
    }


def journal_of(folder):
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        {key: value for key, value in line.items() if key not in CLOCKED}
        for line in map(json.loads, lines)
    ]


@pytest.fixture(scope="module")
def whole_runs(root, tmp_path_factory):
    """The folder of a run of each detector that nobody disturbed."""
    folders = {}

    def get(name):
        if name not in folders:
            folder = tmp_path_factory.mktemp(f"whole_{name}")
            assert run(make_config(name, root), folder) == 0
            folders[name] = folder
        return folders[name]

    return get


def assert_same_end(folder, whole):
    expected, found = weights_of(whole), weights_of(folder)
    assert found.keys() == expected.keys()
    differing = [key for key, value in expected.items() if found[key] != value]
    assert differing == []
    assert journal_of(folder) == journal_of(whole)
    assert (folder / "evaluation.json").read_bytes() == (whole / "evaluation.json").read_bytes()


@pytest.mark.parametrize(
    "name",
    ["yolo", *(pytest.param(name, marks=pytest.mark.slow) for name in ("faster_rcnn", "rcnn"))],
)
def test_a_killed_run_ends_in_the_same_bits(tmp_path, root, whole_runs, name):
    step = random.Random(name).randint(2, 8)
    config = make_config(name, root)
    assert run(config, tmp_path, ("step", step)) == -signal.SIGKILL
    assert run(config, tmp_path) == 0
    assert_same_end(tmp_path, whole_runs(name))


@pytest.mark.slow
@pytest.mark.xdist_group("kills")
@pytest.mark.parametrize("name", list(DETECTORS))
def test_no_kill_loses_or_changes_a_run(tmp_path, root, whole_runs, name):
    """Kills in the middle of steps, of writings, and at any time: 17 for each detector."""
    generator = random.Random(f"kills of {name}")
    whole = whole_runs(name)
    events = [*["step"] * 4, *["save"] * 4, *["flush"] * 2, *["rename"] * 3, *["link"] * 2]
    generator.shuffle(events)
    kills, number = 0, 0
    while kills < 17:
        folder = tmp_path / str(number)
        number += 1
        for _ in range(4):  # one run dies several times
            config = make_config(name, root, keep=generator.choice([1, 2, 3]))
            if events:
                death, seconds = (events.pop(), generator.randint(1, 6)), None
            else:
                death, seconds = None, generator.uniform(0.2, 3.0)
            ended = run(config, folder, death, seconds)
            assert ended in (0, -signal.SIGKILL)
            kills += ended != 0
            if ended == 0:
                break
        assert run(make_config(name, root), folder) == 0
        assert_same_end(folder, whole)
