"""`torchvision/<name>`: any classification network of torchvision."""

import torch
from torchvision import models

from detect.backbones.base import Backbone
from detect.backbones.registry import BACKBONES
from detect.backbones.splitting import split
from detect.errors import DetectError
from detect.registry import hint


def names() -> list[str]:
    """Of torchvision's classification networks."""
    return list(models.list_models(module=models))


@BACKBONES.register_family("torchvision/", names)
def torchvision_network(name: str) -> Backbone:
    """The network that torchvision builds under `name`, split by watching one run.

    Raises:
        DetectError: no such network, or one that cannot be split.
    """
    known = names()
    if name not in known:
        remedy = hint(name, known, "torchvision/")
        raise DetectError(f"unknown backbone 'torchvision/{name}'; {remedy}")
    weights = getattr(models.get_model_weights(name), "DEFAULT")  # noqa: B009
    preset = weights.transforms()
    arguments = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    with torch.device("cpu"):  # the split compares numbers
        network = models.get_model(name, weights=None, **arguments)
        # weights ported from TensorFlow want pixels in −1…1, which the network itself sees to
        # when torchvision loads them
        was_ported = hasattr(network, "transform_input")
        return split(
            network,
            f"torchvision/{name}",
            image_size=preset.crop_size[0],
            mean=(0.5, 0.5, 0.5) if was_ported else preset.mean,
            std=(0.5, 0.5, 0.5) if was_ported else preset.std,
            weights=weights,
            ignored=("aux1.", "aux2.", "AuxLogits."),
        )
