"""Cases of csrc/ops/shapes.cpp."""

from __future__ import annotations

import math

import numpy as np

from .base import OpCase


def normal(*shapes):
    return lambda rng: [rng.standard_normal(shape) for shape in shapes]


def _reshape(x, shape):
    return x.reshape(shape)


def _transpose(x, perm):
    return x.permute(list(perm)) if x.ndim else x.clone()


def _slice(x, start=(), stop=(), step=()):
    import torch

    for dim, (a, b, s) in enumerate(zip(start, stop, step, strict=True)):
        chosen = torch.tensor(list(range(a, b, s)), dtype=torch.int64)
        x = x.index_select(dim, chosen)
    return x.clone()


def _concat(*parts, dim=0):
    import torch

    return torch.cat(parts, dim)


def _gather(x, ids):
    return x[ids]


def _broadcast(x, shape):
    return x.expand(list(shape)).clone()


RESHAPES = {
    "flat": ((3, 4), [12]),
    "open": ((2, 6, 5), [-1, 10]),
    "scalar": ((1, 1), []),
    "from-scalar": ((), [1, 1]),
    "empty": ((0, 3), [3, 0]),
    "same": ((5, 7), [5, 7]),
    "split": ((6, 17), [2, 3, 17]),
}
TRANSPOSES = {
    "matrix": ((5, 7), [1, 0]),
    "big-matrix": ((37, 50), [1, 0]),
    "square": ((16, 16), [1, 0]),
    "tiles": ((32, 48), [1, 0]),
    "batch": ((3, 17, 18), [0, 2, 1]),
    "rotate": ((2, 5, 19), [2, 0, 1]),
    "rotate-back": ((18, 3, 4), [1, 2, 0]),
    "four": ((2, 3, 4, 5), [3, 1, 0, 2]),
    "heads": ((2, 5, 3, 4), [0, 2, 1, 3]),
    "same": ((3, 4), [0, 1]),
    "ones": ((1, 6, 1), [2, 1, 0]),
    "scalar": ((), []),
    "empty": ((0, 4), [1, 0]),
    "negative": ((2, 3, 4), [0, -1, 1]),
}
SLICES = {
    "rows": ((9, 4), [2, 0], [7, 4], [1, 1]),
    "columns": ((4, 19), [0, 1], [4, 18], [1, 1]),
    "steps": ((10, 21), [1, 2], [10, 20], [3, 5]),
    "reversed": ((7, 5), [6, 4], [-1, -1], [-1, -1]),
    "reversed-steps": ((11, 8), [9, 7], [0, 0], [-2, -3]),
    "reversed-columns": ((3, 17), [0, 16], [3, -1], [1, -1]),
    "empty": ((4, 3), [2, 0], [2, 3], [1, 1]),
    "of-empty": ((0, 3), [0, 0], [0, 2], [1, 1]),
    "three": ((3, 6, 20), [0, 1, 2], [3, 6, 19], [1, 2, 1]),
    "one": ((5, 3), [3, 0], [4, 3], [1, 1]),
    "vector": ((33,), [32], [-1], [-2]),
    "whole": ((3, 4), [0, 0], [3, 4], [1, 1]),
}
CONCATS = {
    "rows": ([(3, 5), (4, 5), (1, 5)], 0),
    "columns": ([(4, 3), (4, 17), (4, 1)], 1),
    "middle": ([(2, 3, 5), (2, 1, 5)], 1),
    "last": ([(2, 3, 4), (2, 3, 9)], -1),
    "one": ([(4, 5)], 0),
    "empty-part": ([(0, 3), (2, 3), (0, 3)], 0),
    "empty-columns": ([(2, 0), (2, 3)], 1),
    "vectors": ([(4,), (5,), (6,), (7,)], 0),
}
GATHERS = {
    "vector": ((7, 5), (11,)),
    "matrix": ((5, 3), (4, 6)),
    "scalar-id": ((5, 4), ()),
    "of-vector": ((9,), (3, 2)),
    "blocks": ((4, 3, 17), (6,)),
    "no-ids": ((4, 3), (0,)),
    "one-row": ((1, 20), (5,)),
}
BROADCASTS = {
    "rows": ((1, 17), [5, 17]),
    "columns": ((5, 1), [5, 18]),
    "new": ((7,), [3, 4, 7]),
    "scalar": ((), [3, 5]),
    "middle": ((2, 1, 5), [2, 6, 5]),
    "alternate": ((1, 3, 1, 2), [4, 3, 5, 2]),
    "same": ((3, 4), [3, 4]),
    "empty": ((1, 3), [0, 3]),
    "to-scalar": ((), []),
}


def _ids(table, ids):
    return lambda rng: [rng.standard_normal(table), rng.integers(0, table[0], ids)]


CASES = [
    OpCase("stop_gradient", "matrix", normal((3, 5)), torch=lambda x: x.detach(), grad=False),
    *(OpCase("reshape", name, normal(shape), {"shape": to}, torch=_reshape) for name, (shape, to) in RESHAPES.items()),
    *(
        OpCase("transpose", name, normal(shape), {"perm": perm}, torch=_transpose, rows=bool(perm) and perm[0] == 0)
        for name, (shape, perm) in TRANSPOSES.items()
    ),
    OpCase(
        "transpose",
        "tails",
        normal((3, 4)),
        {"perm": [1, 0]},
        torch=_transpose,
        sizes=lambda rng, n: [rng.standard_normal((n, 17))],
    ),
    *(
        OpCase("slice", name, normal(shape), {"start": a, "stop": b, "step": s}, torch=_slice)
        for name, (shape, a, b, s) in SLICES.items()
    ),
    *(
        OpCase(
            "concat",
            name,
            normal(*shapes),
            {"dim": dim},
            torch=_concat,
            rows=dim != 0,
            row_inputs=tuple(range(len(shapes))),
        )
        for name, (shapes, dim) in CONCATS.items()
    ),
    *(
        OpCase(
            "gather", name, _ids(table, ids), torch=_gather, rows=len(ids) > 0 and math.prod(ids) > 0, row_inputs=(1,)
        )
        for name, (table, ids) in GATHERS.items()
    ),
    OpCase(
        "gather", "repeated", lambda rng: [rng.standard_normal((4, 33)), np.array([2, 2, 0, 2, 3, 0])], torch=_gather
    ),
    *(
        OpCase("broadcast_to", name, normal(shape), {"shape": to}, torch=_broadcast)
        for name, (shape, to) in BROADCASTS.items()
    ),
]
