"""Data sets: reading, checking, drawing and transforming. Floor 2."""

from detect.data.annotated import AnnotatedImage, AnnotatedObject, AnnotatedSet, DataFormat
from detect.data.checking import CheckReport, Finding, check_annotated
from detect.data.classes import VOC_CLASSES, ClassNames
from detect.data.conversion import Written, write_annotated
from detect.data.dataset import DetectionDataset, OnError, Skeleton
from detect.data.faults import DataFaults, Fault
from detect.data.formats.coco import NO_SPLIT, coco_files
from detect.data.formats.coco_truths import COCOTruths, read_coco_truths
from detect.data.formats.image_folders import ImageFolder, read_image_folder
from detect.data.formats.imagenet_localization import read_imagenet_localization
from detect.data.formats.keypoints import read_coco_keypoints
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
from detect.data.loading.person_crops import PersonCrops
from detect.data.loading.proposed import ProposedSamples
from detect.data.loading.transforms import drop_empty, fit_to_input, meta_in_input
from detect.data.readers import DATASETS, DatasetReader, DatasetRequest, Source
from detect.data.reading import detect_format, read_annotated, read_dataset, splits_of
from detect.data.splitting import counts_by_split, parse_shares, stratify
from detect.data.synthetic.figures import draw_figures
from detect.data.synthetic.shapes import SHAPE_CLASSES, draw_shapes
from detect.data.write_splits import SplitsWritten, with_splits, write_splits
