"""Object detection from the sliding window to YOLO under one roof.

>>> import detect
>>> model = detect.load("runs/mine")                # doctest: +SKIP
>>> found = model.predict("photo.jpg")              # doctest: +SKIP
>>> found                                           # doctest: +SKIP
Detections(2: dog 0.98, cat 0.71)
>>> found.plot("photo.jpg")                         # doctest: +SKIP
"""

import importlib as _importlib
import os as _os
from typing import TYPE_CHECKING as _TYPE_CHECKING

from detect.actions import ACTIONS as _ACTIONS
from detect.version import __version__

if _TYPE_CHECKING:
    from detect import ops
    from detect.backbones import BACKBONES, Backbone, create_backbone, list_backbones
    from detect.data import DATASETS, DatasetRequest, DetectionDataset, read_dataset
    from detect.detectors import DETECTORS, Detector, list_detectors
    from detect.errors import DetectError
    from detect.evaluation import COCOEvaluator, VOCEvaluator, evaluate_detections
    from detect.experiment.model import Model, load
    from detect.face import (
        check_dataset,
        convert_dataset,
        evaluate,
        load_config,
        train,
    )
    from detect.proposals import PROPOSALS
    from detect.structures import Batch, Detections, GroundTruth, ImageMeta, InputSpec, Sample
    from detect.visualization import draw_detections, draw_truth

# albumentations asks the network for its newest version on import unless told not to.
_os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

__all__ = [
    "BACKBONES",
    "DATASETS",
    "DETECTORS",
    "PROPOSALS",
    "Backbone",
    "Batch",
    "COCOEvaluator",
    "DatasetRequest",
    "DetectError",
    "DetectionDataset",
    "Detections",
    "Detector",
    "GroundTruth",
    "ImageMeta",
    "InputSpec",
    "Model",
    "Sample",
    "VOCEvaluator",
    "__version__",
    "check_dataset",
    "convert_dataset",
    "create_backbone",
    "draw_detections",
    "draw_truth",
    "evaluate",
    "evaluate_detections",
    "list_backbones",
    "list_detectors",
    "load",
    "load_config",
    "ops",
    "read_dataset",
    "train",
]

# Module → what it gives; imported on first use: torch takes seconds, and `detect --help` does
# without it.
_HOMES = {
    "detect.backbones": "BACKBONES Backbone create_backbone list_backbones",
    "detect.data": "DATASETS DatasetRequest DetectionDataset read_dataset",
    "detect.detectors": "DETECTORS Detector list_detectors",
    "detect.errors": "DetectError",
    "detect.evaluation": "COCOEvaluator VOCEvaluator evaluate_detections",
    "detect.experiment.model": "Model load",
    "detect.face": "check_dataset convert_dataset evaluate load_config train",
    "detect.proposals": "PROPOSALS",
    "detect.structures": "Batch Detections GroundTruth ImageMeta InputSpec Sample",
    "detect.visualization": "draw_detections draw_truth",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    if name == "ops":
        return _importlib.import_module("detect.ops")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'detect' has no attribute {name!r}")
    value = getattr(_importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value  # from now on found without this function
    return value


_ACTIONS["plot"] = lambda *given: _importlib.import_module(
    "detect.visualization.drawing"
).plot_detections(*given)
_ACTIONS["save"] = lambda *given: _importlib.import_module(
    "detect.evaluation.files.detection_files"
).save_detections(*given)


def __dir__() -> list[str]:
    return sorted(__all__)
