"""Fetching a weights file from the network: resumed where it broke off, verified, renamed.

Names follow torch.hub's convention: in `resnet18-f37072fd.pth`, `f37072fd` is the beginning of the
content's sha256.
"""

import hashlib
import os
import re
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO
from urllib import request
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit

import torch
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from detect.errors import DetectError

# Seconds without a byte after which a connection counts as broken.
TIMEOUT = 30.0
CHUNK = 1 << 18  # bytes between two updates of the progress bar
RANGE_NOT_SATISFIABLE = 416  # there are not that many bytes
PARTIAL_CONTENT = 206

# One 8-digit hash in ten thousand reads as a date; files named by their date are common.
DAY = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
HASH = re.compile(r"-([0-9a-f]{8,64})(\.[A-Za-z0-9]+)+$")


def cache_folder() -> Path:
    """The folder in which torch.hub keeps weights; the environment variable TORCH_HOME moves it."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def fetch_file(url: str, folder: Path) -> Path:
    """Fetch the file at `url` into `folder` under its own name, unless it is there.

    It is written to `<name>.part`, which the next call resumes after an interruption. A file whose
    name has no hash is fetched anew, since parts of different files could not be told apart.

    Args:
        url: an http or https address that ends with a file name.
        folder: made if it is absent.

    Returns:
        The path of the file, whose hash is that of its name.

    Raises:
        DetectError: no network, no such file, a broken connection, content that does not match the
            name, or a folder that cannot be written.
    """
    name = _file_name(url)
    path, part = folder / name, folder / f"{name}.part"
    if path.is_file():
        verify_hash(path)
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        expected = hash_in(name) or ""
        if not expected:
            part.unlink(missing_ok=True)
        went_on = _receive(url, part)
        found = _sha256(part)
        if went_on and not found.startswith(expected):  # not of one file: it has changed since
            part.unlink()
            _receive(url, part)
            found = _sha256(part)
        if not found.startswith(expected):
            part.unlink()
            raise DetectError(
                f"{url}: expected content whose sha256 begins with {expected}, as its name says, "
                f"found {found}; what came was removed. Try again, or bring the file from another "
                f"source and put it into {folder}"
            )
        part.replace(path)
    except OSError as error:
        raise DetectError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def verify_hash(path: Path) -> None:
    """Compare the content of a file with the hash in its name, if there is one.

    Raises:
        DetectError: they differ, or the file cannot be read.
    """
    expected = hash_in(path.name)
    if expected is None:
        return
    try:
        found = _sha256(path)
    except OSError as error:
        raise DetectError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not found.startswith(expected):
        raise DetectError(
            f"{path}: expected content whose sha256 begins with {expected}, as its name says, "
            f"found {found}; the file is damaged or has another's name. Delete it and fetch it "
            "anew, or give it a name without a hash if its content is as it should be"
        )


def hash_in(name: str) -> str | None:
    """The beginning of a sha256, in hexadecimal digits, in a file name, or None.

    >>> hash_in("resnet18-f37072fd.pth")
    'f37072fd'
    >>> hash_in("best-20240131.pth") is None  # a day
    True
    """
    found = HASH.search(name)
    return None if found is None or DAY.fullmatch(found[1]) else found[1]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file_name(url: str) -> str:
    address = urlsplit(url)
    name = Path(unquote(address.path)).name
    if address.scheme not in ("http", "https") or not address.netloc or not name:
        raise DetectError(
            f"{url}: expected an http or https address that ends with a file name; a file of this "
            "machine is given by its path"
        )
    return name


def _receive(url: str, part: Path) -> bool:
    """Write the content at `url` to `part`; return whether this resumed what was there."""
    start = part.stat().st_size if part.is_file() else 0
    try:
        response, start = _ask(url, start)
    except (OSError, HTTPException) as error:
        name, folder, reason = part.stem, part.parent, str(error) or type(error).__name__
        raise DetectError(
            f"{name} is not here and could not be downloaded: looked for {folder / name}, then "
            f"asked {url} ({reason}). Bring the file {name} from a machine with a network and put "
            f"it into {folder} (the environment variable TORCH_HOME moves torch's cache), or give "
            "its path as backbone.weights"
        ) from error
    total = None if response.length is None else start + response.length
    console = Console(stderr=True)
    with (
        response,
        part.open("ab" if start else "wb") as file,
        Progress(
            TextColumn(part.stem),
            BarColumn(bar_width=20),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ) as progress,
    ):
        task = progress.add_task("", total=total, completed=start)
        fault = _copy(response, file, lambda count: progress.advance(task, count))
        os.fsync(file.fileno())
        received = file.tell()
    if fault or (total is not None and received != total):
        of_total = "" if total is None else f" of {total / 1e6:.1f}"
        keeps = hash_in(part.stem) is not None
        next_time = "resumes from there" if keeps else "starts over, since its name carries no hash"
        raise DetectError(
            f"{part.stem}: the connection broke off ({fault or 'the server closed it'}) after "
            f"{received / 1e6:.1f}{of_total} MB from {url}; the same command {next_time}"
        )
    return start > 0


def _ask(url: str, start: int) -> tuple[HTTPResponse, int]:
    """Request the content from byte `start` on; also return where the answer really begins."""
    query = request.Request(url, headers={"User-Agent": "detect", "Accept-Encoding": "identity"})
    if start > 0:
        query.add_header("Range", f"bytes={start}-")
    try:
        response: HTTPResponse = _http_opener().open(query, timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if start > 0 and error.code == RANGE_NOT_SATISFIABLE:
            return _ask(url, 0)
        raise
    # a server may ignore the range and send all of it
    return response, start if response.status == PARTIAL_CONTENT else 0


def _http_opener() -> request.OpenerDirector:
    # urllib's usual opener also opens local files and FTP, to which a redirection could lead
    opener = request.OpenerDirector()
    for kind in ("Proxy", "HTTP", "HTTPS", "HTTPRedirect", "HTTPDefaultError", "Unknown"):
        opener.add_handler(getattr(request, f"{kind}Handler")())
    opener.add_handler(request.HTTPErrorProcessor())
    return opener


def _copy(response: HTTPResponse, file: IO[bytes], advance: Callable[[int], object]) -> str:
    """Write the response to `file`; return why it ended early, or nothing."""
    while True:
        try:
            chunk = response.read1(CHUNK)
        except (OSError, HTTPException) as error:
            return str(error) or type(error).__name__
        if not chunk:
            return ""
        file.write(chunk)
        advance(len(chunk))
