"""What this installation runs on: threads, instruction set, OpenMP runtime."""

import contextlib
import platform
from collections.abc import Iterator

import numpy as np

from . import _core
from ._version import __version__

__all__ = ["describe_config", "get_num_threads", "num_threads", "set_num_threads", "show_config"]


def get_num_threads() -> int:
    """The number of threads that large work on the calling thread would use now; small work uses fewer.

    In this order: the innermost :func:`num_threads` block, :func:`set_num_threads`, ``OMP_NUM_THREADS``, and the
    default: the least of the physical cores among the CPUs that the calling thread may run on, and the CPU quota of the
    process's control groups (container), rounded up. An active threadpoolctl limit and ``OMP_THREAD_LIMIT`` cap all;
    a limit equal to the number that OpenMP started with cannot be told from none. The system is asked anew, by large
    runs at most ten times a second. joblib's worker processes are given their share in ``OMP_NUM_THREADS``.

    >>> import pybackprop as pb
    >>> with pb.num_threads(1):
    ...     pb.get_num_threads()
    1
    """
    return _core.get_num_threads()


def set_num_threads(n: int | None) -> None:
    """Set the number of threads for the whole process; None goes back to the default. Results do not depend on it.

    Args:
        n: at least 1; more than the number of CPUs is legal.

    Raises:
        ValueError: ``n`` is below 1.
        TypeError: ``n`` is not an integer.

    >>> import pybackprop as pb
    >>> pb.set_num_threads(2)
    >>> pb.get_num_threads()
    2
    >>> pb.set_num_threads(None)
    """
    _core.set_num_threads(None if n is None else _count(n))


@contextlib.contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Use ``n`` threads within a ``with`` block, on the calling thread.

    Args:
        n: at least 1; more than the number of CPUs is legal.

    Raises:
        ValueError: ``n`` is below 1.
        TypeError: ``n`` is not an integer.

    >>> import pybackprop as pb
    >>> with pb.num_threads(1):
    ...     pb.get_num_threads()
    1
    """
    _core.push_num_threads(_count(n))
    try:
        yield
    finally:
        _core.pop_num_threads()


def _count(n: int) -> int:
    if isinstance(n, bool) or not isinstance(n, int | np.integer):
        raise TypeError(f"The number of threads is an integer, not {type(n).__name__}.")
    if not 1 <= n < 2**31:
        raise ValueError(f"the number of threads must be at least 1 and below 2**31, got {n}")
    return int(n)


_NO_BF16 = "not available (they need x86-64-v4 on a CPU with avx512_bf16)"


def describe_config() -> str:
    """The lines that :func:`show_config` and ``pybackprop info`` print."""
    threads = _core.thread_config()
    lines = {
        "pybackprop": __version__,
        "instruction set": f"{_core.isa_active()} (available: {', '.join(_core.isa_names())})",
        "bf16 products": "available" if _core.isa_has_bf16() else _NO_BF16,
        "threads": f"{threads['threads']} ({threads['reason']})",
        "CPUs": f"{threads['affinity']} (physical cores: {threads['cores']}, quota: {threads['quota'] or 'none'})",
        "OpenMP runtime": threads["openmp"] + (", not used in this forked process" if threads["forked"] else ""),
        "compiler": threads["compiler"],
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
    }
    return "\n".join(f"{name:<16} {value}" for name, value in lines.items())


def show_config() -> None:
    """Print version, instruction set in use and available, whether it has bf16 products (``precision="bf16"`` of
    :class:`Trainer`), threads and why so many, what CPUs the system grants, OpenMP runtime, compiler.

    >>> import pybackprop as pb
    >>> pb.show_config()                                                              # doctest: +ELLIPSIS
    pybackprop       ...
    """
    print(describe_config())
