"""The YOLO detector: one network, one look, a grid of boxes."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from detect.backbones import Backbone
from detect.detectors.base import DETECTORS, Detector
from detect.detectors.ranges import Count, CountOrZero, Share, Weight, check_input_size, in_ranges
from detect.detectors.stages import timed
from detect.detectors.suppression import Suppressor
from detect.detectors.yolo.grid import Grid
from detect.detectors.yolo.heads import ConvolutionalHead, FullyConnectedHead
from detect.detectors.yolo.variants import ModernVariant, PaperVariant, Variant
from detect.structures import Batch, Detections, InputSpec


@DETECTORS.register("yolo")
class YOLO(Detector):
    """The S×S grid head on any backbone: `[B, S, S, 5·boxes_per_cell + C]` in one pass.

    The last dimension holds `(x, y, w, h, confidence)` for each of the boxes, then one score for
    each class, shared by the boxes of the cell (section 2).

    `variant="paper"` is the paper's: linear outputs, `x, y` in cells from the cell's corner,
    `w, h` as square roots of the share of the image, the sum-squared loss of equation 3.

    `variant="modern"` keeps the tensor and the responsible predictor and changes three things.
    An object is given to all cells whose centers lie within 1.5 cells of its own center and inside
    its box (Tian et al. 2019's center sampling), not to one cell alone; where several objects claim
    a cell, the smallest gets it. Boxes are `center = (cell center + t_xy)`, `size = exp(t_wh)`, in
    cells, under the CIoU loss. Confidence and class scores are sigmoids under binary cross entropy,
    the confidence still aiming at the IoU of the predicted box, as in the paper. All terms are
    divided by the number of positive cells in the batch.

    Args:
        backbone: its trunk is used, its head is dropped.
        num_classes: C.
        input_size: side of the square input, or (height, width), in pixels.
        keep_aspect_ratio: letterbox instead of stretching; the paper stretches.
        head: `fully_connected` is the paper's: 4,096 hidden units, dropout, S×S×(5B+C) outputs;
            `convolutional` predicts each cell from the features around it.
        grid_size: S of the fully connected head; the convolutional one follows the feature map.
        grid_stride: pixels per cell of the convolutional head, a stride that the trunk has; finer
            than the trunk's own, coarser maps are upsampled and added to the finer ones (Lin et al.
            2017, top-down path). None takes the trunk's.
        boxes_per_cell: B.
        hidden_features: units of the fully connected, channels of the convolutional head.
        head_depth: 3×3 convolutions before the prediction, convolutional head only.
        dropout: after the hidden layer, fully connected head only (section 2.2: 0.5).
        variant: `paper` or `modern`.
        coordinate_weight: λ_coord; None takes the variant's (paper: 5; modern: 2).
        no_object_weight: λ_noobj; None takes the variant's (paper: 0.5; modern: 1).
        score_threshold: detections below are left out, in 0…1.
        suppressor: see `Suppressor`; the paper gives no IoU threshold, its released code has 0.5.

    Raises:
        DetectError: a grid stride that the trunk does not have, or an input too small for it.
    """

    @in_ranges
    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        input_size: Count | tuple[Count, Count] = 448,
        keep_aspect_ratio: bool = False,
        head: Literal["fully_connected", "convolutional"] = "fully_connected",
        grid_size: Count = 7,
        grid_stride: Count | None = None,
        boxes_per_cell: Count = 2,
        hidden_features: Count | None = None,
        head_depth: CountOrZero = 1,
        dropout: Share = 0.5,
        variant: Literal["paper", "modern"] = "paper",
        coordinate_weight: Weight | None = None,
        no_object_weight: Weight | None = None,
        score_threshold: Share = 0.005,
        suppressor: Suppressor = Suppressor(iou_threshold=0.5),
    ) -> None:
        super().__init__()
        size = (input_size, input_size) if isinstance(input_size, int) else input_size
        check_input_size(backbone, *size)
        self.num_classes = num_classes
        self.input_spec = InputSpec(size, keep_aspect_ratio)
        self.boxes_per_cell = boxes_per_cell
        self.score_threshold = score_threshold
        self.suppressor = suppressor
        backbone.drop_head()
        self.backbone = backbone
        outputs = 5 * boxes_per_cell + num_classes
        self.head: FullyConnectedHead | ConvolutionalHead
        if head == "fully_connected":
            self.head = FullyConnectedHead(
                backbone, size, grid_size, outputs, hidden_features or 4096, dropout
            )
        else:
            self.head = ConvolutionalHead(
                backbone, size, grid_stride, outputs, hidden_features or 256, head_depth
            )
        self.grid = Grid(*self.head.grid_shape, size)
        self.variant: Variant
        if variant == "paper":
            self.variant = PaperVariant(
                5.0 if coordinate_weight is None else coordinate_weight,
                0.5 if no_object_weight is None else no_object_weight,
            )
        else:
            self.variant = ModernVariant(
                2.0 if coordinate_weight is None else coordinate_weight,
                1.0 if no_object_weight is None else no_object_weight,
            )
            is_confidence = [False] * 4 + [True]
            self.head.set_prior(is_confidence * boxes_per_cell + [False] * num_classes)

    def forward(self, batch: Batch) -> Float[Tensor, "B S T outputs"]:
        """The raw output tensor for each cell.

        Raises:
            ValueError: the images are not of the size that the detector was built for.
        """
        size = (batch.images.shape[2], batch.images.shape[3])
        if size != self.grid.size:
            expected = "×".join(map(str, self.grid.size))
            raise ValueError(f"expected images of {expected} pixels, found {size[0]}×{size[1]}")
        output: Tensor = self.head(self.backbone, batch.unit_images())
        return output

    def loss(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Terms `coordinates`, `object`, `no_object` and `classes`, as the variant has them."""
        outputs, confidences, classes = self._split(self(batch).float())
        return self.variant.loss(outputs, confidences, classes, batch.truths, self.grid)

    def _detect(self, batch: Batch) -> list[Detections]:
        with timed("network"):
            outputs, confidences, classes = self._split(self(batch).float())
        with timed("post-processing"):
            boxes = self.variant.decode(outputs, self.grid)
            confidences = self.variant.probabilities(confidences)
            classes = self.variant.probabilities(classes)
            # Pr(class | object) · Pr(object) · IoU, equation 1
            scores = confidences[..., None] * classes[..., None, :]  # [B, S, S, boxes, C]
            boxes, scores = boxes.flatten(1, 3), scores.flatten(1, 3)
            image, box, label = (scores >= self.score_threshold).nonzero(as_tuple=True)
            candidates = (boxes[image, box], scores[image, box, label], label, image)
            return self.suppressor(*candidates, len(scores), self.score_threshold)

    def _split(self, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # → boxes [B, S, S, boxes, 4], confidences [B, S, S, boxes], class scores [B, S, S, C]
        predictors, classes = output.split((5 * self.boxes_per_cell, self.num_classes), dim=-1)
        predictors = predictors.unflatten(-1, (self.boxes_per_cell, 5))
        return predictors[..., :4], predictors[..., 4], classes
