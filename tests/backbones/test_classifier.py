"""Backbones with a last layer, against torchvision's networks and on photographs."""

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.testing import assert_close
from torchvision.transforms.functional import normalize, to_tensor

from detect.backbones import BACKBONES, create_backbone
from detect.backbones.classifier import Classifier


def photos(height, width, count=2):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def classifier_with_published_layer(name):
    """A classifier with torchvision's own last layer, and torchvision's network."""
    torch.manual_seed(0)
    backbone = BACKBONES[name]()
    network = backbone.published.network
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0  # takes over the statistics of the next images
    with torch.no_grad():  # otherwise little of the images is left in the logits
        network(photos(backbone.image_size, backbone.image_size))
    last = network.get_submodule(backbone.published.classifier.removesuffix("."))
    classifier = Classifier(backbone, 1000)
    classifier.classifier.load_state_dict(last.state_dict())
    return classifier.eval(), network.eval()


LARGE = [pytest.param(name, marks=pytest.mark.slow) for name in ("vgg11", "vgg11_bn", "resnet50")]


@pytest.mark.parametrize("name", ["alexnet_owt", "mobilenet_v2", "resnet18", "googlenet", *LARGE])
def test_logits_are_those_of_torchvision(name):
    classifier, network = classifier_with_published_layer(name)
    backbone = classifier.backbone
    mean, std = backbone.mean.flatten().tolist(), backbone.std.flatten().tolist()
    # at other sizes torchvision averages the trunk's map to the grid, too
    for height, width in ((backbone.image_size,) * 2, (backbone.image_size + 76, 230)):
        images = photos(height, width)
        with torch.no_grad():
            expected = network(normalize(images, mean, std))
            logits = classifier(images)
        assert expected.shape == (2, 1000)
        spread = float((expected[0] - expected[1]).abs().max())
        # other orders of summation in a deep network
        assert_close(logits, expected, rtol=0, atol=1e-3 * spread)


def test_a_larger_map_is_averaged_to_the_grid():
    torch.manual_seed(0)
    classifier = Classifier(BACKBONES["tiny"](), 5).eval()
    backbone = classifier.backbone
    images = photos(128, 192)
    with torch.no_grad():
        features = backbone(images)
        assert features.shape[2:] == (8, 12)
        # 4×4 blocks of 2×3 positions
        blocks = features.unflatten(3, (4, 3)).unflatten(2, (4, 2))
        averaged = blocks.mean(dim=(3, 5))
        assert_close(classifier(images), classifier.classifier(backbone.head(averaged)))
        assert_close(classifier(images), classifier.classify(features))


def test_the_loss_is_cross_entropy():
    torch.manual_seed(0)
    classifier = Classifier(BACKBONES["tiny"](), 4).eval()
    images, labels = photos(64, 64, count=3), torch.tensor([2, 0, 3])
    losses = classifier.loss(images, labels)
    with torch.no_grad():
        logits = classifier(images).double()
    total = sum(
        torch.log(torch.exp(row - row[label]).sum())
        for row, label in zip(logits, labels, strict=True)
    )
    assert list(losses) == ["classification"]
    assert_close(losses["classification"].double(), total / 3)


@pytest.fixture(scope="module")
def googlenet():
    classifier, network = classifier_with_published_layer("googlenet")
    for ours, theirs in zip(classifier.auxiliaries, (network.aux1, network.aux2), strict=True):
        ours.load_state_dict(theirs.state_dict())
    return classifier, network


def test_the_losses_of_googlenet(googlenet):
    classifier, network = googlenet
    images, labels = photos(224, 224), torch.tensor([7, 993])
    network.training = True  # the network alone, none of its layers: it gives all three outputs
    with torch.no_grad():
        losses = classifier.loss(images, labels)
        outputs = network(classifier.backbone.normalize(images))
    network.training = False
    assert list(losses) == ["classification", "auxiliary"]
    assert_close(losses["classification"], functional.cross_entropy(outputs.logits, labels))
    first, second = (
        functional.cross_entropy(logits, labels)
        for logits in (outputs.aux_logits1, outputs.aux_logits2)
    )
    assert_close(losses["auxiliary"], 0.3 * first + 0.3 * second)
    assert not torch.allclose(first, second)


