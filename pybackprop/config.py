"""What this installation runs on: instruction set, threads, OpenMP runtime."""

import platform

import numpy as np

from . import _core
from ._version import __version__

__all__ = ["describe_config", "show_config"]


def describe_config() -> str:
    """The lines that :func:`show_config` and ``pybackprop info`` print."""
    threads = _core.thread_config()
    lines = {
        "pybackprop": __version__,
        "instruction set": f"{_core.isa_active()} (available: {', '.join(_core.isa_names())})",
        "threads": f"{threads['threads']} ({threads['reason']})",
        "CPUs": threads["cpus"],
        "OpenMP runtime": threads["openmp"],
        "compiler": threads["compiler"],
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
    }
    return "\n".join(f"{name:<16} {value}" for name, value in lines.items())


def show_config() -> None:
    """Print version, instruction set in use and available, threads and why so many, OpenMP runtime, compiler.

    >>> import pybackprop as pb
    >>> pb.show_config()                                                              # doctest: +ELLIPSIS
    pybackprop       ...
    """
    print(describe_config())
