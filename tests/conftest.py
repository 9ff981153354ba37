"""What all tests share. This folder is on sys.path, the clone's root is not: the installed package is tested."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

# Before any test module can import PyTorch: a second OpenMP runtime loaded later finds ours already initialised, so the
# order in which test files are collected decides nothing.
from pybackprop import _core

collect_ignore = [] if importlib.util.find_spec("torch") else ["parity"]


@pytest.fixture(params=_core.isa_names())
def isa(request) -> str:
    """Every instruction set this machine can run."""
    return request.param


@pytest.fixture(params=[1, 2, 3, 4])
def threads(request) -> int:
    """Team sizes, also above the number of CPUs."""
    return request.param


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that starts at the same place in every test."""
    return np.random.default_rng(0)
