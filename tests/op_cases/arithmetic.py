"""Functions of two inputs and ``where``, under broadcasting."""

from __future__ import annotations

import numpy as np

from op_cases.base import OpCase

# Every way an input's gradient is added up: not at all, within rows, over rows (columns; everything; in several
# blocks), and all of them at once.
PAIRS = {
    "same": ((5, 7), (5, 7)),
    "same_many": ((37, 17), (37, 17)),
    "row": ((9, 17), (17,)),
    "row_first": ((17,), (9, 17)),
    "row_many": ((700, 33), (33,)),
    "column": ((9, 17), (9, 1)),
    "column_many": ((130, 40), (130, 1)),
    "scalar": ((6, 5), ()),
    "scalar_many": ((1, 5003), (1,)),
    "outer": ((8, 1), (1, 19)),
    "inner_one": ((4, 1), (4, 1)),
    "middle": ((3, 4, 18), (3, 1, 18)),
    "ends": ((1, 5, 1), (4, 1, 3)),
    "three_ranks": ((2, 3, 4, 5), (3, 1, 5)),
    "scalars": ((), ()),
    "no_rows": ((0, 3), (1, 3)),
    "no_columns": ((3, 0), (3, 1)),
}
# Numerical differences of the large input would take seconds.
SECOND_ONLY = ("row_many", "column_many", "scalar_many")
SHORT = ("same", "row", "column", "outer", "three_ranks", "scalar")


def _normal(rng, shape):
    return rng.normal(0, 2, shape)


def _positive(rng, shape):
    return rng.uniform(0.4, 3, shape)


def _far_from_zero(rng, shape):
    return np.asarray(rng.uniform(0.4, 3, shape) * rng.choice([-1.0, 1.0], shape))


def _case(op, torch, name, first=_normal, second=_normal) -> OpCase:
    a, b = PAIRS[name]
    same = a == b and len(a) > 0
    return OpCase(
        op,
        name,
        lambda rng: [first(rng, a), second(rng, b)],
        torch=torch,
        rows=same,
        row_inputs=(0, 1),
        wrt=(1,) if name in SECOND_ONLY else None,
        sizes=(lambda rng, n: [first(rng, (3, n)), second(rng, (n,))]) if name == "row" else None,
    )


def _function(name: str):
    def call(a, b):
        import torch

        return getattr(torch, name)(a, b)

    return call


def _apart(op, name) -> OpCase:
    """maximum and minimum away from ties, by 0.1 at least."""
    a, b = PAIRS[name]

    def inputs(rng):
        x = rng.permutation(np.arange(int(np.prod(a, dtype=int)), dtype=float)).reshape(a)
        y = rng.permutation(np.arange(int(np.prod(b, dtype=int)), dtype=float)).reshape(b)
        return [x, np.asarray(y + 0.5)]

    return OpCase(op, name, inputs, torch=_function(op), rows=a == b and len(a) > 0, row_inputs=(0, 1))


def _where(cond, a, b):
    import torch

    return torch.where(cond != 0, a, b)


def _where_case(id, cond, a, b) -> OpCase:
    def inputs(rng):
        return [rng.integers(0, 2, cond).astype(float), rng.normal(0, 1, a), rng.normal(0, 1, b)]

    return OpCase("where", id, inputs, wrt=(1, 2), torch=_where, rows=cond == a == b, row_inputs=(0, 1, 2))


CASES = [
    *(_case("add", _function("add"), name) for name in PAIRS),
    *(_case("sub", _function("sub"), name) for name in SHORT),
    *(_case("mul", _function("mul"), name) for name in PAIRS),
    *(_case("div", _function("div"), name, second=_far_from_zero) for name in SHORT),
    *(_case("pow", _function("pow"), name, first=_positive) for name in SHORT),
    *(_apart(op, name) for op in ("maximum", "minimum") for name in ("same", "row", "column", "three_ranks", "scalar")),
    _where_case("same", (5, 7), (5, 7), (5, 7)),
    _where_case("row_cond", (7,), (5, 7), (5, 7)),
    _where_case("scalars", (5, 7), (), ()),
    _where_case("outer", (3, 1, 1), (4, 1), (5,)),
    _where_case("column_cond", (40, 1), (40, 21), (21,)),
]
