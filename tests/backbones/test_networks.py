"""The classical line of networks against the papers, and torchvision's against its own numbers."""

from functools import cache

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torchvision import models

from detect.backbones import BACKBONES
from detect.backbones.alexnet import response_norm
from detect.backbones.layers import Summary, summarize
from detect.backbones.lenet import CONNECTIONS, Gray, PartialConvolution, ScaledTanh, Subsampling

# Of the papers or of torchvision's documentation, with the last layer.
PARAMETERS = {
    "alexnet": 60_965_224,
    "alexnet_ungrouped": 62_378_344,
    "alexnet_owt": 61_100_840,
    "googlenet": 6_624_904,
    "lenet": 60_000,
    "mobilenet_v2": 3_504_872,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "squeezenet1_0": 1_248_424,
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "zfnet_small": 62_357_608,
}

WINDOWS = ("Conv2d", "MaxPool2d", "Linear")


@cache
def on_meta(name):
    """The backbone without numbers, which takes no time and no memory."""
    with torch.device("meta"):
        return BACKBONES[name]()


@cache
def summary_of(name) -> Summary:
    return summarize(name)


def volumes(name, kinds=("Conv2d", "MaxPool2d")):
    """Output of each layer of these kinds as the papers write it: height, width, channels."""
    outputs = [layer.output for layer in summary_of(name).layers if layer.kind in kinds]
    return [(*output[1:], output[0]) for output in outputs]


@pytest.mark.parametrize(("name", "parameters"), PARAMETERS.items())
def test_parameters_are_those_published(name, parameters):
    assert summary_of(name).parameters == parameters


def test_googlenet_with_its_auxiliary_classifiers():
    summary = summary_of("googlenet")
    assert summary.parameters + summary.auxiliary_parameters == 13_004_888


WRAPS = [
    *[f"vgg{depth}{suffix}" for depth in (11, 13, 16, 19) for suffix in ("", "_bn")],
    *[f"resnet{depth}" for depth in (18, 34, 50, 101, 152)],
    *["alexnet_owt", "googlenet", "mobilenet_v2", "squeezenet1_0"],
]


OWN = [
    *["alexnet", "alexnet_ungrouped", "lenet", "plain18", "plain34", "tiny", "tiny_shallow"],
    *["yolo_darknet", "yolo_darknet_fast", "zfnet", "zfnet_small"],
]


def test_the_line_is_complete():
    assert {*WRAPS, *OWN} <= set(BACKBONES)


@pytest.mark.parametrize("name", OWN)
def test_our_own_networks_have_no_imagenet_weights(name):
    assert summary_of(name).weights == ()


@pytest.mark.parametrize("name", WRAPS)
def test_cost_is_what_torchvision_says(name):
    meta = models.get_model_weights(name.replace("_owt", "")).DEFAULT.meta
    summary = summary_of(name)
    assert summary.parameters == meta["num_params"]
    # torchvision's "_ops" are 10⁹ multiply-adds, rounded to three digits
    assert_close(summary.multiply_adds / 1e9, meta["_ops"], rtol=0, atol=5.1e-4)
    assert summary.weights == ("imagenet",)


@pytest.mark.parametrize("name", ["alexnet", "alexnet_ungrouped"])
def test_the_volumes_of_alexnet(name):
    rows = [layer for layer in summary_of(name).layers if layer.kind in WINDOWS]
    found = [(row.kernel, row.stride, row.padding, row.output) for row in rows]

    def row(kernel, stride, padding, *output):
        return (kernel, kernel), (stride, stride), (padding, padding), output

    assert found == [
        row(11, 4, 0, 96, 55, 55),
        row(3, 2, 0, 96, 27, 27),
        row(5, 1, 2, 256, 27, 27),
        row(3, 2, 0, 256, 13, 13),
        row(3, 1, 1, 384, 13, 13),
        row(3, 1, 1, 384, 13, 13),
        row(3, 1, 1, 256, 13, 13),
        row(3, 2, 0, 256, 6, 6),
        *[(None, None, None, (features,)) for features in (4096, 4096, 1000)],
    ]


def test_alexnet_normalizes_before_it_pools():
    kinds = [type(layer).__name__ for layer in on_meta("alexnet").trunk]
    assert kinds[:8] == ["Conv2d", "ReLU", "LocalResponseNorm", "MaxPool2d"] * 2
    assert kinds.count("LocalResponseNorm") == 2


@pytest.mark.parametrize(
    ("name", "groups"), [("alexnet", [1, 2, 1, 2, 2]), ("alexnet_ungrouped", [1] * 5)]
)
def test_the_groups_of_alexnet(name, groups):
    found = [layer.groups for layer in on_meta(name).trunk if isinstance(layer, nn.Conv2d)]
    assert found == groups


@pytest.fixture(scope="module")
def alexnet():
    torch.manual_seed(0)
    return BACKBONES["alexnet"]().requires_grad_(False)


