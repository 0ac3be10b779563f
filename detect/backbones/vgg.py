"""VGG-16 (Simonyan & Zisserman 2015, configuration D), torchvision's."""

from torch import nn
from torchvision import models

from detect.backbones.base import Backbone, Published
from detect.backbones.registry import BACKBONES


@BACKBONES.register("vgg16")
def vgg16() -> Backbone:
    """Trunk through pool5 (512 channels, stride 32), head fc6 and fc7 over a 7×7 grid."""
    network = models.vgg16()
    head = nn.Sequential(nn.Flatten(), *network.classifier[:-1])
    weights = models.VGG16_Weights.IMAGENET1K_V1
    return Backbone(
        network.features,
        head,
        image_size=224,
        published=Published(network, classifier="classifier.6.", weights=weights),
    )
