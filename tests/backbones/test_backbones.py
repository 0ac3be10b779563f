import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torchvision import models
from torchvision.transforms.functional import normalize

from detect.backbones import BACKBONES, Backbone, create_backbone, list_backbones
from detect.backbones.base import head_as_convolutions
from detect.errors import DetectError

# Every stride divides the size, and every level of every trunk still has a few cells.
SIZE = (128, 192)
DARKNETS = {"yolo_darknet": 24, "yolo_darknet_fast": 9}


# Hundreds of megabytes of weights, or more than a hundred layers. What is special about them is in
# small ones as well: fully connected heads in tiny and lenet, branches in googlenet.
LARGE = ("alexnet", "resnet101", "resnet152", "vgg", "yolo_darknet", "zfnet")
NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] * name.startswith(LARGE))
    for name in sorted(BACKBONES)
]


def built(name: str) -> Backbone:
    torch.manual_seed(0)
    return BACKBONES[name]().eval().requires_grad_(False)


def on_meta(name: str) -> Backbone:
    """The backbone without numbers, at no cost."""
    with torch.device("meta"):
        return BACKBONES[name]()


@pytest.fixture(scope="module", params=NAMES)
def backbone(request):
    """Each registered backbone, built once for its tests, which leave it as it is."""
    return built(request.param)


def photos(height, width, count=1):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_the_registry_has_the_networks_of_the_detectors():
    depths = [
        *(f"vgg{n}" for n in (11, 13, 16, 19)),
        *(f"resnet{n}" for n in (18, 34, 50, 101, 152)),
    ]
    classical = {"lenet", "alexnet", "alexnet_owt", "zfnet", "googlenet", "plain18", "plain34"}
    names = {
        "tiny",
        "tiny_shallow",
        "mobilenet_v2",
        "squeezenet1_0",
        *DARKNETS,
        *classical,
        *depths,
    }
    assert names <= set(BACKBONES)


def test_a_forward_gives_what_the_attributes_say(backbone):
    size = backbone.image_size
    features = backbone(photos(size, size))
    assert features.shape == (1, backbone.channels, backbone.grid, backbone.grid)
    assert backbone.head(features).shape == (1, backbone.feature_dim)


def test_stride_pixels_more_are_one_cell_more(backbone):
    height, width = SIZE
    before = backbone(photos(height, width)).shape
    after = backbone(photos(height + backbone.stride, width + 2 * backbone.stride)).shape
    assert after == (1, backbone.channels, before[2] + 1, before[3] + 2)


def test_levels_are_the_last_maps_at_each_stride(backbone):
    height, width = SIZE
    maps = backbone.pyramid(photos(height, width))
    wider = backbone.pyramid(photos(height, width + 64))
    assert tuple(maps) == backbone.levels == tuple(backbone.level_channels)
    numbers = [int(level.removeprefix("C")) for level in maps]
    assert numbers == list(range(numbers[0], backbone.stride.bit_length()))  # fine to coarse
    for number, (level, features) in zip(numbers, maps.items(), strict=True):
        assert features.shape[1] == backbone.level_channels[level]
        assert wider[level].shape[3] - features.shape[3] == 64 // 2**number
    assert_close(maps[backbone.levels[-1]], backbone(photos(height, width)))


def test_the_levels_of_resnet_are_its_stages():
    network = models.resnet18().eval()
    backbone = BACKBONES["resnet18"]().eval()
    assert backbone.published is not None
    backbone.published.network.load_state_dict(network.state_dict())
    images = photos(64, 96)
    with torch.no_grad():
        expected = network.relu(network.bn1(network.conv1(backbone.normalize(images))))
        maps = backbone.pyramid(images)
        assert_close(maps["C1"], expected)
        expected = network.maxpool(expected)
        for level, stage in zip(("C2", "C3", "C4", "C5"), range(1, 5), strict=True):
            expected = getattr(network, f"layer{stage}")(expected)
            assert_close(maps[level], expected)


def test_the_dense_head_is_the_head_at_each_location(backbone):
    grid = backbone.grid
    generator = torch.Generator().manual_seed(2)
    features = torch.rand(2, backbone.channels, grid + 2, grid + 1, generator=generator)
    dense = backbone.dense_head()(features)
    assert dense.shape == (2, backbone.feature_dim, 3, 2)
    for y in range(3):
        for x in range(2):
            window = features[:, :, y : y + grid, x : x + grid]
            assert_close(dense[:, :, y, x], backbone.head(window), rtol=1e-5, atol=1e-5)


