"""Run a detector over a data set and judge what it finds."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from detect.config import Config
from detect.data import (
    EvaluationBatches,
    KeypointDataset,
    ProposedSamples,
    VOCDataset,
)
from detect.detectors import Detector, predict
from detect.errors import DetectError
from detect.evaluation import (
    DetectionSet,
    LocalizationEvaluator,
    LocalizationReport,
    PoseEvaluator,
    PoseReport,
    VOCEvaluator,
    VOCReport,
)
from detect.experiment.datasets import Images
from detect.experiment.proposing import find_proposals
from detect.proposals import Proposals
from detect.structures import Detections
from detect.training import (
    present_processes,
)


@dataclass(frozen=True)
class Evaluation:
    """What a detector found in a data set, and how that was judged.

    Attributes:
        detections: of each image.
        report: mAP by both VOC metrics.
        localization: ImageNet's errors, for detectors that name one object an image.
        pose: the joints found, for detectors that give joints.
    """

    detections: DetectionSet
    report: VOCReport
    localization: LocalizationReport | None = None
    pose: PoseReport | None = None

    def scores(self) -> dict[str, float]:
        """The numbers that are followed during a training."""
        scores = {"map_area": self.report.map_area, "map_11point": self.report.map_11point}
        if self.localization is not None:
            scores["top1_localization_error"] = self.localization.top1_localization_error
            scores["top5_localization_error"] = self.localization.top5_localization_error
            scores["mean_iou"] = self.localization.mean_iou
        if self.pose is not None:
            scores["pck_20"] = self.pose.pck(0.2)
            scores["pcp"] = self.pose.pcp
        return scores

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON: the VOC report's, and a key for each other report."""
        values = self.report.as_dict()
        if self.localization is not None:
            values["localization"] = self.localization.as_dict()
        if self.pose is not None:
            values["pose"] = self.pose.as_dict()
        return values

    def tables(self) -> list[Table]:
        """For the terminal."""
        reports = [self.report, self.localization, self.pose]
        return [report.table() for report in reports if report is not None]


def evaluate(
    detector: Detector,
    dataset: Images,
    config: Config,
    device: torch.device,
    progress: Callable[[int], None] | None = None,
    *,
    proposals: Proposals | None = None,
) -> Evaluation:
    """Run a detector over a data set and judge what it finds.

    Args:
        detector: on `device`.
        dataset: whose class names are the detector's.
        config: gives the IoU threshold, the batch size and the number of workers.
        device: of the detector.
        progress: called with the number of images of each batch that is done.
        proposals: of the data set, for a detector that wants some; None lets them be found.
    """
    if proposals is None:
        proposals = proposals_of(detector, dataset, config, Console(quiet=True))
    names, iou_threshold = dataset.class_names, config.evaluation.iou_threshold
    evaluator = VOCEvaluator(names, iou_threshold)
    localization = (
        LocalizationEvaluator(names, iou_threshold) if "localization" in detector.metrics else None
    )
    pose = None
    if "pose" in detector.metrics and isinstance(dataset, KeypointDataset):
        pose = PoseEvaluator(dataset.joint_names, dataset.limbs)
    found = _detect(detector, dataset, config, device, progress, proposals)
    evaluator.update(found, dataset.truths)
    if localization is not None:
        localization.update(found, dataset.truths)
    if pose is not None:
        pose.update(found, dataset.truths)
    return Evaluation(
        DetectionSet(names, dataset.image_ids, tuple(found)),
        evaluator.compute(),
        None if localization is None else localization.compute(),
        None if pose is None else pose.compute(),
    )


def _detect(
    detector: Detector,
    dataset: Images,
    config: Config,
    device: torch.device,
    progress: Callable[[int], None] | None,
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
    for batch in batches:
        own.append(predict(detector, batch.to(device)))
        if progress is not None:
            progress(len(batch))
    return [found for batch in processes.gather_in_turn(own) for found in batch]


def proposals_of(
    detector: Detector, dataset: Images, config: Config, console: Console
) -> Proposals | None:
    """The proposals of a data set as a detector wants them; None if it wants none.

    Raises:
        DetectError: they cannot be found, such as in images with joints.
    """
    if detector.proposal_source is None:
        return None
    if not isinstance(dataset, VOCDataset):
        raise DetectError(
            f"data.kind: {config.detector['name']} looks for proposals in whole images with "
            f"boxes, found data of kind {config.data.kind!r}; take voc, coco, yolo or shapes"
        )
    return find_proposals(detector, dataset, Path(config.data.cache), console)
