"""The proposals of a data set, and their files.

Our own file is an .npz of `image_ids` (`[P]` text), `counts` (`[P]` int64), `boxes` (`[N, 4]`
float32, image after image), `settings` (JSON text: what made the boxes) and `fingerprint` (of all
of that). A file from elsewhere is an .npz with the first three only, or a .mat in the layout of the
authors' release.
"""

import functools
import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from detect.errors import DetectError
from detect.files import replacing
from detect.proposals.base import first_of_each

REQUIRED_KEYS = {"image_ids", "counts", "boxes"}
OWN_KEYS = {"settings", "fingerprint"}
CELLS = ("images", "boxes")  # of the .mat

# (height, width) in pixels by image
Sizes = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Proposals:
    """The boxes of each image, best first.

    Attributes:
        image_ids: of the images, each once.
        counts: `[P]` boxes of each image; an image may have none.
        boxes: `[N, 4]` xyxy pixels, those of the first image first.
        settings: plain data; what made the boxes.
    """

    image_ids: tuple[str, ...]
    counts: Int64[np.ndarray, "P"]
    boxes: Float32[np.ndarray, "N 4"]
    settings: Mapping[str, Any]

    @classmethod
    def of_images(
        cls, boxes: Mapping[str, Float32[np.ndarray, "_ 4"]], settings: Mapping[str, Any]
    ) -> "Proposals":
        """Join the boxes of each image, in the order of `boxes`."""
        return cls(
            tuple(boxes),
            np.array([len(rows) for rows in boxes.values()], np.int64),
            np.concatenate((np.zeros((0, 4), np.float32), *boxes.values())),
            dict(settings),
        )

    def __len__(self) -> int:
        """The number of images."""
        return len(self.image_ids)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._rows

    def __getitem__(self, image_id: str) -> Float32[np.ndarray, "_ 4"]:
        """The boxes of one image, `[n, 4]`, best first; DetectError if there is no such image."""
        if image_id not in self._rows:
            raise DetectError(
                f"there are no proposals for the image {image_id!r}, only for {len(self)} others; "
                "compute them for this split: detect proposals DATA --out FILE"
            )
        return self.boxes[self._rows[image_id]]

    @functools.cached_property
    def _rows(self) -> dict[str, slice]:
        ends = np.cumsum(self.counts).tolist()
        starts = [0, *ends[:-1]]
        return {
            image_id: slice(start, end)
            for image_id, start, end in zip(self.image_ids, starts, ends, strict=True)
        }

    @property
    def fingerprint(self) -> str:
        """A hash of the images' ids, the boxes and the settings; the same on every machine."""
        digest = hashlib.sha256()
        for text in (json.dumps(self.image_ids), json.dumps(self.settings, sort_keys=True)):
            digest.update(text.encode() + b"\0")
        digest.update(self.counts.astype("<i8").tobytes())
        digest.update(self.boxes.astype("<f4").tobytes())
        return digest.hexdigest()

    def first(self, max_boxes: int) -> "Proposals":
        """The `max_boxes` best of each image; the settings say so. DetectError if less than 1."""
        if max_boxes < 1:
            raise DetectError(f"max_boxes: expected 1 or more, found {max_boxes}")
        earlier = self.settings.get("max_boxes")
        limit = max_boxes if earlier is None else min(max_boxes, earlier)
        return Proposals.of_images(
            {image_id: self[image_id][:max_boxes] for image_id in self.image_ids},
            {**self.settings, "max_boxes": limit},
        )

    def of(self, image_ids: Iterable[str]) -> "Proposals":
        """Those of some images, in the order of `image_ids`; DetectError if one is missing."""
        return Proposals.of_images({name: self[name] for name in image_ids}, self.settings)


def write_proposals(path: Path, proposals: Proposals) -> None:
    """Write our own file atomically.

    Raises:
        DetectError: `path` does not end with .npz, or cannot be written.
    """
    if path.suffix != ".npz":
        raise DetectError(f"{path}: expected a name that ends with .npz; name it otherwise")
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            image_ids=np.array(proposals.image_ids, np.str_),
            counts=proposals.counts,
            boxes=proposals.boxes,
            settings=np.array(json.dumps(proposals.settings, sort_keys=True)),
            fingerprint=np.array(proposals.fingerprint),
        )


