"""What a backbone is: a classification network as a trunk and a head over a k×k grid."""

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models._api import WeightsEnum

from detect.backbones.recomputation import recomputed
from detect.errors import DetectError
from detect.registry import hint

# Channel statistics of ImageNet in 0…1, as torchvision's weights expect them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# The designed input is enlarged by this to measure strides, all of which divide it.
PROBE = 64

# Layers that treat each number, or the channels of each position, independently.
POINTWISE = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Hardswish, nn.Sigmoid, nn.Tanh, nn.Dropout, nn.BatchNorm2d),
)


@dataclass(frozen=True)
class Auxiliary:
    """A second classifier on an intermediate map, for training alone (Szegedy et al. 2015, 5).

    Attributes:
        after: number of the trunk's layer whose output it takes.
        build: makes it for a number of classes; it gives logits `[B, C]`.
        weight: of its loss.
    """

    after: int
    build: Callable[[int], nn.Module]
    weight: float


@dataclass(frozen=True)
class Published:
    """The whole classification network that a backbone was cut from.

    Attributes:
        network: shares its layers with the backbone, so that loading its weights loads them.
        classifier: name prefix of the last layer, which the backbone does not have.
        weights: torchvision's entry for its ImageNet weights, or None.
        fetch: gives the state dict of ImageNet weights that are not torchvision's, or None.
        ignored: name prefixes of the network's parts that the backbone does without.
    """

    network: nn.Module
    classifier: str
    weights: WeightsEnum | None = None
    fetch: Callable[[], Mapping[str, Tensor]] | None = None
    ignored: tuple[str, ...] = ()


M = TypeVar("M", bound="_PartlyFrozen")


