"""GoogLeNet (Szegedy et al. 2015), torchvision's, with its auxiliary classifiers for training.

Deviations, torchvision's: BatchNorm after each convolution, and 3×3 filters where the inception
modules of the paper have 5×5.
"""

from functools import partial

from torch import nn
from torchvision import models
from torchvision.models.googlenet import InceptionAux

from detect.backbones.base import Auxiliary, Backbone, Published
from detect.backbones.registry import BACKBONES

HEAD = ("avgpool", "dropout", "fc")
# Layers whose output the auxiliary classifiers take, with its channels (section 5).
AUXILIARY_INPUTS = {"inception4a": 512, "inception4d": 528}


@BACKBONES.register("googlenet")
def googlenet() -> Backbone:
    """Trunk through inception (5b) (1,024 channels, stride 32), head average pool and dropout."""
    network = models.googlenet(aux_logits=True, init_weights=True)
    layers = {
        name: layer
        for name, layer in network.named_children()
        if name not in HEAD and not name.startswith("aux")
    }
    auxiliaries = [
        # section 5: "their loss gets added … weighted by 0.3"
        Auxiliary(list(layers).index(name), partial(InceptionAux, channels), weight=0.3)
        for name, channels in AUXILIARY_INPUTS.items()
    ]
    published = Published(
        network,
        classifier="fc.",
        weights=models.GoogLeNet_Weights.IMAGENET1K_V1,
        ignored=("aux1.", "aux2."),
    )
    return Backbone(
        nn.Sequential(*layers.values()),
        nn.Sequential(network.avgpool, nn.Flatten(), network.dropout),
        image_size=224,
        # its weights were made with pixels in −1…1
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        published=published,
        auxiliaries=auxiliaries,
    )
