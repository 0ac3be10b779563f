"""Loading weights into a backbone: from a file, or torchvision's from the network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard
from urllib.error import URLError
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from detect.backbones.base import Backbone
from detect.errors import DetectError

# Prefix of the backbone's entries in the state dict of a detector.
DETECTOR_PREFIX = "backbone."


def load_weights(backbone: Backbone, name: str, weights: str) -> None:
    """Load `weights` into `backbone`, in place.

    Args:
        backbone: freshly built.
        name: its name in the registry, for messages.
        weights: `none`; `imagenet`, torchvision's weights, the only case that may use the network;
            or the path of a file: a state dict of torchvision's network of that name (its last
            layer may have any number of classes), of our backbone, or a checkpoint of a detector
            with this backbone.

    Raises:
        DetectError: no such file, not a state dict, entries that do not fit, or no network.
    """
    if weights == "none":
        return
    if weights == "imagenet":
        _load_state(backbone, _imagenet_state(backbone, name), f"the ImageNet weights of {name}")
    else:
        _load_state(backbone, read_state(Path(weights)), f"{weights}: for backbone {name!r}")


def read_state(path: Path) -> Mapping[str, Tensor]:
    """Read a state dict; nothing in the file can run code.

    Raises:
        DetectError: the file is missing, torn, or holds more than tensors and plain data.
    """
    if not path.is_file():
        raise DetectError(
            f"{path}: no such weights file; give the path of a state dict, "
            "or 'imagenet' or 'none' as backbone.weights"
        )
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file of another kind makes torch.load fail in any way
        raise DetectError(
            f"{path}: expected a state dict saved by torch.save, found a file that cannot be "
            "read, is torn or holds something other than tensors and plain data; nothing in it "
            "was run"
        ) from error
    is_checkpoint = isinstance(content, Mapping) and "detector" in content
    if is_checkpoint:
        content = content["detector"]
    if not _is_state_dict(content):
        raise DetectError(
            f"{path}: expected a state dict (name → tensor), found {type(content).__name__}"
        )
    if not is_checkpoint:
        return content
    return {
        key.removeprefix(DETECTOR_PREFIX): value
        for key, value in content.items()
        if key.startswith(DETECTOR_PREFIX)
    }


def _is_state_dict(content: Any) -> TypeGuard[Mapping[str, Tensor]]:
    return isinstance(content, Mapping) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    )


def _imagenet_state(backbone: Backbone, name: str) -> Mapping[str, Tensor]:
    if backbone.published is None:
        raise DetectError(
            f"there are no ImageNet weights of backbone {name!r}; set backbone.weights to 'none' "
            "or to a file"
        )
    url = backbone.published.weights.url
    file = Path(urlparse(url).path).name
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if (folder / file).is_file():  # fetched before, or brought by hand and perhaps damaged
        return read_state(folder / file)
    try:
        state: Mapping[str, Tensor] = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", check_hash=True, weights_only=True
        )
    except (URLError, OSError, RuntimeError) as error:
        raise DetectError(
            f"the ImageNet weights of {name} are not here and could not be downloaded: looked for "
            f"{folder / file}, then asked {url} ({error}). Bring the file {file} from a machine "
            f"with a network and put it into {folder} (the environment variable TORCH_HOME moves "
            "that folder), or give its path as backbone.weights"
        ) from error
    return state


def _load_state(backbone: Backbone, state: Mapping[str, Tensor], source: str) -> None:
    target: nn.Module = backbone
    optional: tuple[str, ...] = ("mean", "std", "head.")
    if backbone.published is not None and not any(key.startswith("trunk.") for key in state):
        target = backbone.published.network
        optional = (backbone.published.classifier,)
        state = {key: value for key, value in state.items() if not key.startswith(optional)}
    expected = target.state_dict()
    missing = [key for key in expected if key not in state and not key.startswith(optional)]
    # counters of old BatchNorm files are of no use to inference
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in expected]
    misshapen = [
        f"{key} {list(value.shape)} instead of {list(expected[key].shape)}"
        for key, value in state.items()
        if key in expected and value.shape != expected[key].shape
    ]
    faults = [
        f"{len(keys)} {kind} ({', '.join(keys[:3])}{', …' if len(keys) > 3 else ''})"
        for kind, keys in (
            ("entries missing", missing),
            ("unknown entries", unexpected),
            ("of another shape", misshapen),
        )
        if keys
    ]
    if faults:
        raise DetectError(
            f"{source} the weights do not fit: {'; '.join(faults)}. Choose the backbone that the "
            "file was made for"
        )
    target.load_state_dict(dict(state), strict=False)
