import hashlib
import socket
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close
from torchvision import models
from torchvision.models._api import Weights, WeightsEnum

from detect.backbones import BACKBONES, Published, create_backbone
from detect.backbones.weights import load_weights, read_state
from detect.errors import DetectError

NAME = "squeezenet1_0"


def images():
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(3))


def same_features(one, other):
    with torch.no_grad():
        assert_close(one.eval()(images()), other.eval()(images()), rtol=0, atol=0)


def seeded_state(name=NAME, num_classes=1000):
    torch.manual_seed(7)
    return getattr(models, name)(num_classes=num_classes).state_dict()


def test_none_leaves_the_drawn_weights():
    torch.manual_seed(1)
    drawn = BACKBONES["tiny"]()
    torch.manual_seed(1)
    same_features(create_backbone("tiny", "none"), drawn)


@pytest.mark.parametrize("num_classes", [1000, 2])
@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", NAME])
def test_a_state_dict_of_torchvision_loads(tmp_path, name, num_classes):
    state = seeded_state(name, num_classes)
    torch.save(state, tmp_path / "weights.pth")
    loaded = create_backbone(name, str(tmp_path / "weights.pth"))
    reference = BACKBONES[name]()
    assert reference.published is not None
    del state[reference.published.classifier + "weight"]
    del state[reference.published.classifier + "bias"]
    rest = reference.published.network.load_state_dict(state, strict=False)
    assert {key.rpartition(".")[0] + "." for key in rest.missing_keys} == {
        reference.published.classifier
    }
    same_features(loaded, reference)


