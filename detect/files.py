"""Reading text files, and writing files so that nobody ever sees half of one."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from detect.errors import DetectError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` when the block ends well.

    What the block wrote is flushed to the disk before the rename, so that `path` holds either its
    old content or the whole of the new. When the block raises, the temporary file is removed and
    `path` is as it was.

    Raises:
        DetectError: the folder cannot be made or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix, delete=False
        ) as file:
            temporary = Path(file.name)
    except OSError as error:
        raise DetectError(f"{path}: cannot be written: {error.strerror or error}") from error
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        # a temporary file is private to its owner; what replaces it follows the user's umask
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write plain data to `path` as JSON, whole or not at all; nan becomes null."""
    write_text(path, json.dumps(_without_nan(content), indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read the JSON file at `path`.

    Raises:
        DetectError: there is no such file, or its content is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DetectError(f"{path}: cannot be read: {error.strerror or error}") from error
    except json.JSONDecodeError as error:
        hint = "; the file ends too early: write it again" if _is_cut_off(error) else ""
        raise DetectError(f"{path}: expected JSON: {error}{hint}") from error
    except ValueError as error:
        raise DetectError(f"{path}: expected JSON: {error}") from error
    except RecursionError as error:
        raise DetectError(f"{path}: expected JSON, found lists nested too deeply") from error


def read_rows(path: Path) -> list[str]:
    """The lines of a text file that are not blank, without the blanks around them.

    Raises:
        DetectError: the file cannot be read, or is no text.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DetectError(f"{path}: cannot be read: {error.strerror or error}") from error
    # Windows' shell writes UTF-16 when output is redirected into a file.
    is_utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    if "\0" in text:
        raise DetectError(f"{path}: expected a text file, found binary data")
    return [row.strip() for row in text.splitlines() if row.strip()]


def _is_cut_off(error: json.JSONDecodeError) -> bool:
    return error.msg.startswith("Unterminated string") or error.pos >= len(error.doc.rstrip())


def _without_nan(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(key): _without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(value) for value in content]
    if isinstance(content, float) and content != content:
        return None
    return content
