import json
import subprocess
import sys

import torch

from detect.training import record_start, versions


def test_each_start_is_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["detect", "train", "a.yaml"])
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    path = tmp_path / "run" / "starts.jsonl"
    record_start(path, torch.device("cpu"), 1)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    (folder / "note").write_text("one")
    for arguments in (["init", "-q"], ["add", "note"], ["commit", "-qm", "Begin"]):
        subprocess.run([*git, *arguments], check=True)
    record_start(path, torch.device("cpu"), 2)
    (folder / "note").write_text("two")
    record_start(path, torch.device("cpu"), 2)
    first, second, third = map(json.loads, path.read_text().splitlines())
    assert first["command"] == ["detect", "train", "a.yaml"]
    assert first["versions"]["torch"] == versions()["torch"]
    assert (first["processes"], second["processes"]) == (1, 2)
    assert first["git"]["folder"] is None
    assert len(second["git"]["folder"]["commit"]) == 40
    assert not second["git"]["folder"]["is_changed"]
    assert third["git"]["folder"]["is_changed"]
    assert third["device"] == "cpu"


def test_a_machine_without_git_is_no_obstacle(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    record_start(tmp_path / "starts.jsonl", torch.device("cpu"), 1)
    line = json.loads((tmp_path / "starts.jsonl").read_text())
    assert line["git"] == {"code": None, "folder": None}
