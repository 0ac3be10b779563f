"""The tables of layers, against hand calculation and against what gradients reach."""

import copy
import json
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision import models

from detect.backbones import BACKBONES
from detect.backbones.layers import list_layers, summarize
from detect.errors import DetectError

# Many layers take a while, even without numbers, and the same with fewer layers are there.
DEEP = ("resnet34", "resnet50", "resnet101", "resnet152", "plain34", "vgg19_bn", "yolo_darknet_bn")
NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] * (name in DEEP)) for name in sorted(BACKBONES)
]


@cache
def summary_of(name):
    return summarize(name)


def layers_of(network, size):
    return list_layers(network.to("meta").eval(), size)


@pytest.mark.parametrize("name", NAMES)
def test_every_backbone_has_a_table(name):
    summary = summary_of(name)
    with torch.device("meta"):
        backbone = BACKBONES[name]()
    assert (summary.stride, summary.grid) == (backbone.stride, backbone.grid)
    assert (summary.channels, summary.feature_dim) == (backbone.channels, backbone.feature_dim)
    assert summary.image_size == backbone.image_size
    # trunk and head, and a last layer where there is one; nothing is counted twice or left out
    trunk_and_head = sum(parameter.numel() for parameter in backbone.parameters())
    last = (
        1000 * backbone.feature_dim + 1000 if name not in ("lenet", "tiny", "tiny_shallow") else 0
    )
    assert summary.parameters == trunk_and_head + last
    assert sum(layer.parameters for layer in summary.layers) == summary.parameters
    assert sum(layer.multiply_adds for layer in summary.layers) == summary.multiply_adds
    assert any(layer.output[1:] == (summary.grid, summary.grid) for layer in summary.layers)
    for layer in summary.layers:
        assert layer.receptive_field is not None
        has_weights = layer.kind in ("Conv2d", "Linear", "BatchNorm2d")
        assert (layer.parameters > 0) == has_weights or name == "lenet", layer
        assert (layer.multiply_adds > 0) == (layer.kind in ("Conv2d", "Linear")) or name == "lenet"


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "alexnet", "lenet", "googlenet"])
def test_each_row_has_the_parameters_of_its_own_layer(name):
    with torch.device("meta"):
        backbone = BACKBONES[name]()
    modules = dict((backbone.published.network if backbone.published else backbone).named_modules())
    rows = [layer for layer in summary_of(name).layers if layer.name in modules]
    assert len(rows) > 10
    for row in rows:
        expected = sum(parameter.numel() for parameter in modules[row.name].parameters())
        assert row.parameters == expected, row


# Filters of the trunk by hand: the field grows by (F - 1) times the product of the strides so far.
ALEXNET_FIELDS = [11, 19, 51, 67, 99, 131, 163, 195, 355, 355, 355]
VGG16_FIELDS = [3, 5, 6, 10, 14, 16, 24, 32, 40, 44, 60, 76, 92, 100, 132, 164, 196, 212]
LENET_FIELDS = [5, 6, 14, 16, 32, 32]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("alexnet", ALEXNET_FIELDS),
        ("alexnet_ungrouped", ALEXNET_FIELDS),
        ("vgg16", [*VGG16_FIELDS, 404, 404, 404]),
        ("vgg16_bn", [*VGG16_FIELDS, 404, 404, 404]),
        ("lenet", LENET_FIELDS),
    ],
)
def test_receptive_fields_by_hand(name, fields):
    kinds = ("Conv2d", "MaxPool2d", "Linear", "PartialConvolution", "Subsampling")
    found = [layer.receptive_field for layer in summary_of(name).layers if layer.kind in kinds]
    assert found == fields


def test_a_head_over_an_averaged_map_sees_the_whole_map():
    # pool5 sees 212 pixels in steps of 32; the map is averaged to 7×7 or spread to it
    for size, cells in ((448, 14), (300, 9), (224, 7), (100, 3)):
        fields = [layer.receptive_field for layer in summarize("vgg16", size).layers]
        assert fields[-1] == 212 + 32 * (cells - 1), size
    assert summarize("alexnet", 500).layers[-1].receptive_field == 195 + 32 * 13
    assert summary_of("resnet18").layers[-1].receptive_field == 435 + 32 * 6


class Spread(nn.Module):
    """In place of a filter: the mean of its windows, so that nothing that it sees is lost."""

    def __init__(self, filter_layer):
        super().__init__()
        names = ("kernel_size", "stride", "padding", "dilation")
        size, self.stride, self.padding, dilation = (
            self._number(getattr(filter_layer, name, 1)) for name in names
        )
        self.dilation = dilation
        self.weight = torch.full((1, 1, size, size), 1 / size**2, dtype=torch.float64)

    @staticmethod
    def _number(value):
        return value[0] if isinstance(value, tuple) else value

    def forward(self, maps):
        maps = maps.mean(dim=1, keepdim=True)
        return functional.conv2d(maps, self.weight, None, self.stride, self.padding, self.dilation)


