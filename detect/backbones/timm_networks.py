"""`timm/<name>`: any classification network of timm (extra `timm`), by Ross Wightman."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from detect.backbones.base import Backbone
from detect.backbones.registry import BACKBONES
from detect.backbones.splitting import split
from detect.errors import DetectError
from detect.registry import hint
from detect.version import install_command


def names() -> list[str]:
    """Of timm's networks.

    Raises:
        DetectError: timm is not installed.
    """
    return list(_timm().list_models())


@BACKBONES.register_family("timm/", names)
def timm_network(name: str) -> Backbone:
    """The network that timm builds under `name`, split by watching one run.

    Raises:
        DetectError: timm is not installed, has no such network, or one that cannot be split.
    """
    timm = _timm()
    if not timm.is_model(name):
        raise DetectError(f"unknown backbone 'timm/{name}'; {hint(name, names(), 'timm/')}")
    with torch.device("cpu"):  # the split compares numbers
        network = _create(timm, name)
        settings: Any = network.pretrained_cfg
        return split(
            network,
            f"timm/{name}",
            image_size=settings["input_size"][1],
            mean=settings["mean"],
            std=settings["std"],
            fetch=partial(_fetch, network, name),
        )


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise DetectError(
            "backbones under timm/ need the library timm, which is not installed: "
            + install_command("timm")
        ) from error
    return timm


def _create(timm: Any, name: str) -> nn.Module:
    network: nn.Module
    try:  # window transformers take images of any size if asked to; others know no such option
        network = timm.create_model(name, pretrained=False, strict_img_size=False)
    except TypeError:
        network = timm.create_model(name, pretrained=False)
    return network


def _fetch(network: nn.Module, name: str) -> Mapping[str, Tensor]:
    import timm

    try:
        timm.models.load_pretrained(network)
    except Exception as error:  # of the network, the hub's library or the file
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DetectError(
            f"the ImageNet weights of timm/{name} are not here and could not be downloaded "
            f"({reason}). Run once on a machine with a network and bring its Hugging Face cache "
            "(the environment variable HF_HOME names the folder), or give the path of a file as "
            "backbone.weights"
        ) from error
    return network.state_dict()
