"""Train neural networks on CPUs: a small wheel, microsecond steps, the same bits for every thread count.

>>> import numpy as np, pybackprop as pb
>>> from pybackprop import nn, optim
>>> model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))
>>> trainer = pb.Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optim.Adam(lr=1e-2), seed=0)
>>> X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float32)
>>> history = trainer.fit(X, np.array([0, 1, 1, 0]), epochs=300, verbose=0)
>>> trainer.predict(X).argmax(1).tolist()
[0, 1, 1, 0]
"""

# The core comes first: where the CPU cannot run it, it says so before NumPy meets an instruction it cannot execute.
from . import _core, data, nn, ops, optim, plot  # noqa: F401
from ._tensor import Tensor
from ._version import __version__
from .config import get_num_threads, num_threads, set_num_threads, show_config
from .function import Function
from .io import load, save
from .nn.parameter import Parameter
from .random import manual_seed
from .training import (
    Callback,
    History,
    Metric,
    NonFiniteError,
    Trainer,
    TrainStep,
    callbacks,
    gradcheck,
    inspect,
    value_and_grad,
)

__all__ = [
    "Callback",
    "Function",
    "History",
    "Metric",
    "NonFiniteError",
    "Parameter",
    "Tensor",
    "TrainStep",
    "Trainer",
    "__version__",
    "callbacks",
    "data",
    "get_num_threads",
    "gradcheck",
    "inspect",
    "load",
    "manual_seed",
    "nn",
    "num_threads",
    "ops",
    "optim",
    "plot",
    "save",
    "set_num_threads",
    "show_config",
    "value_and_grad",
]
