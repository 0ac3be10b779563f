"""Checkpoints: plain tensors and plain data in one file, written whole, sealed with a checksum.

torch's own format does not notice altered bytes: it has checksums and does not compare them when it
reads. A file of ours ends with the SHA-256 of all before it; torch.load passes over these bytes.
"""

import errno
import hashlib
import os
import platform
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torchvision.version import __version__ as torchvision_version

from detect.errors import DetectError
from detect.files import replacing
from detect.version import __version__

FORMAT = "detect-checkpoint-2"

SEAL = b"detect-sha256:"
SEAL_LENGTH = len(SEAL) + hashlib.sha256().digest_size
_CHUNK = 2**22  # bytes hashed at once
# What torch says where a file could not be written.
_WRITING = ("PytorchStreamWriter", "inline_container", "iostream")
_STEP_FILE = re.compile(r"step_(\d+)\.pt")


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint; `content` must be tensors and plain data.

    Raises:
        DetectError: it cannot be written, for lack of space for instance; what was at `path` stays.
    """
    content = {"format": FORMAT, "versions": versions(), **content}
    try:
        with replacing(path) as temporary:
            torch.save(content, temporary)
            with temporary.open("rb+") as file:
                seal = SEAL + _digest_to(file, file.seek(0, os.SEEK_END))
                file.write(seal)
    except (OSError, RuntimeError) as error:
        raise _explain_writing(path, content, error) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; nothing in the file can run code.

    Raises:
        DetectError: the file is missing, torn, altered, or no checkpoint of ours.
    """
    if not path.is_file():
        raise DetectError(f"{path}: no such checkpoint")
    damage = _damage_of(path)
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
    if damage is not None:
        raise DetectError(
            f"{path}: expected a checkpoint, found a file that {damage}; take another one of the "
            "run, or copy it again"
        )
    return content


def versions() -> dict[str, str]:
    """The versions that decide what a run computes."""
    return {
        "detect": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": torchvision_version,
    }


class CheckpointFolder:
    """The checkpoints of a run.

    `last.pt` is the newest state of a training, `step_<step>.pt` the newest few; `best.pt` is the
    model at its best evaluation. `last.pt` is another name of the newest `step_<step>.pt`, so that
    it takes no room of its own where the file system allows that.

    Args:
        folder: of the files.
        keep: how many of `step_<step>.pt` stay; of fewer than two, none is left if one is damaged.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep
        self.last = folder / "last.pt"
        self.best = folder / "best.pt"

    def save(self, step: int, content: dict[str, Any]) -> None:
        """Write the state of a training after `step`, then forget those beyond `keep`."""
        path = self.folder / f"step_{step:08}.pt"
        save_checkpoint(path, content)
        with replacing(self.last) as temporary:
            _link(path, temporary)
        for old in self._step_files()[: -self.keep]:
            old.unlink(missing_ok=True)

    def load_newest(self, say: Callable[[str], object]) -> tuple[Path, dict[str, Any]] | None:
        """The newest state that is sound, with its file; None where there is no state at all.

        Damaged files are set aside as `<name>.damaged`, with a message.

        Raises:
            DetectError: there are states, and none of them is sound.
        """
        candidates = [path for path in (self.last, *reversed(self._step_files())) if path.exists()]
        reasons: list[str] = []
        for path in candidates:
            try:
                content = load_checkpoint(path)
            except DetectError as error:
                reasons.append(str(error))
                continue
            for damaged, reason in zip(candidates, reasons, strict=False):
                damaged.replace(damaged.with_name(f"{damaged.name}.damaged"))
                say(f"{reason}. The run goes on from {path.name}")
            return path, content
        if not reasons:
            return None
        raise DetectError(
            "no checkpoint of the run is sound; start again in another folder:\n"
            + "\n".join(f"  {reason}" for reason in reasons)
        )

    def has_state(self) -> bool:
        """Whether there is a training to go on with."""
        return self.last.exists() or bool(self._step_files())

    def _step_files(self) -> list[Path]:
        # from old to new
        found = [path for path in self.folder.glob("step_*.pt") if _STEP_FILE.fullmatch(path.name)]
        return sorted(found, key=lambda path: int(path.stem.removeprefix("step_")))


def _link(path: Path, other: Path) -> None:
    """Make `other`, which exists, another name of `path`; a copy where there are no hard links."""
    other.unlink()
    try:
        other.hardlink_to(path)
    except OSError:
        shutil.copyfile(path, other)


def _digest_to(file: Any, length: int) -> bytes:
    """The SHA-256 of the first `length` bytes of a file, which is left behind them."""
    digest = hashlib.sha256()
    file.seek(0)
    while length > 0:
        chunk = file.read(min(_CHUNK, length))
        if not chunk:
            break
        digest.update(chunk)
        length -= len(chunk)
    return digest.digest()


def _damage_of(path: Path) -> str | None:
    """What is wrong with the seal of a file, or None."""
    with path.open("rb") as file:
        length = file.seek(0, os.SEEK_END) - SEAL_LENGTH
        digest = _digest_to(file, max(length, 0))
        seal = file.read()
    if length < 0 or not seal.startswith(SEAL):
        return "has no checksum at its end: it is torn, or something else wrote it"
    if seal[len(SEAL) :] != digest:
        return "was altered: its checksum differs"
    return None


def _explain_writing(path: Path, content: dict[str, Any], error: Exception) -> DetectError:
    # torch tells of a full disk by RuntimeErrors without its number
    is_writing = isinstance(error, OSError) or any(sign in str(error) for sign in _WRITING)
    if not is_writing:
        raise error
    size = sum(tensor.nbytes for tensor in _tensors_in(content))
    free = shutil.disk_usage(path.parent).free if path.parent.is_dir() else 0
    is_full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or free < size
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
    return DetectError(
        f"{path}: cannot be written: {'the disk is full' if is_full else reason} (about "
        f"{size / 2**20:.0f} MiB are needed, {free / 2**20:.0f} MiB free). The checkpoint before "
        "it is as it was: make room, then continue with --resume"
    )


def _tensors_in(content: Any) -> list[torch.Tensor]:
    if isinstance(content, torch.Tensor):
        return [content]
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, list | tuple):
        return [tensor for value in content for tensor in _tensors_in(value)]
    return []
