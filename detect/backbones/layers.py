"""Tables of layers: what each one computes, costs and sees.

A network runs once on the meta device. Each innermost module that runs is a layer, in the order of
the run; a module around layers has a row behind theirs for its own parameters and operations.

Parameters: without buffers. Multiply-adds: of convolutions, linear layers and attention, by
PyTorch's FLOP counter. Memory: of the layer's output in float32 for one image; a layer that works
in place (a rectifier) or does nothing at evaluation (dropout) takes none. Sums between layers, such
as the shortcuts of ResNet, are not counted.

Receptive field: the side of the square of the image that one output can depend on, padding
included, by following every tensor through the run: a filter of size F at steps of s pixels adds
(F − 1) s; where branches meet, the larger one counts; what is computed from a whole map sees all.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial, reduce
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from detect.backbones.base import Backbone
from detect.backbones.classifier import Classifier
from detect.backbones.registry import BACKBONES
from detect.errors import DetectError

BYTES_PER_VALUE = 4  # float32
Pair = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """Where in the image a value of a map comes from.

    Attributes:
        step: image pixels from one position to the next, on average.
        field: side in pixels of the square that a position depends on.
    """

    step: float
    field: int

    def after(self, kernel: Pair, stride: Pair) -> "Geometry":
        """Of the output of a filter."""
        return Geometry(self.step * max(stride), self.field + round((max(kernel) - 1) * self.step))

    def pooled(self, size: Pair, outputs: Pair) -> "Geometry":
        """Of the output of adaptive pooling."""
        inputs, positions = max(zip(size, outputs, strict=True), key=lambda pair: pair[0] / pair[1])
        window = max(
            -(-(i + 1) * inputs // positions) - i * inputs // positions for i in range(positions)
        )
        step = (inputs - window) / (positions - 1) if positions > 1 else 1.0
        return Geometry(self.step * step, self.field + round((window - 1) * self.step))

    def joined(self, other: "Geometry") -> "Geometry":
        """Of what is computed from both."""
        return Geometry(max(self.step, other.step), max(self.field, other.field))


@dataclass(frozen=True)
class Layer:
    """One row of a table.

    Attributes:
        name: of the layer in the network.
        kind: its class.
        kernel: (height, width) of its filter, or None.
        stride: (vertical, horizontal), or None.
        padding: (vertical, horizontal), or None.
        output: shape of what it gives for one image.
        parameters: count.
        multiply_adds: count.
        memory: bytes of its output.
        receptive_field: side in pixels of what one output sees; None where unknown, as behind
            attention or squeeze-and-excitation.
        fits: whether (N − F + 2P) / S is whole in both directions; otherwise the last rows or
            columns of the input are ignored.
    """

    name: str
    kind: str
    kernel: Pair | None
    stride: Pair | None
    padding: Pair | None
    output: tuple[int, ...]
    parameters: int
    multiply_adds: int
    memory: int
    receptive_field: int | None
    fits: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Summary:
    """What a backbone is and costs.

    Attributes:
        name: in the registry.
        parameters: of the whole classification network as published, with its last layer, if it
            has one, and without auxiliary classifiers.
        auxiliary_parameters: of the auxiliary classifiers.
        multiply_adds: of the same network, for one image of `image_size`.
        image_size: side in pixels of the image.
        stride: of the trunk.
        grid: side of the map that the head takes.
        channels: of the trunk's output.
        feature_dim: length of the head's output.
        weights: those that `backbone.weights` can name instead of a file.
        layers: of the network, in their order.
    """

    name: str
    parameters: int
    auxiliary_parameters: int
    multiply_adds: int
    image_size: int
    stride: int
    grid: int
    channels: int
    feature_dim: int
    weights: tuple[str, ...]
    layers: tuple[Layer, ...] = field(repr=False)

    @property
    def memory(self) -> int:
        """Bytes of the image and of all outputs in a forward pass, in float32."""
        image = 3 * self.image_size**2 * BYTES_PER_VALUE
        return image + sum(layer.memory for layer in self.layers)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without the layers."""
        values = {**asdict(self), "memory": self.memory}
        del values["layers"]
        return values


