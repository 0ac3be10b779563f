"""A trained detector: building, loading and using one."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, overload

import torch
from PIL.Image import Image
from rich.console import Console

from detect.backbones import create_backbone
from detect.config import Config, resolve
from detect.data import DetectionDataset, fit_to_input, read_dataset
from detect.detectors import DETECTORS, Detector, FasterRCNN, predict
from detect.detectors.faster_rcnn import RPNProposals
from detect.detectors.proposing import PREFIXES
from detect.errors import DetectError
from detect.experiment.datasets import read_split, sources
from detect.experiment.evaluation import Evaluation, evaluate
from detect.experiment.run import (
    CHECKPOINTS,
    choose_device,
    memory_format,
)
from detect.experiment.sources import (
    ColorOrder,
    ImageSource,
    image_of,
    is_one_image,
    samples_of,
)
from detect.settings import Settings
from detect.structures import Batch, Detections, Sample
from detect.training import load_checkpoint
from detect.wording import counted

# What `detect infer` shows as well. Evaluation takes all detections: its metrics rank them.
SCORE_THRESHOLD = 0.3


@dataclass(frozen=True, repr=False)
class Model:
    """A trained detector with all it needs to be used.

    Attributes:
        detector: in evaluation mode, on `device`.
        class_names: of the labels 0 … C−1.
        config: that it was trained with.
        device: that it runs on.
        folder: of the run that it comes from, or the checkpoint; None for one made in Python.
        evaluation: of the test split after a training, see `detect.train`; None from `load`.
    """

    detector: Detector
    class_names: tuple[str, ...]
    config: Config
    device: torch.device
    folder: Path | None = None
    evaluation: Evaluation | None = None

    def __repr__(self) -> str:
        shown = ", ".join(self.class_names[:3]) + (", …" if len(self.class_names) > 3 else "")
        return (
            f"Model({self.config.detector['name']} on {self.config.backbone.name}, "
            f"{counted(len(self.class_names), 'class')}: {shown}; {self.device})"
        )

    @overload
    def predict(  # type: ignore[overload-overlap] # a string is an iterable of strings
        self,
        images: ImageSource,
        *,
        score_threshold: float = ...,
        color: ColorOrder = ...,
        stream: Literal[False] = ...,
    ) -> Detections: ...
    @overload
    def predict(
        self,
        images: Iterable[Any],
        *,
        score_threshold: float = ...,
        color: ColorOrder = ...,
        stream: Literal[False] = ...,
    ) -> list[Detections]: ...
    @overload
    def predict(
        self,
        images: Any,
        *,
        score_threshold: float = ...,
        color: ColorOrder = ...,
        stream: Literal[True],
    ) -> Iterator[Detections]: ...
    def predict(
        self,
        images: Any,
        *,
        score_threshold: float = SCORE_THRESHOLD,
        color: ColorOrder = "rgb",
        stream: bool = False,
    ) -> Any:
        """Detections in the pixels of each image, sorted by falling score.

        An image is a path, a URL (http, https), a Pillow image, bytes or a binary file of an
        image, an array `[H, W, 3]` (also `[H, W]`, gray, and `[H, W, 4]`, whose alpha is dropped),
        or a tensor `[3, H, W]`; arrays and tensors are uint8, or float in 0…1. Several images are
        a folder (those below it, sorted by path), a glob, a tensor `[B, 3, H, W]`, or an iterable
        of all these. To a type checker, a string is one image: it takes `[folder]` for a folder.

        Args:
            images: one or several.
            score_threshold: detections below are left out.
            color: order of the channels of arrays and tensors; OpenCV reads files as `bgr`.
            stream: return an iterator, which holds no more than a batch at a time.

        Returns:
            `Detections` for one image, a list of them for several, an iterator with `stream`.

        Raises:
            DetectError: something that is no readable image.
        """
        found = self._predict(samples_of(images, color), score_threshold)
        if stream:
            return found
        if is_one_image(images):
            (one,) = found
            return one
        return list(found)

    def _predict(self, samples: Iterator[Sample], score_threshold: float) -> Iterator[Detections]:
        while batch := list(islice(samples, self.config.evaluation.batch_size)):
            inputs = [fit_to_input(sample, self.detector.input_spec) for sample in batch]
            del batch  # the images may be large
            for found in predict(self.detector, Batch.from_samples(inputs).to(self.device)):
                kept = found.with_score_at_least(score_threshold)
                yield replace(kept, class_names=self.class_names)

    def draw(
        self,
        image: ImageSource,
        *,
        score_threshold: float = SCORE_THRESHOLD,
        color: ColorOrder = "rgb",
    ) -> Image:
        """Draw what is found in an image: a Pillow image, which a notebook shows.

        The arguments and errors are those of `predict`, for one image.
        """
        array = image_of(image, color)
        found: Detections = self.predict(array, score_threshold=score_threshold)
        return found.plot(array)

    def evaluate(
        self, data: DetectionDataset | str | Path | None = None, split: str | None = None
    ) -> Evaluation:
        """Judge the model on a split, by the metrics of its detector.

        Args:
            data: a data set, or the folder of one; None for that of the run's config.
            split: of a folder, `test` by default; with neither, the test split of the config, or
                the validation split where there is no other.

        Raises:
            DetectError: faults in the data, or classes that are not the model's.
        """
        dataset = self._split(data, split)
        if tuple(dataset.class_names) != self.class_names:
            raise DetectError(
                f"data: expected the classes of the model, {', '.join(self.class_names)}, found "
                f"{', '.join(dataset.class_names)}"
            )
        return evaluate(self.detector, dataset, self.config, self.device)

    def _split(
        self, data: DetectionDataset | str | Path | None, split: str | None
    ) -> DetectionDataset:
        quiet = Console(quiet=True)
        if data is None and split is None:
            key = "test_split" if sources(self.config, "test_split") else "val_split"
            return read_split(self.config, key, quiet, self.class_names)
        if data is None or isinstance(data, str | Path):
            given = self.config.data.root if data is None else data
            if isinstance(given, list):
                raise DetectError("split: the run has several data folders; name one as data")
            return read_dataset(given, split or "test", classes=self.class_names)
        if split is not None:
            raise DetectError("split: expected none beside a data set, which is one split")
        return data


def load(path: str | Path, device: str = "auto", overrides: Sequence[str] = ()) -> Model:
    """Load a model from a run folder (its best checkpoint) or from a checkpoint file.

    Args:
        path: of the folder or file.
        device: see `choose_device`.
        overrides: `key.sub=value` over the settings that it was trained with, such as
            `detector.iou_threshold=0.4`; those that change its network are errors.

    Raises:
        DetectError: no such run or checkpoint, or a file that is none.
    """
    file = find_checkpoint(Path(path))
    content = load_checkpoint(file)
    if "detector" not in content:
        raise DetectError(
            f"{file}: expected a detector, found another model, such as the classifier that "
            "'detect pretrain' makes; give its path as backbone.weights of a detector's config"
        )
    settings = Settings(content["config"], {})
    for override in overrides:
        settings.override(override)
    config = resolve(settings, f"the config in {path}")
    target = choose_device(device)
    detector = build_detector(config.without_weights(), len(content["class_names"]))
    try:
        detector.load_state_dict(content["detector"])
    except RuntimeError as error:
        if not overrides:
            raise
        raise DetectError(
            f"{file}: the model is another one than the settings {' '.join(overrides)} say; leave "
            "out those that change the network"
        ) from error
    lack = detector.lacks()
    if lack is not None:
        raise DetectError(f"{file}: {lack}")
    names = tuple(content["class_names"])
    return Model(detector.to(target).eval(), names, config, target, Path(path))


def rpn_source(run: str) -> RPNProposals:
    """The proposals of a run of Faster R-CNN, on the device that `auto` means.

    Raises:
        DetectError: no such run, or one of another detector.
    """
    model = load(run)
    if not isinstance(model.detector, FasterRCNN):
        raise DetectError(
            f"rpn:{run}: expected a run of a faster_rcnn, found one of a "
            f"{model.config.detector['name']}"
        )
    content = find_checkpoint(Path(run)).read_bytes()
    return RPNProposals(model.detector, hashlib.sha256(content).hexdigest())


PREFIXES["rpn:"] = rpn_source


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that `path` means: itself, or the best (else the last) one of a run folder."""
    if path.is_file():
        return path
    candidates = [path / CHECKPOINTS / "best.pt", path / CHECKPOINTS / "last.pt"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    found = "a folder without checkpoints" if path.is_dir() else "nothing"
    raise DetectError(
        f"{path}: expected a checkpoint file or a run folder with {CHECKPOINTS}/best.pt, "
        f"found {found}; 'detect train' makes one"
    )


def build_detector(
    config: Config, num_classes: int, report: Callable[[str], object] | None = None
) -> Detector:
    """The detector of a config, its weights drawn from the config's seed.

    Args:
        config: of the detector.
        num_classes: C.
        report: called with each remark on the backbone's weights.

    Raises:
        DetectError: a backbone, weights or settings that are unavailable.
    """
    # torch draws initial weights from its global generator and offers no other way
    torch.manual_seed(config.seed)
    section = config.backbone
    backbone = create_backbone(
        section.name, section.weights, section.freeze, report, section.image_size
    )
    detector_class = DETECTORS[config.detector["name"]]
    build: Callable[..., Detector] = detector_class
    detector = build(backbone, num_classes, **config.detector_options)
    return detector.to(memory_format=memory_format(config))


def take_weights(detector: Detector, path: Path) -> list[str]:
    """Start a detector from another model: take every tensor of equal name and shape.

    Args:
        detector: changed in place.
        path: a run folder or checkpoint of any detector or classifier.

    Returns:
        What was taken and what was not, for the user.

    Raises:
        DetectError: no such model, or nothing of it fits.
    """
    file = find_checkpoint(path)
    content = load_checkpoint(file)
    source = content.get("detector", content.get("classifier", {}))
    own = detector.state_dict()
    fitting = {
        name: tensor
        for name, tensor in source.items()
        if name in own and tensor.shape == own[name].shape
    }
    if not fitting:
        raise DetectError(
            f"{file}: initial_weights: expected a model with parameters of this detector, found "
            "none that fits; its backbone must be the same"
        )
    detector.load_state_dict(fitting, strict=False)
    lines = [f"{len(fitting)} of {len(own)} tensors taken from {file}"]
    for what, names in (
        ("keep their random weights", own.keys() - fitting.keys()),
        ("not taken, since they have no counterpart here", source.keys() - fitting.keys()),
    ):
        if names:
            parts = sorted({".".join(name.split(".")[:2]) for name in names})
            shown = ", ".join(parts[:5]) + (", …" if len(parts) > 5 else "")
            lines.append(f"  {len(names)} {what}: {shown}")
    return lines
