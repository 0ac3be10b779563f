"""Networks of torchvision and timm as backbones, against the networks themselves."""

import sys

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torchvision import models
from torchvision.transforms.functional import normalize

from detect.backbones import BACKBONES
from detect.backbones.splitting import split
from detect.errors import DetectError
from detect.version import install_command

LIGHT = [
    "torchvision/mobilenet_v3_small",
    "torchvision/shufflenet_v2_x0_5",
    "torchvision/squeezenet1_1",
    "timm/resnet10t",
    "timm/test_convnext",
    "timm/test_efficientnet",
]
HEAVY = [
    "torchvision/convnext_tiny",
    "torchvision/densenet121",
    "torchvision/efficientnet_b0",
    "torchvision/googlenet",
    "torchvision/inception_v3",
    "torchvision/regnet_y_400mf",
    "torchvision/swin_t",
    "torchvision/swin_v2_t",
    "torchvision/vgg11",
    "timm/convnext_atto",
    "timm/mobilenetv3_small_050",
    "timm/regnetx_002",
    "timm/swin_tiny_patch4_window7_224",
    "timm/vgg11",
]


@pytest.fixture(
    scope="module", params=LIGHT + [pytest.param(n, marks=pytest.mark.slow) for n in HEAVY]
)
def name(request):
    if request.param.startswith("timm/"):
        pytest.importorskip("timm")
    return request.param


@pytest.fixture(scope="module")
def backbone(name):
    """Built once for its tests, with numbers as training would leave them."""
    torch.manual_seed(0)
    backbone = BACKBONES[name]().eval().requires_grad_(False)
    train_a_little(backbone.published.network, backbone.image_size)
    return backbone


@torch.no_grad()
def train_a_little(network, size):
    """Put noise into what begins as ones and zeros, and let norms measure images.

    Without that, all images have nearly the same features, and scales and shifts are not seen.
    """
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        if parameter.min() == parameter.max():
            parameter += 0.2 * torch.rand(parameter.shape, generator=generator)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.train()
            norm.momentum = None  # the plain average
    network(torch.rand(4, 3, size, size, generator=generator))
    network.eval()


def photos(height, width, count=1):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(2))


def features_of(network, classifier, images):
    """What a network gives to its last layer, a map averaged over its positions."""
    layer = network.get_submodule(classifier.removesuffix("."))
    taken = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0].clone()))
    logits = network(images)
    handle.remove()
    assert logits.shape[1] == 1000
    (features,) = taken
    return features.mean(dim=(2, 3)) if features.ndim == 4 else features


def assert_same_features(features, expected):
    # networks pool and reshape in other orders; what has no norms at its end may be large
    scale = float(expected.abs().max())
    assert scale > 0
    assert_close(features / scale, expected / scale, rtol=0, atol=1e-5)


def library_settings(name):
    """(image size, mean, std) as the library itself gives them for the network's weights."""
    family, _, network = name.partition("/")
    if family == "torchvision":
        preset = models.get_model_weights(network).DEFAULT.transforms()
        return preset.crop_size[0], preset.mean, preset.std
    import timm

    settings = timm.get_pretrained_cfg(network)
    return settings.input_size[1], settings.mean, settings.std


def test_features_are_what_the_network_gives_to_its_last_layer(name, backbone):
    size, mean, std = library_settings(name)
    network = backbone.published.network
    if hasattr(network, "transform_input"):  # so it does with torchvision's weights
        network.transform_input = True
    images = photos(size, size, count=2)
    expected = features_of(network, backbone.published.classifier, normalize(images, mean, std))
    features = backbone(images)
    assert features.shape == (2, backbone.channels, backbone.grid, backbone.grid)
    assert_same_features(backbone.head(features), expected)
    assert backbone.image_size == size
    # the two images are told apart
    assert float((expected[0] - expected[1]).abs().max()) > 1e-4 * float(expected.abs().max())


