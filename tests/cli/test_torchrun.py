"""The command line under torchrun: two processes on the CPU."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from detect.data import draw_shapes

# together, since they share a run
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("torchrun")]

CONFIG = """
data: {{kind: voc, root: {root}, classes: auto, num_workers: 0}}
backbone: {{name: tiny}}
detector: {{name: yolo, input_size: 64, head: convolutional, hidden_features: 16}}
training: {{epochs: 2, batch_size: 4, evaluate_every: 1}}
evaluation: {{batch_size: 3}}
"""


def torchrun(*arguments, processes=2, options=()):
    """A command in several processes, as `torchrun … -m detect` starts them."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, f"--nproc-per-node={processes}", *options, "-m", "detect", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    return subprocess.run(
        [str(part) for part in command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    draw_shapes(folder, 24, seed=5, image_size=(64, 64))
    return folder


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    config = folder / "yolo.yaml"
    config.write_text(CONFIG.format(root=root))
    done = torchrun("train", config, "--out", folder / "run")
    assert done.returncode == 0, done.stderr
    return folder / "run", done


def test_one_process_writes_and_talks(run):
    folder, done = run
    assert done.stdout.count("Run folder:") == 1
    assert ", 2 processes" in done.stdout
    assert done.stdout.count("train epoch 2/2") == 1
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len([line for line in lines if line["kind"] == "evaluation"]) == 2
    starts = (folder / "starts.jsonl").read_text().splitlines()
    assert [json.loads(start)["processes"] for start in starts] == [2]
    for name in ("config.yaml", "evaluation.json", "detections.json", "curves.png", "metrics.csv"):
        assert (folder / name).is_file(), name
    assert "Warning" not in done.stderr


def test_evaluation_by_two_is_that_by_one(run, tmp_path):
    folder, _ = run
    reports = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        report, save = out / "report.json", out / "found.json"
        done = torchrun("evaluate", folder, "--json", report, "--save", save, processes=processes)
        assert done.returncode == 0, done.stderr
        reports.append((report.read_bytes(), save.read_bytes()))
    assert reports[0] == reports[1]


def test_inference_by_two_is_that_by_one(run, root, tmp_path):
    folder, _ = run
    images = root / "JPEGImages"
    (images / "broken.jpg").write_bytes(b"no image")
    try:
        for processes in (1, 2):
            done = torchrun(
                "infer", folder, images, "--out", tmp_path / str(processes), "--score", "0.01",
                "--save", "json,csv,yolo,voc", processes=processes,
            )  # fmt: skip
            assert "1 of 25 images could not be read" in done.stdout
    finally:
        (images / "broken.jpg").unlink()
    one, two = tmp_path / "1", tmp_path / "2"
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(files) == 24 * 2 + 3
    for file in files:
        assert (two / file).read_bytes() == (one / file).read_bytes(), file
    with (one / "detections.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) > 24


def test_a_failure_ends_all_with_one_message(root, tmp_path):
    config = tmp_path / "yolo.yaml"
    config.write_text(CONFIG.format(root=root))
    done = torchrun("train", config, "training.batch_size=5", "--out", tmp_path / "run")
    assert done.returncode != 0
    assert "training.batch_size: expected a multiple of the 2 processes" in done.stderr
    assert "error of process " in done.stderr
    assert "Traceback (most recent call last)" not in done.stderr.partition("torch/distributed")[0]


def test_a_restart_goes_on_by_itself(root, tmp_path):
    """One of the processes dies once; torchrun starts all again, with the same command."""
    config = tmp_path / "yolo.yaml"
    config.write_text(CONFIG.format(root=root))
    plugin = tmp_path / "dies_once.py"
    plugin.write_text(
        f"""
import os
from pathlib import Path
from detect.training.descent import Descent
step, calls = Descent.step, 0

def dying(*arguments):
    global calls
    calls += 1
    mark = Path({str(tmp_path / "died")!r})
    if os.environ.get("RANK") == "1" and calls == 5 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), 9)
    return step(*arguments)

Descent.step = dying
"""
    )
    os.environ["DETECT_PLUGINS"] = "dies_once"
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(Path.cwd())])
    try:
        done = torchrun(
            "train", config, "--out", tmp_path / "run", "--resume", options=["--max-restarts=1"]
        )
    finally:
        del os.environ["DETECT_PLUGINS"]
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "died").exists()
    starts = (tmp_path / "run" / "starts.jsonl").read_text().splitlines()
    assert len(starts) == 2
    assert (tmp_path / "run" / "evaluation.json").is_file()
