"""Any classification network as a trunk and a head, found by watching one run.

The network runs once on noise, and its layers are recorded with their shapes. Those up to the last
feature map are the trunk, those between it and the last layer the head. The split counts only if
both, in sequence, give the input of the network's last layer, with norms as after training; a
network whose layers are no such chain is refused with the reason.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from detect.backbones.base import PROBE, Backbone, Published, head_as_convolutions
from detect.errors import DetectError


@dataclass
class Call:
    """A layer as it was called in one run: `order` is that of the calls' beginnings."""

    name: str
    layer: nn.Module
    order: int
    inputs: torch.Size
    outputs: torch.Size
    times: int = 1


class UnsplittableError(Exception):
    """A network that is no trunk with a head; the message is the reason."""


def split(
    network: nn.Module,
    name: str,
    *,
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    **published: Any,
) -> Backbone:
    """Cut a classification network into a backbone.

    Args:
        network: takes normalized images `[B, 3, H, W]`, gives logits `[B, C]`.
        name: for messages.
        image_size: side in pixels of the images that it was designed for.
        mean: of its pixels, in 0…1, by channel.
        std: likewise.
        published: further fields of `Published`: where its weights come from.

    Raises:
        DetectError: with the reason why it cannot be cut.
    """
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            trunk, head, classifier = _split(network.eval(), image_size)
            backbone = Backbone(
                nn.Sequential(*trunk),
                nn.Sequential(*head),
                image_size=image_size,
                mean=mean,
                std=std,
                published=Published(network, classifier=f"{classifier}.", **published),
            )
            head_as_convolutions(backbone.head, backbone.grid)
    except (UnsplittableError, DetectError) as error:
        raise DetectError(
            f"backbone {name} cannot be split into a trunk and a head: {error}. "
            "'detect backbones' lists networks that can"
        ) from error
    network.train()
    return backbone.train()


def _split(network: nn.Module, size: int) -> tuple[list[nn.Module], list[nn.Module], str]:
    # not square, so that shapes tell which dimensions are height and width
    images = torch.randn(1, 3, size, size + PROBE, generator=torch.Generator().manual_seed(0))
    ratio = images.shape[2] / images.shape[3]
    calls = list(_chain(network, _watch(network, images), ratio))
    if any(call.times > 1 for call in calls):
        raise UnsplittableError("a layer runs more than once")
    classifier = _last_layer(calls)
    before = calls[: calls.index(classifier)]
    maps = [index for index, call in enumerate(before) if _is_map(call.outputs, ratio)]
    if not maps:
        raise UnsplittableError("none of its layers gives a feature map")
    trunk = [_channels_first(call, ratio) for call in before[: maps[-1] + 1]]
    rest = before[maps[-1] + 1 :]
    images = images[..., :size]  # as it was designed for, where fully connected layers fit
    with _as_trained(network, images):
        relu, head = _checked(network, classifier, trunk, rest, images)
    return [*trunk, *relu], head, classifier.name


def _checked(
    network: nn.Module,
    classifier: Call,
    trunk: Sequence[nn.Module],
    rest: Sequence[Call],
    images: Tensor,
) -> tuple[list[nn.Module], list[nn.Module]]:
    # what the trunk lacks, and the head, which together give what the network gives
    expected = _input_of(classifier.layer, network, images)
    if expected.ndim == 4 and min(expected.shape[2:]) > 1:  # a 1×1 convolution classifies
        expected = expected.mean(dim=(2, 3))
        rest = []
    attempts: tuple[list[nn.Module], ...] = ([], [nn.ReLU()])  # DenseNet's is between its layers
    for relu in attempts:
        try:
            features = nn.Sequential(*trunk, *relu)(images)
            head, outputs = _head(rest, features, expected.flatten(1).shape[1])
        except (RuntimeError, ValueError, TypeError, AssertionError):  # no chain of these layers
            continue
        if _is_same(outputs, expected.flatten(1)):
            return relu, head
    raise UnsplittableError(
        f"its layers up to {classifier.name!r}, run one after another, do not give what the "
        "network gives"
    )


