import random
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import detect
from detect.errors import DetectError
from detect.training import load_checkpoint, save_checkpoint, versions
from detect.training.checkpoints import FORMAT


def saved(path, **content):
    save_checkpoint(path, {"detector": {"weight": torch.arange(1000.0)}, **content})
    return path


def test_what_was_saved_comes_back(tmp_path):
    optimizer = torch.optim.AdamW([torch.zeros(3, requires_grad=True)])
    optimizer.param_groups[0]["params"][0].sum().backward()
    optimizer.step()
    plain = {"a": [1, 2.5, None, "ß"], "b": (True, float("inf")), "c": {}}
    path = saved(tmp_path / "new" / "last.pt", plain=plain, optimizer=optimizer.state_dict())
    content = load_checkpoint(path)
    assert content["plain"] == plain
    assert_close(content["detector"]["weight"], torch.arange(1000.0), rtol=0, atol=0)
    assert content["optimizer"]["param_groups"] == optimizer.state_dict()["param_groups"]
    assert_close(content["optimizer"]["state"], optimizer.state_dict()["state"])
    assert content["format"] == FORMAT
    assert content["versions"] == versions()
    assert content["versions"]["detect"] == detect.__version__
    assert [entry.name for entry in path.parent.iterdir()] == ["last.pt"]


def test_a_failed_writing_leaves_the_old_checkpoint(tmp_path):
    path = saved(tmp_path / "last.pt")
    before = path.read_bytes()
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(path, {"detector": lambda: None})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]


def test_a_missing_checkpoint_is_a_readable_error(tmp_path):
    with pytest.raises(DetectError, match=r"last\.pt: no such checkpoint"):
        load_checkpoint(tmp_path / "last.pt")
    with pytest.raises(DetectError, match="no such checkpoint"):
        load_checkpoint(tmp_path)


def test_a_torn_checkpoint_is_a_readable_error(tmp_path):
    path = saved(tmp_path / "last.pt")
    whole = path.read_bytes()
    for length in (0, 1, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DetectError, match=r"last\.pt: expected a checkpoint, found a file th"):
            load_checkpoint(path)


def test_any_other_bytes_are_a_readable_error(tmp_path):
    path = tmp_path / "last.pt"
    generator = random.Random(0)
    texts = [b"hello world\n", b"<html></html>", b'{"a": 1}', b"a: 1\n"]
    noise = [generator.randbytes(length) for length in (1, 2, 5, 20, 1000) for _ in range(20)]
    for content in [*texts, *noise]:
        path.write_bytes(content)
        with pytest.raises(DetectError, match=r"last\.pt: expected a checkpoint"):
            load_checkpoint(path)


@pytest.mark.parametrize("content", [{"weight": torch.zeros(3)}, [1], torch.zeros(3), {}])
def test_a_foreign_file_is_a_readable_error(tmp_path, content):
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(DetectError, match=r"that 'detect train' wrote.* backbone\.weights"):
        load_checkpoint(tmp_path / "weights.pt")


def test_another_format_is_a_readable_error(tmp_path):
    torch.save({"format": "detect-checkpoint-9"}, tmp_path / "last.pt")
    with pytest.raises(DetectError) as caught:
        load_checkpoint(tmp_path / "last.pt")
    assert f"expected the format {FORMAT}, found detect-checkpoint-9; it was" in str(caught.value)


class Payload:
    """Creates a file when it is unpickled by a reader that runs what it reads."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    path, trace = tmp_path / "last.pt", tmp_path / "trace"
    saved(path, evil=Payload(trace))
    with pytest.raises(DetectError, match="nothing in it was run"):
        load_checkpoint(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists()  # the payload works where it is let