class _PartlyFrozen(nn.Module):
    _frozen: Sequence[nn.Module]

    def train(self: M, mode: bool = True) -> M:
        """Set the training mode, except of what is frozen."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self


class Backbone(_PartlyFrozen):
    """A classification network, cut into a convolutional trunk and a head.

    Calling it gives the trunk's features of images in 0…1; only here are they normalized by `mean`
    and `std`.

    Attributes:
        trunk: normalized images `[B, 3, H, W]` → `[B, channels, H/stride, W/stride]`.
        head: `[B, channels, grid, grid]` → `[B, feature_dim]`; between trunk and classifier.
        channels: of the trunk's output.
        stride: input pixels per step of the trunk's output.
        grid: height and width k of the map that the head takes.
        feature_dim: length of the head's output.
        image_size: side in pixels of the square input that the network was designed for.
        levels: names of the last map at each stride, from fine to coarse: `C2` for stride 2², …
            (the stages of He et al. 2016).
        level_channels: channels of each of them.
        level_grids: height and width of each for an image of `image_size`.
        published: the network that weights files are made for, or None for one of our own.
        auxiliaries: classifiers on intermediate maps that its training as a classifier uses.
        num_published_classes: of the network's own last layer, 0 where it had none of its kind.
        is_recomputed: whether training recomputes the maps within a level for the gradient.
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
        auxiliaries: Sequence[Auxiliary] = (),
        num_published_classes: int = 1000,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head
        self.image_size = image_size
        self.published = published
        self.auxiliaries = tuple(auxiliaries)
        self.num_published_classes = num_published_classes
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))
        self.is_recomputed = False
        self._compiled: dict[tuple[int, int], Callable[..., Any]] | None = None
        self._frozen: list[nn.Module] = []
        self._measure()

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Features of images in 0…1."""
        return self.run_layers(self.normalize(images))

    def run_layers(
        self, features: Float[Tensor, "B _ _ _"], begin: int = 0, end: int | None = None
    ) -> Float[Tensor, "B _ _ _"]:
        """The trunk's layers `begin` … `end` − 1, level by level, as `is_recomputed` says.

        Args:
            features: what the layer before `begin` gives; normalized images for the first.
            begin: number of a layer.
            end: number of the layer to stop before; None takes all.
        """
        end = len(self.trunk) if end is None else end
        cuts = {layer + 1 for layer in self._level_layers.values() if begin < layer + 1 < end}
        for cut in sorted({*cuts, end}):
            run = self._segment(begin, cut)
            if self.is_recomputed and self.training and torch.is_grad_enabled():
                features = recomputed(run, self.trunk[begin:cut], features)
            else:
                features = run(features)
            begin = cut
        return features

    def compile_layers(self) -> None:
        """Compile the trunk for training (torch.compile), level by level, at the next run of each.

        Evaluation does not use it: batches of other sizes would each be compiled again.
        """
        self._compiled = {}

    def _segment(self, begin: int, end: int) -> Callable[..., Any]:
        if self._compiled is None or not self.training:
            return self.trunk[begin:end]
        if (begin, end) not in self._compiled:
            self._compiled[begin, end] = torch.compile(self.trunk[begin:end])
        return self._compiled[begin, end]

    def normalize(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """Images in 0…1, shifted by `mean` and scaled by `std`."""
        return (images - self.mean) / self.std

    def pooled_to_grid(self, features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C k k"]:
        """The trunk's output averaged to the k×k map that the head takes; k×k maps stay."""
        return functional.adaptive_avg_pool2d(features, self.grid)

    def head_features(self, features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B F"]:
        """The head's output for the trunk's output of any size, as in the published networks.

        A head that begins with a global average takes it as it is: averages over overlapping
        windows would count some positions twice. For others it is averaged to the k×k map.
        """
        first = next(iter(flat_layers(self.head)), None)
        takes_any_size = isinstance(first, nn.AdaptiveAvgPool2d)
        outputs: Tensor = self.head(features if takes_any_size else self.pooled_to_grid(features))
        return outputs

    def pyramid(self, images: Float[Tensor, "B 3 H W"]) -> dict[str, Tensor]:
        """Intermediate maps of images in 0…1: level name → `[B, level_channels, H/s, W/s]`."""
        features, maps, begin = self.normalize(images), {}, 0
        for name, layer in self._level_layers.items():
            maps[name] = features = self.run_layers(features, begin, layer + 1)
            begin = layer + 1
        return maps

    def trunk_to(self, level: str, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """The map of a level for images in 0…1; later layers do not run."""
        return self.run_layers(self.normalize(images), end=self._level_layers[level] + 1)

    def part_behind(self, level: str) -> nn.Sequential:
        """The layers behind a level, then the head; frozen modules stay frozen in training."""
        return _Part(self._frozen, *self._layers_behind(level), self.head)

    def grid_at(self, level: str) -> int:
        """Side of the level's map for an image of the designed size.

        Where only a pool lies between the level and the head, as in AlexNet and VGG, it is that of
        the pool's output: region pooling takes the pool's place (Girshick 2015, section 2.1).
        """
        return self.level_grids[level] if self._layers_behind(level) else self.grid

    @torch.no_grad()
    def least_size(self, level: str | None = None) -> int:
        """Side in pixels of the smallest image that the layers up to a level can take.

        Without padding, a layer takes no map smaller than its kernel, and a pool may leave nothing
        of a small one. None means the whole trunk.
        """
        was_training = self.training
        self.eval()
        layers = self.trunk if level is None else self.trunk[: self._level_layers[level] + 1]
        sizes = range(1, self.image_size + 1)
        least = next(size for size in sizes if _leaves_a_map(layers, size))
        self.train(was_training)
        return least

    def end_at(self, level: str) -> None:
        """Drop the layers behind a level, and the head; the others keep their names."""
        self.trunk = self.trunk[: self._level_layers[level] + 1]
        self.drop_head()
        left = set(self.modules())
        self._frozen = [module for module in self._frozen if module in left]
        self._measure()

    def _layers_behind(self, level: str) -> list[nn.Module]:
        layers = list(self.trunk[self._level_layers[level] + 1 :])
        only_pools = all(isinstance(layer, nn.MaxPool2d | nn.AvgPool2d) for layer in layers)
        return [] if only_pools else layers

    def dense_head(self) -> nn.Module:
        """The head as convolutions: `[B, channels, h, w]` → `[B, feature_dim, h−k+1, w−k+1]`.

        At each location it equals `head` of the k×k window there (Sermanet et al. 2014, section
        3.5). It is a copy: later changes of the head do not affect it.

        Raises:
            DetectError: a layer of the head has no such form.
        """
        return head_as_convolutions(self.head, self.grid)

    def design_for(self, image_size: int) -> None:
        """Change the designed size, and measure the grid anew.

        The head must begin with a global average or have no fully connected layers.

        Raises:
            DetectError: the head takes no other grid, or the size is too small for the trunk.
        """
        before, feature_dim = self.image_size, self.feature_dim
        self.image_size = image_size
        try:
            self._measure()
        except RuntimeError as error:  # of a layer that the maps do not fit
            reason = str(error).splitlines()[0]
        else:
            if self.feature_dim == feature_dim:
                return
            reason = f"the head would give {self.feature_dim} features instead of {feature_dim}"
        self.image_size = before
        self._measure()
        raise DetectError(
            f"backbone.image_size: this network was designed for {before} pixels and cannot be "
            f"used at {image_size}: {reason}"
        )

    def drop_head(self) -> None:
        """Drop the head: a detector that does not use it neither trains nor stores it."""
        self.head = nn.Identity()

    def freeze(self, parts: Sequence[str]) -> None:
        """Freeze parts of the trunk: no gradient, no change of running statistics.

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
                modules = [self.trunk, *self.trunk]
            elif part in self._level_layers:
                modules = list(self.trunk[: self._level_layers[part] + 1])
            else:
                known = ["batch_norm", "trunk", *self.levels]
                raise DetectError(f"backbone.freeze: unknown part {part!r}; {hint(part, known)}")
            for module in modules:
                module.requires_grad_(False).eval()
            self._frozen.extend(modules)

    @torch.no_grad()
    def _measure(self) -> None:
        # Two runs on the meta device, at the designed size and a larger one, give channels, strides
        # and grid, so that no table can disagree with the layers.
        was_training = self.training
        self.eval()
        size = self.image_size
        features = torch.zeros(1, 3, size, size, device="meta")
        larger = torch.zeros(1, 3, size + PROBE, size + PROBE, device="meta")
        self._level_layers: dict[str, int] = {}
        self.level_channels: dict[str, int] = {}
        self.level_grids: dict[str, int] = {}
        self.stride = 1
        for index, layer in enumerate(self.trunk):
            features, larger = _run_on_meta(layer, features), _run_on_meta(layer, larger)
            self.stride = _stride_of(features, larger, index)
            if self.stride > 1 and self.stride & (self.stride - 1) == 0:
                level = f"C{self.stride.bit_length() - 1}"
                self._level_layers[level] = index
                self.level_channels[level] = features.shape[1]
                self.level_grids[level] = features.shape[-1]
        self.levels = tuple(self._level_layers)
        self.channels, self.grid = features.shape[1], features.shape[-1]
        self.feature_dim = math.prod(_run_on_meta(self.head, features).shape[1:])
        self.train(was_training)


class _Part(_PartlyFrozen, nn.Sequential):
    # layers of a backbone, of which the frozen ones stay in evaluation mode
    def __init__(self, frozen: Sequence[nn.Module], *layers: nn.Module) -> None:
        super().__init__(*layers)
        own = set(self.modules())
        self._frozen = tuple(module for module in frozen if module in own)


def _run_on_meta(module: nn.Module, inputs: Tensor) -> Tensor:
    # the shape of the output alone: nothing is computed
    state = {
        name: torch.empty_like(tensor, device="meta")
        for name, tensor in chain(module.named_parameters(), module.named_buffers())
    }
    outputs: Tensor = functional_call(module, state, (inputs,))
    return outputs


def _leaves_a_map(layers: Iterable[nn.Module], size: int) -> bool:
    features = torch.zeros(1, 3, size, size, device="meta")
    try:
        for layer in layers:
            features = _run_on_meta(layer, features)
    except RuntimeError:  # of a layer that the maps do not fit
        return False
    return min(features.shape[2:]) > 0


def _stride_of(features: Tensor, larger: Tensor, index: int) -> int:
    growth = [large - small for small, large in zip(features.shape, larger.shape, strict=True)][2:]
    if len(growth) != 2 or growth[0] != growth[1] or growth[0] < 1 or PROBE % growth[0]:
        raise DetectError(
            f"layer {index} of the trunk gives {list(features.shape)}, and "
            f"{list(larger.shape)} for an input of {PROBE} pixels more: that is no feature map "
            "of a whole stride"
        )
    return PROBE // growth[0]


def head_as_convolutions(head: nn.Module, grid: int) -> nn.Sequential:
    """Rewrite a head of linear, convolution and pooling layers as convolutions, weights and all.

    The first linear layer, over the flattened map, becomes a grid×grid convolution, later ones 1×1;
    a global average pool becomes a grid×grid average at stride 1.

    Raises:
        DetectError: a layer that looks beyond its own window, or steps over positions.
    """
    layers: list[nn.Module] = []
    window = grid  # side of what is left of the k×k window
    for layer in flat_layers(head):
        if isinstance(layer, nn.Flatten | nn.Identity):
            continue
        if isinstance(layer, nn.Linear):
            layers.append(_as_convolution(layer, window))
            window = 1
        elif isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size in (1, (1, 1)):
            layers.append(nn.AvgPool2d(window, stride=1))
            window = 1
        elif isinstance(layer, nn.Conv2d) and _is_plain(layer):
            layers.append(copy.deepcopy(layer))
            window -= layer.kernel_size[0] - 1
        elif isinstance(layer, nn.LayerNorm) and window == 1:
            norm = ChannelNorm(layer.normalized_shape, layer.eps, layer.elementwise_affine)
            norm.load_state_dict(layer.state_dict())
            layers.append(norm)
        elif isinstance(layer, POINTWISE) or getattr(layer, "is_pointwise", False):
            layers.append(copy.deepcopy(layer))
        else:
            raise DetectError(
                f"a {type(layer).__name__} layer in the head has no form as a convolution"
            )
    return nn.Sequential(*layers).train(head.training)


class ChannelNorm(nn.LayerNorm):
    """Layer normalization over the channels of each position of `[B, C, h, w]`."""

    is_pointwise = True

    def forward(self, features: Tensor) -> Tensor:
        """Normalized over dimension 1."""
        return super().forward(features.movedim(1, -1)).movedim(-1, 1)


def _as_convolution(layer: nn.Linear, window: int) -> nn.Conv2d:
    has_bias = layer.bias is not None
    inputs = layer.in_features // window**2
    convolution = nn.Conv2d(inputs, layer.out_features, window, bias=has_bias)
    convolution.weight.data = layer.weight.detach().clone().view(convolution.weight.shape)
    if has_bias and convolution.bias is not None:
        convolution.bias.data = layer.bias.detach().clone()
    return convolution


def _is_plain(layer: nn.Conv2d) -> bool:
    # its output at each position depends on the window there alone
    no_padding = layer.padding in ("valid", (0, 0))
    height, width = layer.kernel_size
    return no_padding and height == width and layer.stride == layer.dilation == (1, 1)


def flat_layers(module: nn.Module) -> list[nn.Module]:
    """The layers of nested sequences in their order; any other module is one layer."""
    if isinstance(module, nn.Sequential):
        return [layer for child in module for layer in flat_layers(child)]
    return [module]