def test_old_batch_norm_without_counters_loads(tmp_path):
    state = seeded_state("resnet18")
    torch.save(
        {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")},
        tmp_path / "old.pth",
    )
    loaded = create_backbone("resnet18", str(tmp_path / "old.pth")).state_dict()
    assert_close(loaded["trunk.0.weight"], state["conv1.weight"], rtol=0, atol=0)
    assert_close(loaded["trunk.7.1.bn2.running_var"], state["layer4.1.bn2.running_var"])


@pytest.mark.parametrize("name", ["tiny", NAME])
def test_a_state_dict_of_our_own_loads(tmp_path, name):
    torch.manual_seed(2)
    saved = create_backbone(name)
    torch.save(saved.state_dict(), tmp_path / "own.pth")
    loaded = create_backbone(name, str(tmp_path / "own.pth"))
    assert set(loaded.state_dict()) == set(saved.state_dict())
    for key, value in loaded.state_dict().items():
        assert_close(value, saved.state_dict()[key], rtol=0, atol=0)


def test_the_backbone_of_a_checkpoint_loads(tmp_path):
    torch.manual_seed(2)
    saved = create_backbone("tiny")
    saved.drop_head()  # as most detectors do
    detector = {f"backbone.{key}": value for key, value in saved.state_dict().items()}
    detector["head.weight"] = torch.zeros(3)
    content = {"format": "detect-checkpoint-1", "config": {"seed": 0}, "detector": detector}
    torch.save(content, tmp_path / "best.pt")
    same_features(create_backbone("tiny", str(tmp_path / "best.pt")), saved)


def loaded_with(name, content, path):
    """A backbone with weights from a file of that content, and the remarks without the path."""
    torch.save(content, path)
    backbone = BACKBONES[name]()
    remarks = load_weights(backbone, name, str(path))
    assert all(remark.startswith(f"{path}: ") for remark in remarks)
    return backbone, [remark.removeprefix(f"{path}: ") for remark in remarks]


def classifier_state(saved, num_classes=7):
    state = {f"backbone.{key}": value for key, value in saved.state_dict().items()}
    state["classifier.weight"] = torch.zeros(num_classes, saved.feature_dim)
    state["classifier.bias"] = torch.zeros(num_classes)
    state["auxiliaries.0.fc.weight"] = torch.zeros(num_classes, 3)
    state["auxiliaries.1.fc.weight"] = torch.zeros(num_classes, 3)
    return state


CLASSIFIER_REMARKS = [
    "its last layer, for 7 classes, is left out",
    "its auxiliary classifiers (auxiliaries.* (2)) are left out",
]


@pytest.mark.parametrize("name", ["tiny", NAME])
def test_a_checkpoint_of_a_classifier_loads_whole(tmp_path, name):
    saved = BACKBONES[name]()
    content = {"format": "detect-checkpoint-1", "config": {}, "classifier": classifier_state(saved)}
    loaded, remarks = loaded_with(name, content, tmp_path / "classifier.pt")
    assert remarks == CLASSIFIER_REMARKS
    for key, value in saved.state_dict().items():
        assert_close(loaded.state_dict()[key], value, rtol=0, atol=0)


@pytest.mark.parametrize("prefix", ["backbone.", ""])
def test_the_state_dict_of_a_classifier_loads(tmp_path, prefix):
    saved = BACKBONES["tiny"]()
    state = classifier_state(saved)
    state = {key.replace("backbone.", prefix): value for key, value in state.items()}
    loaded, remarks = loaded_with("tiny", state, tmp_path / "classifier.pt")
    assert remarks == CLASSIFIER_REMARKS
    same_features(loaded, saved)
    assert_close(loaded.head[1].weight, saved.head[1].weight, rtol=0, atol=0)


def test_what_a_detector_does_not_have_is_said(tmp_path):
    saved = BACKBONES["tiny"]()
    saved.drop_head()
    detector = {f"backbone.{key}": value for key, value in saved.state_dict().items()}
    detector |= {"head.0.weight": torch.zeros(3), "head.0.bias": torch.zeros(3)}
    _, remarks = loaded_with("tiny", {"detector": detector}, tmp_path / "best.pt")
    assert remarks == [
        "what the backbone was part of is left out: head.* (2)",
        "it has no head: that of the backbone (2 tensors) keeps its random weights, which matters "
        "to a detector that uses it",
    ]
    torch.manual_seed(2)
    drawn = BACKBONES["tiny"]().head[1].weight
    torch.manual_seed(2)
    loaded, _ = loaded_with("tiny", {"detector": detector}, tmp_path / "best.pt")
    assert_close(loaded.head[1].weight, drawn, rtol=0, atol=0)


def test_a_head_without_weights_is_not_missed(tmp_path):
    state = BACKBONES[NAME]().state_dict()
    assert loaded_with(NAME, state, tmp_path / "own.pth")[1] == []


def test_half_a_head_is_refused(tmp_path):
    state = BACKBONES["tiny"]().state_dict()
    del state["head.1.bias"]
    torch.save(state, tmp_path / "own.pth")
    with pytest.raises(DetectError, match=r"do not fit: missing: head\.1\.bias\. They are of a"):
        create_backbone("tiny", str(tmp_path / "own.pth"))


def test_a_file_without_mean_and_std_leaves_those_of_the_backbone(tmp_path):
    saved = BACKBONES["tiny"]()
    state = {key: value for key, value in saved.state_dict().items() if key not in ("mean", "std")}
    loaded, remarks = loaded_with("tiny", state, tmp_path / "own.pth")
    assert remarks == ["it has no mean and std: the backbone keeps its own"]
    same_features(loaded, saved)


@pytest.mark.parametrize("num_classes", [1000, 2])
@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", NAME])
def test_the_number_of_classes_that_are_left_out_is_said(tmp_path, name, num_classes):
    state = seeded_state(name, num_classes)
    _, remarks = loaded_with(name, state, tmp_path / "weights.pth")
    assert remarks == [f"its last layer, for {num_classes:,} classes, is left out"]
    classifier = BACKBONES[name]().published.classifier
    trunk = {key: value for key, value in state.items() if not key.startswith(classifier)}
    assert loaded_with(name, trunk, tmp_path / "weights.pth")[1] == []


def test_a_last_layer_of_another_kind_is_left_out_too(tmp_path):
    state = seeded_state("resnet18")
    del state["fc.weight"]
    _, remarks = loaded_with("resnet18", state, tmp_path / "weights.pth")
    assert remarks == ["its last layer (fc.bias) is left out"]
    state["fc.weight"] = torch.tensor(0.0)
    _, remarks = loaded_with("resnet18", state, tmp_path / "weights.pth")
    assert remarks == ["its last layer (fc.* (2)) is left out"]


def test_auxiliary_classifiers_may_be_there_or_not(tmp_path):
    state = models.googlenet(aux_logits=True, init_weights=False).state_dict()
    loaded, remarks = loaded_with("googlenet", state, tmp_path / "weights.pth")
    assert remarks == [
        "its last layer, for 1,000 classes, is left out",
        "its auxiliary classifiers (aux1.* (10), aux2.* (10)) are left out",
    ]
    assert_close(loaded.trunk[0].conv.weight, state["conv1.conv.weight"], rtol=0, atol=0)
    state = {key: value for key, value in state.items() if not key.startswith("aux")}
    _, remarks = loaded_with("googlenet", state, tmp_path / "weights.pth")
    assert remarks == ["its last layer, for 1,000 classes, is left out"]


def test_counters_of_batch_norm_load(tmp_path):
    state = seeded_state("resnet18")
    state["bn1.num_batches_tracked"] += 9
    loaded, _ = loaded_with("resnet18", state, tmp_path / "weights.pth")
    assert loaded.state_dict()["trunk.1.num_batches_tracked"] == 9


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("around", [[], ["state_dict"], ["model"], ["model", "state_dict"]])
def test_a_nested_state_dict_loads(tmp_path, around, parallel):
    content = seeded_state()
    if parallel:
        content = nn.DataParallel(models.squeezenet1_0()).state_dict()
    expected = content["module." * parallel + "features.0.weight"]
    for key in around:
        content = {"epoch": 3, "arch": NAME, key: content}
    loaded, remarks = loaded_with(NAME, content, tmp_path / "weights.pth.tar")
    assert remarks == ["its last layer, for 1,000 classes, is left out"]
    assert_close(loaded.trunk[0].weight, expected, rtol=0, atol=0)


def test_safetensors_load(tmp_path):
    path = tmp_path / "weights.safetensors"
    state = seeded_state()
    save_file(state, path)
    backbone = BACKBONES[NAME]()
    assert load_weights(backbone, NAME, str(path)) == [
        f"{path}: its last layer, for 1,000 classes, is left out"
    ]
    assert_close(backbone.trunk[0].weight, state["features.0.weight"], rtol=0, atol=0)

    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(
        DetectError, match=r"weights\.safetensors: expected a safetensors file, fou"
    ):
        read_state(path)
    torch.save(state, path)
    with pytest.raises(
        DetectError, match=r"weights\.safetensors: expected a safetensors file, fou"
    ):
        read_state(path)


def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path):
    path = save_with_hash(tmp_path, seeded_state())
    create_backbone(NAME, str(path))
    torch.save(seeded_state(num_classes=2), path)
    with pytest.raises(DetectError, match=rf"{path.name}: expected content whose sha256 begins"):
        create_backbone(NAME, str(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DetectError, match=r"absent\.pth: no such weights file; give the path"):
        create_backbone("tiny", str(tmp_path / "absent.pth"))
    with pytest.raises(DetectError, match="no such weights file"):
        create_backbone("tiny", str(tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello world\n",
        b"<!DOCTYPE html><html></html>",
        b"PK\x03\x04 torn",
        b"\x80\x02}q\x00",
        b"\x80\x02(K",
        b"]",
        bytes(range(256)),
    ],
)
def test_what_is_no_state_dict_is_a_readable_error(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(DetectError, match=r"weights\.pth: expected a state dict saved by torch"):
        read_state(path)


def test_a_torn_file_is_a_readable_error(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(seeded_state(), path)
    whole = path.read_bytes()
    for length in (1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DetectError, match=r"weights\.pth: expected a state dict saved by"):
            read_state(path)


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {"a": 1},
        torch.zeros(3),
        {0: torch.zeros(3)},
        {"detector": 3},
        {"detector": {0: 1}},
        {"detector": {"backbone.trunk": 1}},
        {"model": {"state_dict": [torch.zeros(3)]}},
    ],
)
def test_other_content_is_a_readable_error(tmp_path, content):
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(DetectError, match=r"weights\.pth: expected a state dict \(name → tensor\)"):
        read_state(path)


def test_other_content_is_described(tmp_path):
    torch.save({"epoch": 3, "net": {}, "optimizer": {}}, tmp_path / "weights.pth")
    with pytest.raises(DetectError) as caught:
        read_state(tmp_path / "weights.pth")
    assert str(caught.value).endswith(
        "(name → tensor), or one under 'detector', 'classifier', 'state_dict', 'model', "
        "found dict with 'epoch', 'net', 'optimizer'"
    )


class Payload:
    """Creates a file when it is unpickled by a reader that runs what it reads."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_in_a_file_is_not_run(tmp_path):
    path, trace = tmp_path / "weights.pth", tmp_path / "trace"
    torch.save({"conv.weight": torch.zeros(1), "evil": Payload(trace)}, path)
    with pytest.raises(DetectError, match="nothing in it was run"):
        create_backbone("tiny", str(path))
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists()  # the payload works where it is let


def refusal(name, state, path):
    torch.save(state, path)
    with pytest.raises(DetectError) as caught:
        create_backbone(name, str(path))
    start = f"{path}: for backbone {name!r} the weights do not fit: "
    message = str(caught.value)
    assert message.startswith(start)
    return message.removeprefix(start)


def test_weights_that_do_not_fit_are_named_in_groups(tmp_path):
    # 260 without BatchNorm's counters, which a file may lack; 120 with them
    assert refusal("mobilenet_v2", seeded_state("resnet18"), tmp_path / "weights.pth") == (
        "missing: features.* (260); unexpected: conv1.weight, bn1.* (5), layer1.* (24), "
        "layer2.* (30), layer3.* (30), layer4.* (30), and 1 more such. "
        "These are weights of 'resnet18': set backbone.name to that"
    )


def test_a_part_of_a_group_is_named_with_the_size_of_the_group(tmp_path):
    state = seeded_state("resnet18")
    for key in ("layer3.0.conv1.weight", "layer3.1.conv1.weight", "bn1.bias"):
        del state[key]
    assert refusal("resnet18", state, tmp_path / "weights.pth").startswith(
        "missing: bn1.bias, layer3.* (2 of 25). They are of a changed 'resnet18', or damaged: 97 %"
    )


def test_a_single_group_is_named_by_its_parts(tmp_path):
    state = create_backbone("resnet18").state_dict()
    kept = {
        key: value for key, value in state.items() if not key.startswith(("trunk.4", "trunk.5.0"))
    }
    message = refusal("resnet18", kept, tmp_path / "weights.pth")
    assert message.startswith("missing: trunk.4.* (20), trunk.5.* (15 of 25). ")
    assert message.endswith("Choose the backbone that the file was made for")


def test_misshapen_entries_are_named(tmp_path):
    path = tmp_path / "weights.pth"
    state = create_backbone("resnet18").state_dict()
    state["trunk.0.weight"] = torch.zeros(8, 3, 3, 3)
    assert refusal("resnet18", state, path) == (
        "of another shape or type: trunk.0.weight [8, 3, 3, 3] instead of [64, 3, 7, 7]. "
        "They are of a changed 'resnet18', or damaged: 99 % of the entries agree"
    )
    for name in ("weight", "bias", "running_mean", "running_var"):
        state[f"trunk.1.{name}"] = torch.zeros(8)
    assert "trunk.1.weight [8] instead of [64], trunk.1.bias [8] instead of [64], and 2 more." in (
        refusal("resnet18", state, path)
    )


def test_weights_of_any_precision_load_and_quantized_ones_do_not(tmp_path):
    path = tmp_path / "weights.pth"
    state = create_backbone("tiny").state_dict()
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, path)
    loaded = create_backbone("tiny", str(path)).state_dict()
    assert_close(loaded["trunk.0.0.weight"], state["trunk.0.0.weight"].half().float())
    state["trunk.0.0.weight"] = torch.zeros(32, 3, 6, 6, dtype=torch.int8)
    assert "trunk.0.0.weight int8 [32, 3, 6, 6] instead of [32, 3, 6, 6]. " in (
        refusal("tiny", state, path)
    )


@pytest.mark.parametrize("num_classes", [1000, 3])
@pytest.mark.parametrize(("name", "likely"), [("resnet34", "resnet18"), ("resnet18", "resnet34")])
def test_the_network_that_a_file_is_of_is_named(tmp_path, name, likely, num_classes):
    state = seeded_state(likely, num_classes)
    hint = f". These are weights of '{likely}': set backbone.name to that"
    assert refusal(name, state, tmp_path / "weights.pth").endswith(hint)


def test_the_network_that_a_file_of_our_own_is_of_is_named(tmp_path):
    torch.save(BACKBONES["squeezenet1_0"]().state_dict(), tmp_path / "weights.pth")
    with pytest.raises(DetectError, match="These are weights of 'squeezenet1_0': set "):
        create_backbone("tiny", str(tmp_path / "weights.pth"))


def test_a_changed_network_is_named_by_what_it_is_like(tmp_path):
    state = seeded_state("resnet18")
    state["layer4.1.attention.weight"] = torch.zeros(3)
    path = tmp_path / "weights.pth"
    assert refusal("tiny", state, path).endswith(
        "They look most like 'resnet18', but are of a changed one: 99 % of the entries agree"
    )
    few = {key: value for key, value in state.items() if not key.startswith("layer4")}
    assert refusal("tiny", few, path).endswith("Choose the backbone that the file was made for")


def test_a_backbone_that_needs_numbers_to_be_built_is_passed_over(tmp_path, monkeypatch):
    def build_by_numbers():
        torch.zeros(1).item()  # which a tensor without numbers does not have

    monkeypatch.setitem(BACKBONES._entries, "by_numbers", build_by_numbers)
    message = refusal("tiny", seeded_state("resnet18"), tmp_path / "weights.pth")
    assert message.endswith("These are weights of 'resnet18': set backbone.name to that")


@pytest.fixture
def torch_home(tmp_path, monkeypatch):
    """An empty cache of torch.hub, and no proxy between us and ourselves."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "home"


@pytest.fixture
def served(tmp_path):
    """A folder and the address under which a local web server gives its files."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)), bind_and_activate=True
    )
    thread = threading.Thread(target=server.serve_forever, args=[0.01], daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def backbone_with_weights_at(address):
    class Entry(WeightsEnum):
        IMAGENET = Weights(url=address, transforms=lambda: None, meta={})

    backbone = BACKBONES[NAME]()
    assert backbone.published is not None
    backbone.published = replace(backbone.published, weights=Entry.IMAGENET)
    return backbone


def save_with_hash(folder, state):
    torch.save(state, folder / "temporary")
    digest = hashlib.sha256((folder / "temporary").read_bytes()).hexdigest()
    return (folder / "temporary").rename(folder / f"{NAME}-{digest[:8]}.pth")


def test_imagenet_weights_are_fetched_once(served, torch_home):
    folder, address = served
    file = save_with_hash(folder, seeded_state())
    backbone = backbone_with_weights_at(f"{address}/{file.name}")
    load_weights(backbone, NAME, "imagenet")
    assert (torch_home / "hub" / "checkpoints" / file.name).is_file()
    expected = create_backbone(NAME, str(file))
    same_features(backbone, expected)

    file.unlink()  # from now on it is only in the cache
    again = backbone_with_weights_at(f"{address}/{file.name}")
    load_weights(again, NAME, "imagenet")
    same_features(again, expected)


def test_imagenet_weights_of_another_content_are_refused(served, torch_home):
    folder, address = served
    file = save_with_hash(folder, seeded_state()).rename(folder / f"{NAME}-01234567.pth")
    backbone = backbone_with_weights_at(f"{address}/{file.name}")
    with pytest.raises(DetectError, match="sha256 begins with 01234567, as its name says, found"):
        load_weights(backbone, NAME, "imagenet")
    assert list((torch_home / "hub" / "checkpoints").iterdir()) == []


def test_imagenet_weights_say_what_is_left_out(served, torch_home):  # noqa: ARG001
    folder, address = served
    file = save_with_hash(folder, seeded_state())
    backbone = backbone_with_weights_at(f"{address}/{file.name}")
    assert load_weights(backbone, NAME, "imagenet") == [
        f"the ImageNet weights of {NAME}: its last layer, for 1,000 classes, is left out"
    ]


def test_a_damaged_file_in_the_cache_is_named(served, torch_home):
    _, address = served
    folder = torch_home / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    for content in (b"<html></html>", b"PK\x03\x04 torn"):
        (folder / f"{NAME}-01234567.pth").write_bytes(content)
        backbone = backbone_with_weights_at(f"{address}/{NAME}-01234567.pth")
        with pytest.raises(DetectError, match=rf"{NAME}-01234567\.pth: expected content whose"):
            load_weights(backbone, NAME, "imagenet")


def test_offline_the_message_says_where_to_put_the_file(torch_home):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    address = f"http://127.0.0.1:{port}/models/{NAME}-01234567.pth"
    with pytest.raises(DetectError) as caught:
        load_weights(backbone_with_weights_at(address), NAME, "imagenet")
    message, folder = str(caught.value), torch_home / "hub" / "checkpoints"
    assert message.startswith(f"{NAME}-01234567.pth is not here and could not be downloaded: ")
    assert f"looked for {folder / f'{NAME}-01234567.pth'}, then asked {address} (" in message
    assert f"Bring the file {NAME}-01234567.pth" in message
    assert f"put it into {folder} (the environment variable TORCH_HOME moves" in message


def test_a_page_that_is_not_there_is_a_readable_error(served, torch_home):  # noqa: ARG001
    backbone = backbone_with_weights_at(f"{served[1]}/{NAME}-01234567.pth")
    with pytest.raises(DetectError, match=r"could not be downloaded: .*404"):
        load_weights(backbone, NAME, "imagenet")


def fetching(fetch):
    backbone = BACKBONES[NAME]()
    network = backbone.published.network
    backbone.published = Published(network, classifier="classifier.1.", fetch=fetch)
    return backbone


def test_weights_that_another_library_fetches_load(torch_home):
    backbone = fetching(seeded_state)
    assert load_weights(backbone, NAME, "imagenet") == [
        f"the ImageNet weights of {NAME}: its last layer, for 1,000 classes, is left out"
    ]
    assert_close(backbone.trunk[0].weight, seeded_state()["features.0.weight"], rtol=0, atol=0)
    assert not torch_home.exists()


@pytest.mark.parametrize("error", [OSError("no route"), RuntimeError("no route")])
def test_weights_that_another_library_cannot_fetch_are_a_readable_error(error):
    def fetch():
        raise error

    with pytest.raises(DetectError) as caught:
        load_weights(fetching(fetch), NAME, "imagenet")
    assert str(caught.value).startswith(
        f"the ImageNet weights of {NAME} could not be downloaded (no route). Bring a file with "
    )


def test_an_error_of_the_user_in_fetching_stays_as_it_is():
    def fetch():
        raise DetectError("timm is not installed")

    with pytest.raises(DetectError, match=r"^timm is not installed$"):
        load_weights(fetching(fetch), NAME, "imagenet")


def test_a_network_without_a_last_layer_loads_whole(tmp_path):
    backbone = BACKBONES[NAME]()
    network = backbone.published.network.features
    backbone.published = Published(network, classifier="")
    state = models.squeezenet1_0().features.state_dict()
    torch.save(state, tmp_path / "weights.pth")
    assert load_weights(backbone, NAME, str(tmp_path / "weights.pth")) == []
    assert_close(backbone.trunk[0].weight, state["0.weight"], rtol=0, atol=0)


def test_published_networks_without_imagenet_weights_say_so():
    with pytest.raises(DetectError, match=f"no ImageNet weights of backbone '{NAME}'; set "):
        load_weights(fetching(None), NAME, "imagenet")


@pytest.mark.parametrize("name", ["tiny", "yolo_darknet_fast"])
def test_networks_without_imagenet_weights_say_so(name):
    with pytest.raises(DetectError, match=f"no ImageNet weights of backbone '{name}'; set "):
        create_backbone(name, "imagenet")


@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_0"])
def test_real_weights_give_torchvision_features(shared, name):
    path = shared / "weights" / f"{name}.pth"
    network = getattr(models, name)().eval()
    network.load_state_dict(torch.load(path, weights_only=True), strict=True)
    backbone = create_backbone(name, str(path)).eval()
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        expected = network.features((images() - mean) / std)
        assert_close(backbone(images()), expected, rtol=0, atol=0)
    assert float(expected.std()) > 0
