"""The libraries that are compared: one small file each, run by ``bench/worker.py`` in a process of its own.

Each file stands alone (the rivals' import nothing of pybackprop) and has ``version()`` and ``build(case, data,
variant)``, whose result has ``losses(count)``, the losses of the first steps, and ``run(steps)``. With
``whole_epochs`` true, both are asked for multiples of the number of batches only, and ``losses`` may give one mean per
epoch. A case with ``epochs`` is a whole fit: a step is then one fit, shuffling included, and ``losses`` gives the mean
loss of each of its epochs.
"""

import os
from typing import NamedTuple

__all__ = ["PEERS", "Peer", "peer_file"]


class Peer(NamedTuple):
    """A column of the tables: a file, one of its variants, and what the process's environment adds."""

    title: str
    file: str
    variant: str = ""
    blas: str = ""


PEERS = {
    "ours": Peer("pybackprop", "ours", "step"),
    "ours-fit": Peer("pybackprop fit", "ours", "fit"),
    "limit": Peer("limit", "limit"),
    "numpy": Peer("NumPy", "numpy_mlp"),
    "numpy-best": Peer("NumPy best", "numpy_mlp", blas="best"),
    "sklearn": Peer("scikit-learn", "sklearn"),
    "torch": Peer("PyTorch", "torch"),
    "torch-compile": Peer("PyTorch compiled", "torch", "compile"),
    "jax": Peer("JAX", "jax"),
    "jax-scan": Peer("JAX scan", "jax", "scan"),
    "numba": Peer("Numba", "numba"),
    "tensorflow": Peer("TensorFlow", "tensorflow"),
}


def peer_file(peer: Peer) -> str:
    """Where the peer's source lies."""
    return os.path.join(os.path.dirname(__file__), f"{peer.file}.py")
