"""Run a detector over a data set and judge what it finds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console
from rich.table import Table

from detect.config import Config
from detect.data import DetectionDataset, EvaluationBatches, ProposedSamples
from detect.detectors import Detector, predict
from detect.errors import DetectError
from detect.evaluation import (
    DetectionSet,
    Evaluator,
    LocalizationEvaluator,
    PoseEvaluator,
    Report,
    VOCEvaluator,
    VOCReport,
    reports_as_dict,
)
from detect.experiment.proposing import find_proposals
from detect.progress import showing
from detect.proposals import Proposals
from detect.registry import Registry
from detect.structures import Detections
from detect.training import (
    present_processes,
)


@dataclass(frozen=True)
class Evaluation:
    """What a detector found in a data set, and how that was judged.

    Attributes:
        detections: of each image.
        reports: by the names of their evaluators; `voc` is always among them.
    """

    detections: DetectionSet
    reports: Mapping[str, Report]

    @property
    def report(self) -> VOCReport:
        """The mAP by both VOC metrics."""
        return cast(VOCReport, self.reports["voc"])

    def scores(self) -> dict[str, float]:
        """The numbers that are followed during a training, those of all reports."""
        return {
            name: value
            for report in self.reports.values()
            for name, value in report.scores().items()
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON: the VOC report's, and a key for each other report."""
        return reports_as_dict(self.reports)

    def tables(self) -> list[Table]:
        """For the terminal."""
        return [table for report in self.reports.values() for table in report.tables()]


# Further judges of a detector by the names in `Detector.metrics`: each makes an evaluator
# for a data set and an IoU threshold, or None where the data set lacks what it needs.
EVALUATORS = Registry[Callable[[DetectionDataset, float], Evaluator | None]]("evaluator")


@EVALUATORS.register("localization")
def _localization(dataset: DetectionDataset, iou_threshold: float) -> Evaluator:
    return LocalizationEvaluator(dataset.class_names, iou_threshold)


@EVALUATORS.register("pose")
def _pose(dataset: DetectionDataset, _: float) -> Evaluator | None:
    if dataset.skeleton is None:
        return None
    return PoseEvaluator(dataset.joint_names, dataset.limbs)


def evaluate(
    detector: Detector,
    dataset: DetectionDataset,
    config: Config,
    device: torch.device,
    *,
    proposals: Proposals | None = None,
    console: Console | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Run a detector over a data set and judge what it finds.

    Args:
        detector: on `device`.
        dataset: whose class names are the detector's.
        config: gives the IoU threshold, the batch size and the number of workers.
        device: of the detector.
        proposals: of the data set, for a detector that wants some; None lets them be found.
        console: where it is shown how far the work is; None shows nothing.
        progress: called with how many images are done, and of how many, instead of showing that.
    """
    console = console or Console(quiet=True)
    if proposals is None:
        proposals = proposals_of(detector, dataset, config, console)
    names, iou_threshold = dataset.class_names, config.evaluation.iou_threshold
    further = (EVALUATORS[name](dataset, iou_threshold) for name in detector.metrics)
    evaluators = [VOCEvaluator(names, iou_threshold), *(one for one in further if one is not None)]
    with showing("Detecting", console, total=len(dataset)) as shown:
        found = _detect(detector, dataset, config, device, progress or shown, proposals)
    for evaluator in evaluators:
        evaluator.update(found, dataset.truths)
    return Evaluation(
        DetectionSet(names, dataset.image_ids, tuple(found)),
        {evaluator.name: evaluator.compute() for evaluator in evaluators},
    )


def _detect(
    detector: Detector,
    dataset: DetectionDataset,
    config: Config,
    device: torch.device,
    progress: Callable[[int, int], None],
    proposals: Proposals | None,
) -> list[Detections]:
    """The detections of all images in order; several processes share the batches.

    Each batch is the one that a single process would have, since an image's numbers depend, in
    the last bits, on those it is computed with.
    """
    processes = present_processes()
    batches = EvaluationBatches(
        dataset if proposals is None else ProposedSamples(dataset, proposals),
        detector.input_spec,
        batch_size=config.evaluation.batch_size,
        num_workers=config.data.num_workers,
        share=(processes.rank, processes.count),
    )
    own: list[list[Detections]] = []
    done = 0
    for batch in batches:
        own.append(predict(detector, batch.to(device)))
        done = min(done + len(batch) * processes.count, len(dataset))
        progress(done, len(dataset))
    return [found for batch in processes.gather_in_turn(own) for found in batch]


def proposals_of(
    detector: Detector, dataset: DetectionDataset, config: Config, console: Console
) -> Proposals | None:
    """The proposals of a data set as a detector wants them; None if it wants none.

    Raises:
        DetectError: they cannot be found, such as in images with joints.
    """
    if detector.proposal_source is None:
        return None
    if dataset.skeleton is not None:
        raise DetectError(
            f"data.kind: {config.detector['name']} looks for proposals in whole images with "
            f"boxes, found data of kind {config.data.kind!r}; take voc, coco, yolo or shapes"
        )
    return find_proposals(detector, dataset, Path(config.data.cache), console)
