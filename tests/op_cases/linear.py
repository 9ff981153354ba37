"""Cases of csrc/ops/linear.cpp: linear and matmul."""

from __future__ import annotations

from op_cases.base import Inputs, OpCase, SizedInputs


def _normal(*shapes: tuple[int, ...]) -> Inputs:
    return lambda rng: [rng.standard_normal(shape) for shape in shapes]


def _linear(*lead: int, features: tuple[int, int], bias: bool = True) -> Inputs:
    """x (*lead, in), weight (out, in), bias (out); the weight is scaled so that outputs stay of order one."""
    n_in, n_out = features

    def inputs(rng):
        arrays = [rng.standard_normal((*lead, n_in)), rng.standard_normal((n_out, n_in)) / max(n_in, 1) ** 0.5]
        return [*arrays, rng.standard_normal(n_out)] if bias else arrays

    return inputs


def _columns(n_in: int, rows: int) -> SizedInputs:
    return lambda rng, n: [rng.standard_normal((rows, n_in)), rng.standard_normal((n, n_in)), rng.standard_normal(n)]


def _torch_linear(x, weight, bias=None):
    import torch

    return torch.nn.functional.linear(x, weight, bias)


def _torch_matmul(a, b, transpose_a=0, transpose_b=0):
    return (a.transpose(-1, -2) if transpose_a else a) @ (b.transpose(-1, -2) if transpose_b else b)


def _case(name: str, inputs: Inputs, **fields) -> OpCase:
    return OpCase("linear", name, inputs, torch=_torch_linear, rows=True, **fields)


def _product(name: str, inputs: Inputs, *, ta: int = 0, tb: int = 0, **fields) -> OpCase:
    attrs = {key: 1 for key, flag in (("transpose_a", ta), ("transpose_b", tb)) if flag}
    return OpCase("matmul", name, inputs, attrs=attrs, torch=_torch_matmul, **fields)


# Sums over up to a thousand terms of order one: rounding grows with their number, not with the result.
_LONG = {"f32_rtol": 1e-5, "f32_atol": 1e-5}

# A weight given as an input is dense (out, in); one that is a Param of layout "linear" is met in tests of the layers.
CASES = [
    _case("bias", _linear(5, features=(7, 3)), sizes=_columns(9, 4)),
    _case("no-bias", _linear(6, features=(17, 33), bias=False)),
    OpCase("linear", "vector", _linear(features=(5, 4)), torch=_torch_linear),
    _case("leading-dims", _linear(2, 3, 4, features=(6, 5))),
    _case("one-column", _linear(19, features=(16, 1))),
    _case("one-feature", _linear(18, features=(1, 20))),
    _case("one-row", _linear(1, features=(40, 65))),
    _case("no-rows", _linear(0, features=(4, 3))),
    _case("no-features", _linear(3, features=(0, 5))),
    _case("no-columns", _linear(3, features=(5, 0))),
    _case("wide", _linear(3, features=(20, 150))),
    _case("deep", _linear(2, features=(1100, 3), bias=False), **_LONG),
    _product(
        "plain",
        _normal((5, 7), (7, 3)),
        rows=True,
        sizes=lambda rng, n: [rng.standard_normal((4, 9)), rng.standard_normal((9, n))],
    ),
    _product("a-transposed", _normal((7, 5), (7, 18)), ta=1),
    _product("b-transposed", _normal((5, 17), (6, 17)), tb=1, rows=True),
    _product("both-transposed", _normal((17, 5), (33, 17)), ta=1, tb=1),
    _product("batch", _normal((2, 3, 4, 5), (2, 3, 5, 6)), rows=True, row_inputs=(0, 1)),
    _product("batch-b-transposed", _normal((3, 26, 5), (3, 4, 5)), tb=1, rows=True, row_inputs=(0, 1)),
    _product("batch-a-transposed", _normal((3, 5, 26), (3, 5, 4)), ta=1, rows=True, row_inputs=(0, 1)),
    _product("one-b", _normal((3, 4, 5), (5, 6)), rows=True),
    _product("one-a", _normal((4, 5), (3, 5, 6))),
    _product("one-a-transposed", _normal((5, 4), (3, 6, 5)), ta=1, tb=1),
    _product("crossed", _normal((3, 1, 2, 5), (4, 5, 2))),
    _product("inner-broadcast", _normal((2, 1, 3, 4), (2, 5, 4, 3))),
    _product("outer", _normal((17, 1), (1, 16))),
    _product("inner", _normal((1, 40), (40, 1))),
    _product("no-rows", _normal((0, 4), (4, 3))),
    _product("no-inner", _normal((3, 0), (0, 4))),
    _product("no-batch", _normal((0, 3, 4), (1, 4, 2))),
    _product("deep", _normal((2, 1100), (1100, 3)), rows=True, **_LONG),
]
