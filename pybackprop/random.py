"""The generator that initial weights are drawn from."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["generator", "manual_seed"]

_FIRST_SEED = 0  # every process starts here, so a script gives the same weights each time it runs
_generator: np.random.Generator | None = None
_own = threading.local()  # generators that a thread has for a while


def manual_seed(seed: int) -> None:
    """Restart the generator of initial weights.

    Weights are drawn when a layer is constructed, so call this before building the model. It starts from the same fixed
    seed in every process. Shuffling and dropout of a run are governed by ``Trainer(seed=)``, not by this.

    Args:
        seed: a non-negative integer.

    Raises:
        TypeError: ``seed`` is not an integer.
        ValueError: ``seed`` is negative.

    >>> import pybackprop as pb
    >>> from pybackprop import nn
    >>> pb.manual_seed(7)
    >>> first = nn.Linear(3, 2).weight.numpy()
    >>> pb.manual_seed(7)
    >>> bool((nn.Linear(3, 2).weight.numpy() == first).all())
    True
    """
    global _generator
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise TypeError(f"manual_seed expects an integer, got {type(seed).__name__}")
    if seed < 0:
        raise ValueError(f"manual_seed expects a non-negative integer, got {seed}")
    _generator = np.random.Generator(np.random.PCG64(int(seed)))


def generator() -> np.random.Generator:
    """The NumPy generator in use."""
    own: np.random.Generator | None = getattr(_own, "generator", None)
    if own is not None:
        return own
    if _generator is None:
        manual_seed(_FIRST_SEED)
    assert _generator is not None
    return _generator


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A generator of its own for what this thread draws within the block."""
    before = getattr(_own, "generator", None)
    _own.generator = np.random.Generator(np.random.PCG64(seed))
    try:
        yield
    finally:
        _own.generator = before


def draw_seed() -> int:
    """A fresh key for one run of a program with random ops outside of a training run."""
    return int(generator().integers(2**63))


def _renew() -> None:
    global _generator
    if _generator is not None:
        copy: Any = np.random.PCG64()
        copy.state = _generator.bit_generator.state
        _generator = np.random.Generator(copy)


# A thread that was drawing when the process was forked does not exist in the child, and would never release NumPy's
# lock.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
