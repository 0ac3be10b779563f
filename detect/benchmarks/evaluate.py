"""The evaluators beside pycocotools, faster-coco-eval, torchmetrics and the devkit's loop.

Ours take tensors, image by image, on a device; the rivals take what they take: lists of
dictionaries for COCO's tools, whose index is part of their time as it is with files, and tensors on
the CPU for torchmetrics. Results are asserted to be equal before anything is timed.
"""

import contextlib
import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detect.benchmarks.devkit_loop import devkit_map
from detect.benchmarks.memory import MEBIBYTE, peak_of
from detect.benchmarks.rivals import check_rivals, import_rival
from detect.benchmarks.scene import Scene, draw_scene
from detect.benchmarks.timing import Row, row_of, time_in_turn
from detect.errors import DetectError
from detect.evaluation import COCOEvaluator, COCOReport, VOCEvaluator, VOCReport, bootstrap_map
from detect.experiment.run import choose_device
from detect.wording import counted

TEN_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
NUM_RESAMPLINGS = 1000
TENFOLD = 10
# torchmetrics matches by pycocotools and takes as long (4.9 s for 400 images of 100 detections on
# one core): a part of the set tells enough.
TORCHMETRICS_IMAGES = 1000
# COCO's tools add up in another order than ours, and torchmetrics gives float32.
TOLERANCES = {"pycocotools": 1e-12, "faster-coco-eval": 1e-9, "torchmetrics": 1e-6}

Records = tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]
COCOLists = tuple[dict[str, Any], list[dict[str, Any]]]


@dataclass(frozen=True)
class Contender:
    """A way to judge a scene.

    Attributes:
        prepare: brings the scene into the form that it takes; not timed.
        run: judges it.
    """

    prepare: Callable[[Scene, torch.device], Any]
    run: Callable[[Scene, Any], Any]


def bench_evaluate(
    num_images: int = 4952,
    detections_per_image: int = 100,
    num_classes: int = 20,
    device: str = "cpu",
    repeats: int = 3,
    *,
    with_memory: bool = True,
) -> list[Row]:
    """Compare the evaluators on one seeded set; by default as large as VOC 2007 test.

    Args:
        num_images: images.
        detections_per_image: in every image.
        num_classes: of objects and detections.
        device: of our tensors; the rivals know the CPU alone.
        repeats: of each contender, in turn.
        with_memory: measure the peak memory of each contender too, in a process of its own.

    Returns:
        A row for each contest, as `detect.benchmarks.timing.Row` says.

    Raises:
        DetectError: a rival is not installed, or the results differ.
    """
    check_rivals()
    target = choose_device(device)
    scene = draw_scene(num_images, detections_per_image, num_classes)
    few = scene.first_images(TORCHMETRICS_IMAGES)
    _assert_equal(scene, few, target)
    rows = _contest(scene, "VOC, both mAP at IoU 0.5", "ours VOC", "devkit loop", target, repeats)
    rows += _more_thresholds(scene, target, repeats)
    for rival in ("pycocotools", "faster-coco-eval"):
        rows += _contest_of_both(scene, rival, target, repeats)
    rows += _contest(few, "COCO, 12 numbers", "ours COCO", "torchmetrics", target, repeats)
    for row in rows if with_memory else []:
        _add_peaks(row, num_images, detections_per_image, num_classes)
    rows += _more_detections(scene, detections_per_image, target, repeats)
    rows.append(_bootstrap(scene, target, repeats))
    return rows


def bench_evaluate_small(device: str = "cpu", repeats: int = 1) -> list[Row]:
    """The same on a set that is judged in a moment: a test of the benchmark, not of speed."""
    return bench_evaluate(60, 20, 5, device, repeats, with_memory=False)


# ---- the contenders ---------------------------------------------------------------------------


def judge_voc(
    scene: Scene, records: Records, iou_thresholds: float | tuple[float, ...] = 0.5
) -> VOCReport:
    """Ours, by VOC's protocol."""
    evaluator = VOCEvaluator(scene.class_names, iou_thresholds)
    evaluator.update(*records)
    return evaluator.compute()


def judge_coco(scene: Scene, records: Records) -> dict[str, float]:
    """Ours, by COCO's protocol."""
    evaluator = COCOEvaluator(scene.class_names)
    evaluator.update(*records)
    report: COCOReport = evaluator.compute()
    return report.numbers


def judge_by_pycocotools(scene: Scene, lists: COCOLists) -> list[float]:  # noqa: ARG001
    """pycocotools: index, evaluate, accumulate; the 12 numbers."""
    content, results = lists
    with contextlib.redirect_stdout(io.StringIO()):  # it talks
        objects = import_rival("pycocotools.coco").COCO()
        objects.dataset = content
        objects.createIndex()
        build = import_rival("pycocotools.cocoeval").COCOeval
        return _numbers(build(objects, objects.loadRes(results), "bbox"))


