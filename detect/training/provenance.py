"""Where a run comes from: the command, the versions, the state of the code."""

import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from detect.training.checkpoints import versions

# A repository on a slow network drive must not hold up a training.
_PATIENCE = 5.0  # seconds


def record_start(path: Path, device: torch.device, num_processes: int) -> None:
    """Append a line of JSON for this start of a run, the first one or a later one.

    Attributes of the line: `time` (UTC), `command`, `folder` it was given in, `versions`, `git`
    (commit and whether files were changed since, of the code and of the folder; null where there
    is no repository), `device`, `threads`, `processes`, `machine`, `deterministic`.
    """
    on_cuda = device.type == "cuda"
    line = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": sys.argv,
        "folder": str(Path.cwd()),
        "versions": {**versions(), "cuda": torch.version.cuda if on_cuda else None},
        "git": {
            "code": _git_state(Path(__file__).parent),
            "folder": _git_state(Path.cwd()),
        },
        "device": torch.cuda.get_device_name(device) if on_cuda else str(device),
        "threads": torch.get_num_threads(),
        "processes": num_processes,
        "machine": platform.platform(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _git_state(folder: Path) -> dict[str, Any] | None:
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "is_changed": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
