"""Tensor operations on boxes: area, deltas, IoU, suppression, merging, matching. Floor 0."""

from detect.ops.boxes import (
    box_area,
    clip_boxes,
    decode_deltas,
    encode_deltas,
    from_center_size,
    has_area,
    to_center_size,
)
from detect.ops.boxes_fusion import FusedBoxes, FusedScore, weighted_boxes_fusion
from detect.ops.iou import IoUKind, box_iou, elementwise_box_iou
from detect.ops.matching import (
    BACKGROUND,
    IGNORED,
    BalancedSample,
    Match,
    match,
    sample_balanced,
    sample_balanced_batch,
)
from detect.ops.matrix_nms import matrix_nms
from detect.ops.merge import MergeWeights, merge_predictions
from detect.ops.nms import NMSMethod, grouped_nms, grouped_nms_mask, nms
from detect.ops.overlapping_pairs import OverlappingPairs, iou_at_least
from detect.ops.processes import divisor_over_processes
from detect.ops.soft_nms import Decay, RescoredBoxes, soft_nms
