"""The registry of data sets: who reads a kind of data, and what a reader is asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from detect.data.classes import ClassNames, listed_class_names
from detect.data.dataset import DetectionDataset, OnError
from detect.data.faults import Progress
from detect.errors import DetectError
from detect.registry import Registry

# Takes a `DatasetRequest`, and as keywords the keys of the config's data section that are its own.
# Returns a `DetectionDataset`, or for classifiers alone an `ImageFolder`.
DatasetReader = Callable[..., Any]

DATASETS = Registry[DatasetReader]("kind of data set")


class Source(NamedTuple):
    """One split of one data set.

    Attributes:
        root: the folder of the set.
        split: the name of the split; None for all images of the set.
    """

    root: Path
    split: str | None


def _ignore(text: str) -> None:
    """Say nothing."""


@dataclass(frozen=True, slots=True)
class DatasetRequest:
    """What a reader is asked for; what of it makes no sense for its kind of data, it ignores.

    Attributes:
        kind: the name that the reader is registered under.
        sources: at least one, to be joined in this order.
        classes: the names of the labels 0 … C−1, such as those of the training split when another
            one is read; `voc` for the 20 of PASCAL VOC; `auto` for those that the data set has.
        on_error: `stop` raises all errors together, as `DataFaults`; `skip` leaves faulty objects
            and faulty images out, and says so in the data set's `faults`.
        verify_images: decode every image once, or read the headers only; None for what is usual.
        say: told what is being done, for a status line.
        progress: called with the number of images looked at and the number of all.
    """

    kind: str
    sources: tuple[Source, ...]
    classes: ClassNames = "auto"
    on_error: OnError = "stop"
    verify_images: bool | None = None
    say: Callable[[str], None] = _ignore
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if not self.sources:
            raise DetectError("data: expected at least one folder and split, found none")

    @property
    def source(self) -> Source:
        """The only source, for data that cannot be joined.

        Raises:
            DetectError: there are several.
        """
        if len(self.sources) != 1:
            raise DetectError(
                f"data.root: data of kind {self.kind!r} has one folder, found {len(self.sources)}"
            )
        return self.sources[0]

    @property
    def split(self) -> str:
        """The name of the only source's split, for data that is read split by split.

        Raises:
            DetectError: there are several sources, or no split is named.
        """
        if self.source.split is None:
            raise DetectError(
                f"{self.source.root}: data of kind {self.kind!r} is read split by split; name one"
            )
        return self.source.split

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the labels; None where the data set says which classes there are.

        Raises:
            DetectError: the names make no sense.
        """
        return listed_class_names(self.classes)

    @property
    def name(self) -> str:
        """Of the data set, for people: `VOC2007/trainval`."""
        return " + ".join("/".join([s.root.name, *filter(None, [s.split])]) for s in self.sources)


def read_request(request: DatasetRequest, **options: Any) -> DetectionDataset:
    """Let the reader of `request.kind` read.

    Raises:
        DetectError: there is no such kind, or it is one without boxes; and whatever the reader
            finds wrong.
    """
    dataset = DATASETS[request.kind](request, **options)
    if not isinstance(dataset, DetectionDataset):
        raise DetectError(
            f"data.kind: expected data with boxes, found {request.kind!r}, whose reader returns "
            f"{type(dataset).__name__}"
        )
    return dataset
