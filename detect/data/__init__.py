"""Data sets: reading, checking, drawing and transforming. Floor 2."""

from detect.data.annotated import AnnotatedImage, AnnotatedObject, AnnotatedSet, DataFormat
from detect.data.checking import CheckReport, Finding, check_annotated
from detect.data.conversion import Written, write_annotated
from detect.data.faults import DataFaults, Fault
from detect.data.formats.annotated_voc import read_annotated_voc
from detect.data.formats.coco import NO_SPLIT, coco_files, read_annotated_coco
from detect.data.formats.coco_truths import COCOTruths, read_coco_truths
from detect.data.formats.image_folders import ImageFolder, read_image_folder
from detect.data.formats.imagenet_localization import read_imagenet_localization
from detect.data.formats.keypoints import KeypointDataset, person_crops, read_coco_keypoints
from detect.data.formats.voc import (
    VOC_CLASSES,
    ClassNames,
    VOCDataset,
    VOCReport,
    VOCSource,
    check_voc,
    read_voc,
)
from detect.data.formats.yolo import read_annotated_yolo
from detect.data.images import (
    MAX_IMAGE_PIXELS,
    ImageError,
    ImageHeader,
    read_image,
    read_image_header,
    read_image_size,
    verify_image,
)
from detect.data.loading.augmentation import Augmentation, ClassificationAugmentation
from detect.data.loading.batches import EpochOrder, EvaluationBatches, SampleSource, TrainingBatches
from detect.data.loading.cache import CachedSamples
from detect.data.loading.crops import ObjectCrops
from detect.data.loading.proposed import ProposedSamples
from detect.data.loading.transforms import drop_empty, fit_to_input, meta_in_input
from detect.data.reading import detect_format, read_annotated, read_data, splits_of
from detect.data.splitting import counts_by_split, parse_shares, stratify
from detect.data.synthetic.figures import (
    annotation_file,
    draw_figures,
    ensure_figures,
    image_folder,
)
from detect.data.synthetic.shapes import SHAPE_CLASSES, draw_shapes, ensure_shapes
from detect.data.write_splits import SplitsWritten, with_splits, write_splits

__all__ = [
    "MAX_IMAGE_PIXELS",
    "NO_SPLIT",
    "SHAPE_CLASSES",
    "VOC_CLASSES",
    "AnnotatedImage",
    "AnnotatedObject",
    "AnnotatedSet",
    "Augmentation",
    "COCOTruths",
    "CachedSamples",
    "CheckReport",
    "ClassNames",
    "ClassificationAugmentation",
    "DataFaults",
    "DataFormat",
    "EpochOrder",
    "EvaluationBatches",
    "Fault",
    "Finding",
    "ImageError",
    "ImageFolder",
    "ImageHeader",
    "KeypointDataset",
    "ObjectCrops",
    "ProposedSamples",
    "SampleSource",
    "SplitsWritten",
    "TrainingBatches",
    "VOCDataset",
    "VOCReport",
    "VOCSource",
    "Written",
    "annotation_file",
    "check_annotated",
    "check_voc",
    "coco_files",
    "counts_by_split",
    "detect_format",
    "draw_figures",
    "draw_shapes",
    "drop_empty",
    "ensure_figures",
    "ensure_shapes",
    "fit_to_input",
    "image_folder",
    "meta_in_input",
    "parse_shares",
    "person_crops",
    "read_annotated",
    "read_annotated_coco",
    "read_annotated_voc",
    "read_annotated_yolo",
    "read_coco_keypoints",
    "read_coco_truths",
    "read_data",
    "read_image",
    "read_image_folder",
    "read_image_header",
    "read_image_size",
    "read_imagenet_localization",
    "read_voc",
    "splits_of",
    "stratify",
    "verify_image",
    "with_splits",
    "write_annotated",
    "write_splits",
]
