"""Cases of csrc/ops/dropout.cpp."""

from __future__ import annotations

import numpy as np

from .base import OpCase

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix64(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def random_bits(shape, index=0, seed=0, step=0, row0=0):
    """The 32-bit numbers of csrc/kernels/random.h, written a second time: (rows, columns) of uint32."""
    rows = shape[0] if shape else 1
    columns = int(np.prod(shape[1:], dtype=np.int64))
    with np.errstate(over="ignore"):
        stream = np.uint64(0)
        for key in (seed, step, index):
            stream = _mix64(stream + np.uint64(key) + GOLDEN)
        z = _mix64(stream + (np.arange(row0, row0 + rows, dtype=np.uint64) + np.uint64(1)) * GOLDEN)[:, None]
        x = np.arange(columns, dtype=np.uint32)[None, :] ^ z.astype(np.uint32)
        for shifts, factors in (((16, 15, 16), (0x7FEB352D, 0x846CA68B)), ((16, 15, 15), (0x21F0AAAD, 0x735A2D97))):
            x = (x ^ (x >> np.uint32(shifts[0]))) * np.uint32(factors[0])
            x = (x ^ (x >> np.uint32(shifts[1]))) * np.uint32(factors[1])
            x = x ^ (x >> np.uint32(shifts[2]))
            if shifts == (16, 15, 16):
                x = x ^ (z >> np.uint64(32)).astype(np.uint32)
    return x.reshape(shape)


def _torch(x, rate=0.5, index=0):
    """The mask of seed 0, step 0, which is what a program runs with unless told."""
    import torch

    threshold = min(int(rate * 2**32), 2**32 - 1)
    keep = torch.as_tensor(random_bits(tuple(x.shape), index) >= threshold).to(x.dtype)
    return x * keep / (1 - rate)


def _inputs(*shape):
    return lambda rng: [rng.standard_normal(shape)]


CASES = [
    OpCase("dropout", "default", _inputs(6, 21), torch=_torch, sizes=lambda rng, n: [rng.standard_normal((3, n))]),
    OpCase("dropout", "light", _inputs(4, 3, 17), {"rate": 0.1, "index": 3}, torch=_torch),
    OpCase("dropout", "none", _inputs(3, 16), {"rate": 0.0}, torch=_torch, rows=True),
    OpCase("dropout", "nearly-all", _inputs(3, 40), {"rate": 0.99}, torch=_torch),
    OpCase("dropout", "vector", _inputs(37), {"rate": 0.5, "index": 1}, torch=_torch),
    OpCase("dropout", "scalar", _inputs(), {"rate": 0.25}, torch=_torch),
    OpCase("dropout", "empty", _inputs(0, 5), {"rate": 0.25}, torch=_torch),
    OpCase(
        "dropout", "inference", _inputs(4, 9), {"rate": 0.5}, torch=lambda x, rate: x.clone(), training=False, rows=True
    ),
]
