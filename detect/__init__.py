"""Object detection from the sliding window to YOLO under one roof.

>>> import detect
>>> model = detect.load("runs/mine")                      # doctest: +SKIP
>>> found = model.predict("photo.jpg")                    # doctest: +SKIP
>>> [model.class_names[label] for label in found.labels]  # doctest: +SKIP
"""

import os
from typing import TYPE_CHECKING, Any

from detect.version import __version__

if TYPE_CHECKING:
    from detect.experiment.model import Model, load
    from detect.structures import Detections

# albumentations asks the network for its newest version on import unless told not to.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

__all__ = ["Detections", "Model", "__version__", "load"]

_HOMES = {
    "Detections": "detect.structures",
    "Model": "detect.experiment.model",
    "load": "detect.experiment.model",
}


def __getattr__(name: str) -> Any:
    # imported on first use: torch takes seconds, and `detect --help` does without it
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'detect' has no attribute {name!r}")
