"""Train a detector as a config says, and judge it."""

from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from detect.config import Config
from detect.data import DetectionDataset, ProposedSamples, TrainingBatches
from detect.detectors import Detector
from detect.evaluation import (
    write_detections_json,
)
from detect.experiment.datasets import augmentation_of, read_splits
from detect.experiment.evaluation import Evaluation, evaluate, proposals_of
from detect.experiment.model import build_detector, take_weights
from detect.experiment.proposing import ProposedImages
from detect.experiment.run import (
    CHECKPOINTS,
    cached,
    complete_run,
    prepare_run,
    record_run,
    running,
    start_engine,
)
from detect.files import write_json
from detect.forecast import in_turn
from detect.proposals import Proposals
from detect.training import (
    MEAN_AVERAGE_PRECISION,
    CheckpointFolder,
    GradientSettings,
    Plan,
    Processes,
    ProgressDisplay,
    Score,
    TrainingRun,
    read_journal,
)
from detect.wording import counted


def train(
    config: Config,
    folder: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    console: Console | None = None,
    splits: dict[str, DetectionDataset] | None = None,
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
        splits: the data, by `train_split`, `val_split` and `test_split`; None reads what the config
            names.

    Returns:
        The evaluation, or None when there is neither a test nor a validation split.

    Raises:
        DetectError: anything that a user can fix.
        Interrupted: Ctrl-C; the run can be continued.
    """
    with running(config, console) as (processes, shown):
        return _train(config, folder, resume, device, shown, processes, splits)


def _train(
    config: Config,
    folder: Path,
    resume: bool,
    device: str,
    console: Console,
    processes: Processes,
    splits: dict[str, DetectionDataset] | None,
) -> Evaluation | None:
    target = prepare_run(config, folder, resume, device, console, processes)
    if splits is None:
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
    proposals = {}
    if detector.proposal_source is not None:
        sizes = {
            f"{split.removesuffix('_split')}, {counted(len(dataset), 'image')}": split
            for split, dataset in splits.items()
        }
        say = partial(console.print, highlight=False)
        with processes.first_alone():
            for _, split in in_turn(
                sizes, "splits to find proposals in", say, size=lambda split: len(splits[split])
            ):
                proposals[split] = proposals_of(detector, splits[split], config, console)

    def evaluate_now() -> dict[str, float]:
        assert validation_split is not None
        found = proposals.get("val_split")
        show = display.show_judging
        return evaluate(
            detector, validation_split, config, target, proposals=found, progress=show
        ).scores()

    display = ProgressDisplay(console)

    run = TrainingRun(
        detector,
        folder,
        target,
        {"config": config.as_dict(), "class_names": list(names)},
        evaluate_now if validation_split is not None else None,
        display,
        score=Score("pck_20", "PCK@0.2") if "pose" in detector.metrics else MEAN_AVERAGE_PRECISION,
        engine=config.engine_settings,
        processes=processes,
    )
    plan = _plan(config, detector, training_split, target, proposals.get("train_split"), processes)
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
    evaluation = evaluate(detector, judged_split, config, target, proposals=found, console=console)
    if processes.is_first:
        write_detections_json(folder / "detections.json", evaluation.detections)
        write_json(folder / "evaluation.json", evaluation.as_dict())
    return evaluation


def _plan(
    config: Config,
    detector: Detector,
    dataset: DetectionDataset,
    device: torch.device,
    proposals: Proposals | None,
    processes: Processes,
) -> Plan:
    augmentation = augmentation_of(config, dataset)
    samples = dataset if config.data.include_difficult else dataset.without_difficult()
    spec, num_workers = detector.input_spec, config.data.num_workers

    images = cached(samples, config)

    def batches(settings: GradientSettings) -> TrainingBatches:
        return TrainingBatches(
            images if proposals is None else ProposedSamples(images, proposals),
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
    if proposals is not None:
        proposed = ProposedImages(samples, proposals, spec, num_workers)
    return Plan(settings, batches, proposed, Path(config.data.cache))