@contextmanager
def _as_trained(network: nn.Module, images: Tensor) -> Iterator[None]:
    # With initial scales (1) and shifts (0), a network may give the same as without them, and with
    # initial statistics a deep one leaves little of the image. Here, both are as trained.
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    changed: list[Tensor] = [buffer for norm in norms for buffer in norm.buffers()]
    constant: list[Tensor] = [
        value for value in network.parameters() if value.numel() > 0 and value.min() == value.max()
    ]
    before = [value.clone() for value in (*changed, *constant)]
    momenta = [norm.momentum for norm in norms]
    generator = torch.Generator().manual_seed(0)
    try:
        for value in constant:
            value.add_(torch.rand(value.shape, generator=generator) / 2)
        for norm in norms:
            norm.train().momentum = 1.0  # takes the statistics of one batch
        network(torch.cat((images, images.flip(3))))
        network.eval()
        yield
    finally:
        for value, old in zip((*changed, *constant), before, strict=True):
            value.copy_(old)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def _watch(network: nn.Module, images: Tensor) -> dict[str, Call]:
    # every layer that runs, by name
    calls: dict[str, Call] = {}
    begun: list[str] = []
    handles = []

    def begin(name: str) -> Any:
        return lambda _, __: begun.append(name)

    def end(name: str) -> Any:
        def note(layer: nn.Module, inputs: Any, outputs: Any) -> None:
            if name in calls:
                calls[name].times += 1
            elif inputs and isinstance(inputs[0], Tensor) and isinstance(outputs, Tensor):
                order = begun.index(name)
                calls[name] = Call(name, layer, order, inputs[0].shape, outputs.shape)

        return note

    for name, layer in network.named_modules():
        handles.append(layer.register_forward_pre_hook(begin(name)))
        handles.append(layer.register_forward_hook(end(name)))
    try:
        network(images)
    except Exception as error:  # whatever a foreign network does not like about an image
        height, width = images.shape[2:]
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UnsplittableError(
            f"it does not take images of {height}×{width} ({reason})"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _chain(network: nn.Module, calls: dict[str, Call], ratio: float) -> Iterator[Call]:
    # the layers in order, with containers opened, and everything after the last map
    def opened(name: str, layer: nn.Module) -> Iterator[Call]:
        call = calls.get(name)
        is_sequence = type(layer).forward is nn.Sequential.forward
        is_end = call is not None and not _is_map(call.outputs, ratio) and any(layer.children())
        if call is not None and name and not is_sequence and not is_end:
            yield call
            return
        inner = [
            found
            for child, module in layer.named_children()
            for found in opened(f"{name}.{child}" if name else child, module)
        ]
        yield from sorted(inner, key=lambda found: found.order)

    return opened("", network)


def _last_layer(calls: Sequence[Call]) -> Call:
    weighted = [call for call in calls if any(True for _ in call.layer.parameters())]
    if not weighted or not isinstance(weighted[-1].layer, nn.Linear | nn.Conv2d):
        kind = type(weighted[-1].layer).__name__ if weighted else "none"
        raise UnsplittableError(f"its last layer is no linear one ({kind})")
    return weighted[-1]


def _is_map(shape: torch.Size, ratio: float) -> bool:
    return _layout(shape, ratio) is not None


def _layout(shape: torch.Size, ratio: float) -> str | None:
    # which two dimensions of a map have the proportions of the image
    if len(shape) != 4:
        return None
    faults = {
        layout: abs(shape[first] / shape[first + 1] - ratio)
        for layout, first in (("channels_first", 2), ("channels_last", 1))
        if min(shape[first : first + 2]) > 1
    }
    if not faults:
        return None
    best = min(faults, key=lambda layout: faults[layout])
    return best if faults[best] < 0.1 else None


class ChannelsFirst(nn.Module):
    """A layer over `[B, H, W, C]` in a chain of layers over `[B, C, H, W]`.

    `inputs` and `outputs` say whether the layer takes and gives channels last.
    """

    def __init__(self, layer: nn.Module, inputs: bool, outputs: bool) -> None:
        super().__init__()
        self.layer, self.inputs, self.outputs = layer, inputs, outputs

    def forward(self, features: Tensor) -> Tensor:
        """`[B, C, H, W]` in and out."""
        features = self.layer(features.permute(0, 2, 3, 1) if self.inputs else features)
        return features.permute(0, 3, 1, 2) if self.outputs else features


def _channels_first(call: Call, ratio: float) -> nn.Module:
    inputs = _layout(call.inputs, ratio) == "channels_last"
    outputs = _layout(call.outputs, ratio) == "channels_last"
    return ChannelsFirst(call.layer, inputs, outputs) if inputs or outputs else call.layer


def _head(
    rest: Sequence[Call], features: Tensor, feature_dim: int
) -> tuple[list[nn.Module], Tensor]:
    # The layers after the trunk, with the pooling and flattening that networks do between them, and
    # their output. Any pooling that takes the mean becomes PyTorch's own.
    head: list[nn.Module] = []

    def append(layer: nn.Module, values: Tensor) -> Tensor:
        head.append(layer)
        outputs: Tensor = layer(values)
        return outputs

    def pool(values: Tensor) -> Tensor:
        return append(nn.AdaptiveAvgPool2d(1), values) if values[0, 0].numel() > 1 else values

    values = features
    for call in rest:
        if len(call.inputs) == 2 and values.ndim == 4:
            if call.inputs[1] == values.shape[1]:
                values = pool(values)
            values = append(nn.Flatten(), values)
        if _is_mean(call.layer, values):
            values = pool(values)
        elif isinstance(call.layer, nn.Dropout) or not _is_identity(call.layer, values):
            values = append(call.layer, values)
    if values.ndim == 4:
        if values.shape[1] == feature_dim:
            values = pool(values)
        values = append(nn.Flatten(), values)
    return head, values


def _is_mean(layer: nn.Module, features: Tensor) -> bool:
    if features.ndim != 4 or features[0, 0].numel() == 1 or isinstance(layer, nn.Dropout):
        return False
    if any(True for _ in layer.parameters()):
        return False
    expected = features.mean(dim=(2, 3))
    for inputs in (features, features.permute(0, 2, 3, 1)):
        try:
            outputs: Tensor = layer(inputs.clone())
        except (RuntimeError, ValueError, TypeError):
            continue
        if outputs.numel() == expected.numel() and _is_same(outputs.flatten(1), expected):
            return True
    return False


def _is_identity(layer: nn.Module, values: Tensor) -> bool:
    if any(True for _ in layer.parameters()):
        return False
    outputs: Tensor = layer(values.clone())  # it may write into what it is given
    return outputs.numel() == values.numel() and torch.equal(outputs.flatten(), values.flatten())


def _is_same(outputs: Tensor, expected: Tensor) -> bool:
    largest = float(expected.abs().max())
    return outputs.shape == expected.shape and torch.allclose(
        outputs, expected, rtol=1e-4, atol=1e-5 * largest
    )


def _input_of(layer: nn.Module, network: nn.Module, images: Tensor) -> Tensor:
    taken: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0].clone()))
    network(images)
    handle.remove()
    return taken[0]
