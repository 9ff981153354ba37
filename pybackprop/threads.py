"""How many threads large runs use. Small runs are serial whatever is set here, because a second thread would only cost."""

from collections.abc import Iterator
from contextlib import contextmanager

from . import _core

__all__ = ["get_num_threads", "num_threads", "set_num_threads"]


def get_num_threads() -> int:
    """Threads that a large run started now, from this thread, would use.

    In order of precedence: an enclosing :func:`num_threads` block, :func:`set_num_threads`, ``OMP_NUM_THREADS``, and by
    default the CPUs that this process may run on, limited by its container's CPU quota. A limit set through threadpoolctl
    caps them all. Asked anew every time; ``pybackprop info`` says which one decided.

    >>> import pybackprop as pb
    >>> pb.get_num_threads() >= 1
    True
    """
    return _core.get_num_threads()


def set_num_threads(n: int | None) -> None:
    """Set the number of threads for this process; ``None`` goes back to the default.

    More threads than CPUs are legal. Results do not depend on the number.

    Raises:
        ValueError: ``n`` is less than 1.
    """
    _core.set_num_threads(n)


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Use ``n`` threads inside the block, on the Python thread that entered it.

    >>> import pybackprop as pb
    >>> with pb.num_threads(1):
    ...     pb.get_num_threads()
    1

    Raises:
        ValueError: ``n`` is less than 1.
    """
    _core.push_num_threads(n)
    try:
        yield
    finally:
        _core.pop_num_threads()
