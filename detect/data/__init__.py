"""Data sets: reading, checking, drawing and transforming. Floor 2."""

from detect.data.augmentation import Augmentation, ClassificationAugmentation
from detect.data.crops import ObjectCrops
from detect.data.faults import DataFaults, Fault
from detect.data.folders import ImageFolder, read_image_folder
from detect.data.images import (
    MAX_IMAGE_PIXELS,
    ImageError,
    ImageHeader,
    read_image,
    read_image_header,
    read_image_size,
    verify_image,
)
from detect.data.loading import EpochOrder, TrainingBatches, evaluation_batches
from detect.data.shapes import SHAPE_CLASSES, draw_shapes, ensure_shapes
from detect.data.transforms import fit_to_input
from detect.data.voc import (
    VOC_CLASSES,
    ClassNames,
    VOCDataset,
    VOCReport,
    VOCSource,
    check_voc,
    read_voc,
)

__all__ = [
    "MAX_IMAGE_PIXELS",
    "SHAPE_CLASSES",
    "VOC_CLASSES",
    "Augmentation",
    "ClassNames",
    "ClassificationAugmentation",
    "DataFaults",
    "EpochOrder",
    "Fault",
    "ImageError",
    "ImageFolder",
    "ImageHeader",
    "ObjectCrops",
    "TrainingBatches",
    "VOCDataset",
    "VOCReport",
    "VOCSource",
    "check_voc",
    "draw_shapes",
    "ensure_shapes",
    "evaluation_batches",
    "fit_to_input",
    "read_image",
    "read_image_folder",
    "read_image_header",
    "read_image_size",
    "read_voc",
    "verify_image",
]
