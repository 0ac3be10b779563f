"""Training, evaluation and inference from a config: the one place that joins all. Floor 4."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from rich.console import Console
from rich.table import Table

from detect.backbones import build_backbone
from detect.config import Config, Experiment, Settings, resolve
from detect.data import (
    SHAPE_CLASSES,
    Augmentation,
    DataFaults,
    DataFormat,
    EvaluationBatches,
    Fault,
    KeypointDataset,
    ProposedSamples,
    TrainingBatches,
    VOCDataset,
    VOCSource,
    annotation_file,
    ensure_figures,
    ensure_shapes,
    fit_to_input,
    image_folder,
    person_crops,
    read_coco_keypoints,
    read_data,
    read_image,
    read_imagenet_localization,
)
from detect.detectors import DETECTORS, Detector, FasterRCNN, predict
from detect.detectors.faster_rcnn import RPNProposals
from detect.detectors.proposing import PREFIXES
from detect.errors import DetectError
from detect.evaluation import (
    DetectionSet,
    LocalizationEvaluator,
    LocalizationReport,
    PoseEvaluator,
    PoseReport,
    VOCEvaluator,
    VOCReport,
    write_detections_json,
)
from detect.files import write_json
from detect.proposals import Proposals
from detect.proposing import ProposedPictures, find_proposals
from detect.runs import (
    CHECKPOINTS,
    cached,
    choose_device,
    complete_run,
    memory_format,
    prepare_run,
    record_run,
    running,
    start_engine,
)
from detect.structures import Batch, Detections, GroundTruth, ImageMeta, Sample
from detect.training import (
    MEAN_AVERAGE_PRECISION,
    CheckpointFolder,
    GradientSettings,
    Plan,
    Processes,
    ProgressDisplay,
    Score,
    TrainingRun,
    load_checkpoint,
    present_processes,
    read_journal,
)

# data sets of any kind, with or without joints
Pictures = VOCDataset | KeypointDataset
Picture = str | Path | UInt8[np.ndarray, "H W 3"]
SPLITS = ("train_split", "val_split", "test_split")


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

    def predict(
        self, pictures: Picture | Sequence[Picture], *, score_threshold: float = 0.0
    ) -> Any:
        """Detections in the pixels of each picture, sorted by falling score.

        Args:
            pictures: a path, an RGB array `[H, W, 3]` uint8, or a list of them.
            score_threshold: detections below are left out.

        Returns:
            `Detections` for one picture, a list of them for a list.

        Raises:
            DetectError: a file that is no readable picture.
        """
        if isinstance(pictures, str | Path | np.ndarray):
            return self.predict([pictures], score_threshold=score_threshold)[0]
        samples = [_as_sample(picture, number) for number, picture in enumerate(pictures)]
        size = self.config.evaluation.batch_size
        return [
            found.with_score_at_least(score_threshold)
            for begin in range(0, len(samples), size)
            for found in self._predict_samples(samples[begin : begin + size])
        ]

    def _predict_samples(self, samples: Sequence[Sample]) -> list[Detections]:
        inputs = [fit_to_input(sample, self.detector.input_spec) for sample in samples]
        return predict(self.detector, Batch.from_samples(inputs).to(self.device))


@dataclass(frozen=True)
class Evaluation:
    """What a detector found in a data set, and how that was judged.

    Attributes:
        detections: of each picture.
        report: mAP by both VOC metrics.
        localization: ImageNet's errors, for detectors that name one object a picture.
        pose: the joints found, for detectors that give joints.
    """

    detections: DetectionSet
    report: VOCReport
    localization: LocalizationReport | None = None
    pose: PoseReport | None = None

    def scores(self) -> dict[str, float]:
        """The numbers that are followed during a training."""
        scores = {"map_area": self.report.map_area, "map_11point": self.report.map_11point}
        if self.localization is not None:
            scores["top1_localization_error"] = self.localization.top1_localization_error
            scores["top5_localization_error"] = self.localization.top5_localization_error
            scores["mean_iou"] = self.localization.mean_iou
        if self.pose is not None:
            scores["pck_20"] = self.pose.pck(0.2)
            scores["pcp"] = self.pose.pcp
        return scores

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON: the VOC report's, and a key for each other report."""
        values = self.report.as_dict()
        if self.localization is not None:
            values["localization"] = self.localization.as_dict()
        if self.pose is not None:
            values["pose"] = self.pose.as_dict()
        return values

    def tables(self) -> list[Table]:
        """For the terminal."""
        reports = [self.report, self.localization, self.pose]
        return [report.table() for report in reports if report is not None]


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


