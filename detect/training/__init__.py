"""Training: phases, the gradient loop, checkpoints. Knows no detector. Floor 2."""

from detect.training.batch_norm import synchronize_batch_norm
from detect.training.checkpoints import (
    CheckpointFolder,
    load_checkpoint,
    save_checkpoint,
    versions,
)
from detect.training.journal import read_journal
from detect.training.loop import MEAN_AVERAGE_PRECISION, Score, TrainingRun
from detect.training.phases import (
    BatchSource,
    Fit,
    FitPhase,
    GradientPhase,
    ImageSource,
    Loss,
    Phase,
    Plan,
    Watch,
)
from detect.training.processes import (
    ALONE,
    Processes,
    joined_processes,
    local_rank,
    present_processes,
)
from detect.training.progress import ProgressDisplay
from detect.training.provenance import record_start
from detect.training.settings import EngineSettings, GradientSettings