def test_the_head_takes_maps_of_any_size(backbone):
    grid = backbone.grid
    generator = torch.Generator().manual_seed(2)
    features = torch.rand(1, backbone.channels, grid + 5, grid + 2, generator=generator)
    is_average = not any(isinstance(m, nn.Linear | nn.Conv2d) for m in backbone.head.modules())
    if is_average:
        expected = features.mean(dim=(2, 3))
    else:
        expected = backbone.head(nn.functional.adaptive_avg_pool2d(features, grid))
    assert backbone.pooled_to_grid(features).shape == (1, backbone.channels, grid, grid)
    assert_close(backbone.head_features(features), expected)


def test_the_dense_head_is_a_copy():
    backbone = BACKBONES["tiny"]()
    features = torch.rand(1, backbone.channels, 4, 4)
    dense = backbone.dense_head()
    before = dense(features)
    with torch.no_grad():
        for parameter in backbone.head.parameters():
            parameter.zero_()
    assert_close(dense(features), before)
    assert backbone.head(features).abs().max() == 0
    assert before.abs().max() > 0


def test_dropout_of_the_dense_head_follows_the_mode():
    head = nn.Sequential(nn.Flatten(), nn.Linear(8, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    features = torch.rand(1, 2, 2, 2)
    dense = head_as_convolutions(head.eval(), 2)
    assert_close(dense(features).flatten(1), head(features))
    assert head_as_convolutions(head.train(), 2).training


def test_a_head_that_is_no_convolution_is_refused():
    head = nn.Sequential(nn.Flatten(), nn.LayerNorm(8))
    with pytest.raises(DetectError, match="a LayerNorm layer in the head has no form as a conv"):
        head_as_convolutions(head, 2)


def test_a_dropped_head_leaves_no_parameters():
    backbone = BACKBONES["tiny"]()
    backbone.drop_head()
    assert not [name for name in backbone.state_dict() if name.startswith("head.")]
    assert backbone(photos(32, 32)).shape == (1, 128, 2, 2)


def test_images_are_normalized_once():
    backbone = Backbone(
        nn.Sequential(nn.AvgPool2d(2)),
        nn.Identity(),
        image_size=4,
        mean=(0.5, 0.25, 0.0),
        std=(0.5, 0.25, 2.0),
    )
    images = torch.ones(1, 3, 4, 4)
    expected = torch.tensor([1.0, 3.0, 0.5]).view(1, 3, 1, 1)
    assert_close(backbone(images), expected.expand(1, 3, 2, 2))
    assert_close(backbone.pyramid(images)["C1"], expected.expand(1, 3, 2, 2))
    assert_close(backbone.trunk(images), torch.ones(1, 3, 2, 2))


@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_0"])
def test_features_are_those_of_torchvision(name):
    backbone = built(name)
    network = getattr(models, name)().eval()
    assert backbone.published is not None
    network.load_state_dict(backbone.published.network.state_dict())
    images = photos(64, 96, count=2)
    # the statistics of torchvision's own preprocessing
    preset = backbone.published.weights.transforms()
    with torch.no_grad():
        expected = network.features(normalize(images, preset.mean, preset.std))
    assert_close(backbone(images), expected)


@pytest.mark.parametrize("suffix", ["", "_bn"])
@pytest.mark.parametrize(("name", "convolutions"), DARKNETS.items())
def test_the_trunks_of_yolo(name, convolutions, suffix):
    backbone = on_meta(name + suffix)
    kinds = [type(module) for module in backbone.trunk.modules()]
    assert kinds.count(nn.Conv2d) == convolutions
    assert kinds.count(nn.BatchNorm2d) == (convolutions if suffix else 0)
    slopes = {m.negative_slope for m in backbone.trunk.modules() if isinstance(m, nn.LeakyReLU)}
    assert slopes == {0.1}
    assert (backbone.image_size, backbone.grid, backbone.channels) == (448, 7, 1024)


def test_the_trunk_of_yolo_has_the_filters_of_figure_3():
    trunk = on_meta("yolo_darknet").trunk
    found = [
        (module.kernel_size[0], module.out_channels, module.stride[0])
        for module in trunk.modules()
        if isinstance(module, nn.Conv2d)
    ]
    pair = [(1, 256, 1), (3, 512, 1)]
    deep_pair = [(1, 512, 1), (3, 1024, 1)]
    assert found == [
        (7, 64, 2),
        (3, 192, 1),
        *[(1, 128, 1), (3, 256, 1)],
        *pair,
        *(pair * 4),
        *deep_pair,
        *(deep_pair * 2),
        *[(3, 1024, 1), (3, 1024, 2)],
        *[(3, 1024, 1), (3, 1024, 1)],
    ]


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "tiny"])
def test_frozen_batch_norm_learns_nothing(name):
    backbone = create_backbone(name, freeze=["batch_norm"])
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    before = copy.deepcopy(backbone.state_dict())
    backbone.train()
    backbone.eval()
    backbone.train()
    backbone(photos(64, 64, count=2)).sum().backward()
    assert norms
    assert backbone.training
    assert backbone.trunk.training
    for norm in norms:
        assert not norm.training
        assert [parameter.grad for parameter in norm.parameters()] == [None, None]
    for key, value in backbone.state_dict().items():
        assert_close(value, before[key], rtol=0, atol=0)
    convolutions = [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    assert all(module.training and module.weight.grad is not None for module in convolutions)


def test_a_frozen_level_takes_all_layers_up_to_its_map():
    backbone = create_backbone("resnet18", freeze=["C2"])
    assert isinstance(backbone.trunk, nn.Sequential)
    early, late = backbone.trunk[:5], backbone.trunk[5:]  # conv1, bn1, relu, maxpool, layer1 | …
    before = copy.deepcopy(backbone.trunk.state_dict())
    backbone.train()
    backbone(photos(64, 64, count=2)).sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in early.parameters())
    assert all(p.grad is not None for p in late.parameters())
    assert not any(module.training for module in early.modules() if module is not early)
    assert all(module.training for module in late.modules() if module is not late)
    changed = {
        key.split(".")[0]
        for key, value in backbone.trunk.state_dict().items()
        if not torch.equal(value, before[key])
    }
    assert changed == {"5", "6", "7"}  # the running statistics of layer2 to layer4


