"""torchvision's Faster R-CNN as a detector of the toolkit, to be compared with our own.

DETECT_PLUGINS=tools/torchvision_faster_rcnn.py detect train CONFIG detector.name=...

Only the network, its losses and its suppression are torchvision's; data, augmentation, schedule and
evaluator are those of every other run. `tools/bench.py faster-rcnn` compares the two.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from detect.backbones import Backbone
from detect.detectors import DETECTORS, Detector
from detect.structures import Batch, Detections, InputSpec


class _Trunk(nn.Module):
    """A backbone up to a level, as torchvision wants it."""

    def __init__(self, backbone: Backbone, level: str) -> None:
        super().__init__()
        self.backbone, self.level = backbone, level
        self.out_channels = backbone.level_channels[level]

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone.trunk_to(self.level, images)


@DETECTORS.register("torchvision_faster_rcnn")
class TorchvisionFasterRCNN(Detector):
    """`torchvision.models.detection.FasterRCNN` on a backbone of the registry.

    Args:
        backbone: its trunk is used up to `level`.
        num_classes: C.
        input_size: longest side of the input in pixels.
        shorter_side: see `InputSpec`.
        level: of the map that proposals and regions are taken from.
        anchor_sizes: in pixels.
        anchor_ratios: height by width.
        score_threshold: detections below are left out.
        iou_threshold: of the suppression among detections of a class.
        max_detections: kept for each image.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        input_size: int = 1000,
        shorter_side: int = 600,
        level: str = "C4",
        anchor_sizes: Sequence[float] = (32, 64, 128, 256, 512),
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        score_threshold: float = 0.05,
        iou_threshold: float = 0.5,
        max_detections: int = 100,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.input_spec = InputSpec((input_size, input_size), shorter_side=shorter_side)
        backbone.end_at(level)
        sizes, ratios = tuple(map(int, anchor_sizes)), tuple(anchor_ratios)
        self.network = FasterRCNN(
            _Trunk(backbone, level),
            num_classes + 1,
            rpn_anchor_generator=AnchorGenerator((sizes,), (ratios,)),
            box_roi_pool=MultiScaleRoIAlign(["0"], output_size=7, sampling_ratio=2),
            box_score_thresh=score_threshold,
            box_nms_thresh=iou_threshold,
            box_detections_per_img=max_detections,
            # images come as large as this, and the backbone normalizes them
            min_size=shorter_side,
            max_size=input_size,
            image_mean=[0.0, 0.0, 0.0],
            image_std=[1.0, 1.0, 1.0],
        )

    def loss(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Torchvision's four terms."""
        # background is its class 0
        targets = [{"boxes": truth.boxes, "labels": truth.labels + 1} for truth in batch.truths]
        terms: dict[str, Tensor] = self.network(self._images(batch), targets)
        return terms

    def _detect(self, batch: Batch) -> list[Detections]:
        return [
            Detections.sorted(found["boxes"], found["scores"], found["labels"] - 1)
            for found in self.network(self._images(batch))
        ]

    def _images(self, batch: Batch) -> list[Tensor]:
        sizes = [meta.input_size for meta in batch.metas]
        return [
            image[:, :height, :width]
            for image, (height, width) in zip(batch.unit_images(), sizes, strict=True)
        ]
