"""LeNet-5 (LeCun, Bottou, Bengio & Haffner 1998, section II.B), in the paper's order.

All of its 60,000 parameters are here; the ten outputs of the paper are distances to fixed bitmaps,
and have none. Deviations: the paper reads gray images, here a color image is turned gray first;
a detector puts its own layers in place of the outputs.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from detect.backbones.base import Backbone
from detect.backbones.registry import BACKBONES

# Table I: the maps of S2 that each map of C3 takes, which breaks the symmetry between its maps.
CONNECTIONS = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5),
)  # fmt: skip


@BACKBONES.register("lenet")
def lenet() -> Backbone:
    """Trunk C1 to S4 (16 channels, stride 4), head C5 and F6 over a 5×5 grid, at 32 pixels."""
    trunk = nn.Sequential(
        Gray(),
        nn.Sequential(nn.Conv2d(1, 6, 5), ScaledTanh()),  # C1: 28×28×6
        Subsampling(6),  # S2: 14×14×6
        nn.Sequential(PartialConvolution(6, CONNECTIONS), ScaledTanh()),  # C3: 10×10×16
        Subsampling(16),  # S4: 5×5×16
    )
    head = nn.Sequential(
        nn.Conv2d(16, 120, 5),  # C5: 1×1×120, fully connected at the designed size
        ScaledTanh(),
        nn.Flatten(),
        nn.Linear(120, 84),  # F6
        ScaledTanh(),
    )
    for layer in [*trunk.modules(), *head.modules()]:
        if isinstance(layer, nn.Conv2d | nn.Linear | PartialConvolution):
            _initialize(layer)
    return Backbone(trunk, head, image_size=32, num_published_classes=0)


class Gray(nn.Module):
    """RGB to gray, `[B, 3, H, W]` → `[B, 1, H, W]`, by the weights of ITU-R BT.601."""

    weights: Tensor

    def __init__(self) -> None:
        super().__init__()
        weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """The weighted sum of the channels."""
        return (images * self.weights).sum(dim=1, keepdim=True)


class ScaledTanh(nn.Module):
    """`1.7159 tanh(2/3 x)`, which is ±1 at ±1 (appendix A)."""

    is_pointwise = True

    def forward(self, inputs: Tensor) -> Tensor:
        """Of each number."""
        return scaled_tanh(inputs)


def scaled_tanh(inputs: Tensor) -> Tensor:
    """The squashing function of the paper."""
    return 1.7159 * torch.tanh(inputs * (2 / 3))


class Subsampling(nn.Module):
    """The sum of 2×2 positions, scaled and shifted by two trained numbers a map, squashed."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # the mean of the four is where a squashing unit is neither linear nor saturated
        self.weight = nn.Parameter(torch.full((channels, 1, 1), 0.25))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))
        self.kernel_size, self.stride, self.padding = 2, 2, 0

    def forward(self, inputs: Tensor) -> Tensor:
        """`[B, C, H, W]` → `[B, C, H/2, W/2]`."""
        sums = 4 * functional.avg_pool2d(inputs, self.kernel_size, self.stride)
        return scaled_tanh(sums * self.weight + self.bias)


class PartialConvolution(nn.Module):
    """A 5×5 convolution whose filters see some of the input maps only."""

    places: Tensor

    def __init__(self, inputs: int, connections: tuple[tuple[int, ...], ...]) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding, self.dilation = 5, 1, 0, 1
        self.weight = nn.Parameter(torch.zeros(sum(len(row) for row in connections), 5, 5))
        self.bias = nn.Parameter(torch.zeros(len(connections)))
        places = [output * inputs + row for output, rows in enumerate(connections) for row in rows]
        self.register_buffer("places", torch.tensor(places), persistent=False)
        self.inputs = inputs

    def forward(self, inputs: Tensor) -> Tensor:
        """`[B, 6, H, W]` → `[B, 16, H−4, W−4]`."""
        outputs = len(self.bias)
        full = self.weight.new_zeros(outputs * self.inputs, 5, 5)
        full = full.index_copy(0, self.places, self.weight)
        weight = full.view(outputs, self.inputs, 5, 5)
        return functional.conv2d(inputs, weight, self.bias)


def _initialize(layer: nn.Conv2d | nn.Linear | PartialConvolution) -> None:
    # uniform in ±2.4 / fan-in (appendix A); biases are drawn alike
    assert layer.bias is not None
    fan_in = layer.weight.numel() / len(layer.bias) + 1
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -2.4 / fan_in, 2.4 / fan_in)
