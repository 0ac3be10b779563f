"""Looking at many image files in a few threads: decoders and disks work without Python's lock."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from detect.data.faults import Fault, Progress
from detect.data.images import ImageError

Look = TypeVar("Look")

# More threads than this wait for the disk and for each other.
_MAX_THREADS = 8
# Images that a thread takes at once, of many: an order in the queue takes as long as reading a
# header.
_MAX_CHUNK = 64
# Of few, so many are left in the queue for each thread that none is idle at the end.
_CHUNKS_PER_THREAD = 16


def look_at_images(
    paths: Sequence[Path], look: Callable[[Path], Look], progress: Progress | None = None
) -> list[Look | ImageError]:
    """What `look` finds in each image, or why it cannot be read; in the order of `paths`.

    Args:
        paths: of the images.
        look: such as `read_image_size`.
        progress: called with the number of images looked at and the number of all.
    """
    num_threads = min(_MAX_THREADS, os.cpu_count() or 1)
    size = min(_MAX_CHUNK, max(1, len(paths) // (num_threads * _CHUNKS_PER_THREAD)))

    def look_at(start: int) -> list[Look | ImageError]:
        return [_found(path, look) for path in paths[start : start + size]]

    found: list[Look | ImageError] = []
    # On Ctrl-C the iterator that map returned goes, and with it the images still in the queue.
    with ThreadPoolExecutor(num_threads) as pool:
        for chunk in pool.map(look_at, range(0, len(paths), size)):
            for result in chunk:
                found.append(result)
                if progress is not None:
                    progress(len(found), len(paths))
    return found


def _found(path: Path, look: Callable[[Path], Look]) -> Look | ImageError:
    try:
        return look(path)
    except ImageError as error:
        return error


def unreadable(path: Path, error: ImageError) -> Fault:
    """The fault of an image that cannot be read."""
    return Fault(str(path), None, "unreadable-image", error.value, error.remedy)
