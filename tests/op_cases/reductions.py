"""Cases of csrc/ops/reductions.cpp."""

from __future__ import annotations

import numpy as np

from .base import OpCase


def normal(*shape):
    return lambda rng: [rng.standard_normal(shape)]


def distinct(*shape):
    # Elements at least 0.1 apart, so that no difference step changes which one is largest or smallest.
    def make(rng):
        return [(0.1 * rng.permutation(int(np.prod(shape))) - 1).reshape(shape)]

    return make


def peaked(op, axis, *shape):
    # One element of each group stands out, by more than a difference step.
    def make(rng):
        x = rng.uniform(-1, 1, shape)
        top = rng.integers(0, shape[axis], [1 if i == axis else n for i, n in enumerate(shape)])
        np.put_along_axis(x, top, -2 if op == "min" else 2, axis)
        return [x]

    return make


# shape, attributes, dimension 0 is kept
FORMS = {
    "all": ((3, 5), {}, False),
    "vector": ((37,), {}, False),
    "scalar": ((), {}, False),
    "one": ((1,), {"dims": [0]}, False),
    "last": ((4, 19), {"dims": [1]}, True),
    "last-keepdim": ((3, 2, 16), {"dims": [-1], "keepdim": 1}, True),
    "first": ((7, 17), {"dims": [0]}, False),
    "middle": ((2, 5, 18), {"dims": [1]}, True),
    "outer-two": ((3, 4, 21), {"dims": [0, 2], "keepdim": 1}, False),
    "inner-two": ((2, 3, 4, 5), {"dims": [2, 3]}, True),
    "alternating": ((2, 3, 2, 3), {"dims": [0, 2]}, False),
    "alternating-rows": ((2, 3, 2, 3), {"dims": [1, 3]}, True),
    "batch-of-one": ((1, 6, 5), {"dims": [0, 1]}, False),
    "nothing": ((2, 3), {"dims": []}, True),
}


def _torch(op):
    def run(x, dims=None, keepdim=0):
        import torch

        dims = list(range(x.ndim)) if dims is None else list(dims)
        if not dims:
            # PyTorch reads an empty list as all dimensions.
            return x.clone()
        if x.ndim == 0:
            return x.clone()
        function = {
            "sum": torch.sum,
            "mean": torch.mean,
            "max": torch.amax,
            "min": torch.amin,
            "logsumexp": torch.logsumexp,
        }[op]
        return function(x, dims, keepdim=bool(keepdim))

    return run


def _cases():
    for op in ("sum", "mean", "max", "min", "logsumexp"):
        make = distinct if op in ("max", "min") else normal
        for name, (shape, attrs, rows) in FORMS.items():
            yield OpCase(op, name, make(*shape), attrs, torch=_torch(op), rows=rows)
        for name, dims in (("last", [1]), ("first", [0]), ("middle", [1])):
            shape = {"last": (3, 0), "first": (0, 3), "middle": (2, 0, 3)}[name]
            if op in ("sum", "logsumexp"):
                yield OpCase(op, f"empty-{name}", normal(*shape), {"dims": dims}, torch=_torch(op))
        yield OpCase(op, "no-rows", normal(0, 3), {"dims": [1]}, torch=_torch(op))
        # Big enough for blocks of partial results and for the pieces of a sum.
        yield OpCase(op, "long", peaked(op, 0, 4200), {}, torch=_torch(op))
        if op != "logsumexp":  # which differs from these in nothing but libm's time
            yield OpCase(op, "long-row", peaked(op, 1, 1, 4200), {"dims": [1]}, torch=_torch(op), rows=True)
            yield OpCase(op, "tall", peaked(op, 0, 1401, 3), {"dims": [0]}, torch=_torch(op))
            yield OpCase(op, "wide", peaked(op, 0, 2, 600), {"dims": [0]}, torch=_torch(op))
        yield OpCase(
            op,
            "tails",
            make(2, 3),
            {"dims": [1]},
            torch=_torch(op),
            rows=True,
            sizes=lambda rng, n, make=make: make(2, n)(rng),
        )
        yield OpCase(
            op,
            "column-tails",
            make(3, 2),
            {"dims": [0]},
            torch=_torch(op),
            sizes=lambda rng, n, make=make: make(3, n)(rng),
        )
    # Two equal extremes in each group: central differences give each half the gradient, as equal shares do.
    for op, sign in (("max", 1), ("min", -1)):
        tied = sign * np.array([[3.0, 1, 3], [0, 2, 2], [5, 5, -1]])
        yield OpCase(op, "ties", lambda rng, x=tied: [x], {"dims": [1]}, torch=_torch(op), rows=True)
        yield OpCase(op, "ties-columns", lambda rng, x=tied: [x.T.copy()], {"dims": [0]}, torch=_torch(op))


CASES = list(_cases())
