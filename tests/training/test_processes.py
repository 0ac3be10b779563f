"""Two processes that train together, over gloo on the CPU."""

import io
import json
import os
import signal

import pytest
import torch
from rich.console import Console
from torch.testing import assert_close

from detect.backbones import create_backbone
from detect.config import resolve
from detect.data import TrainingBatches, draw_shapes, read_dataset
from detect.detectors import DETECTORS
from detect.errors import DetectError
from detect.experiment.evaluation import evaluate
from detect.experiment.model import build_detector
from detect.settings import Settings
from detect.training import (
    ALONE,
    EngineSettings,
    FitPhase,
    GradientPhase,
    GradientSettings,
    Processes,
    ProgressDisplay,
    TrainingRun,
    load_checkpoint,
    synchronize_batch_norm,
)
from tests.training.tiny_training import Brightness
from tests.training.together import run_together

CPU = torch.device("cpu")
BATCH_SIZE = 8


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    draw_shapes(folder, 60, seed=3, image_size=(64, 64))
    return folder


def dataset_of(root, split="train"):
    return read_dataset(root, split, verify_images=False)


def make_detector(name, dataset):
    torch.manual_seed(0)
    backbone = create_backbone("tiny")
    options = {"input_size": 64, "score_threshold": 0.001}
    if name == "yolo":
        options |= {"head": "convolutional", "variant": "modern", "hidden_features": 32}
    detector = DETECTORS[name](backbone, len(dataset.class_names), **options)
    return detector.double()


def journal_of(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["kind"] == "train"]


def take_steps(processes, root, folder, accumulate=1):
    """Train YOLO in float64, BatchNorm over all processes; the losses of its steps."""
    dataset = dataset_of(root)
    detector = make_detector("yolo", dataset)
    if processes.count > 1:
        synchronize_batch_norm(detector)
    settings = GradientSettings(
        epochs=3,
        batch_size=BATCH_SIZE,
        learning_rate=0.02,
        log_interval=1,
        accumulate=accumulate,
        gradient_clip=1.0,
        ema_decay=0.9,
    )
    batches = TrainingBatches(
        dataset,
        None,
        detector.input_spec,
        batch_size=BATCH_SIZE,
        seed=0,
        share=(processes.rank, processes.count),
    )
    display = ProgressDisplay(Console(file=io.StringIO()))
    run = TrainingRun(
        detector, folder, CPU, {"class_names": []}, None, display, processes=processes
    )
    run.run([GradientPhase("train", detector, detector.loss, batches, settings)])
    return {name: value.clone() for name, value in detector.state_dict().items()}


def test_two_processes_learn_what_one_learns(tmp_path, root):
    alone = take_steps(ALONE, root, tmp_path / "one")
    first, second = run_together(take_steps, root, tmp_path / "two")
    expected, found = journal_of(tmp_path / "one"), journal_of(tmp_path / "two")
    assert len(expected) > 6
    for one, two in zip(expected, found, strict=True):  # the losses themselves are float32
        assert two["terms"] == pytest.approx(one["terms"], rel=1e-5)
    for name, value in alone.items():
        assert_close(first[name], value, rtol=1e-4, atol=1e-5)
        assert_close(second[name], first[name], rtol=0, atol=0)
    dataset = dataset_of(root)
    scores = []
    for state in (alone, first):
        detector = make_detector("yolo", dataset)
        detector.load_state_dict(state)
        scores.append(evaluate(detector, dataset, make_config(root), CPU).report.map_area)
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    assert scores[0] > 0


def count_images(processes, root):
    dataset = dataset_of(root)
    spec = make_detector("yolo", dataset).input_spec
    batches = TrainingBatches(
        dataset, None, spec, batch_size=6, seed=1, share=(processes.rank, processes.count)
    )
    return [[meta.image_id for meta in batch.metas] for batch in batches.epoch(0)]


def test_no_image_comes_twice_in_an_epoch(root):
    whole = count_images(ALONE, root)
    shares = [count_images(Processes(rank, 3), root) for rank in range(3)]
    for number, batch in enumerate(whole):
        parts = [share[number] for share in shares]
        assert [len(part) for part in parts] == [2, 2, 2]
        assert sorted(name for part in parts for name in part) == sorted(batch)
    seen = [name for batch in whole for name in batch]
    assert len(set(seen)) == len(seen) > 20


def make_config(root, **changes):
    values = {
        "data": {"kind": "voc", "root": str(root), "classes": "auto", "num_workers": 0},
        "backbone": {"name": "tiny"},
        "detector": {"name": "yolo", "input_size": 64, "hidden_features": 32},
        "evaluation": {"batch_size": 5},
        **changes,
    }
    return resolve(Settings(values, {}), "test")


