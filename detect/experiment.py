"""Training, evaluation and inference from a config: the one place that joins all. Floor 4."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jaxtyping import UInt8
from rich.console import Console

from detect.backbones import build_backbone
from detect.config import Config, Experiment, Settings, resolve
from detect.data import (
    Augmentation,
    DataFaults,
    Fault,
    TrainingBatches,
    VOCDataset,
    VOCSource,
    ensure_shapes,
    evaluation_batches,
    fit_to_input,
    read_image,
    read_voc,
)
from detect.detectors import DETECTORS, Detector, predict
from detect.errors import DetectError
from detect.evaluation import DetectionSet, VOCEvaluator, VOCReport, write_detections_json
from detect.files import write_json, write_text
from detect.structures import Batch, Detections, GroundTruth, ImageMeta, Sample
from detect.training import (
    GradientSettings,
    Plan,
    ProgressDisplay,
    TrainingRun,
    load_checkpoint,
    save_checkpoint,
)

Picture = str | Path | UInt8[np.ndarray, "H W 3"]
CHECKPOINTS = "checkpoints"
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


def load(path: str | Path, device: str = "auto") -> Model:
    """Load a model from a run folder (its best checkpoint) or from a checkpoint file.

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
    config = resolve(Settings(content["config"], {}), f"the config in {path}")
    target = choose_device(device)
    detector = build_detector(config.without_weights(), len(content["class_names"]))
    detector.load_state_dict(content["detector"])
    return Model(detector.to(target).eval(), tuple(content["class_names"]), config, target)


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


def choose_device(name: str) -> torch.device:
    """`auto` (CUDA if there is any), `cpu`, `cuda` or `cuda:1`.

    Raises:
        DetectError: a device that is not here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DetectError(f"device: expected auto, cpu, cuda or cuda:N, found {name!r}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DetectError(
            f"device: {name} was asked for, and the number of CUDA devices is "
            f"{torch.cuda.device_count()}; 'detect doctor' tells more"
        )
    return device


def describe_device(device: torch.device) -> str:
    """`cuda:0 (NVIDIA …)` or `cpu (2 threads)`."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)"


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
    backbone = build_backbone(section.name, section.weights, section.freeze, report)
    detector_class = DETECTORS[config.detector["name"]]
    build: Callable[..., Detector] = detector_class
    detector = build(backbone, num_classes, **config.detector_options)
    # the layout that convolutions are fastest in, on CPUs as on GPUs
    return detector.to(memory_format=torch.channels_last)


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
) -> VOCDataset:
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
    if data.kind == "shapes":
        _draw_shapes(config, console)
    found = sources(config, split)
    classes = class_names or ("auto" if data.kind == "shapes" else data.classes)
    with console.status(f"Checking {', '.join(str(source) for source in found)}"):
        dataset = read_voc(found, classes, on_error=data.on_error)
    _report_data(dataset, split, console)
    return dataset


