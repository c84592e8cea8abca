"""Training: many jobs as rows of one bank, one forward and backward for all of them."""

from osora_core.training.checkpoint import Checkpoint
from osora_core.training.curve import Curve, Evaluation
from osora_core.training.engine import TrainingEngine
from osora_core.training.job import Observer, Outcome, Progress, Samples, TrainingJob
from osora_core.training.spec import JobSpec
from osora_core.training.sweep import Sweep, SweepObserver
from osora_core.training.sweep_state import Rung, SweepCheckpoint, SweepOutcome

__all__ = [
    "Checkpoint",
    "Curve",
    "Evaluation",
    "JobSpec",
    "Observer",
    "Outcome",
    "Progress",
    "Rung",
    "Samples",
    "Sweep",
    "SweepCheckpoint",
    "SweepObserver",
    "SweepOutcome",
    "TrainingEngine",
    "TrainingJob",
]