def summarize(name: str, image_size: int | None = None) -> Summary:
    """Describe a registered backbone layer by layer, without weights.

    Args:
        name: its name in the registry.
        image_size: side in pixels of the image; None takes the designed size.

    Raises:
        DetectError: an unknown name, or a network that cannot be split.
    """
    with torch.device("meta"):
        backbone = BACKBONES[name]()
    network = classification_network(backbone).to("meta").eval()
    size = backbone.image_size if image_size is None else image_size
    try:
        layers = list_layers(network, size)
    except (RuntimeError, ValueError, AssertionError) as error:  # of a layer without room
        reason = str(error).strip().partition("\n")[0]
        raise DetectError(
            f"backbone {name} takes no images of {size}×{size} pixels ({reason}); it was "
            f"designed for {backbone.image_size}"
        ) from error
    published = backbone.published
    has_weights, auxiliary_parameters = False, 0
    if published is not None:
        has_weights = published.weights is not None or published.fetch is not None
        auxiliary_parameters = sum(
            values.numel()
            for name, values in published.network.named_parameters()
            if name.startswith(published.ignored)
        )
    return Summary(
        name=name,
        parameters=sum(layer.parameters for layer in layers),
        auxiliary_parameters=auxiliary_parameters,
        multiply_adds=sum(layer.multiply_adds for layer in layers),
        image_size=size,
        stride=backbone.stride,
        grid=backbone.grid,
        channels=backbone.channels,
        feature_dim=backbone.feature_dim,
        weights=("imagenet",) if has_weights else (),
        layers=tuple(layers),
    )


def classification_network(backbone: Backbone) -> nn.Module:
    """The whole network of a backbone, with the last layer it was published with."""
    if backbone.published is not None:
        return backbone.published.network
    if backbone.num_published_classes == 0:
        return _WithoutClasses(backbone)
    return Classifier(backbone, backbone.num_published_classes)


class _WithoutClasses(nn.Module):
    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone.head_features(self.backbone(images))


@torch.no_grad()
def list_layers(network: nn.Module, image_size: int) -> list[Layer]:
    """The layers of a network on the meta device, for a square image of `image_size` pixels."""
    counter, following = FlopCounterMode(display=False), _Following()
    record = _Record(counter, following)
    handles = [
        handle
        for name, module in network.named_modules()
        for handle in (
            module.register_forward_pre_hook(partial(record.begin, name)),
            module.register_forward_hook(partial(record.end, name)),
        )
    ]
    images = torch.zeros(1, 3, image_size, image_size, device="meta")
    _mark(images, Geometry(1, 1))
    try:
        with counter, following:
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    return record.layers


class _Record:
    # makes the rows while a network runs
    def __init__(self, counter: FlopCounterMode, following: "_Following") -> None:
        self.counter, self.following = counter, following
        self.layers: list[Layer] = []
        self._begun: list[tuple[int, int]] = []  # operations and rows before each open module

    def begin(self, name: str, module: nn.Module, inputs: Any) -> None:  # noqa: ARG002
        self._begun.append((self.counter.get_total_flops(), len(self.layers)))

    def end(self, name: str, module: nn.Module, inputs: Any, outputs: Any) -> None:
        operations, rows = self._begun.pop()
        own = (self.counter.get_total_flops() - operations) // 2  # a multiply-add is two
        own -= sum(layer.multiply_adds for layer in self.layers[rows:])
        if not inputs or not isinstance(inputs[0], Tensor) or not isinstance(outputs, Tensor):
            return  # what it takes counts for the module around it
        parameters = sum(self.following.used_parameters.values())
        self.following.forget_parameters()
        is_inner = len(self.layers) > rows
        if is_inner and not own and not parameters:
            return
        window = None if is_inner else _window(module, inputs[0])
        if window is not None:
            before = _geometry(inputs[0])
            _mark(outputs, before and before.after(window[0], window[1]))
        storages = [values.untyped_storage()._cdata for values in (inputs[0], outputs)]
        memory = 0 if is_inner or storages[0] == storages[1] else prod(outputs.shape[1:])
        geometry = _geometry(outputs)
        self.layers.append(
            Layer(
                name=name.removeprefix("backbone."),
                kind=type(module).__name__,
                kernel=window and window[0],
                stride=window and window[1],
                padding=window and window[2],
                output=tuple(outputs.shape[1:]),
                parameters=parameters,
                multiply_adds=own,
                memory=memory * BYTES_PER_VALUE,
                receptive_field=None if geometry is None else geometry.field,
                fits=window is None or _fits(inputs[0], *window),
            )
        )