def sources(config: Experiment, split: str) -> list[VOCSource]:
    """The roots and split names that `train_split`, `val_split` or `test_split` of a config mean.

    Raises:
        DetectError: not as many names as roots.
    """
    roots = _roots(config)
    names = getattr(config.data, split)
    if not isinstance(names, list):
        names = [names] * len(roots)
    if len(names) != len(roots):
        raise DetectError(
            f"data.{split}: expected one name for each of the {len(roots)} folders of data.root, "
            f"found {names}"
        )
    return [
        VOCSource(Path(root), name)
        for root, name in zip(roots, names, strict=True)
        if name is not None
    ]


def read_split(
    config: Experiment,
    split: str,
    console: Console,
    class_names: Sequence[str] | None = None,
) -> Pictures:
    """Read and check a split; the built-in set is drawn first if it is not there.

    Args:
        config: says where.
        split: `train_split`, `val_split` or `test_split`.
        console: where drawing, checking and leaving out are reported.
        class_names: that the split must keep to; None takes those of the config.

    Raises:
        DetectError: faults in the data, all of them, unless the config says to skip them.
    """
    data = config.data
    if data.kind in ("figures", "coco_keypoints"):
        return _read_keypoints(config, split, console, class_names)
    if data.kind == "imagenet_localization":
        return _read_imagenet(config, split, console, class_names)
    if data.kind == "shapes":
        _draw_shapes(config, console)
    found = sources(config, split)
    # a small set may lack some of its classes
    classes = class_names or (sorted(SHAPE_CLASSES) if data.kind == "shapes" else data.classes)
    with console.status(f"Checking {', '.join(str(source) for source in found)}"):
        dataset = read_data(found, classes, format_of_kind(data.kind), on_error=data.on_error)
    _report_data(dataset, split, console)
    return dataset


def format_of_kind(kind: str) -> DataFormat | None:
    """The format of the folders of a `data.kind`; None where it is to be found out."""
    formats: dict[str, DataFormat] = {"voc": "voc", "shapes": "voc", "coco": "coco", "yolo": "yolo"}
    return formats.get(kind)


def _read_keypoints(
    config: Experiment, split: str, console: Console, class_names: Sequence[str] | None
) -> KeypointDataset:
    data = config.data
    (source,) = _single_source(config, split)
    if data.kind == "figures":
        size = (data.image_size, data.image_size)
        with console.status(f"Drawing the stick figures into {source.root}"):
            ensure_figures(source.root, data.num_images, seed=0, image_size=size)
    file = annotation_file(source.root, source.split)
    with console.status(f"Checking {file}"):
        dataset = read_coco_keypoints(
            file, image_folder(source.root), class_names, on_error=data.on_error
        )
    crops = getattr(data, "person_crops", None)
    if crops is not None:
        dataset = person_crops(dataset, crops)
    _report_data(dataset, split, console)
    return dataset


def _read_imagenet(
    config: Experiment, split: str, console: Console, class_names: Sequence[str] | None
) -> VOCDataset:
    (source,) = _single_source(config, split)
    with console.status(f"Checking {source}"):
        dataset = read_imagenet_localization(
            source.root, source.split, class_names, on_error=config.data.on_error
        )
    _report_data(dataset, split, console)
    if dataset.num_without_box:
        console.print(f"  left out, without a box: {dataset.num_without_box} pictures")
    return dataset


def _single_source(config: Experiment, split: str) -> list[VOCSource]:
    found = sources(config, split)
    if len(found) != 1:
        raise DetectError(
            f"data.root: data of kind {config.data.kind!r} has one folder, found {len(found)}"
        )
    return found


def read_splits(config: Experiment, console: Console) -> dict[str, Pictures]:
    """Read all splits of a config that are not null, with the classes of the training split.

    Raises:
        DataFaults: with the faults of all of them together.
        DetectError: there is no training split, or one of them is missing or empty.
    """
    if not sources(config, "train_split"):
        raise DetectError("data.train_split: expected the name of a split, found null")
    datasets: dict[str, Pictures] = {}
    faults: list[Fault] = []
    for split in SPLITS:
        if not sources(config, split):
            continue
        training_split = datasets.get("train_split")
        names = None if training_split is None else training_split.class_names
        try:
            datasets[split] = read_split(config, split, console, names)
        except DataFaults as error:
            faults += error.faults
    if faults:
        roots = [Path(root) for root in _roots(config)]
        raise DataFaults(list(dict.fromkeys(faults)), roots)
    return datasets