def read_proposals(path: Path, sizes: Sizes | None = None) -> Proposals:
    """Read our own file, or boxes from elsewhere.

    Of repeated boxes from elsewhere in one image, the best-ranked stays; the settings count them.

    Args:
        path: an .npz with the keys of ours or only `image_ids`, `counts` and `boxes`; or a .mat
            with the cell arrays `images`, of ids, and `boxes`, each `[n, 4]` of y1, x1, y2, x2,
            1-based, the last pixel included.
        sizes: of the wanted images; all must be in the file, and no box may leave its image. None
            takes all images, and only negative coordinates are known to lie outside.

    Raises:
        DetectError: the file cannot be read, is damaged, lacks an image, or has boxes that are
            not finite, reversed, empty or outside their image.
    """
    proposals = _read_mat(path) if path.suffix.lower() == ".mat" else _read_npz(path)
    if sizes is not None:
        missing = [image_id for image_id in sizes if image_id not in proposals]
        if missing:
            raise DetectError(
                f"{path}: expected proposals of {len(sizes)} images, found none of "
                f"{', '.join(missing[:3])}{' and others' * (len(missing) > 3)} "
                f"({len(missing)} in all); compute them for this split"
            )
        proposals = proposals.of(sizes)
    _check_boxes(path, proposals, sizes)
    return proposals


def _read_npz(path: Path) -> Proposals:
    arrays = _load_npz(path)
    own = arrays.keys() >= OWN_KEYS
    expected = REQUIRED_KEYS | (OWN_KEYS if own else set())
    if arrays.keys() != expected:
        raise DetectError(
            f"{path}: expected the arrays {', '.join(sorted(expected))}, "
            f"found {', '.join(sorted(arrays)) or 'none'}; write the file with them"
        )
    image_ids, counts, boxes = arrays["image_ids"], arrays["counts"], arrays["boxes"]
    if (
        image_ids.ndim != 1
        or image_ids.dtype.kind != "U"
        or counts.shape != image_ids.shape
        or counts.dtype.kind not in "iu"
        or boxes.dtype.kind not in "fiu"
        or boxes.ndim != 2
        or boxes.shape[1] != 4
    ):
        raise DetectError(
            f"{path}: expected image_ids [P] of text, counts [P] of integers and boxes [N, 4] of "
            f"numbers, found {_describe(image_ids)}, {_describe(counts)} and {_describe(boxes)}; "
            "write the arrays so"
        )
    if (counts < 0).any() or counts.sum() != len(boxes):
        raise DetectError(
            f"{path}: expected counts that add up to the {len(boxes)} boxes, found "
            f"{int(counts.sum())}; write the file again"
        )
    names = _unique(path, image_ids.tolist())
    if not own:
        return _from_elsewhere(path, names, np.split(boxes, np.cumsum(counts)[:-1]))
    try:
        settings = json.loads(str(arrays["settings"]))
        proposals = Proposals(
            names, counts.astype(np.int64), boxes.astype(np.float32), dict(settings)
        )
    except (ValueError, TypeError) as error:
        raise DetectError(f"{path}: its settings are no JSON object; compute it again") from error
    if proposals.fingerprint != str(arrays["fingerprint"]):
        raise DetectError(
            f"{path}: the fingerprint is not that of the content: the file was damaged or changed; "
            "compute it again"
        )
    return proposals


