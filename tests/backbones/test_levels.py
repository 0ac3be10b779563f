"""A network cut at one of its levels: what lies up to it, what lies behind, the grid between."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from detect.backbones import BACKBONES, create_backbone

NAMES = ["tiny", "lenet", "vgg11", "alexnet", "mobilenet_v2", "resnet18", "googlenet"]
# Without the large fully connected layers, so that a copy costs little.
SMALL = ["tiny", "lenet", "resnet18"]
# Levels behind which nothing but the last pool lies: conv5_3 of VGG, conv5 of AlexNet.
BEFORE_THE_POOL = {"vgg11": "C4", "alexnet": "C4"}
# A side that every trunk leaves something of.
SIDE = 96


def with_marks(names):
    """VGG takes seconds to be built alone; what is special about it is in AlexNet as well."""
    return [pytest.param(name, marks=[pytest.mark.slow] * name.startswith("vgg")) for name in names]


@pytest.fixture(scope="module", params=with_marks(NAMES))
def named(request):
    """The name of a network, and the network, which its tests leave as it is."""
    torch.manual_seed(0)
    return request.param, create_backbone(request.param).eval().requires_grad_(False)


def photos(side, count=1):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def maps_like(backbone, level, side):
    generator = torch.Generator().manual_seed(2)
    return torch.rand(3, backbone.level_channels[level], side, side, generator=generator)


def same(actual, expected):
    """The same layers on the same numbers: untrained networks give values as small as 1e-12."""
    assert expected.abs().max() > 0
    assert_close(actual, expected, rtol=1e-5, atol=0)


def test_each_level_is_what_the_pyramid_has(named):
    _, backbone = named
    images = photos(SIDE)
    for level, features in backbone.pyramid(images).items():
        same(backbone.trunk_to(level, images), features)
    same(backbone.trunk_to(backbone.levels[-1], images), backbone(images))


def test_the_layers_behind_a_level_do_not_run(named):
    _, backbone = named
    ran = []
    hooks = [
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
        for number, layer in enumerate(backbone.trunk)
    ]
    for level in backbone.levels:
        del ran[:]
        features = backbone.trunk_to(level, photos(SIDE))
        assert ran == list(range(len(ran)))
        # the next layer, if there is one, makes the map coarser
        following = backbone.trunk[len(ran) :]
        assert (level == backbone.levels[-1]) == (len(following) == 0)
        if len(following):
            assert following[0](features).shape[-1] < features.shape[-1]
    for hook in hooks:
        hook.remove()


def test_grids_are_those_of_an_image_of_the_designed_size(named):
    name, backbone = named
    maps = backbone.pyramid(photos(backbone.image_size))
    sides = {level: features.shape[3] for level, features in maps.items()}
    assert backbone.level_grids == sides
    if name in BEFORE_THE_POOL:
        sides[BEFORE_THE_POOL[name]] = backbone.grid
    assert {level: backbone.grid_at(level) for level in backbone.levels} == sides


def test_the_layers_behind_a_level_end_the_network(named):
    name, backbone = named
    maps = backbone.pyramid(photos(backbone.image_size, count=2))
    expected = backbone.head(maps[backbone.levels[-1]])
    assert not torch.equal(expected[0], expected[1])
    for level, features in maps.items():
        if level == BEFORE_THE_POOL.get(name):
            continue
        same(backbone.part_behind(level)(features), expected)


@pytest.mark.parametrize("named", with_marks(BEFORE_THE_POOL), indirect=True)
def test_pooling_regions_takes_the_place_of_the_last_pool(named):
    name, backbone = named
    level = BEFORE_THE_POOL[name]
    regions = maps_like(backbone, level, backbone.grid)
    same(backbone.part_behind(level)(regions), backbone.head(regions))
    # the pool of the network leaves what the head takes
    maps = backbone.pyramid(photos(backbone.image_size))
    pool = backbone.trunk[-1]
    assert isinstance(pool, nn.MaxPool2d)
    same(backbone.part_behind(level)(pool(maps[level])), backbone.head(maps[backbone.levels[-1]]))


def test_every_level_takes_maps_of_its_grid(named):
    _, backbone = named
    for level in backbone.levels:
        outputs = backbone.part_behind(level)(maps_like(backbone, level, backbone.grid_at(level)))
        assert outputs.shape == (3, backbone.feature_dim)


@pytest.mark.parametrize("name", SMALL)
def test_a_network_that_ends_at_a_level_gives_its_map(name):
    whole = create_backbone(name).eval()
    images = photos(SIDE)
    for number in (1, len(whole.levels) // 2, len(whole.levels)):
        level = whole.levels[number - 1]
        cut = copy.deepcopy(whole)
        cut.end_at(level)
        same(cut(images), whole.trunk_to(level, images))
        assert cut.levels == whole.levels[:number]
        assert cut.stride == 2 ** int(level.removeprefix("C"))
        assert cut.channels == whole.level_channels[level]
        assert cut.grid == whole.level_grids[level]
        assert not any(module.training for module in cut.modules())
        # nothing is left that the map does not depend on
        cut(images).sum().backward()
        assert all(parameter.grad is not None for parameter in cut.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_what_is_left_keeps_its_names(name):
    with torch.device("meta"):
        backbone = BACKBONES[name]()
    before = backbone.state_dict()
    for level in (backbone.levels[-1], backbone.levels[0]):  # one network, cut twice
        backbone.end_at(level)
        after = backbone.state_dict()
        assert {name: value.shape for name, value in after.items()} == {
            name: before[name].shape for name in after
        }
        assert not [name for name in after if name.startswith("head.")]
        assert backbone.levels[-1] == level


def test_resnet_to_its_third_stage():
    backbone = create_backbone("resnet18")
    backbone.end_at("C4")
    names = backbone.state_dict()
    parts = {".".join(name.split(".")[:2]) for name in names}
    # conv1, bn1, (relu, maxpool,) layer1, layer2, layer3
    assert parts == {"mean", "std", "trunk.0", "trunk.1", "trunk.4", "trunk.5", "trunk.6"}
    assert len(backbone.trunk) == 7
    assert backbone.feature_dim == 256 * 14 * 14  # there is no head


def test_what_is_frozen_stays_so_when_a_network_ends_earlier():
    backbone = create_backbone("tiny", freeze=["trunk"])
    backbone.end_at("C3")
    backbone.train()
    layers = [module for child in backbone.trunk for module in child.modules()]
    assert backbone.training
    assert not any(layer.training for layer in layers)
    assert not any(parameter.requires_grad for parameter in backbone.trunk.parameters())


def test_the_part_behind_a_level_leaves_frozen_statistics():
    backbone = create_backbone("resnet18", freeze=["batch_norm"])
    part = backbone.part_behind("C4")
    norms = [module for module in part.modules() if isinstance(module, nn.BatchNorm2d)]
    others = [module for module in part.modules() if not isinstance(module, nn.BatchNorm2d)]
    before = copy.deepcopy(part.state_dict())
    for enclosing in (part, nn.Sequential(part)):
        enclosing.eval()
        assert not any(module.training for module in part.modules())
        enclosing.train()
        assert len(norms) == 5  # of layer4
        assert not any(norm.training for norm in norms)
        assert all(module.training for module in others)
    part(maps_like(backbone, "C4", 14)).sum().backward()
    for name, value in part.state_dict().items():
        assert_close(value, before[name], rtol=0, atol=0)
    assert [parameter.grad for norm in norms for parameter in norm.parameters()] == [None] * 10


def test_the_part_behind_a_level_learns_what_is_not_frozen():
    backbone = create_backbone("resnet18", freeze=["C4"])
    part = backbone.part_behind("C4").train()
    assert all(module.training for module in part.modules())
    before = copy.deepcopy(backbone.state_dict())
    part(maps_like(backbone, "C4", 14)).sum().backward()
    # its layers are those of the network, not copies
    own = {name: value for name, value in backbone.named_parameters() if ".7." in name}
    assert [id(value) for value in part.parameters()] == [id(value) for value in own.values()]
    assert all(value.grad is not None for value in own.values())
    changed = {
        name
        for name, value in backbone.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed
    assert all(name.startswith("trunk.7.") for name in changed)  # running statistics of layer4


def test_a_frozen_part_behind_a_level_stays_frozen_and_the_head_learns():
    backbone = create_backbone("tiny", freeze=["trunk"])
    part = backbone.part_behind("C3").train()
    *layers, head = part
    assert layers
    assert not any(module.training for layer in layers for module in layer.modules())
    assert head is backbone.head
    assert head.training
