"""ResNet (He et al. 2016, table 1), torchvision's: 18, 34, 50, 101 and 152 layers.

Deviation, torchvision's: in the bottleneck blocks of 50 layers and more, the 3×3 convolution has
the stride instead of the first 1×1.
"""

from functools import partial
from typing import Any

from torch import nn
from torchvision import models

from detect.backbones.base import Backbone, Published
from detect.backbones.registry import BACKBONES


def _resnet(name: str) -> Backbone:
    """Trunk through conv5_x (512 or 2,048 channels, stride 32), head the global average pool."""
    network: Any = models.get_model(name, weights=None)
    trunk = nn.Sequential(
        *(layer for part, layer in network.named_children() if part not in ("avgpool", "fc"))
    )
    weights = models.get_model_weights(name)["IMAGENET1K_V1"]
    return Backbone(
        trunk,
        nn.Sequential(network.avgpool, nn.Flatten()),
        image_size=224,
        published=Published(network, classifier="fc.", weights=weights),
    )


for _depth in (18, 34, 50, 101, 152):
    BACKBONES.register(f"resnet{_depth}")(partial(_resnet, f"resnet{_depth}"))