class Passing(nn.Module):
    def forward(self, maps):
        return maps


def spread(module):
    """Replace the layers of a module: filters by `Spread`, all others by nothing."""
    for name, child in module.named_children():
        if getattr(child, "kernel_size", None) is not None:
            setattr(module, name, Spread(child))
        elif not any(child.children()):
            setattr(module, name, Passing())
        else:
            spread(child)
    return module


def reach(trunk, size):
    """Side of the square of the image that the middle of a trunk's output depends on."""
    image = torch.ones(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    output = trunk(image)
    output[0, :, output.shape[2] // 2, output.shape[3] // 2].sum().backward()
    rows, columns = image.grad[0, 0].nonzero().unbind(dim=1)
    assert rows.min() > 0  # the image is larger than what is seen of it
    assert rows.max() < size - 1
    sides = {int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1}
    return sides.pop()


@pytest.mark.parametrize("name", NAMES)
def test_receptive_fields_are_what_gradients_reach(name):
    with torch.device("meta"):
        backbone = BACKBONES[name]()
    trunk = spread(copy.deepcopy(backbone.trunk))
    rows = [row for row in summary_of(name).layers if row.output[1:] == (backbone.grid,) * 2]
    field = max(row.receptive_field for row in rows)  # of the trunk's last map
    size = field + 4 * backbone.stride
    size += -size % backbone.stride + 1
    assert reach(trunk, size) == field


class Branches(nn.Module):
    """Two ways of other lengths that are stacked, and a shortcut around a strided pair."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 5, stride=2, padding=2)
        self.short = nn.Conv2d(4, 4, 3, padding=1)
        self.long = nn.Sequential(
            nn.Conv2d(4, 4, 3, padding=2, dilation=2), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)
        )
        self.pair = nn.Sequential(
            nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        )
        self.shortcut = nn.Conv2d(8, 8, 1, stride=2)
        self.last = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, images):
        maps = self.stem(images)
        maps = torch.cat((self.short(maps), self.long(maps)), dim=1)
        return self.last(self.pair(maps) + self.shortcut(maps))


def test_the_receptive_field_of_branches():
    network = Branches().double()
    for parameter in network.parameters():
        nn.init.constant_(parameter, 0.1)
    image = torch.ones(1, 3, 97, 97, dtype=torch.float64, requires_grad=True)
    output = network(image)
    output[0, 0, 12, 12].backward()
    rows = image.grad[0, 0].abs().sum(dim=1).nonzero()
    expected = int(rows.max() - rows.min()) + 1
    assert int(rows.min()) > 0
    assert int(rows.max()) < 96
    fields = {layer.name: layer.receptive_field for layer in layers_of(network.float(), 97)}
    assert fields["last"] == expected
    # 5; then in steps of 2 pixels (3 − 1) · 2, or dilated 4 · 2 and 2 · 2 more
    assert (fields["stem"], fields["short"], fields["long.0"], fields["long.2"]) == (5, 9, 13, 17)
    # the longer way counts: 4 more, then in steps of 4 pixels 8 more, for each of two
    assert (fields["shortcut"], fields["pair.0"], fields["pair.1"]) == (17, 21, 29)
    assert fields["last"] == 37


def test_what_sees_the_whole_map_by_attention_has_no_field():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.gate = nn.Conv2d(4, 4, 1)
            self.after = nn.Conv2d(4, 4, 3)

        def forward(self, images):
            maps = self.conv(images)
            return self.after(maps * self.gate(maps.mean(dim=(2, 3), keepdim=True)).sigmoid())

    fields = {layer.name: layer.receptive_field for layer in layers_of(Gated(), 16)}
    # at 16 pixels the map has 14 cells, each of which sees 3
    assert fields == {"conv": 3, "gate": 16, "after": None}


def test_layers_that_do_not_fit_are_marked():
    def unfit(name, size=None):
        return [layer.name for layer in summarize(name, size).layers if not layer.fits]

    assert unfit("alexnet") == []
    # (224 − 11) / 4, and the pools of its 54, 26 and 12 columns
    assert unfit("alexnet", 224) == ["trunk.0", "trunk.3", "trunk.7", "trunk.14"]
    # (224 − 7 + 2) / 2 = 109.5, and the two padded pools: (110 − 3 + 2) / 2, (26 − 3 + 2) / 2
    assert unfit("zfnet") == ["trunk.0", "trunk.2", "trunk.6"]
    assert unfit("vgg16") == []
    assert unfit("lenet") == []
    assert unfit("lenet", 33) == ["trunk.2"]  # 29 columns under a 2×2 filter
    assert unfit("resnet18") == ["conv1", "maxpool", *unfit_convolutions("layer")]


def unfit_convolutions(prefix):
    # (56 − 3 + 2) / 2 and so on at each stage, (56 − 1) / 2 in its shortcut
    return [
        f"{prefix}{stage}.0.{layer}" for stage in (2, 3, 4) for layer in ("conv1", "downsample.0")
    ]


def test_costs_of_layers_by_hand():
    network = nn.Sequential(
        nn.Conv2d(3, 12, (3, 5), stride=2, padding=(1, 2)),  # 16×16
        nn.ReLU(inplace=True),
        nn.Conv2d(12, 6, 3, padding=1, groups=3, bias=False),
        nn.BatchNorm2d(6),
        nn.Sigmoid(),
        nn.MaxPool2d(2),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(6 * 8 * 8, 7),
    )
    rows = [
        (layer.parameters, layer.multiply_adds, layer.memory // 4)
        for layer in layers_of(network, 32)
    ]
    # weights: filters × channels each sees × area (+ a bias each); multiply-adds: that for each
    # position, without the bias; memory: values of the output
    assert rows == [
        (12 * 3 * 15 + 12, 16 * 16 * 12 * 3 * 15, 12 * 16 * 16),
        (0, 0, 0),  # writes into its input
        (6 * 4 * 9, 16 * 16 * 6 * 4 * 9, 6 * 16 * 16),
        (6 + 6, 0, 6 * 16 * 16),
        (0, 0, 6 * 16 * 16),
        (0, 0, 6 * 8 * 8),
        (0, 0, 0),  # does nothing at evaluation
        (0, 0, 0),  # another shape of the same memory
        (6 * 64 * 7 + 7, 6 * 64 * 7, 7),
    ]


def test_memory_is_the_image_and_all_outputs():
    summary = summary_of("lenet")
    # gray 1, C1 and its squashing 6·28² each, S2, C3 twice, S4, C5 twice, F6 twice
    values = 3 * 32**2 + 32**2 + 2 * 6 * 28**2 + 6 * 14**2 + 2 * 16 * 10**2 + 16 * 5**2
    assert summary.memory == 4 * (values + 2 * 120 + 2 * 84)


def test_parameters_of_a_module_around_layers_have_a_row():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4, 1, 1))
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, images):
            return self.conv(images) * self.scale

    rows = [(layer.name, layer.parameters) for layer in layers_of(nn.Sequential(Scaled()), 8)]
    assert rows == [("0.conv", 16), ("0", 4)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["convnext_tiny", "densenet121", "efficientnet_b0", "inception_v3", "regnet_y_400mf", "swin_t"],
)
def test_costs_of_other_networks_are_what_torchvision_says(name):
    summary = summarize(f"torchvision/{name}")
    meta = models.get_model_weights(name).DEFAULT.meta
    assert summary.parameters + summary.auxiliary_parameters == meta["num_params"]
    assert summary.multiply_adds / 1e9 == pytest.approx(meta["_ops"], abs=5.1e-4)


def test_a_shared_layer_counts_its_parameters_once():
    shared = nn.Conv2d(3, 3, 3, padding=1)
    rows = layers_of(nn.Sequential(shared, shared), 8)
    assert [layer.parameters for layer in rows] == [84, 0]
    assert [layer.multiply_adds for layer in rows] == [8 * 8 * 81] * 2


@pytest.mark.parametrize(
    ("name", "size"), [("alexnet", 62), ("alexnet", 0), ("lenet", 8), ("squeezenet1_0", -3)]
)
def test_an_image_without_room_is_refused(name, size):
    with pytest.raises(DetectError) as caught:
        summarize(name, size)
    assert str(caught.value).startswith(f"backbone {name} takes no images of {size}×{size} pixels")
    assert str(caught.value).endswith(f"it was designed for {summary_of(name).image_size}")


def test_an_unknown_backbone_gets_help():
    with pytest.raises(DetectError, match="unknown backbone 'alexnett'; did you mean 'alexnet'"):
        summarize("alexnett")


def test_tables_are_plain_data():
    summary = summary_of("lenet")
    overview = json.loads(json.dumps(summary.as_dict()))
    keys = ("name", "parameters", "multiply_adds", "stride", "grid", "channels", "feature_dim")
    assert [overview[key] for key in keys] == ["lenet", 60_000, 415_680, 4, 5, 16, 84]
    assert overview["memory"] == summary.memory
    assert "layers" not in overview
    row = json.loads(json.dumps(summary.layers[1].as_dict()))
    assert (row["kernel"], row["output"], row["receptive_field"]) == ([5, 5], [6, 28, 28], 5)
