"""VGG (Simonyan & Zisserman 2015, table 1), torchvision's: 11, 13, 16 and 19 layers.

They are the paper's configurations A, B, D and E; `…_bn` has BatchNorm, which came after the paper.
"""

from functools import partial
from typing import Any

from torch import nn
from torchvision import models

from detect.backbones.base import Backbone, Published
from detect.backbones.registry import BACKBONES


def _vgg(name: str) -> Backbone:
    """Trunk through pool5 (512 channels, stride 32), head fc6 and fc7 over a 7×7 grid."""
    network: Any = models.get_model(name, weights=None)
    head = nn.Sequential(nn.Flatten(), *network.classifier[:-1])
    weights = models.get_model_weights(name)["IMAGENET1K_V1"]
    return Backbone(
        network.features,
        head,
        image_size=224,
        published=Published(network, classifier="classifier.6.", weights=weights),
    )


for _depth in (11, 13, 16, 19):
    for _suffix in ("", "_bn"):
        _name = f"vgg{_depth}{_suffix}"
        BACKBONES.register(_name)(partial(_vgg, _name))