def test_the_statistics_of_pixels_are_the_librarys(name, backbone):
    _, mean, std = library_settings(name)
    if hasattr(backbone.published.network, "transform_input"):
        mean = std = (0.5, 0.5, 0.5)  # what transform_input makes of the others
    assert_close(backbone.mean.flatten(), torch.tensor(mean))
    assert_close(backbone.std.flatten(), torch.tensor(std))


def test_the_dense_head_is_the_head_at_each_location(backbone):
    grid = backbone.grid
    generator = torch.Generator().manual_seed(3)
    features = torch.rand(1, backbone.channels, grid + 1, grid + 2, generator=generator)
    dense = backbone.dense_head()(features)
    assert dense.shape == (1, backbone.feature_dim, 2, 3)
    for y in range(2):
        for x in range(3):
            window = features[:, :, y : y + grid, x : x + grid]
            assert_same_features(dense[:, :, y, x], backbone.head(window))


def test_maps_are_channels_first_with_the_strides_of_their_names(backbone):
    # a multiple of 32 that is none of a window of Swin, and no square
    height, width = 160, 224
    maps = backbone.pyramid(photos(height, width))
    assert tuple(maps) == backbone.levels
    assert len(maps) >= 4
    for level, features in maps.items():
        stride = 2 ** int(level.removeprefix("C"))
        channels, rows, columns = features.shape[1:]
        assert channels == backbone.level_channels[level]
        # networks without padding in their first layers lose a few rows
        assert height // stride - 4 <= rows <= height // stride
        assert columns - rows == (width - height) // stride
    assert_close(maps[backbone.levels[-1]], backbone(photos(height, width)))


def test_splitting_leaves_the_network_as_it_was_drawn():
    torch.manual_seed(4)
    drawn = models.mobilenet_v3_small()
    after = torch.rand(1)
    expected = drawn.state_dict()
    torch.manual_seed(4)
    backbone = BACKBONES["torchvision/mobilenet_v3_small"]()
    assert torch.equal(torch.rand(1), after)  # and the generator
    found = backbone.published.network.state_dict()
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert torch.equal(found[key], value), key
    assert backbone.training
    assert all(module.training for module in backbone.modules())


def test_weights_of_the_network_are_weights_of_the_backbone():
    backbone = BACKBONES["torchvision/mobilenet_v3_small"]().eval()
    images = photos(64, 64)
    before = backbone(images)
    torch.manual_seed(5)
    other = models.mobilenet_v3_small().eval()
    backbone.published.network.load_state_dict(other.state_dict())
    after = backbone(images)
    assert not torch.allclose(before, after)
    assert_close(after, other.features(backbone.normalize(images)))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("torchvision/vit_b_16", "it does not take images of 224×288 (Wrong image width"),
        ("torchvision/maxvit_t", "it does not take images of 224×288 ("),
        ("timm/test_vit", "its layers up to 'head', run one after another, do not"),
    ],
)
def test_a_network_without_feature_maps_is_refused(name, reason):
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    with pytest.raises(DetectError) as caught:
        BACKBONES[name]()
    message = str(caught.value)
    start = f"backbone {name} cannot be split into a trunk and a head: {reason}"
    assert message.startswith(start), message
    assert message.endswith("'detect backbones' lists networks that can")