class _Following(TorchFunctionMode):
    # carries the geometry of tensors through all operations, and notes the parameters used: a
    # module may leave the call of its children to a function
    def __init__(self) -> None:
        super().__init__()
        self.used_parameters: dict[int, int] = {}  # id → number of values
        self._counted: set[int] = set()

    def forget_parameters(self) -> None:
        self._counted |= set(self.used_parameters)
        self.used_parameters = {}

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        outputs = function(*args, **(kwargs or {}))
        given = _tensors([*args, *(kwargs or {}).values()])
        for parameter in given:
            if isinstance(parameter, nn.Parameter) and id(parameter) not in self._counted:
                self.used_parameters[id(parameter)] = parameter.numel()
        followed = [tensor for tensor in given if hasattr(tensor, "geometry")]
        if not followed or getattr(function, "__name__", "") in ("__get__", "__set__"):
            return outputs
        geometries = [_geometry(tensor) for tensor in followed]
        known = [geometry for geometry in geometries if geometry is not None]
        # a map weighted by what was computed from the whole of it is a kind of attention
        is_weighted = len({tensor.shape[2:] for tensor in followed if tensor.ndim == 4}) > 1
        is_known = len(known) == len(geometries) and not is_weighted
        joined = reduce(Geometry.joined, known) if is_known else None
        for output in _tensors([outputs]):
            _mark(output, joined and _through(function, followed[0], output, joined))
        return outputs


def _through(
    function: Callable[..., Any], given: Tensor, output: Tensor, geometry: Geometry
) -> Geometry | None:
    if getattr(function, "__name__", "") in ("permute", "transpose", "movedim", "linear"):
        return geometry  # the same values, or a sum over the channels of a position
    if given.ndim != 4 or given.shape[2:] == output.shape[-2:] or given.shape == output.shape:
        return geometry if output.ndim < 5 or given.shape[2:] == output.shape[-2:] else None
    if output.shape[1:].numel() == given.shape[1:].numel() and output.ndim == 2:
        return geometry.after(_pair(max(given.shape[2:])), (1, 1))  # a flattened map, as a whole
    if output.ndim == 2 or output.shape[2:] == (1, 1):  # a mean over a map
        return geometry.after(_pair(max(given.shape[2:])), (1, 1))
    if function.__name__.startswith("adaptive"):
        return geometry.pooled(_pair(given.shape[2:]), _pair(output.shape[2:]))
    names_window = "conv" in function.__name__ or "pool" in function.__name__
    if names_window or function.__name__ in ("pad", "cat"):
        return geometry  # the layer that calls it knows its window
    return None


def _window(module: nn.Module, inputs: Tensor) -> tuple[Pair, Pair, Pair] | None:
    # (kernel, dilation included), stride and padding of a filter
    size: Any = getattr(module, "kernel_size", None)
    if inputs.ndim != 4 or size is None:
        return None
    kernel, dilation = _pair(size), _pair(getattr(module, "dilation", 1))
    stride, padding = getattr(module, "stride", 1), getattr(module, "padding", 0)
    if isinstance(padding, str):
        padding = 0 if padding == "valid" else (kernel[0] - 1) // 2
    extent = (1 + (kernel[0] - 1) * dilation[0], 1 + (kernel[1] - 1) * dilation[1])
    return extent, _pair(stride), _pair(padding)


def _fits(inputs: Tensor, kernel: Pair, stride: Pair, padding: Pair) -> bool:
    sizes = zip(inputs.shape[2:], kernel, stride, padding, strict=True)
    return all((n - f + 2 * p) % s == 0 for n, f, s, p in sizes)


def _pair(value: Any) -> Pair:
    return (int(value[0]), int(value[1])) if isinstance(value, tuple | list) else (value, value)


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
    return found


def _mark(tensor: Tensor, geometry: Geometry | None) -> None:
    tensor.geometry = geometry  # type: ignore[attr-defined]


def _geometry(tensor: Tensor) -> Geometry | None:
    geometry: Geometry | None = getattr(tensor, "geometry", None)
    return geometry