def test_the_auxiliary_classifiers_do_not_name_images(googlenet):
    classifier, _ = googlenet
    images = photos(64, 64)
    with torch.no_grad():
        before = classifier(images)
        for parameter in classifier.auxiliaries.parameters():
            parameter.add_(1.0)
        assert torch.equal(classifier(images), before)


@pytest.mark.parametrize("name", ["googlenet", "lenet", "plain18", "resnet18", "tiny"])
def test_every_parameter_learns(name):
    torch.manual_seed(0)
    classifier = Classifier(BACKBONES[name](), 3).train()
    losses = classifier.loss(photos(64, 64, count=4), torch.tensor([0, 1, 2, 0]))
    for loss in losses.values():
        assert loss.ndim == 0
        assert loss.isfinite()
    sum(losses.values()).backward()
    without = [
        key
        for key, parameter in classifier.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert not without


def test_the_auxiliary_loss_reaches_the_trunk_up_to_its_map():
    torch.manual_seed(0)
    classifier = Classifier(BACKBONES["googlenet"](), 3).train()
    classifier.loss(photos(64, 64), torch.tensor([0, 1]))["auxiliary"].backward()
    last = classifier.backbone.auxiliaries[1].after
    for index, layer in enumerate(classifier.backbone.trunk):
        gradients = [parameter.grad for parameter in layer.parameters()]
        assert all((gradient is not None) == (index <= last) for gradient in gradients), index


def test_the_last_layers_have_the_classes_asked_for():
    with torch.device("meta"):
        classifier = Classifier(BACKBONES["googlenet"](), 7)
    assert isinstance(classifier.classifier, nn.Linear)
    layers = [classifier.classifier, *(layer.fc2 for layer in classifier.auxiliaries)]
    assert [layer.out_features for layer in layers] == [7, 7, 7]


# ImageNet's classes 151 to 268 are breeds of dogs, 281 to 285 cats; 339 is a horse (sorrel).
DOGS, CATS, HORSE = range(151, 269), range(281, 286), [339]
# Photographs with the box that is shown. In the whole of horses.jpg the horses are small, and both
# networks name cattle; of its horses, the one in front is shown.
ANIMALS = [
    ("dog.jpg", None, DOGS),
    ("cat_720p.jpg", None, CATS),
    ("horses.jpg", (200, 190, 460, 380), HORSE),
    ("person.jpg", (60, 250, 210, 360), DOGS),
]


@pytest.fixture(scope="module", params=["mobilenet_v2", "squeezenet1_0"])
def genuine(request, shared):
    """(name, weights file, torchvision's network with these weights, its preprocessing)."""
    published = BACKBONES[request.param]().published
    file = shared / "weights" / f"{request.param}.pth"
    published.network.load_state_dict(torch.load(file, weights_only=True), strict=True)
    network = published.network.eval().requires_grad_(False)
    return request.param, file, network, published.weights.transforms()


@pytest.mark.parametrize(("photograph", "part", "group"), ANIMALS)
def test_genuine_weights_name_the_animal(photograph, part, group, genuine, shared):
    _, _, network, preset = genuine
    with Image.open(shared / "images" / photograph) as image:
        shown = image.convert("RGB").crop(part)
    logits = network(preset(shown)[None])[0]
    best = logits.topk(5).indices.tolist()
    assert any(label in group for label in best), best


def test_genuine_weights_give_the_backbone_the_features_of_the_network(genuine, shared):
    name, file, network, preset = genuine
    backbone = create_backbone(name, str(file)).eval().requires_grad_(False)
    with Image.open(shared / "images" / "dog.jpg") as image:
        images = to_tensor(image.convert("RGB").resize((224, 224)))[None]
    expected = network.features(normalize(images, preset.mean, preset.std))
    features = backbone(images)
    assert_close(features, expected)
    assert_close(backbone.head(features), expected.mean(dim=(2, 3)))
    assert float(features.std()) > 0