class Chain(nn.Module):
    """Layers of a small network, to be called in ways that are or are no chain."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.act = nn.ReLU()
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 5)

    def forward(self, images):
        return self.classify(self.second(self.act(self.first(images))))

    def classify(self, features):
        return self.fc(self.pool(features).flatten(1))


class Branch(Chain):
    def forward(self, images):
        features = self.first(images)
        return self.classify(features + self.second(self.act(features)))


class Twice(Chain):
    def forward(self, images):
        features = self.act(self.first(images))
        return self.classify(self.second(self.second(features)))


class FreeParameter(Chain):
    """One that begins as ones is told from none, though both give the same."""

    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(8, 1, 1))

    def forward(self, images):
        return self.classify(self.gamma * self.second(self.act(self.first(images))))


class HiddenRelu(Chain):
    def forward(self, images):
        return self.classify(self.second(torch.relu(self.first(images))))


class HiddenPool(Chain):
    """Small weights as they are drawn leave little of the image for a maximum to choose from."""

    def __init__(self):
        super().__init__()
        layers = []
        for _ in range(4):
            convolution = nn.Conv2d(8, 8, 1)
            nn.init.normal_(convolution.weight, std=0.01)
            layers += [convolution, nn.BatchNorm2d(8)]
        self.second = nn.Sequential(*layers)

    def forward(self, images):
        features = self.second(self.act(self.first(images)))
        return self.classify(nn.functional.max_pool2d(features, 2))


class NoClassifier(Chain):
    def __init__(self):
        super().__init__()
        self.fc = nn.LayerNorm(8)


class NoMap(Chain):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64 * 64 * 3, 8)

    def forward(self, images):
        images = nn.functional.adaptive_avg_pool2d(images, 64)
        return self.fc(self.act(self.first(images.flatten(1))))


class Attending(Chain):
    """A head that mixes the numbers of a whole map."""

    def __init__(self):
        super().__init__()
        self.pool = nn.AdaptiveMaxPool2d(1)


def split_by_hand(network):
    return split(network, "mine", image_size=64, mean=(0.5,) * 3, std=(0.25,) * 3)


def test_a_chain_is_split():
    backbone = split_by_hand(Chain())
    assert [type(layer) for layer in backbone.trunk] == [nn.Conv2d, nn.ReLU, nn.Conv2d]
    kinds = [type(layer) for layer in backbone.head]
    assert kinds == [nn.AdaptiveAvgPool2d, nn.Flatten]
    assert (backbone.stride, backbone.grid, backbone.channels, backbone.feature_dim) == (
        2,
        32,
        8,
        8,
    )
    assert backbone.published.classifier == "fc."


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (Branch, "its layers up to 'fc', run one after another, do not give what the"),
        (HiddenRelu, "its layers up to 'fc', run one after another, do not give what the"),
        (HiddenPool, "its layers up to 'fc', run one after another, do not give what the"),
        (FreeParameter, "its layers up to 'fc', run one after another, do not give what the"),
        (Twice, "a layer runs more than once"),
        (NoClassifier, "its last layer is no linear one (LayerNorm)"),
        (NoMap, "none of its layers gives a feature map"),
        (Attending, "a AdaptiveMaxPool2d layer in the head has no form as a convolution"),
    ],
)
def test_what_is_no_chain_is_refused_with_the_reason(network, reason):
    with pytest.raises(DetectError) as caught:
        split_by_hand(network())
    start = "backbone mine cannot be split into a trunk and a head: " + reason
    assert str(caught.value).startswith(start), caught.value


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("torchvision/convnext_tinny", "did you mean 'torchvision/convnext_tiny'"),
        ("torchvision/qqqq", "there are: torchvision/alexnet, "),
        ("timm/resnet10", "did you mean 'timm/resnet10t'"),
        ("timm/qqqqqqqqqqq", "there are: timm/"),
    ],
)
def test_an_unknown_name_gets_help(name, hint):
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    with pytest.raises(DetectError) as caught:
        BACKBONES[name]()
    assert str(caught.value).startswith(f"unknown backbone '{name}'; {hint}"), caught.value


def test_without_timm_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(DetectError) as caught:
        BACKBONES["timm/resnet18"]()
    assert str(caught.value).endswith(install_command("timm"))
    assert BACKBONES["torchvision/squeezenet1_1"]().stride == 16  # the others do without


@pytest.mark.slow
def test_the_other_networks_of_torchvision_below_12_million_parameters():
    refused = []
    for name in models.list_models(module=models):
        parameters = models.get_model_weights(name).DEFAULT.meta["num_params"]
        if parameters < 12e6 and f"torchvision/{name}" not in [*LIGHT, *HEAVY]:
            try:
                BACKBONES[f"torchvision/{name}"]()
            except DetectError as error:
                refused.append((name, str(error)))
    # the larger ones, but for transformers on the whole image, are of the same families
    assert not refused