def read_splits(config: Experiment, console: Console) -> dict[str, VOCDataset]:
    """Read all splits of a config that are not null, with the classes of the training split.

    Raises:
        DataFaults: with the faults of all of them together.
        DetectError: there is no training split, or one of them is missing or empty.
    """
    if not sources(config, "train_split"):
        raise DetectError("data.train_split: expected the name of a split, found null")
    datasets: dict[str, VOCDataset] = {}
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
) -> VOCReport | None:
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
        The report, or None when there is neither a test nor a validation split.

    Raises:
        DetectError: anything that a user can mend.
        Interrupted: Ctrl-C; the run can be continued.
    """
    console = console or Console(quiet=True)
    target = prepare_run(config, folder, resume, device, console)
    splits = read_splits(config, console)
    training_split, validation_split = splits["train_split"], splits.get("val_split")
    judged_split = splits.get("test_split", validation_split)
    names = training_split.class_names
    detector = build_detector(config, len(names), console.print).to(target)
    write_run_config(folder, config)

    def evaluate_now() -> dict[str, float]:
        assert validation_split is not None
        report = evaluate(detector, validation_split, config, target)[1]
        return {"map_area": report.map_area, "map_11point": report.map_11point}

    identity = {"config": config.as_dict(), "class_names": list(names)}
    run = TrainingRun(
        detector,
        folder,
        target,
        identity,
        evaluate_now if validation_split is not None else None,
        ProgressDisplay(console),
    )
    if resume:
        run.resume()
    begin = time.monotonic()
    run.run(detector.phases(_plan(config, detector, training_split, target)))
    console.print(
        f"Trained in {describe_duration(time.monotonic() - begin)}; the run is in {folder}"
    )
    if validation_split is None:  # no evaluation chose a best one: it is the last
        content = {**identity, "detector": detector.state_dict()}
        save_checkpoint(folder / CHECKPOINTS / "best.pt", content)
    if judged_split is None:
        console.print("Not judged: data.val_split and data.test_split are both null")
        return None
    detector.load_state_dict(load_checkpoint(folder / CHECKPOINTS / "best.pt")["detector"])
    detections, report = evaluate(detector, judged_split, config, target)
    write_detections_json(folder / "detections.json", detections)
    write_json(folder / "evaluation.json", report.as_dict())
    return report


def evaluate(
    detector: Detector,
    dataset: VOCDataset,
    config: Config,
    device: torch.device,
    progress: Callable[[int], None] | None = None,
) -> tuple[DetectionSet, VOCReport]:
    """Run a detector over a data set and judge what it finds.

    Args:
        detector: on `device`.
        dataset: whose class names are the detector's.
        config: gives the IoU threshold, the batch size and the number of workers.
        device: of the detector.
        progress: called with the number of pictures of each batch that is done.
    """
    evaluator = VOCEvaluator(dataset.class_names, config.evaluation.iou_threshold)
    found: list[Detections] = []
    for batch in _batches(detector, dataset, config):
        detections = predict(detector, batch.to(device))
        evaluator.update(detections, dataset.truths[len(found) : len(found) + len(detections)])
        found += detections
        if progress is not None:
            progress(len(detections))
    detection_set = DetectionSet(dataset.class_names, dataset.image_ids, tuple(found))
    return detection_set, evaluator.compute()


def write_run_config(folder: Path, config: Experiment) -> None:
    """Write `config.yaml`, resolved, into a run folder."""
    text = yaml.safe_dump(config.as_dict(), sort_keys=False, allow_unicode=True)
    write_text(folder / "config.yaml", text)


def prepare_run(
    config: Experiment, folder: Path, resume: bool, device: str, console: Console
) -> torch.device:
    """Check that a run may use its folder, and settle on its device.

    Raises:
        DetectError: the folder has another run, or the device is not here.
    """
    _check_folder(config, folder, resume)
    target = choose_device(device)
    if target.type == "cpu":
        _share_cores(config.data.num_workers)
    console.print(f"Device: {describe_device(target)}")
    return target


def _share_cores(num_workers: int) -> None:
    # Threads of torch that share a core with a loader worker wait for one another: measured on two
    # cores, training is up to ten times slower than with a core for each.
    torch.set_num_threads(max(1, torch.get_num_threads() - num_workers))


def _batches(detector: Detector, dataset: VOCDataset, config: Config) -> Iterator[Batch]:
    yield from evaluation_batches(
        dataset,
        detector.input_spec,
        batch_size=config.evaluation.batch_size,
        num_workers=config.data.num_workers,
    )


def _plan(config: Config, detector: Detector, dataset: VOCDataset, device: torch.device) -> Plan:
    options = config.data.augmentation
    augmentation = None if options is None else Augmentation(**options)
    samples = dataset if config.data.include_difficult else dataset.without_difficult()

    def batches(settings: GradientSettings) -> TrainingBatches:
        return TrainingBatches(
            samples,
            augmentation,
            detector.input_spec,
            batch_size=settings.batch_size,
            seed=config.seed,
            num_workers=config.data.num_workers,
            pin_memory=device.type == "cuda",
        )

    return Plan({name: config.settings_of(name) for name in detector.phase_names}, batches)


def _roots(config: Experiment) -> list[str]:
    return [config.data.root] if isinstance(config.data.root, str) else config.data.root


def _check_folder(config: Experiment, folder: Path, resume: bool) -> None:
    last = folder / CHECKPOINTS / "last.pt"
    if not last.exists():
        return
    if not resume:
        raise DetectError(
            f"{folder}: there is a run in this folder already; continue it with --resume, or name "
            "another folder with --out"
        )
    before = _flat(load_checkpoint(last)["config"])
    now = _flat(config.as_dict())
    changed = [
        f"{key}: {before.get(key)!r} before, {now.get(key)!r} now"
        for key in sorted(before.keys() | now.keys())
        # how many processes read the pictures does not change what is read
        if before.get(key) != now.get(key) and key != "data.num_workers"
    ]
    if changed:
        raise DetectError(
            f"{folder}: the run to be continued was begun with other settings. Take them back, or "
            "begin anew with another --out:\n" + "\n".join(f"  {line}" for line in changed)
        )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _draw_shapes(config: Experiment, console: Console) -> None:
    data = config.data
    if not isinstance(data.root, str):
        raise DetectError("data.root: the built-in shapes set has one folder, found a list")
    size = (data.image_size, data.image_size)
    with console.status(f"Drawing the shapes set into {data.root}"):
        ensure_shapes(Path(data.root), data.num_images, seed=0, image_size=size)


def _report_data(dataset: VOCDataset, split: str, console: Console) -> None:
    counts = ", ".join(f"{name} {count}" for name, count in dataset.class_counts().items())
    console.print(
        f"{split.removesuffix('_split')}: {len(dataset)} pictures; {counts}", highlight=False
    )
    report_skipped(dataset, console)


def report_skipped(dataset: VOCDataset, console: Console) -> None:
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


def describe_duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
