"""Object detection from the sliding window to YOLO under one roof."""

import os

# albumentations asks the network for its newest version on import unless told not to.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

__version__ = "0.1.0"