def train(
    config: Config,
    folder: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    console: Console | None = None,
) -> Evaluation | None:
    """Train a detector and judge it; leaves a run folder.

    The folder holds `config.yaml` (resolved), `metrics.jsonl`, `checkpoints/last.pt` and `best.pt`,
    and, after the last epoch, `evaluation.json` and `detections.json` of the best checkpoint on
    the test split (on the validation split where there is no other), and `curves.png`.

    Args:
        config: of the run.
        folder: of the run.
        resume: continue the run that is in `folder`, if there is one.
        device: see `choose_device`.
        console: where progress is shown.

    Returns:
        The evaluation, or None when there is neither a test nor a validation split.

    Raises:
        DetectError: anything that a user can mend.
        Interrupted: Ctrl-C; the run can be continued.
    """
    with running(config, console) as (processes, shown):
        return _train(config, folder, resume, device, shown, processes)


def _train(
    config: Config,
    folder: Path,
    resume: bool,
    device: str,
    console: Console,
    processes: Processes,
) -> Evaluation | None:
    target = prepare_run(config, folder, resume, device, console, processes)
    with processes.first_alone():
        splits = read_splits(config, console)
    training_split, validation_split = splits["train_split"], splits.get("val_split")
    judged_split = splits.get("test_split", validation_split)
    names = training_split.class_names
    with processes.first_alone():  # it downloads, the others find the file
        detector = build_detector(config, len(names), console.print)
    continues = resume and CheckpointFolder(folder / CHECKPOINTS).has_state()
    if config.initial_weights != "none" and not continues:
        for line in take_weights(detector, Path(config.initial_weights)):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    detector = detector.to(target)
    record_run(folder, config, target, processes)
    # those of all splits, so that nothing is found to be missing after the training
    with processes.first_alone():
        proposals = {
            split: proposals_of(detector, dataset, config, console)
            for split, dataset in splits.items()
        }

    def evaluate_now() -> dict[str, float]:
        assert validation_split is not None
        found = proposals["val_split"]
        return evaluate(detector, validation_split, config, target, proposals=found).scores()

    run = TrainingRun(
        detector,
        folder,
        target,
        {"config": config.as_dict(), "class_names": list(names)},
        evaluate_now if validation_split is not None else None,
        ProgressDisplay(console),
        score=Score("pck_20", "PCK@0.2") if "pose" in detector.metrics else MEAN_AVERAGE_PRECISION,
        engine=config.engine_settings,
        processes=processes,
    )
    plan = _plan(config, detector, training_split, target, proposals["train_split"], processes)
    kept = [found for found in proposals.values() if found is not None]
    is_told = any(line["kind"] == "proposals" for line in read_journal(run.journal.path))
    if kept and not is_told:
        run.journal.write(
            kind="proposals", step=0, cache_bytes=sum(found.boxes.nbytes for found in kept)
        )
    phases = detector.phases(plan)
    start_engine(detector, config, processes)
    complete_run(run, phases, resume)
    if judged_split is None:
        console.print("Not judged: data.val_split and data.test_split are both null")
        return None
    found = proposals.get("test_split", proposals.get("val_split"))
    evaluation = evaluate(detector, judged_split, config, target, proposals=found)
    if processes.is_first:
        write_detections_json(folder / "detections.json", evaluation.detections)
        write_json(folder / "evaluation.json", evaluation.as_dict())
    return evaluation


def evaluate(
    detector: Detector,
    dataset: Pictures,
    config: Config,
    device: torch.device,
    progress: Callable[[int], None] | None = None,
    *,
    proposals: Proposals | None = None,
) -> Evaluation:
    """Run a detector over a data set and judge what it finds.

    Args:
        detector: on `device`.
        dataset: whose class names are the detector's.
        config: gives the IoU threshold, the batch size and the number of workers.
        device: of the detector.
        progress: called with the number of pictures of each batch that is done.
        proposals: of the data set, for a detector that wants some; None lets them be found.
    """
    if proposals is None:
        proposals = proposals_of(detector, dataset, config, Console(quiet=True))
    names, iou_threshold = dataset.class_names, config.evaluation.iou_threshold
    evaluator = VOCEvaluator(names, iou_threshold)
    localization = (
        LocalizationEvaluator(names, iou_threshold) if "localization" in detector.metrics else None
    )
    pose = None
    if "pose" in detector.metrics and isinstance(dataset, KeypointDataset):
        pose = PoseEvaluator(dataset.joint_names, dataset.limbs)
    found = _detect(detector, dataset, config, device, progress, proposals)
    evaluator.update(found, dataset.truths)
    if localization is not None:
        localization.update(found, dataset.truths)
    if pose is not None:
        pose.update(found, dataset.truths)
    return Evaluation(
        DetectionSet(names, dataset.image_ids, tuple(found)),
        evaluator.compute(),
        None if localization is None else localization.compute(),
        None if pose is None else pose.compute(),
    )


