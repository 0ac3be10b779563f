import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import detect
from detect.errors import DetectError
from detect.training import CheckpointFolder, load_checkpoint, save_checkpoint, versions
from detect.training.checkpoints import FORMAT, SEAL_LENGTH


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


def test_altered_bytes_are_noticed(tmp_path):
    path = saved(tmp_path / "last.pt")
    whole = path.read_bytes()
    torch.load(path, weights_only=True)  # others read it as well
    generator = random.Random(1)
    # torch itself reads most of these without a word
    for place in [generator.randrange(len(whole)) for _ in range(60)]:
        altered = bytearray(whole)
        altered[place] ^= 1 << generator.randrange(8)
        path.write_bytes(altered)
        with pytest.raises(DetectError, match=r"last\.pt: expected "):
            load_checkpoint(path)
    path.write_bytes(whole[:-SEAL_LENGTH])
    with pytest.raises(DetectError, match="has no checksum at its end"):
        load_checkpoint(path)


def folder_with(path, steps, keep=2):
    checkpoints = CheckpointFolder(path, keep)
    for step in steps:
        checkpoints.save(step, {"step": step})
    return checkpoints


def names_in(path):
    return sorted(entry.name for entry in path.iterdir())


def test_the_newest_states_are_kept(tmp_path):
    folder_with(tmp_path, [1, 2, 30, 100], keep=3)
    assert names_in(tmp_path) == [
        "last.pt", "step_00000002.pt", "step_00000030.pt", "step_00000100.pt",
    ]  # fmt: skip
    assert load_checkpoint(tmp_path / "last.pt")["step"] == 100
    newest = tmp_path / "step_00000100.pt"
    assert (tmp_path / "last.pt").stat().st_ino == newest.stat().st_ino  # no room of its own


def test_without_hard_links_the_newest_is_copied(tmp_path, monkeypatch):
    def refuse(self, target):  # noqa: ARG001
        raise OSError("no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    folder_with(tmp_path, [1, 2])
    assert load_checkpoint(tmp_path / "last.pt")["step"] == 2


@pytest.mark.parametrize("damaged", [["last.pt"], ["last.pt", "step_00000003.pt"]])
def test_a_damaged_state_gives_way_to_the_one_before(tmp_path, damaged):
    checkpoints = folder_with(tmp_path, [1, 2, 3])
    if damaged == ["last.pt"]:  # a copy of its own
        content = (tmp_path / "last.pt").read_bytes()
        (tmp_path / "last.pt").unlink()
        (tmp_path / "last.pt").write_bytes(content)
    for name in damaged:
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[:-1])
    said = []
    path, content = checkpoints.load_newest(said.append)
    assert content["step"] == (3 if len(damaged) == 1 else 2)
    assert path.name == f"step_0000000{content['step']}.pt"
    assert len(said) == len(damaged)
    assert said[0].endswith(f"The run goes on from {path.name}")
    assert "last.pt" in said[0]
    assert set(names_in(tmp_path)) >= {f"{name}.damaged" for name in damaged}
    # the next state is written as ever
    checkpoints.save(4, {"step": 4})
    assert checkpoints.load_newest(said.append)[1]["step"] == 4


def test_a_run_without_a_sound_state_is_an_error(tmp_path):
    checkpoints = folder_with(tmp_path, [1, 2])
    for path in tmp_path.iterdir():
        path.write_bytes(b"rubbish")
    with pytest.raises(DetectError, match=r"no checkpoint of the run is sound.*\n.*last\.pt"):
        checkpoints.load_newest(print)
    assert CheckpointFolder(tmp_path / "none").load_newest(print) is None


def test_a_full_disk_leaves_the_state_before(tmp_path):
    """A process that may write files of 200 kB only stands for a disk with that much room."""
    script = f"""
import resource, signal, torch
from pathlib import Path
from detect.errors import DetectError
from detect.training import CheckpointFolder
checkpoints = CheckpointFolder(Path({str(tmp_path)!r}))
checkpoints.save(1, {{"weight": torch.zeros(10_000)}})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    checkpoints.save(2, {{"weight": torch.zeros(1_000_000)}})
except DetectError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "step_00000002.pt: cannot be written" in done.stdout, done.stderr
    assert "about 4 MiB are needed" in done.stdout
    assert "continue with --resume" in done.stdout
    assert names_in(tmp_path) == ["last.pt", "step_00000001.pt"]
    assert load_checkpoint(tmp_path / "last.pt")["weight"].shape == (10_000,)
