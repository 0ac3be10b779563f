"""The two heads that turn a trunk's features into the grid tensor."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from detect.backbones import Backbone
from detect.detectors.base import evaluating
from detect.errors import DetectError

# A confidence starts at this probability, so that the many empty cells do not swamp the first
# steps: Lin et al. 2017, "Focal Loss for Dense Object Detection", section 3.3.
PRIOR = 0.01


class FullyConnectedHead(nn.Module):
    """The paper's two fully connected layers over the whole feature map (section 2.1)."""

    def __init__(
        self,
        backbone: Backbone,
        size: tuple[int, int],
        grid_size: int,
        outputs: int,
        hidden_features: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.grid_shape = (grid_size, grid_size)
        height, width = _level_shapes(backbone, size)[backbone.levels[-1]]
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(backbone.channels * height * width, hidden_features),
            nn.LeakyReLU(0.1),
            nn.Dropout(dropout),
            nn.Linear(hidden_features, grid_size * grid_size * outputs),
        )

    def forward(
        self, backbone: Backbone, images: Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, "B S T outputs"]:
        """The output for each cell, from images in 0…1."""
        output: Tensor = self.layers(backbone(images)).unflatten(1, (*self.grid_shape, -1))
        return output  # [B, S, S, outputs]

    def set_prior(self, is_confidence: list[bool]) -> None:
        """Start the outputs that are confidence logits at `PRIOR`."""
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        repeated = is_confidence * (self.grid_shape[0] * self.grid_shape[1])
        _set_prior(last.bias, repeated)


class ConvolutionalHead(nn.Module):
    """Each cell predicted from the features around it, at the trunk's stride or a finer one."""

    def __init__(
        self,
        backbone: Backbone,
        size: tuple[int, int],
        grid_stride: int | None,
        outputs: int,
        channels: int,
        depth: int,
    ) -> None:
        super().__init__()
        shapes = _level_shapes(backbone, size)
        finest = backbone.levels[-1]
        if grid_stride is not None:
            by_stride = {2 ** int(level[1:]): level for level in backbone.levels}
            if grid_stride not in by_stride:
                strides = ", ".join(str(stride) for stride in by_stride)
                raise DetectError(
                    f"detector.grid_stride: expected a stride of the backbone ({strides}), "
                    f"found {grid_stride}"
                )
            finest = by_stride[grid_stride]
        self.levels = backbone.levels[backbone.levels.index(finest) :]
        self.grid_shape = shapes[finest]
        self.laterals = nn.ModuleDict(
            {level: nn.Conv2d(backbone.level_channels[level], channels, 1) for level in self.levels}
        )
        self.layers = nn.Sequential(
            *(_convolution(channels) for _ in range(depth)), nn.Conv2d(channels, outputs, 1)
        )

    def forward(
        self, backbone: Backbone, images: Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, "B S T outputs"]:
        """The output for each cell, from images in 0…1."""
        maps = backbone.pyramid(images)
        coarsest = self.levels[-1]
        features: Tensor = self.laterals[coarsest](maps[coarsest])
        for level in reversed(self.levels[:-1]):
            lateral: Tensor = self.laterals[level](maps[level])
            features = lateral + functional.interpolate(features, size=lateral.shape[-2:])
        output: Tensor = self.layers(features)
        return output.permute(0, 2, 3, 1)  # [B, S, S, outputs]

    def set_prior(self, is_confidence: list[bool]) -> None:
        """Start the outputs that are confidence logits at `PRIOR`."""
        last = self.layers[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        _set_prior(last.bias, is_confidence)


def _convolution(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.LeakyReLU(0.1, inplace=True),
    )


@torch.no_grad()
def _level_shapes(backbone: Backbone, size: tuple[int, int]) -> dict[str, tuple[int, int]]:
    # (height, width) of each level for an input of `size`, measured by one run
    with evaluating(backbone):
        maps = backbone.pyramid(torch.zeros(1, 3, *size))
    return {level: (features.shape[-2], features.shape[-1]) for level, features in maps.items()}


@torch.no_grad()
def _set_prior(bias: Tensor, is_confidence: list[bool]) -> None:
    mask = torch.tensor(is_confidence, device=bias.device)
    bias[mask] = -math.log((1 - PRIOR) / PRIOR)
