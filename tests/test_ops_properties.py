"""What holds for every op whatever it computes: rows, linearity, the adjoint identity, threads; and NumPy's answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_cases import CASES
from op_program import OpProgram, case_rng, cast, excess, same_bits
from strategies import arrays as float_arrays
from strategies import broadcastable, extents, shapes

from pybackprop import _core

DIFFERENTIABLE = [c for c in CASES if c.grad]
fast = settings(max_examples=30, deadline=None, derandomize=True, database=None)


def enlarged(case, arrays, rows=37):
    """The batch of a rows case repeated to at least ``rows`` rows, so that several tasks have work."""
    if not case.rows or len(arrays[case.row_inputs[0]]) == 0:
        return arrays
    repeats = -(-rows // len(arrays[case.row_inputs[0]]))
    return [np.concatenate([a] * repeats) if i in case.row_inputs else a for i, a in enumerate(arrays)]


@pytest.mark.parametrize("case", [c for c in CASES if c.rows], ids=str)
def test_batch_equals_row_by_row(case):
    """A row gives the same bits whatever batch it comes in, and wherever in it."""
    arrays = cast(enlarged(case, case.inputs(case_rng(case)), 19), "float32")
    n = arrays[case.row_inputs[0]].shape[0]
    if n == 0:
        pytest.skip("no rows")

    def rows(select):
        chosen = [a[select] if i in case.row_inputs else a for i, a in enumerate(arrays)]
        return OpProgram(case, chosen, dtype="float32", gradient=False).run(chosen)[0][0]

    whole = rows(slice(None))
    assert same_bits(rows(np.arange(n)[::-1]), np.ascontiguousarray(whole[::-1])), f"{case}: rows reversed"
    assert same_bits(rows(slice(n // 2, None)), np.ascontiguousarray(whole[n // 2 :])), f"{case}: second half"
    for i in sorted({0, 1, n // 3, n - 1} & set(range(n))):
        assert same_bits(rows(slice(i, i + 1)), np.ascontiguousarray(whole[i : i + 1])), f"{case}: row {i} of {n} alone"


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_backward_is_linear(case):
    rng = case_rng(case)
    arrays = case.inputs(rng)
    program = OpProgram(case, arrays)
    first, second = program.directions(rng), program.directions(rng)
    mixed = [1.5 * a - 0.25 * b for a, b in zip(first, second, strict=True)]
    for i, a, b, c in zip(
        case.differentiated(arrays), *(program.run(arrays, d)[2] for d in (first, second, mixed)), strict=True
    ):
        assert excess(c, 1.5 * a - 0.25 * b, 1e-12, 1e-12) <= 1, f"{case}: gradient of input {i}"


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_backward_is_adjoint_of_forward(case):
    """<J v, u> = <v, J^T u>, with J v from four-point differences along v."""
    rng = case_rng(case)
    arrays = case.inputs(rng)
    program = OpProgram(case, arrays)
    u = program.directions(rng)
    wrt = case.differentiated(arrays)
    if not any(arrays[i].size for i in wrt):
        return
    # At most 1 in each element, so that no input is carried over a kink.
    v = {i: rng.uniform(-1, 1, arrays[i].shape) for i in wrt}
    for i in v.keys() & case.held.keys():
        v[i][case.held[i]] = 0
    h = 5e-4
    at = [program.run([a + k * h * v[i] if i in v else a for i, a in enumerate(arrays)], u)[1] for k in (-2, -1, 1, 2)]
    forward = (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * h)
    _, _, gradients = program.run(arrays, u)
    terms = [float((g * v[i]).sum()) for i, g in zip(wrt, gradients, strict=True)]
    scale = max(1.0, sum(float(np.abs(g * v[i]).sum()) for i, g in zip(wrt, gradients, strict=True)))
    assert abs(forward - sum(terms)) <= 1e-7 * scale, str(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_same_bits_for_every_team(case):
    arrays = cast(enlarged(case, case.inputs(case_rng(case))), "float32")
    results = []
    for threads in (1, 2, 3, 4):
        program = OpProgram(case, arrays, dtype="float32", threads=threads, gradient=case.grad)
        directions = program.directions(np.random.default_rng(1)) if case.grad else None
        outputs, loss, gradients = program.run(arrays, directions)
        assert program.program.threads_used == threads
        results.append([*outputs, *gradients] + ([np.float64(loss)] if case.grad else []))
    for threads, result in zip((2, 3, 4), results[1:], strict=True):
        for k, (a, b) in enumerate(zip(result, results[0], strict=True)):
            assert same_bits(a, b), f"{case}: array {k} has other bits on {threads} threads than on one"


def evaluate(op, *arrays, dtype="float32", isa=None, **attrs):
    """One op, forward only; arrays of dtype int64 are integer inputs."""
    arrays = cast(list(arrays), dtype)
    graph = _core.Graph(dtype=dtype, training=False, isa=isa)
    ids = [graph.input(a.shape, a.dtype.kind != "f", f"input {i}") for i, a in enumerate(arrays)]
    outputs = graph.node(op, ids, **attrs)
    return _core.Program(graph, list(outputs)).run(tuple(arrays))[0][0]


FUNCTIONS = (
    "exp",
    "log",
    "sqrt",
    "tanh",
    "sigmoid",
    "softplus",
    "silu",
    "gelu",
    "mish",
    "relu",
    "leaky_relu",
    "elu",
    "hardtanh",
    "abs",
    "neg",
)
SMALLEST = np.finfo("float32").tiny


@pytest.mark.parametrize("op", FUNCTIONS)
def test_functions_at_special_values(op, isa):
    """Zeros, subnormals, the ends of exp's range, huge numbers: float32 is double's answer, rounded.

    Programs run with subnormals taken as zero, on the way in and on the way out.
    """

    @fast
    @given(shapes(max_rank=1).flatmap(float_arrays))
    def check(x):
        if op in ("log", "sqrt"):
            x = np.abs(x)
        narrow = evaluate(op, x, isa=isa)
        x = np.where(np.abs(x) < SMALLEST, 0 * x, x)
        with np.errstate(over="ignore"):
            wide = evaluate(op, x.astype("float64"), dtype="float64", isa=isa).astype("float32")
        with np.errstate(invalid="ignore", over="ignore"):
            close = np.abs(narrow - wide) <= 1e-6 * np.abs(wide) + SMALLEST
            # Just below overflow the last bit decides between the largest float32 and infinity.
            close |= (np.abs(wide) > 3.4e38) & (np.abs(narrow) > 3.4e38) & (np.sign(wide) == np.sign(narrow))
        close |= narrow == wide
        assert close.all(), [
            (float(a), float(b), float(c)) for a, b, c in zip(x[~close], narrow[~close], wide[~close], strict=True)
        ]

    check()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", FUNCTIONS)
def test_functions_pass_nan_on(op, dtype, isa):
    x = np.linspace(0.1, 3, 37)
    x[[0, 17, 36]] = np.nan
    y = evaluate(op, x, dtype=dtype, isa=isa)
    assert np.array_equal(np.isnan(y), np.isnan(x))


BINARY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "greater": np.greater,
    "less": np.less,
    "greater_equal": np.greater_equal,
    "less_equal": np.less_equal,
    "equal": np.equal,
    "not_equal": np.not_equal,
}


@pytest.mark.parametrize("op", BINARY)
def test_broadcasting_is_numpys(op, rng):
    @fast
    @given(broadcastable(2))
    def check(pair):
        # Few distinct values, so that comparisons meet equal numbers; sums and products of them are exact.
        a, b = (rng.integers(-3, 4, shape).astype("float32") for shape in pair)
        wanted = BINARY[op](a, b).astype("float32")
        got = evaluate(op, a, b)
        assert got.shape == wanted.shape and np.array_equal(got, wanted)

    check()


@given(broadcastable(3))
@fast
def test_where_broadcasts_as_numpy(shapes3):
    rng = np.random.default_rng(3)
    cond = rng.integers(0, 2, shapes3[0]).astype("float32")
    a, b = (rng.standard_normal(shape).astype("float32") for shape in shapes3[1:])
    wanted = np.where(cond != 0, a, b)
    got = evaluate("where", cond, a, b)
    assert got.shape == wanted.shape and np.array_equal(got, wanted)


@given(data=st.data())
@fast
def test_reductions_are_numpys(data):
    shape = data.draw(shapes(least=1, max_rank=4))
    dims = sorted(data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1)))
    keepdim = data.draw(st.booleans())
    x = np.random.default_rng(5).standard_normal(shape)
    for op, function in {"sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min}.items():
        wanted = function(x, axis=tuple(dims), keepdims=keepdim)
        got = evaluate(op, x, dtype="float64", dims=dims, keepdim=int(keepdim))
        assert got.shape == wanted.shape, (op, shape, dims)
        assert np.allclose(got, wanted, rtol=1e-12, atol=1e-12), (op, shape, dims)
    shifted = np.log(np.exp(x).sum(axis=tuple(dims), keepdims=keepdim))
    assert np.allclose(evaluate("logsumexp", x, dtype="float64", dims=dims, keepdim=int(keepdim)), shifted, atol=1e-12)


@given(extents(), extents(), extents(), st.booleans(), st.booleans())
@fast
def test_matmul_is_numpys(m, k, n, transpose_a, transpose_b):
    rng = np.random.default_rng(7)
    a, b = rng.standard_normal((2, m, k)), rng.standard_normal((k, n))
    wanted = a @ b
    got = evaluate(
        "matmul",
        np.swapaxes(a, 1, 2).copy() if transpose_a else a,
        b.T.copy() if transpose_b else b,
        dtype="float64",
        transpose_a=int(transpose_a),
        transpose_b=int(transpose_b),
    )
    assert got.shape == wanted.shape and np.allclose(got, wanted, rtol=1e-12, atol=1e-12)