def _load_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
            if not all(isinstance(array, np.ndarray) for array in arrays.values()):
                raise ValueError("a member is no array")
            return arrays
    except OSError as error:
        raise DetectError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (
        ValueError,
        EOFError,
        KeyError,
        TypeError,  # what is no archive of arrays but one array
        AttributeError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise DetectError(
            f"{path}: expected an .npz archive of plain arrays, or a .mat: {error}; "
            "copy or compute it again"
        ) from error


def _read_mat(path: Path) -> Proposals:
    try:
        with path.open("rb") as file:
            content = loadmat(file, variable_names=CELLS)
    except OSError as error:
        raise DetectError(f"{path}: cannot be read: {error.strerror or error}") from error
    except NotImplementedError as error:
        raise DetectError(
            f"{path}: the .mat is of version 7.3, which is not read; save it with -v7 in MATLAB"
        ) from error
    except (ValueError, TypeError, KeyError, IndexError, zlib.error, MatReadError) as error:
        raise DetectError(f"{path}: expected a .mat file: {error}; copy it again") from error
    found = [name for name in CELLS if name in content]
    if len(found) < 2 or any(content[name].dtype != object for name in found):
        raise DetectError(
            f"{path}: expected the cell arrays images and boxes, as in the release of selective "
            f"search, found {' and '.join(found) or 'neither'}; save both"
        )
    cells = [np.asarray(cell) for cell in content["boxes"].ravel()]
    names = [str(np.asarray(cell).ravel()[0]) if np.size(cell) else "" for cell in (
        content["images"].ravel()
    )]  # fmt: skip
    if len(names) != len(cells):
        raise DetectError(
            f"{path}: expected as many cells of boxes as of images, found {len(cells)} and "
            f"{len(names)}; save both for the same images"
        )
    rows = []
    for name, cell in zip(names, cells, strict=True):
        boxes = cell.reshape(0, 4) if cell.size == 0 else cell
        if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype.kind not in "fiu":
            raise DetectError(
                f"{path}: image {name}: expected boxes [n, 4] of numbers, "
                f"found {_describe(cell)}; save y1, x1, y2, x2 of each box"
            )
        y1, x1, y2, x2 = boxes.astype(np.float64).T
        rows.append(np.stack((x1 - 1, y1 - 1, x2, y2), axis=1))
    return _from_elsewhere(path, _unique(path, names), rows)


def _from_elsewhere(path: Path, names: Sequence[str], rows: Sequence[np.ndarray]) -> Proposals:
    kept = {
        name: np.asarray(boxes, np.float32)[first_of_each(np.asarray(boxes, np.float32))]
        for name, boxes in zip(names, rows, strict=False)  # no image: one empty part
    }
    num_repeated = sum(map(len, rows)) - sum(map(len, kept.values()))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Proposals.of_images(
        kept, {"method": "file", "name": path.name, "sha256": digest, "num_repeated": num_repeated}
    )


def _unique(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        repeated = next(name for number, name in enumerate(names) if name in names[:number])
        raise DetectError(
            f"{path}: expected each image once, found {repeated!r} again; leave one of them out"
        )
    return tuple(names)


def _check_boxes(path: Path, proposals: Proposals, sizes: Sizes | None) -> None:
    boxes = proposals.boxes
    limits = np.full((len(proposals), 2), np.inf)
    if sizes is not None:
        limits = np.array([sizes[name][::-1] for name in proposals.image_ids], float).reshape(-1, 2)
    limits = np.repeat(limits, proposals.counts, axis=0)  # (width, height) of each box's image
    with np.errstate(invalid="ignore"):
        good = (
            np.isfinite(boxes).all(axis=1)
            & (boxes[:, :2] >= 0).all(axis=1)
            & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
            & (boxes[:, 2:] <= limits).all(axis=1)
        )
    if good.all():
        return
    row = int((~good).argmax())
    image = int(np.searchsorted(np.cumsum(proposals.counts), row, side="right"))
    place = row - int(proposals.counts[:image].sum())
    inside = ""
    if sizes is not None:
        height, width = sizes[proposals.image_ids[image]]
        inside = f" within an image {width} pixels wide and {height} high"
    raise DetectError(
        f"{path}: image {proposals.image_ids[image]}, box {place}: expected finite "
        f"0 ≤ x1 < x2 and 0 ≤ y1 < y2{inside}, found {boxes[row].tolist()} "
        f"({int((~good).sum())} such boxes in all); the boxes are of other images, or in another "
        "order of coordinates: fix or recompute them"
    )


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"
