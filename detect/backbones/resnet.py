"""ResNet-18 (He et al. 2016, table 1), torchvision's."""

from torch import nn
from torchvision import models

from detect.backbones.base import Backbone, Published
from detect.backbones.registry import BACKBONES


@BACKBONES.register("resnet18")
def resnet18() -> Backbone:
    """Trunk through conv5_x (512 channels, stride 32), head the global average pool."""
    network = models.resnet18()
    trunk = nn.Sequential(
        *(layer for name, layer in network.named_children() if name not in ("avgpool", "fc"))
    )
    weights = models.ResNet18_Weights.IMAGENET1K_V1
    return Backbone(
        trunk,
        nn.Sequential(network.avgpool, nn.Flatten()),
        image_size=224,
        published=Published(network, classifier="fc.", weights=weights),
    )
