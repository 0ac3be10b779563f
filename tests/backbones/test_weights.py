import hashlib
import socket
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from torchvision import models
from torchvision.models._api import Weights, WeightsEnum

from detect.backbones import BACKBONES, build_backbone
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
    same_features(build_backbone("tiny", "none"), drawn)


@pytest.mark.parametrize("num_classes", [1000, 2])
@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", NAME])
def test_a_state_dict_of_torchvision_loads(tmp_path, name, num_classes):
    state = seeded_state(name, num_classes)
    torch.save(state, tmp_path / "weights.pth")
    loaded = build_backbone(name, str(tmp_path / "weights.pth"))
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
    loaded = build_backbone("resnet18", str(tmp_path / "old.pth")).state_dict()
    assert_close(loaded["trunk.0.weight"], state["conv1.weight"], rtol=0, atol=0)
    assert_close(loaded["trunk.7.1.bn2.running_var"], state["layer4.1.bn2.running_var"])


@pytest.mark.parametrize("name", ["tiny", NAME])
def test_a_state_dict_of_our_own_loads(tmp_path, name):
    torch.manual_seed(2)
    saved = build_backbone(name)
    torch.save(saved.state_dict(), tmp_path / "own.pth")
    loaded = build_backbone(name, str(tmp_path / "own.pth"))
    assert set(loaded.state_dict()) == set(saved.state_dict())
    for key, value in loaded.state_dict().items():
        assert_close(value, saved.state_dict()[key], rtol=0, atol=0)


def test_the_backbone_of_a_checkpoint_loads(tmp_path):
    torch.manual_seed(2)
    saved = build_backbone("tiny")
    saved.drop_head()  # as most detectors do
    detector = {f"backbone.{key}": value for key, value in saved.state_dict().items()}
    detector["head.weight"] = torch.zeros(3)
    content = {"format": "detect-checkpoint-1", "config": {"seed": 0}, "detector": detector}
    torch.save(content, tmp_path / "best.pt")
    same_features(build_backbone("tiny", str(tmp_path / "best.pt")), saved)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DetectError, match=r"absent\.pth: no such weights file; give the path"):
        build_backbone("tiny", str(tmp_path / "absent.pth"))
    with pytest.raises(DetectError, match="no such weights file"):
        build_backbone("tiny", str(tmp_path))


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
    ],
)
def test_other_content_is_a_readable_error(tmp_path, content):
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(DetectError, match=r"weights\.pth: expected a state dict \(name → tensor\)"):
        read_state(path)


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
        build_backbone("tiny", str(path))
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists()  # the payload works where it is let


def test_weights_that_do_not_fit_are_named(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(seeded_state("resnet18"), path)
    with pytest.raises(DetectError) as caught:
        build_backbone("mobilenet_v2", str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: for backbone 'mobilenet_v2' the weights do not fit: ")
    # 62 parameters of ResNet-18, two of them its classifier; 60 counts and statistics
    assert "122 unknown entries (conv1.weight, bn1.weight, bn1.bias, …)" in message
    assert "260 entries missing (features.0.0.weight, " in message
    assert message.endswith("Choose the backbone that the file was made for")


def test_a_misshapen_entry_is_named(tmp_path):
    path = tmp_path / "weights.pth"
    state = build_backbone("resnet18").state_dict()
    state["trunk.0.weight"] = torch.zeros(8, 3, 3, 3)
    torch.save(state, path)
    with pytest.raises(DetectError) as caught:
        build_backbone("resnet18", str(path))
    assert "fit: 1 of another shape (trunk.0.weight [8, 3, 3, 3] instead of [64, 3, 7, 7])" in (
        str(caught.value)
    )


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
    thread = threading.Thread(target=server.serve_forever, daemon=True)
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
    expected = build_backbone(NAME, str(file))
    same_features(backbone, expected)

    file.unlink()  # from now on it is only in the cache
    again = backbone_with_weights_at(f"{address}/{file.name}")
    load_weights(again, NAME, "imagenet")
    same_features(again, expected)


def test_imagenet_weights_of_another_content_are_refused(served, torch_home):
    folder, address = served
    file = save_with_hash(folder, seeded_state()).rename(folder / f"{NAME}-01234567.pth")
    backbone = backbone_with_weights_at(f"{address}/{file.name}")
    with pytest.raises(DetectError, match='invalid hash value \\(expected "01234567"'):
        load_weights(backbone, NAME, "imagenet")
    assert list((torch_home / "hub" / "checkpoints").iterdir()) == []


def test_a_damaged_file_in_the_cache_is_named(served, torch_home):
    _, address = served
    folder = torch_home / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    for content in (b"<html></html>", b"PK\x03\x04 torn"):
        (folder / f"{NAME}-01234567.pth").write_bytes(content)
        backbone = backbone_with_weights_at(f"{address}/{NAME}-01234567.pth")
        with pytest.raises(DetectError, match=rf"{NAME}-01234567\.pth: expected a state dict"):
            load_weights(backbone, NAME, "imagenet")


def test_offline_the_message_says_where_to_put_the_file(torch_home):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    address = f"http://127.0.0.1:{port}/models/{NAME}-01234567.pth"
    with pytest.raises(DetectError) as caught:
        load_weights(backbone_with_weights_at(address), NAME, "imagenet")
    message, folder = str(caught.value), torch_home / "hub" / "checkpoints"
    assert f"looked for {folder / f'{NAME}-01234567.pth'}, then asked {address} (" in message
    assert f"Bring the file {NAME}-01234567.pth" in message
    assert f"put it into {folder} (the environment variable TORCH_HOME moves" in message


def test_a_page_that_is_not_there_is_a_readable_error(served, torch_home):  # noqa: ARG001
    backbone = backbone_with_weights_at(f"{served[1]}/{NAME}-01234567.pth")
    with pytest.raises(DetectError, match=r"could not be downloaded: .*404"):
        load_weights(backbone, NAME, "imagenet")


@pytest.mark.parametrize("name", ["tiny", "yolo_darknet_fast"])
def test_networks_without_imagenet_weights_say_so(name):
    with pytest.raises(DetectError, match=f"no ImageNet weights of backbone '{name}'; set "):
        build_backbone(name, "imagenet")


@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_0"])
def test_real_weights_give_torchvision_features(shared, name):
    path = shared / "weights" / f"{name}.pth"
    network = getattr(models, name)().eval()
    network.load_state_dict(torch.load(path, weights_only=True), strict=True)
    backbone = build_backbone(name, str(path)).eval()
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        expected = network.features((images() - mean) / std)
        assert_close(backbone(images()), expected, rtol=0, atol=0)
    assert float(expected.std()) > 0
