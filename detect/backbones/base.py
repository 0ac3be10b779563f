"""What a backbone is: a classification network as a trunk and a head over a k×k grid."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models._api import WeightsEnum

from detect.errors import DetectError
from detect.registry import nearest

# Channel statistics of ImageNet in 0…1, as torchvision's weights expect them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Published:
    """The whole classification network that a backbone was cut from.

    Attributes:
        network: shares its layers with the backbone, so that loading its weights loads them.
        classifier: name prefix of the last layer, which the backbone does not have.
        weights: torchvision's entry for its ImageNet weights.
    """

    network: nn.Module
    classifier: str
    weights: WeightsEnum


class Backbone(nn.Module):
    """A classification network, cut into a convolutional trunk and a head.

    Calling it gives the trunk's features of images in 0…1; the normalization by `mean` and `std`
    happens here and nowhere else.

    Attributes:
        trunk: normalized images `[B, 3, H, W]` → `[B, channels, H/stride, W/stride]`.
        head: `[B, channels, grid, grid]` → `[B, feature_dim]`; the layers between the trunk and
            the classifier.
        channels: of the trunk's output.
        stride: input pixels per step of the trunk's output.
        grid: height and width k of the map that the head takes.
        feature_dim: length of the head's output.
        image_size: side in pixels of the square input that the network was designed for.
        levels: names of the intermediate maps, `C2` for stride 4 … (He et al. 2016's stages; the
            name says the power of two), the last at each stride, from fine to coarse.
        level_channels: channels of each of them.
        published: the network that weights files are made for, or None for one of our own.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        trunk: nn.Sequential,
        head: nn.Module,
        *,
        image_size: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        published: Published | None = None,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head
        self.image_size = image_size
        self.published = published
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))
        self._frozen: list[nn.Module] = []
        self._measure()

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Features of images in 0…1."""
        features: Tensor = self.trunk(self.normalize(images))
        return features

    def normalize(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """Images in 0…1, shifted by `mean` and scaled by `std`."""
        return (images - self.mean) / self.std

    def pyramid(self, images: Float[Tensor, "B 3 H W"]) -> dict[str, Tensor]:
        """Intermediate maps of images in 0…1: level name → `[B, level_channels, H/s, W/s]`."""
        features = self.normalize(images)
        maps = {}
        names = {layer: name for name, layer in self._level_layers.items()}
        for index, layer in enumerate(self.trunk):
            features = layer(features)
            if index in names:
                maps[names[index]] = features
        return maps

    def dense_head(self) -> nn.Module:
        """The head as convolutions: `[B, channels, h, w]` → `[B, feature_dim, h−k+1, w−k+1]`.

        At each location it gives what `head` gives for the k×k window there (Sermanet et al. 2014,
        section 3.5). It is a copy: later changes of the head do not reach it.

        Raises:
            DetectError: the head has a layer that cannot be expressed so.
        """
        return head_as_convolutions(self.head, self.grid)

    def drop_head(self) -> None:
        """Forget the head: a detector without use for it neither trains nor stores it."""
        self.head = nn.Identity()

    def freeze(self, parts: Sequence[str]) -> None:
        """Hold parts of the trunk as they are: no gradient, no change of running statistics.

        Args:
            parts: `batch_norm`, `trunk`, or a level (`C2`: all layers up to that map).

        Raises:
            DetectError: an unknown part.
        """
        for part in parts:
            modules: list[nn.Module]
            if part == "batch_norm":
                modules = [module for module in self.modules() if isinstance(module, _BatchNorm)]
            elif part == "trunk":
                modules = [self.trunk]
            elif part in self._level_layers:
                modules = list(self.trunk[: self._level_layers[part] + 1])
            else:
                known = ["batch_norm", "trunk", *self.levels]
                alike = nearest(part, known)
                hint = f"did you mean {alike[0]!r}?" if alike else f"there are {', '.join(known)}"
                raise DetectError(f"backbone.freeze: unknown part {part!r}; {hint}")
            for module in modules:
                module.requires_grad_(False).eval()
            self._frozen.extend(modules)

    def train(self, mode: bool = True) -> "Backbone":
        """Set the training mode, except of what is frozen."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    @torch.no_grad()
    def _measure(self) -> None:
        # One run at the designed size finds channels, strides and grid, so that no table of
        # numbers can disagree with the layers.
        was_training = self.training
        self.eval()
        features = torch.zeros(1, 3, self.image_size, self.image_size)
        self._level_layers: dict[str, int] = {}
        self.level_channels: dict[str, int] = {}
        for index, layer in enumerate(self.trunk):
            features = layer(features)
            # a map without padding is a little smaller than size / stride: round to the power of 2
            stride = 2 ** round(torch.tensor(self.image_size / features.shape[-1]).log2().item())
            if stride > 1:
                level = f"C{stride.bit_length() - 1}"
                self._level_layers[level] = index
                self.level_channels[level] = features.shape[1]
        self.levels = tuple(self._level_layers)
        self.channels, self.grid, self.stride = features.shape[1], features.shape[-1], stride
        self.feature_dim = int(self.head(features).shape[1])
        self.train(was_training)


def head_as_convolutions(head: nn.Module, grid: int) -> nn.Sequential:
    """Rewrite a head of linear and pooling layers as convolutions with the same weights.

    The first linear layer, over the flattened grid×grid map, becomes a grid×grid
    convolution, later ones 1×1; a global average pool becomes a grid×grid average at stride 1.
    """
    layers: list[nn.Module] = []
    collapsed = False  # whether the k×k window is one position yet
    for layer in _flat_layers(head):
        if isinstance(layer, nn.Flatten | nn.Identity):
            continue
        if isinstance(layer, nn.Linear):
            kernel = 1 if collapsed else grid
            convolution = nn.Conv2d(
                layer.in_features // kernel**2,
                layer.out_features,
                kernel,
                bias=layer.bias is not None,
            )
            convolution.weight.data.copy_(layer.weight.view_as(convolution.weight))
            if layer.bias is not None and convolution.bias is not None:
                convolution.bias.data.copy_(layer.bias)
            layers.append(convolution)
            collapsed = True
        elif isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size in (1, (1, 1)):
            layers.append(nn.AvgPool2d(grid, stride=1))
            collapsed = True
        elif isinstance(layer, nn.ReLU | nn.LeakyReLU | nn.Dropout):
            layers.append(copy.deepcopy(layer))
        else:
            raise DetectError(
                f"a {type(layer).__name__} layer in the head has no form as a convolution"
            )
    return nn.Sequential(*layers).train(head.training)


def _flat_layers(module: nn.Module) -> list[nn.Module]:
    if isinstance(module, nn.Sequential):
        return [layer for child in module for layer in _flat_layers(child)]
    return [module]
