"""Every op's backward against numerical differences of its forward, in double, on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest
from op_cases import CASES
from op_program import OpProgram, case_rng

from pybackprop import _core

# Four-point differences err by h^4 f'''''/30 from truncation and eps |loss| / h from rounding: with h = 4e-4 both stay
# near 1e-11 of the loss's scale, five digits below the bound.
STEP = 4e-4
BOUND = 1e-6


def numerical_gradient(program, arrays, directions, i):
    """d loss / d arrays[i] by four-point central differences."""
    arrays = [a.copy() for a in arrays]
    flat = arrays[i].reshape(-1)
    gradient = np.empty(flat.size)
    for j, x in enumerate(flat.copy()):
        h = STEP * max(1.0, abs(x))
        at = []
        for k in (-2, -1, 1, 2):
            flat[j] = x + k * h
            at.append(program.run(arrays, directions)[1])
        flat[j] = x
        gradient[j] = (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * h)
    return gradient.reshape(arrays[i].shape)


def test_every_op_has_a_case():
    assert {case.op for case in CASES} == set(_core.op_names())


@pytest.mark.parametrize("case", [c for c in CASES if c.grad], ids=str)
def test_gradient_equals_differences(case):
    rng = case_rng(case)
    arrays = case.inputs(rng)
    for isa in _core.isa_names():
        program = OpProgram(case, arrays, isa=isa)
        directions = program.directions(np.random.default_rng(1))
        _, _, gradients = program.run(arrays, directions)
        for i, got in zip(case.differentiated(arrays), gradients, strict=True):
            wanted = numerical_gradient(program, arrays, directions, i)
            if i in case.held:
                wanted[case.held[i]] = 0
            assert got.shape == wanted.shape
            if wanted.size == 0:
                continue
            error = np.abs(got - wanted)
            scale = np.abs(wanted).max()
            context = f"{case} on {isa}, input {i}"
            assert np.linalg.norm(error) <= BOUND * max(np.linalg.norm(wanted), 1e-3), context
            # Element by element too; elements below a hundredth of the largest are measured on that floor.
            assert np.all(error <= BOUND * np.maximum(np.abs(wanted), max(scale * 1e-2, 1e-3))), context


@pytest.mark.parametrize("case", [c for c in CASES if not c.grad and c.param == ()], ids=str)
def test_op_without_gradient_refuses(case):
    arrays = case.inputs(case_rng(case))
    wrt = [i for i, a in enumerate(arrays) if a.dtype.kind == "f"]
    if not wrt:
        pytest.skip("no float input")
    graph = _core.Graph(dtype="float64", training=case.training)
    ids = [graph.input(a.shape, a.dtype.kind != "f", f"input {i}") for i, a in enumerate(arrays)]
    output = graph.node(case.op, ids, "Model.score", **case.attrs)[0]
    (loss,) = graph.node("sum", [output])
    with pytest.raises(ValueError, match=f"{case.op}.*gradient|gradient.*{case.op}"):
        _core.Program(graph, [loss], loss=loss, wrt=[ids[i] for i in wrt])