def judge_by_faster_coco_eval(scene: Scene, lists: COCOLists) -> list[float]:  # noqa: ARG001
    """faster-coco-eval, likewise."""
    content, results = lists
    rival = import_rival("faster_coco_eval")
    with contextlib.redirect_stdout(io.StringIO()):
        objects = rival.COCO(content)
        return _numbers(rival.COCOeval_faster(objects, objects.loadRes(results), "bbox"))


def _numbers(judged: Any) -> list[float]:
    """The 12 numbers of a COCOeval."""
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    return [float(value) for value in judged.stats[:12]]


def judge_by_torchmetrics(scene: Scene, records: Records) -> list[float]:  # noqa: ARG001
    """The MeanAveragePrecision of torchmetrics, whose matching is that of pycocotools.

    By itself it takes float32 thresholds, which some recalls fall short of: it is given COCO's own.
    """
    metric = import_rival("torchmetrics.detection").MeanAveragePrecision(
        box_format="xywh",
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
        rec_thresholds=np.linspace(0.0, 1.0, 101).tolist(),
    )
    found, truths = (
        [{"boxes" if key == "boxes_xywh" else key: row[key] for key in row} for row in rows]
        for rows in records
    )
    metric.update(found, truths)
    values = metric.compute()
    names = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large", "mar_1", "mar_10",
             "mar_100", "mar_small", "mar_medium", "mar_large")  # fmt: skip
    return [float(values[name]) for name in names]


_as_corners = partial(Scene.records, as_corners=True)
_as_sizes = partial(Scene.records, as_corners=False)
CPU = torch.device("cpu")
CONTENDERS: Mapping[str, Contender] = {
    "ours VOC": Contender(_as_corners, judge_voc),
    "ours COCO": Contender(_as_sizes, judge_coco),
    "devkit loop": Contender(lambda *_: None, lambda scene, _: devkit_map(scene)),
    "pycocotools": Contender(lambda scene, _: scene.coco_lists(), judge_by_pycocotools),
    "faster-coco-eval": Contender(lambda scene, _: scene.coco_lists(), judge_by_faster_coco_eval),
    "torchmetrics": Contender(lambda scene, _: _as_sizes(scene, CPU), judge_by_torchmetrics),
}


# ---- equality ---------------------------------------------------------------------------------


def _assert_equal(scene: Scene, few: Scene, device: torch.device) -> None:
    """Compare the results of all contenders on the set on which they are timed."""
    report = _judged("ours VOC", scene, device)
    theirs = _judged("devkit loop", scene, device)
    _check_equal("devkit loop", [report.map_11point, report.map_area], list(theirs), 1e-12)
    ours = list(_judged("ours COCO", scene, device).values())
    for rival in ("pycocotools", "faster-coco-eval"):
        _check_equal(rival, ours, _judged(rival, scene, device), TOLERANCES[rival])
    ours = list(_judged("ours COCO", few, device).values())
    theirs = _judged("torchmetrics", few, device)
    _check_equal("torchmetrics", ours, theirs, TOLERANCES["torchmetrics"])


def _judged(name: str, scene: Scene, device: torch.device) -> Any:
    contender = CONTENDERS[name]
    return contender.run(scene, contender.prepare(scene, device))


def _check_equal(rival: str, ours: list[float], theirs: list[float], tolerance: float) -> None:
    for number, (own, other) in enumerate(zip(ours, theirs, strict=True), start=1):
        expected = math.nan if other < 0 else other  # COCO's −1 says that there is no number
        both_undefined = math.isnan(own) and math.isnan(expected)
        if not both_undefined and not abs(own - expected) <= tolerance:
            raise DetectError(
                f"the evaluators differ, so their times say nothing: number {number} is {own!r} by "
                f"ours and {expected!r} by {rival}, expected a difference of {tolerance:g} at "
                "most; please report it, with the versions that 'detect doctor' prints"
            )


# ---- the contests -----------------------------------------------------------------------------


def _times(
    scene: Scene, names: Sequence[str], device: torch.device, repeats: int
) -> dict[str, list[float]]:
    prepared = {name: CONTENDERS[name].prepare(scene, device) for name in names}
    runs = {name: partial(CONTENDERS[name].run, scene, prepared[name]) for name in names}
    return time_in_turn(runs, repeats, device)


