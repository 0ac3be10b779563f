"""The later, one-GPU AlexNet ("one weird trick", Krizhevsky 2014), torchvision's."""

from torch import nn
from torchvision import models

from detect.backbones.base import Backbone, Published
from detect.backbones.registry import BACKBONES


@BACKBONES.register("alexnet_owt")
def alexnet_owt() -> Backbone:
    """Trunk through pool5 (256 channels, stride 32), head fc6 and fc7 over a 6×6 grid."""
    network = models.alexnet()
    head = nn.Sequential(nn.Flatten(), *network.classifier[:-1])
    weights = models.AlexNet_Weights.IMAGENET1K_V1
    return Backbone(
        network.features,
        head,
        image_size=224,
        published=Published(network, classifier="classifier.6.", weights=weights),
    )
