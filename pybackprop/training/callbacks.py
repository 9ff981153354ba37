"""The callbacks there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .callback import Callback, Logs
from .csvlog import CSVLogger
from .early_stopping import EarlyStopping
from .learning_rate import LearningRateScheduler, ReduceLROnPlateau
from .model_checkpoint import ModelCheckpoint, latest_checkpoint
from .tensorboard import TensorBoard

if TYPE_CHECKING:
    from .nonfinite import NonFiniteError

__all__ = [
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
    "TensorBoard",
    "TerminateOnNaN",
    "latest_checkpoint",
]


class LambdaCallback(Callback):
    """Functions as hooks.

    Args:
        hooks: a function for each name of a hook of :class:`Callback`.

    Raises:
        TypeError: a keyword that is no hook.

    Example:
        >>> import numpy as np, pybackprop as pb
        >>> from pybackprop import nn, optim
        >>> data = np.ones((8, 2)), np.ones((8, 1))
        >>> trainer = pb.Trainer(nn.Linear(2, 1), loss=nn.MSELoss(), optimizer=optim.SGD(lr=0.1))
        >>> tell = pb.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, sorted(logs)))
        >>> history = trainer.fit(*data, epochs=2, callbacks=[tell], verbose=0)
        0 ['loss']
        1 ['loss']
    """

    def __init__(self, **hooks: Callable[..., Any]) -> None:
        for name, function in hooks.items():
            if not name.startswith("on_") or not hasattr(Callback, name):
                known = ", ".join(n for n in vars(Callback) if n.startswith("on_"))
                raise TypeError(f"{name!r} is no hook; there are {known}")
            setattr(self, name, function)


class TerminateOnNaN(Callback):
    """Ends the run quietly where ``fit`` would raise :class:`NonFiniteError`: at a batch whose loss is not finite.

    That batch is not applied, and not in the history.

    Attributes:
        error: the NonFiniteError that says why, None if there was none.

    Example:
        >>> import numpy as np, pybackprop as pb
        >>> from pybackprop import nn, optim
        >>> data = np.ones((8, 2)), np.ones((8, 1))
        >>> steep = pb.Trainer(nn.Linear(2, 1), loss=nn.MSELoss(), optimizer=optim.SGD(lr=1e6))
        >>> stop = pb.callbacks.TerminateOnNaN()
        >>> steep.fit(*data, epochs=50, callbacks=[stop], verbose=0).stopped
        'callback'
        >>> type(stop.error).__name__
        'NonFiniteError'
    """

    def __init__(self) -> None:
        self.error: NonFiniteError | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.error = None

    def on_train_nonfinite(self, error: NonFiniteError) -> None:
        self.error = error
        self.trainer.stop_training = True
