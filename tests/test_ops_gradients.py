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
# Of large inputs so many elements one by one, and all of them together along so many random directions.
ELEMENTS, DIRECTIONS = 20, 3


def test_every_op_has_a_case():
    assert {case.op for case in CASES} == set(_core.op_names())
    differentiable = {op for op in _core.op_names() if _core.op_info(op)["differentiable"]}
    assert {case.op for case in CASES if case.grad} == differentiable


def probes(x, rng):
    """Steps to differentiate along: unit vectors, then sign vectors over everything; each as long as suits ``x``."""
    h = STEP * np.maximum(1.0, np.abs(x))
    chosen = np.arange(x.size)
    if x.size > ELEMENTS:
        chosen = np.unique([0, x.size - 1, *rng.choice(x.size, ELEMENTS - 2, replace=False)])
    for k in chosen:
        step = np.zeros(x.size)
        step[k] = h.flat[k]
        yield step.reshape(x.shape)
    if x.size > ELEMENTS:
        for _ in range(DIRECTIONS):
            yield h * rng.choice([-1.0, 1.0], x.shape)


@pytest.mark.parametrize("case", [c for c in CASES if c.grad], ids=str)
def test_gradient_equals_differences(case):
    arrays = case.inputs(case_rng(case))
    for isa in _core.isa_names():
        rng = np.random.default_rng(1)
        program = OpProgram(case, arrays, isa=isa)
        directions = program.directions(rng)
        _, _, gradients = program.run(arrays, directions)
        for i, gradient in zip(case.differentiated(arrays), gradients, strict=True):
            assert gradient.shape == arrays[i].shape
            norm = np.linalg.norm(gradient)
            largest = np.abs(gradient).max(initial=0)
            for step in probes(arrays[i], rng):
                if i in case.held:
                    step[case.held[i]] = 0
                if not step.any():
                    continue
                wanted = program.differences(arrays, directions, i, step)
                got = float((gradient * step).sum())
                # Relative to this derivative itself; below a hundredth of the largest, or of all of them together when
                # the step moves everything, on that floor.
                moved = np.abs(step).max()
                floor = 1e-2 * max(norm if np.count_nonzero(step) > 1 else largest, 0.1) * moved
                assert abs(got - wanted) <= BOUND * max(abs(wanted), floor), (
                    f"{case} on {isa}, input {i}: {got} {wanted}"
                )


@pytest.mark.parametrize("case", [c for c in CASES if not _core.op_info(c.op)["differentiable"]], ids=str)
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