def judge(processes, root):  # noqa: ARG001
    dataset = dataset_of(root, "test")
    config = make_config(root)
    detector = build_detector(config, len(dataset.class_names))
    evaluation = evaluate(detector, dataset, config, CPU)
    found = [(d.boxes, d.scores, d.labels) for d in evaluation.detections.detections]
    return evaluation.report.map_area, evaluation.report.map_11point, found


def test_two_processes_find_what_one_finds_to_the_bit(root):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the others have it
    try:
        expected = judge(ALONE, root)
    finally:
        torch.set_num_threads(threads)
    assert sum(len(scores) for _, scores, _ in expected[2]) > 100
    for result in run_together(judge, root):
        assert result[:2] == expected[:2]
        for one, other in zip(expected[2], result[2], strict=True):
            assert_close(other, one, rtol=0, atol=0)


class Numbered:
    """Batches of `Brightness`, each process its own."""

    def __init__(self, rank):
        from tests.training.tiny_training import Images

        self.images, self.rank = Images(), rank

    def __len__(self):
        return len(self.images)

    def explain(self, error):
        return error

    def epoch(self, epoch, start=0):
        return [self.images.batch(2 * epoch + self.rank, n) for n in range(start, len(self))]


def train_brightness(processes, folder, *, act=None, at=(0, 0), resume=False, fit=None):
    """Four epochs; at a step of a process, `act` is called."""
    module = Brightness()
    torch.manual_seed(7 + processes.rank)
    calls = 0

    def loss(batch):
        nonlocal calls
        calls += 1
        if (processes.rank, calls) == at:
            act()
        return module.loss(batch)

    settings = GradientSettings(epochs=4, batch_size=8, learning_rate=0.05, log_interval=2)
    phases = [GradientPhase("train", module, loss, Numbered(processes.rank), settings)]
    if fit is not None:
        phases.append(FitPhase("fit", lambda watch: fit(processes, module, watch)))
    display = ProgressDisplay(Console(file=io.StringIO()))
    run = TrainingRun(
        module,
        folder,
        CPU,
        {"class_names": []},
        None,
        display,
        engine=EngineSettings(checkpoint_steps=3),
        processes=processes,
    )
    if resume:
        run.resume()
    run.run(phases)
    return {name: value.clone() for name, value in module.state_dict().items()}


def interrupt():
    signal.raise_signal(signal.SIGTERM)


def interrupted(processes, folder):
    return train_brightness(processes, folder, act=interrupt, at=(1, 8))


def resumed(processes, folder):
    return train_brightness(processes, folder, resume=True)


def test_a_signal_to_one_process_stops_all_and_the_run_continues_to_the_bit(tmp_path):
    expected = run_together(train_brightness, tmp_path / "whole")
    stopped = run_together(interrupted, tmp_path / "parts")
    for text in stopped:
        assert "stopped by SIGTERM; everything so far is in" in text
    position = load_checkpoint(tmp_path / "parts" / "checkpoints" / "last.pt")["training"]
    assert position["position"]["step"] == 8
    found = run_together(resumed, tmp_path / "parts")
    for one, other in zip(expected, found, strict=True):
        assert_close(other, one, rtol=0, atol=0)
    # dropout of the two was not the same: their generators were kept apart
    first, second = position["generators"]
    assert not torch.equal(first["torch"], second["torch"])


def fail():
    raise DetectError("photo.jpg: no such image")


def failing(processes, folder):
    return train_brightness(processes, folder, act=fail, at=(1, 3))


def test_a_failure_of_one_process_ends_the_others(tmp_path):
    first, second = run_together(failing, tmp_path)
    assert "photo.jpg: no such image" in second
    assert first.startswith("DetectError")
    assert "process 0: another process of the run ended; its message says why" in first


def fit_in_first(processes, module, watch):  # noqa: ARG001
    assert processes.is_first
    with torch.no_grad():
        module.output.bias.fill_(4.0)
    return {"process": os.getpid()}


def fitting(processes, folder):
    return train_brightness(processes, folder, fit=fit_in_first)


def test_what_the_first_process_solves_reaches_all(tmp_path):
    first, second = run_together(fitting, tmp_path)
    assert first["output.bias"].tolist() == [4.0, 4.0]
    assert_close(second, first, rtol=0, atol=0)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if line["kind"] == "train"]
    assert len(set(steps)) == len(steps) > 10  # one writer


def test_a_batch_that_cannot_be_shared_is_refused(root):
    from detect.experiment.run import prepare_run

    config = make_config(root, training={"batch_size": 9})
    with pytest.raises(DetectError, match=r"expected a multiple of the 2 processes.*found 9"):
        prepare_run(config, root / "run", False, "cpu", Console(quiet=True), Both(1, 2))


class Both(Processes):
    """Two processes that need not meet."""

    def first_alone(self):
        from contextlib import nullcontext

        return nullcontext()
