"""Training: phases, the gradient loop, checkpoints. Knows no detector. Floor 2."""

from detect.training.checkpoints import load_checkpoint, save_checkpoint, versions
from detect.training.journal import read_journal
from detect.training.loop import MEAN_AVERAGE_PRECISION, Score, TrainingRun
from detect.training.phases import (
    BatchSource,
    Fit,
    FitPhase,
    GradientPhase,
    Loss,
    Phase,
    PictureSource,
    Plan,
    Watch,
)
from detect.training.progress import ProgressDisplay
from detect.training.settings import GradientSettings

__all__ = [
    "MEAN_AVERAGE_PRECISION",
    "BatchSource",
    "Fit",
    "FitPhase",
    "GradientPhase",
    "GradientSettings",
    "Loss",
    "Phase",
    "PictureSource",
    "Plan",
    "ProgressDisplay",
    "Score",
    "TrainingRun",
    "Watch",
    "load_checkpoint",
    "read_journal",
    "save_checkpoint",
    "versions",
]
