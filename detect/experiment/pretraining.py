"""Training a backbone as a classifier, for weights that detectors start from. Floor 4."""

from pathlib import Path

import torch
from jaxtyping import Int
from rich.console import Console
from torch import Tensor

from detect.backbones import create_backbone
from detect.backbones.classifier import Classifier
from detect.config import PretrainConfig
from detect.data import (
    Augmentation,
    ClassificationAugmentation,
    EvaluationBatches,
    ImageFolder,
    ObjectCrops,
    TrainingBatches,
)
from detect.detectors.base import evaluating
from detect.evaluation import ClassificationEvaluator, ClassificationReport
from detect.experiment.datasets import read_splits_for_classifiers
from detect.experiment.run import (
    cached,
    complete_run,
    memory_format,
    prepare_run,
    record_run,
    running,
    start_engine,
)
from detect.files import write_json
from detect.structures import Batch, InputSpec
from detect.training import (
    GradientPhase,
    Processes,
    ProgressDisplay,
    Score,
    TrainingRun,
    present_processes,
)
from detect.wording import counted

# Key under which a checkpoint has the classifier's weights.
KIND = "classifier"

Images = ObjectCrops | ImageFolder


def pretrain(
    config: PretrainConfig,
    folder: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    console: Console | None = None,
) -> ClassificationReport | None:
    """Train a backbone as a classifier; leaves a run folder like that of a detector.

    Its `checkpoints/best.pt` is a weights file: `backbone.weights` of any detector with this
    backbone takes its path.

    Args:
        config: of the run.
        folder: of the run.
        resume: continue the run that is in `folder`, if there is one.
        device: see `choose_device`.
        console: where progress is shown.

    Returns:
        The accuracy on the test split (on the validation split where there is no other), or None
        when there is neither.

    Raises:
        DetectError: anything that a user can fix.
        Interrupted: Ctrl-C; the run can be continued.
    """
    with running(config, console) as (processes, shown):
        return _pretrain(config, folder, resume, device, shown, processes)


def _pretrain(
    config: PretrainConfig,
    folder: Path,
    resume: bool,
    device: str,
    console: Console,
    processes: Processes,
) -> ClassificationReport | None:
    target = prepare_run(config, folder, resume, device, console, processes)
    with processes.first_alone():
        splits = read_classification_splits(config, console)
    training_split, validation_split = splits["train_split"], splits.get("val_split")
    judged_split = splits.get("test_split", validation_split)
    names = training_split.class_names
    with processes.first_alone():  # it downloads, the others find the file
        classifier = build_classifier(config, len(names), console)
    classifier = classifier.to(target)
    record_run(folder, config, target, processes)

    def evaluate_now() -> dict[str, float]:
        assert validation_split is not None
        report = evaluate_classifier(classifier, validation_split, config, target)
        return {"top1": report.top1, "top5": report.top5}

    run = TrainingRun(
        classifier,
        folder,
        target,
        {"config": config.as_dict(), "class_names": list(names)},
        evaluate_now if validation_split is not None else None,
        ProgressDisplay(console),
        kind=KIND,
        score=Score("top1", "top-1 accuracy"),
        engine=config.engine_settings,
        processes=processes,
    )
    phase = _phase(config, classifier, training_split, target, processes)
    start_engine(classifier, config, processes)
    complete_run(run, [phase], resume)
    report = None
    if judged_split is not None:
        report = evaluate_classifier(classifier, judged_split, config, target)
        if processes.is_first:
            write_json(folder / "evaluation.json", report.as_dict())
    console.print(
        f"Weights for detectors with this backbone: backbone.weights={run.best}",
        highlight=False,
        soft_wrap=True,
    )
    return report


def build_classifier(
    config: PretrainConfig, num_classes: int, console: Console | None = None
) -> Classifier:
    """The classifier of a config, its weights drawn from the config's seed.

    Raises:
        DetectError: a backbone or weights that are unavailable.
    """
    # torch draws initial weights from its global generator and offers no other way
    torch.manual_seed(config.seed)
    section = config.backbone
    report = None if console is None else console.print
    backbone = create_backbone(
        section.name, section.weights, section.freeze, report, section.image_size
    )
    return Classifier(backbone, num_classes).to(memory_format=memory_format(config))


def read_classification_splits(config: PretrainConfig, console: Console) -> dict[str, Images]:
    """Read all splits of a config that are not null, with the classes of the training split.

    Raises:
        DetectError: faults in the data, all of them, unless the config says to skip them.
    """
    data = config.data
    splits: dict[str, Images] = {}
    for name, dataset in read_splits_for_classifiers(config, console).items():
        if isinstance(dataset, ImageFolder):
            splits[name] = dataset
            for fault in dataset.faults:
                console.print(str(fault), highlight=False, markup=False, soft_wrap=True)
            continue
        crops = splits[name] = ObjectCrops(
            dataset if data.include_difficult else dataset.without_difficult(),
            context=data.context,
            background_per_image=data.background_per_image,
            seed=config.seed,
            avoid=dataset.truths,
        )
        counts = ", ".join(f"{label} {count}" for label, count in crops.class_counts().items())
        console.print(
            f"{name.removesuffix('_split')}: {counted(len(crops), 'crop')}; {counts}",
            highlight=False,
        )
        if crops.num_unplaced:
            console.print(f"  no room for {counted(crops.num_unplaced, 'background crop')}")
    return splits


def evaluate_classifier(
    classifier: Classifier, images: Images, config: PretrainConfig, device: torch.device
) -> ClassificationReport:
    """Run a classifier over a data set and judge it; several processes share the batches."""
    processes = present_processes()
    evaluator = ClassificationEvaluator(images.class_names)
    batches = EvaluationBatches(
        images,
        _input_spec(config, classifier),
        batch_size=config.evaluation.batch_size,
        num_workers=config.data.num_workers,
        share=(processes.rank, processes.count),
    )
    found: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad(), evaluating(classifier):
        for batch in batches:
            logits = classifier(batch.to(device).unit_images())
            found.append((logits.cpu(), labels_of(batch)))
    for logits, labels in processes.gather_in_turn(found):
        evaluator.update(logits, labels)
    return evaluator.compute()


def labels_of(batch: Batch) -> Int[Tensor, "B"]:
    """The class of each image of one object."""
    return torch.cat([truth.labels for truth in batch.truths])


def _phase(
    config: PretrainConfig,
    classifier: Classifier,
    images: Images,
    device: torch.device,
    processes: Processes,
) -> GradientPhase:
    (name,) = config.phase_names
    settings = config.settings_of(name)
    options = config.data.augmentation
    batches = TrainingBatches(
        cached(images, config),
        None if options is None else ClassificationAugmentation(Augmentation(**options)),
        _input_spec(config, classifier),
        batch_size=settings.batch_size,
        seed=config.seed,
        num_workers=config.data.num_workers,
        pin_memory=device.type == "cuda",
        share=(processes.rank, processes.count),
    )

    def loss(batch: Batch) -> dict[str, Tensor]:
        return classifier.loss(batch.unit_images(), labels_of(batch))

    return GradientPhase(name, classifier, loss, batches, settings)


def _input_spec(config: PretrainConfig, classifier: Classifier) -> InputSpec:
    side = config.data.input_size or classifier.backbone.image_size
    return InputSpec((side, side))