def test_a_frozen_trunk_leaves_the_head_free():
    backbone = create_backbone("tiny", freeze=["trunk"]).train()
    assert not any(parameter.requires_grad for parameter in backbone.trunk.parameters())
    assert all(parameter.requires_grad for parameter in backbone.head.parameters())
    assert not any(module.training for module in backbone.trunk.modules())
    assert backbone.head.training


def test_a_copy_of_a_frozen_backbone_is_frozen():
    backbone = copy.deepcopy(create_backbone("tiny", freeze=["batch_norm"])).train()
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert not any(norm.training for norm in norms)


@pytest.mark.parametrize(
    ("part", "hint"),
    [
        ("batchnorm", "did you mean 'batch_norm'?"),
        ("Trunk", "did you mean 'trunk'?"),
        ("c3", "did you mean 'C3'?"),
        ("wheels", "there are: batch_norm, trunk, C1, C2, C3, C4, C5"),
    ],
)
def test_an_unknown_part_gets_help(part, hint):
    with pytest.raises(DetectError) as caught:
        create_backbone("resnet18", freeze=["C1", part])
    assert str(caught.value) == f"backbone.freeze: unknown part {part!r}; {hint}"


def test_building_lets_go_of_the_classifier():
    backbone = create_backbone("squeezenet1_0")
    assert backbone.published is None
    assert not [name for name in backbone.state_dict() if "classifier" in name]


def test_an_unknown_backbone_gets_help():
    with pytest.raises(DetectError, match="unknown backbone 'resnet8'; did you mean 'resnet18'"):
        create_backbone("resnet8")


@pytest.mark.parametrize(("image_size", "grid"), [(96, 3), (224, 7), (100, 4)])
def test_a_network_with_an_average_pool_can_be_designed_for_another_size(image_size, grid):
    backbone = create_backbone("mobilenet_v2", image_size=image_size).eval()
    assert (backbone.image_size, backbone.grid, backbone.stride) == (image_size, grid, 32)
    features = backbone(torch.rand(1, 3, image_size + 32, image_size))
    dense = backbone.dense_head()(features)
    assert dense.shape == (1, 1280, 2, 1)
    assert_close(dense[:, :, 1, 0], backbone.head(features[:, :, 1:]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "image_size"), [("vgg11", 96), ("tiny", 128), ("resnet18", 0)])
def test_other_networks_keep_their_size(name, image_size):
    backbone = create_backbone(name)
    before = (backbone.image_size, backbone.grid, backbone.feature_dim)
    with pytest.raises(DetectError, match=f"designed for {before[0]} pixels .* at {image_size}"):
        backbone.design_for(image_size)
    assert (backbone.image_size, backbone.grid, backbone.feature_dim) == before


@pytest.mark.parametrize("name", ["lenet", "alexnet", "vgg11", "googlenet", "resnet18", "tiny"])
def test_the_least_size_leaves_a_map_and_a_smaller_one_does_not(name):
    backbone = create_backbone(name).eval()
    for level in backbone.levels:
        size = backbone.least_size(level)
        assert min(backbone.trunk_to(level, torch.rand(1, 3, size, size + 9)).shape) > 0
        if size > 1:
            with pytest.raises(RuntimeError):
                backbone.trunk_to(level, torch.rand(1, 3, size - 1, size + 9))
    assert backbone.least_size() == backbone.least_size(backbone.levels[-1])


def test_backbones_are_listed_by_pattern():
    assert list_backbones() == list(BACKBONES)
    assert list_backbones("resnet1*") == ["resnet18", "resnet101", "resnet152"]
    assert "torchvision/resnet18" in list_backbones("torchvision/resnet*")
    assert list_backbones("zzz*") == []