def _detect(
    detector: Detector,
    dataset: Pictures,
    config: Config,
    device: torch.device,
    progress: Callable[[int], None] | None,
    proposals: Proposals | None,
) -> list[Detections]:
    """The detections of all pictures in order; several processes share the batches.

    Each batch is the one that a single process would have, since a picture's numbers depend, in
    the last bits, on those it is computed with.
    """
    processes = present_processes()
    batches = EvaluationBatches(
        dataset if proposals is None else ProposedSamples(dataset, proposals),
        detector.input_spec,
        batch_size=config.evaluation.batch_size,
        num_workers=config.data.num_workers,
        share=(processes.rank, processes.count),
    )
    own: list[list[Detections]] = []
    for batch in batches:
        own.append(predict(detector, batch.to(device)))
        if progress is not None:
            progress(len(batch))
    return [found for batch in processes.gather_in_turn(own) for found in batch]


def proposals_of(
    detector: Detector, dataset: Pictures, config: Config, console: Console
) -> Proposals | None:
    """The proposals of a data set as a detector wants them; None if it wants none.

    Raises:
        DetectError: they cannot be found, such as in pictures with joints.
    """
    if detector.proposal_source is None:
        return None
    if not isinstance(dataset, VOCDataset):
        raise DetectError(
            f"data.kind: {config.detector['name']} looks for proposals in whole pictures with "
            f"boxes, found data of kind {config.data.kind!r}; take voc, coco, yolo or shapes"
        )
    return find_proposals(detector, dataset, Path(config.data.cache), console)


def _plan(
    config: Config,
    detector: Detector,
    dataset: Pictures,
    device: torch.device,
    proposals: Proposals | None,
    processes: Processes,
) -> Plan:
    options = config.data.augmentation
    swaps = dataset.joint_swaps if isinstance(dataset, KeypointDataset) else ()
    augmentation = None if options is None else Augmentation(**options, joint_swaps=swaps)
    samples = dataset if config.data.include_difficult else dataset.without_difficult()
    spec, num_workers = detector.input_spec, config.data.num_workers

    pictures = cached(samples, config)

    def batches(settings: GradientSettings) -> TrainingBatches:
        return TrainingBatches(
            pictures if proposals is None else ProposedSamples(pictures, proposals),
            augmentation,
            spec,
            batch_size=settings.batch_size,
            seed=config.seed,
            num_workers=num_workers,
            pin_memory=device.type == "cuda",
            share=(processes.rank, processes.count),
        )

    settings = {name: config.settings_of(name) for name in detector.phase_names}
    proposed = None
    if proposals is not None and isinstance(samples, VOCDataset):
        proposed = ProposedPictures(samples, proposals, spec, num_workers)
    return Plan(settings, batches, proposed, Path(config.data.cache))


def _roots(config: Experiment) -> list[str]:
    return [config.data.root] if isinstance(config.data.root, str) else config.data.root


def _draw_shapes(config: Experiment, console: Console) -> None:
    data = config.data
    if not isinstance(data.root, str):
        raise DetectError("data.root: the built-in shapes set has one folder, found a list")
    size = (data.image_size, data.image_size)
    with console.status(f"Drawing the shapes set into {data.root}"):
        ensure_shapes(
            Path(data.root),
            data.num_images,
            seed=0,
            image_size=size,
            max_objects=data.max_objects,
            diameters=data.diameters,
        )


def _report_data(dataset: Pictures, split: str, console: Console) -> None:
    counts = ", ".join(f"{name} {count}" for name, count in dataset.class_counts().items())
    console.print(
        f"{split.removesuffix('_split')}: {len(dataset)} pictures; {counts}", highlight=False
    )
    report_skipped(dataset, console)


def report_skipped(dataset: Pictures, console: Console) -> None:
    """Say what `on_error=skip` has left out of a data set, if anything."""
    if not dataset.num_skipped_images and not dataset.num_skipped_objects:
        return
    console.print(
        f"  left out as faulty (on_error=skip): {dataset.num_skipped_images} pictures, "
        f"{dataset.num_skipped_objects} objects:"
    )
    for fault in dataset.faults:
        if fault.severity == "error":
            console.print(f"  {fault}", highlight=False, markup=False, soft_wrap=True)


def _as_sample(picture: Picture, number: int) -> Sample:
    if isinstance(picture, np.ndarray):
        image, path, image_id = picture, None, str(number)
    else:
        path = Path(picture)
        image, image_id = read_image(path), path.stem
    size = (image.shape[0], image.shape[1])
    return Sample(image, GroundTruth.empty(), ImageMeta(image_id, path, size, size))
