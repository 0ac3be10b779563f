"""A trained detector: building, loading and using one."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from detect.backbones import build_backbone
from detect.config import Config, Settings, resolve
from detect.data import (
    fit_to_input,
    read_image,
)
from detect.detectors import DETECTORS, Detector, FasterRCNN, predict
from detect.detectors.faster_rcnn import RPNProposals
from detect.detectors.proposing import PREFIXES
from detect.errors import DetectError
from detect.experiment.run import (
    CHECKPOINTS,
    choose_device,
    memory_format,
)
from detect.structures import Batch, Detections, GroundTruth, ImageMeta, Sample
from detect.training import (
    load_checkpoint,
)

Image = str | Path | UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True)
class Model:
    """A trained detector with all it needs to be used.

    Attributes:
        detector: in evaluation mode, on `device`.
        class_names: of the labels 0 … C−1.
        config: that it was trained with.
        device: that it runs on.
    """

    detector: Detector
    class_names: tuple[str, ...]
    config: Config
    device: torch.device

    def predict(self, images: Image | Sequence[Image], *, score_threshold: float = 0.0) -> Any:
        """Detections in the pixels of each image, sorted by falling score.

        Args:
            images: a path, an RGB array `[H, W, 3]` uint8, or a list of them.
            score_threshold: detections below are left out.

        Returns:
            `Detections` for one image, a list of them for a list.

        Raises:
            DetectError: a file that is no readable image.
        """
        if isinstance(images, str | Path | np.ndarray):
            return self.predict([images], score_threshold=score_threshold)[0]
        samples = [_as_sample(image, number) for number, image in enumerate(images)]
        size = self.config.evaluation.batch_size
        return [
            found.with_score_at_least(score_threshold)
            for begin in range(0, len(samples), size)
            for found in self._predict_samples(samples[begin : begin + size])
        ]

    def _predict_samples(self, samples: Sequence[Sample]) -> list[Detections]:
        inputs = [fit_to_input(sample, self.detector.input_spec) for sample in samples]
        return predict(self.detector, Batch.from_samples(inputs).to(self.device))


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
    return Model(detector.to(target).eval(), tuple(content["class_names"]), config, target)


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
        DetectError: a backbone, weights or settings that are not to be had.
    """
    # torch draws initial weights from its global generator and offers no other way
    torch.manual_seed(config.seed)
    section = config.backbone
    backbone = build_backbone(
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


def _as_sample(source: Image, number: int) -> Sample:
    if isinstance(source, np.ndarray):
        image, path, image_id = source, None, str(number)
    else:
        path = Path(source)
        image, image_id = read_image(path), path.stem
    size = (image.shape[0], image.shape[1])
    return Sample(image, GroundTruth.empty(), ImageMeta(image_id, path, size, size))
