"""Where a detector's proposals come from, and how they are found in an image as it is fed.

Proposals are found in the image as it is brought to the detector's input (scaled, without the
padding), so that an image gives the same boxes whether they were found beforehand for a whole data
set or are found now. R-CNN scales images to a fixed width before the search, too (Girshick et al.
2014, section 4.2): selective search finds more and other regions in larger images.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from detect.data import fit_to_input
from detect.detectors.images import filled_part
from detect.detectors.ranges import Count
from detect.errors import DetectError
from detect.ops import clip_boxes, has_area
from detect.proposals import PROPOSALS, GivenBoxes, ProposalSource, read_proposals
from detect.registry import hint
from detect.structures import Batch, ImageMeta, InputSpec, Sample

FILE_SUFFIXES = (".npz", ".mat")

# Sources that are made from what stands behind a prefix, as in `rpn:RUN`. How a run is loaded is
# known above this floor; who knows it files itself here.
PREFIXES: dict[str, Callable[[str], ProposalSource]] = {}


@dataclass(frozen=True, slots=True)
class FittedSource:
    """A source that looks at images as a detector is fed them.

    Args:
        source: of the boxes.
        spec: how the detector wants to be fed.
        max_proposals: the best that are kept of each image.
    """

    source: ProposalSource
    spec: InputSpec
    max_proposals: int

    @property
    def settings(self) -> Mapping[str, Any]:
        """Those of the source, and the input's."""
        return {
            **self.source.settings,
            "input_size": list(self.spec.size),
            "keep_aspect_ratio": self.spec.keep_aspect_ratio,
            "shorter_side": self.spec.shorter_side,
            "max_boxes": self.max_proposals,
        }

    def __call__(
        self, image: UInt8[np.ndarray, "H W 3"], image_id: str
    ) -> Float32[np.ndarray, "N 4"]:
        """Boxes in the frame of `image`, whatever its size."""
        return find_as_fed(
            image, image_id, self.spec, lambda fitted: self.in_input(fitted.image, fitted.meta)
        )

    def in_input(self, image: UInt8[np.ndarray, "H W 3"], meta: ImageMeta) -> Tensor:
        """Boxes `[N, 4]` in the input frame, found in what the image fills of it.

        Args:
            image: the input, with its padding.
            meta: of the image, which was not augmented.
        """
        if isinstance(self.source, GivenBoxes):  # which are in the image's own frame
            boxes = torch.from_numpy(self.source(image, meta.image_id))[: self.max_proposals]
            return meta.to_input(boxes)
        top, left, bottom, right = filled_part(meta)
        boxes = torch.from_numpy(self.source(image[top:bottom, left:right], meta.image_id))
        return boxes[: self.max_proposals] + boxes.new_tensor([left, top, left, top])


def find_as_fed(
    image: UInt8[np.ndarray, "H W 3"],
    image_id: str,
    spec: InputSpec,
    find: Callable[[Sample], Tensor],
) -> Float32[np.ndarray, "N 4"]:
    """Boxes of an image in its own frame, clipped to it, found in the image as it is fed.

    Args:
        image: of any size.
        image_id: its name.
        spec: how it is fed.
        find: the boxes `[N, 4]` of an image at the input's size, in the input frame.
    """
    fitted = fit_to_input(Sample.of_image(image, image_id), spec)
    boxes = clip_boxes(fitted.meta.to_original(find(fitted)), fitted.meta.original_size)
    found: np.ndarray = boxes[has_area(boxes)].numpy()
    return found


@dataclass(frozen=True)
class ProposalSettings:
    """Where the regions come from.

    Attributes:
        proposals: the name of a proposal method, the path of a file of boxes (.npz, .mat) that has
            those of every image, or `rpn:RUN` for those of a Faster R-CNN.
        proposal_options: of the method, such as `{mode: quality}`; see docs/proposals.md.
        max_proposals: the best ones of each image that are used.
    """

    proposals: str = "selective-search"
    proposal_options: dict[str, Any] | None = None
    max_proposals: Count = 2000

    def source(self, spec: InputSpec) -> FittedSource:
        """Finds the regions of images that are fed as `spec` says; reads a file if one is named."""
        source = build_source(self.proposals, self.proposal_options or {})
        return FittedSource(source, spec, self.max_proposals)


def find_in_batch(source: FittedSource, batch: Batch) -> tuple[Tensor, ...]:
    """The proposals of each image `[N, 4]` in the input frame: those it brings, or found now."""
    if batch.proposals is not None:
        return tuple(boxes[: source.max_proposals] for boxes in batch.proposals)
    images = batch.images.permute(0, 2, 3, 1).cpu().numpy()  # [B, H, W, 3]
    return tuple(
        source.in_input(np.ascontiguousarray(image), meta).to(batch.images.device)
        for image, meta in zip(images, batch.metas, strict=True)
    )


def concatenated(proposals: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The proposals of all images as one tensor `[N, 4]`, and the image `[N]` of each."""
    counts = torch.tensor([len(boxes) for boxes in proposals])
    numbers = torch.arange(len(counts)).repeat_interleave(counts)
    return torch.cat(list(proposals)), numbers.to(proposals[0].device)


def build_source(name: str, options: Mapping[str, Any]) -> ProposalSource:
    """The source of `detector.proposals`.

    Args:
        name: of `PROPOSALS`, the path of a file of boxes (.npz, .mat), or `rpn:RUN` for those of a
            trained Faster R-CNN.
        options: the source's arguments; a file and a run have none.

    Raises:
        DetectError: an unknown name or option, or a file that cannot be read.
    """
    if name.lower().endswith(FILE_SUFFIXES):
        _check_keys(name, options, ())
        return GivenBoxes(read_proposals(Path(name)))
    for prefix, build_from in PREFIXES.items():
        if name.startswith(prefix):
            _check_keys(name, options, ())
            return build_from(name.removeprefix(prefix))
    if name not in PROPOSALS:
        raise DetectError(
            f"detector.proposals: unknown {name!r}; {hint(name, PROPOSALS)}; a file of boxes ends "
            f"in {' or '.join(FILE_SUFFIXES)}; rpn:RUN takes those of a Faster R-CNN"
        )
    build = PROPOSALS[name]
    _check_keys(name, options, tuple(inspect.signature(build).parameters))
    try:
        source: ProposalSource = build(**options)
    except TypeError as error:
        raise DetectError(
            f"detector.proposal_options of {name}: a value of {dict(options)} has the wrong type "
            f"({error}); docs/proposals.md has those that it may have"
        ) from error
    return source


def _check_keys(name: str, options: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in options:
        if key not in known:
            remedy = hint(key, known) if known else "there are none: set it to {}"
            raise DetectError(
                f"detector.proposal_options.{key}: {name} has no such option; {remedy}"
            )
