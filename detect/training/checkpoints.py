"""Checkpoints: plain tensors and plain data in one file, written whole or not at all."""

import platform
from pathlib import Path
from typing import Any

import torch
from torchvision.version import __version__ as torchvision_version

import detect
from detect.errors import DetectError
from detect.files import replacing

FORMAT = "detect-checkpoint-1"


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint; `content` must be tensors and plain data."""
    content = {"format": FORMAT, "versions": versions(), **content}
    with replacing(path) as temporary:
        torch.save(content, temporary)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; nothing in the file can run code.

    Raises:
        DetectError: the file is missing, torn, or no checkpoint of ours.
    """
    if not path.is_file():
        raise DetectError(f"{path}: no such checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file of another kind makes torch.load fail in any way
        raise DetectError(
            f"{path}: expected a checkpoint, found a file that cannot be read, is torn or holds "
            "something other than tensors and plain data; nothing in it was run"
        ) from error
    if not isinstance(content, dict) or "format" not in content:
        raise DetectError(
            f"{path}: expected a checkpoint that 'detect train' wrote, found something else; "
            "weights alone belong into backbone.weights of a config"
        )
    if content["format"] != FORMAT:
        raise DetectError(
            f"{path}: expected the format {FORMAT}, found {content['format']}; "
            "it was written by another version of detect"
        )
    return content


def versions() -> dict[str, str]:
    """The versions that decide what a run computes."""
    return {
        "detect": detect.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": torchvision_version,
    }