def test_the_initialization_of_alexnet(alexnet):
    for layer, bias in zip(weighted(alexnet), [0, 1, 0, 1, 1, 1, 1], strict=True):
        error = 5 / layer.weight.numel() ** 0.5  # five standard errors
        assert abs(float(layer.weight.mean())) < 0.01 * error
        assert abs(float(layer.weight.std()) / 0.01 - 1) < error
        assert_close(layer.bias, torch.full_like(layer.bias, bias))


def check_pixels(backbone):
    images = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)  # of ImageNet
    # 255 a pixel: seven digits of float32 are less than 1e-4
    assert_close(backbone.normalize(images), 255 * images - mean, rtol=0, atol=1e-4)


def test_pixels_of_alexnet_are_0_to_255_less_their_mean(alexnet):
    check_pixels(alexnet)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alexnet_ungrouped", "zfnet", "zfnet_small"])
def test_pixels_of_the_other_early_networks_are_the_same(name):
    check_pixels(BACKBONES[name]())


def test_response_normalization_is_the_papers():
    generator = torch.Generator().manual_seed(0)
    maps = 200 * torch.rand(2, 11, 3, 4, generator=generator).double()  # far from linear
    k, n, alpha, beta = 2, 5, 1e-4, 0.75
    channels = maps.shape[1]
    expected = torch.empty_like(maps)
    for i in range(channels):
        total = torch.zeros_like(maps[:, 0])
        for j in range(max(0, i - n // 2), min(channels - 1, i + n // 2) + 1):
            total += maps[:, j] ** 2
        expected[:, i] = maps[:, i] / (k + alpha * total) ** beta
    assert_close(response_norm()(maps), expected)


def test_the_volumes_of_zfnet():
    sides = [110, 55, 26, 13, 13, 13, 13, 6]
    for name, filters in (("zfnet", (512, 1024, 512)), ("zfnet_small", (384, 384, 256))):
        channels = [96, 96, 256, 256, *filters, filters[-1]]
        expected = [(side, side, c) for side, c in zip(sides, channels, strict=True)]
        assert volumes(name) == expected
    layers = summary_of("zfnet").layers
    assert (layers[0].kernel, layers[0].stride) == ((7, 7), (2, 2))


def test_the_layers_of_lenet():
    layers = [layer for layer in summary_of("lenet").layers if layer.parameters]
    # table of section II.B: C1, S2, C3, S4, C5, F6
    assert [layer.parameters for layer in layers] == [156, 12, 1516, 32, 48120, 10164]
    outputs = [(6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120, 1, 1), (84,)]
    assert [layer.output for layer in layers] == outputs
    windows = [(layer.kernel, layer.stride) for layer in layers]
    convolution, subsampling = ((5, 5), (1, 1)), ((2, 2), (2, 2))
    assert windows[:4] == [convolution, subsampling] * 2


def test_the_connections_of_lenet_are_table_1():
    # the columns of the table: how many maps each takes, and how often each map is taken
    assert [len(row) for row in CONNECTIONS] == [3] * 6 + [4] * 9 + [6]
    taken = [sum(source in row for row in CONNECTIONS) for source in range(6)]
    assert taken == [10] * 6
    assert len(set(CONNECTIONS)) == 16
    for row in CONNECTIONS:
        assert list(row) == sorted(set(row))


def test_a_map_of_lenet_sees_what_it_is_connected_to_and_nothing_else():
    torch.manual_seed(0)
    layer = PartialConvolution(6, CONNECTIONS)
    nn.init.normal_(layer.weight)
    maps = torch.rand(1, 6, 9, 9)
    before = layer(maps)
    for source in range(6):
        changed = maps.clone()
        changed[:, source] += 1
        difference = (layer(changed) - before).abs().amax(dim=(0, 2, 3))
        for output, row in enumerate(CONNECTIONS):
            assert bool(difference[output] > 0) == (source in row), (source, output)


def test_partial_convolution_is_the_sum_over_its_connections():
    torch.manual_seed(0)
    layer = PartialConvolution(6, CONNECTIONS)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    maps = torch.rand(2, 6, 7, 8)
    filters = iter(layer.weight)
    for output, row in enumerate(CONNECTIONS):
        expected = layer.bias[output].expand(2, 3, 4)
        for source in row:
            weight = next(filters)
            windows = maps[:, source].unfold(1, 5, 1).unfold(2, 5, 1)  # [2, 3, 4, 5, 5]
            expected = expected + (windows * weight).sum(dim=(3, 4))
        assert_close(layer(maps)[:, output], expected, rtol=1e-4, atol=1e-4)


def test_the_small_layers_of_lenet():
    ones = torch.tensor([-1.0, 0.0, 1.0])
    assert_close(ScaledTanh()(ones), ones, rtol=0, atol=1e-4)  # 1.7159 is rounded
    layer = Subsampling(2)
    layer.weight.data = torch.tensor([0.5, -0.25]).view(2, 1, 1)
    layer.bias.data = torch.tensor([0.1, 0.2]).view(2, 1, 1)
    maps = torch.rand(1, 2, 4, 6)
    for y in range(2):
        for x in range(3):
            total = maps[0, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].sum(dim=(1, 2))
            inner = total * torch.tensor([0.5, -0.25]) + torch.tensor([0.1, 0.2])
            assert_close(layer(maps)[0, :, y, x], 1.7159 * torch.tanh(2 / 3 * inner))
    gray = torch.rand(1, 1, 3, 3)
    assert_close(Gray()(gray.expand(1, 3, 3, 3)), gray)


def test_the_initialization_of_lenet():
    torch.manual_seed(0)
    modules = {type(module).__name__: module for module in BACKBONES["lenet"]().modules()}
    for kind, fan_in in (("PartialConvolution", 1500 / 16), ("Linear", 120)):
        largest = max(
            float(parameter.detach().abs().max()) for parameter in modules[kind].parameters()
        )
        limit = 2.4 / (fan_in + 1)
        assert 0.95 * limit < largest <= limit


def weighted(backbone):
    """Convolutions and fully connected layers of trunk and head, shortcuts left out."""
    return [
        module
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and "downsample" not in name
    ]


@pytest.mark.parametrize(
    "name", [name for name in BACKBONES if name.startswith(("vgg", "resnet", "plain"))]
)
def test_the_number_in_the_name_counts_the_layers(name):
    depth = int("".join(filter(str.isdigit, name)))
    assert len(weighted(on_meta(name))) + 1 == depth  # and the classifier


@pytest.mark.parametrize("depth", [18, 34])
def test_a_plain_network_has_the_layers_of_its_resnet(depth):
    def shapes(name):
        return [
            (layer.weight.shape, layer.stride, layer.padding) for layer in weighted(on_meta(name))
        ]

    assert shapes(f"plain{depth}") == shapes(f"resnet{depth}")
    # ResNet's own levels: where its maps become smaller
    plain, residual = on_meta(f"plain{depth}"), on_meta(f"resnet{depth}")
    assert plain.level_channels == residual.level_channels


def test_a_plain_network_has_no_way_around_a_layer():
    torch.manual_seed(0)
    images = torch.rand(2, 3, 64, 64)

    def answer_depends_on_image(name):
        backbone = BACKBONES[name]().eval()
        for layer in weighted(backbone)[1::2]:  # the first of each pair, or of each block
            nn.init.zeros_(layer.weight)
        with torch.no_grad():
            one, other = backbone(images)
        return not torch.equal(one, other)

    assert not answer_depends_on_image("plain34")
    assert answer_depends_on_image("resnet34")


def test_the_activations_of_vgg16():
    pairs = [(224, 64, 2), (112, 128, 2), (56, 256, 3), (28, 512, 3), (14, 512, 3)]
    values = 3 * 224**2
    for side, channels, convolutions in pairs:
        values += convolutions * side**2 * channels + (side // 2) ** 2 * channels
    values += 4096 + 4096 + 1000
    assert values == 15_237_608
    # torchvision's network averages its 7×7 map to 7×7 before it is flattened
    assert summary_of("vgg16").memory == 4 * (values + 7 * 7 * 512)
    assert round(summary_of("vgg16").memory / 2**20) == 58


def test_the_auxiliary_classifiers_of_googlenet_follow_4a_and_4d():
    backbone = on_meta("googlenet")
    network = models.googlenet(aux_logits=True, init_weights=False).eval()
    names = [name for name, _ in network.named_children()]
    assert [names[auxiliary.after] for auxiliary in backbone.auxiliaries] == [
        "inception4a",
        "inception4d",
    ]
    assert [auxiliary.weight for auxiliary in backbone.auxiliaries] == [0.3, 0.3]
    for auxiliary, ours in zip(("aux1", "aux2"), backbone.auxiliaries, strict=True):
        shapes = {key: value.shape for key, value in ours.build(1000).state_dict().items()}
        theirs = getattr(network, auxiliary).state_dict()
        assert shapes == {key: value.shape for key, value in theirs.items()}


def test_tiny_shallow_differs_from_tiny_in_depth_alone():
    deep, shallow = summary_of("tiny"), summary_of("tiny_shallow")
    assert (shallow.stride, shallow.grid, shallow.channels, shallow.feature_dim) == (
        *(deep.stride, deep.grid),
        *(deep.channels, deep.feature_dim),
    )

    def convolutions(summary):
        return [row for row in summary.layers if row.kind == "Conv2d"]

    assert len(convolutions(deep)) == 7
    found = [(row.stride, row.output) for row in convolutions(shallow)]
    expected = [(row.stride, row.output) for row in convolutions(deep) if row.stride != (1, 1)]
    assert found == expected
