"""Training: one step (:class:`TrainStep`), whole runs (:class:`Trainer`), callbacks, history and metrics."""

from .callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TensorBoard,
    TerminateOnNaN,
)
from .gradients import GradCheck, Inspection, gradcheck, inspect, value_and_grad
from .history import History
from .metrics import Metric
from .nonfinite import NonFiniteError
from .profile import Profile
from .step import TrainStep
from .trainer import Trainer

__all__ = [
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "GradCheck",
    "History",
    "Inspection",
    "LambdaCallback",
    "LearningRateScheduler",
    "Metric",
    "ModelCheckpoint",
    "NonFiniteError",
    "Profile",
    "ReduceLROnPlateau",
    "TensorBoard",
    "TerminateOnNaN",
    "TrainStep",
    "Trainer",
    "gradcheck",
    "inspect",
    "value_and_grad",
]