def _contest(
    scene: Scene, task: str, ours: str, rival: str, device: torch.device, repeats: int
) -> list[Row]:
    times = _times(scene, (ours, rival), device, repeats)
    tolerance = TOLERANCES.get(rival, 1e-12)
    return [
        row_of(
            task, scene.in_words(), times[ours], rival, times[rival],
            contenders=[ours, rival], equal_to=tolerance, num_images=scene.num_images,
        )
    ]  # fmt: skip


def _contest_of_both(scene: Scene, rival: str, device: torch.device, repeats: int) -> list[Row]:
    """Both of ours beside one that has COCO's numbers alone, VOC's mAP not being among them."""
    times = _times(scene, ("ours COCO", "ours VOC", rival), device, repeats)
    further = {"equal_to": TOLERANCES[rival], "num_images": scene.num_images}
    return [
        row_of(
            "COCO, 12 numbers", scene.in_words(), times["ours COCO"], rival, times[rival],
            contenders=["ours COCO", rival], **further,
        ),
        row_of(
            "VOC, both mAP at IoU 0.5", scene.in_words(), times["ours VOC"],
            f"{rival}, 12 numbers", times[rival],
        ),
    ]  # fmt: skip


def _more_thresholds(scene: Scene, device: torch.device, repeats: int) -> list[Row]:
    records = _as_corners(scene, device)
    judge = partial(judge_voc, scene, records)
    times = time_in_turn({"ten": partial(judge, TEN_THRESHOLDS), "one": judge}, repeats, device)
    name = "VOC, both mAP at ten IoU thresholds"
    return [row_of(name, scene.in_words(), times["ten"], "ours at one", times["one"])]


def _more_detections(
    scene: Scene, detections_per_image: int, device: torch.device, repeats: int
) -> list[Row]:
    large = draw_scene(scene.num_images, TENFOLD * detections_per_image, scene.num_classes)
    rows = []
    for name, judge, as_corners in (
        ("VOC, both mAP at IoU 0.5", judge_voc, True),
        ("COCO, 12 numbers", judge_coco, False),
    ):
        records = [one.records(device, as_corners=as_corners) for one in (large, scene)]
        runs = {
            "large": partial(judge, large, records[0]),
            "small": partial(judge, scene, records[1]),
        }
        times = time_in_turn(runs, repeats, device)
        beside = f"ours, {counted(len(scene.scores), 'detection')}"
        rows.append(row_of(name, large.in_words(), times["large"], beside, times["small"]))
    return rows


def _bootstrap(scene: Scene, device: torch.device, repeats: int) -> Row:
    evaluator = VOCEvaluator(scene.class_names)
    evaluator.update(*_as_corners(scene, device))
    detections, objects = evaluator.flat()
    sizes = (scene.num_classes, scene.num_images)
    run = partial(bootstrap_map, detections, objects, *sizes, num_resamplings=NUM_RESAMPLINGS)
    times = time_in_turn({"bootstrap": run}, repeats, device)
    name = f"confidence intervals, {NUM_RESAMPLINGS:,} resamplings"
    return row_of(name, scene.in_words(), times["bootstrap"])


# ---- memory -----------------------------------------------------------------------------------


def _add_peaks(row: Row, num_images: int, detections_per_image: int, num_classes: int) -> None:
    for key, name in zip(
        ("ours_peak_mib", "rival_peak_mib"), row.get("contenders", ()), strict=False
    ):
        sizes = (num_images, detections_per_image, num_classes, row["num_images"])
        row[key] = _peak_in_fresh_process(name, *sizes)


def _peak_in_fresh_process(name: str, *sizes: int) -> float:
    """MiB that a contender takes beyond its input, on the CPU."""
    code = "from detect.benchmarks.evaluate import print_peak; print_peak()"
    root = str(Path(__file__).parent.parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", code, name, *map(str, sizes)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    if done.returncode != 0:
        last = (done.stderr.strip() or "nothing on the error output").splitlines()[-1]
        raise DetectError(
            f"measuring the memory of {name} ended with status {done.returncode}: {last}; is there "
            "memory enough? --small takes less"
        )
    return float(json.loads(done.stdout.splitlines()[-1]))


def print_peak() -> None:
    """Print the peak memory of one contender in MiB; the arguments are those of the process."""
    name = sys.argv[1]
    num_images, detections_per_image, num_classes, num_judged = map(int, sys.argv[2:])
    _judged(name, draw_scene(5, 5, 2), CPU)  # imports and first allocations
    scene = draw_scene(num_images, detections_per_image, num_classes).first_images(num_judged)
    prepared = CONTENDERS[name].prepare(scene, CPU)
    peak = peak_of(lambda: CONTENDERS[name].run(scene, prepared))
    print(json.dumps(peak / MEBIBYTE))
