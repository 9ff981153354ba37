"""Every op on each instruction set against the lowest, in float32, and at sizes round every vector tail.

AVX2 and AVX-512 (x86-64-v3 and -v4) run the same 16 virtual lanes with the same explicit fused multiply-adds: their
bits are equal. SSE (x86-64-v2) has no fused multiply-add, so it may differ by rounding: within twice the case's float32
bounds, since both sides err.
"""

from __future__ import annotations

import numpy as np
import pytest
from op_cases import CASES
from op_program import OpProgram, case_rng, cast, excess, same_bits

from pybackprop import _core

LEVELS = _core.isa_names()
GRADIENT_FACTOR = 4
SAME_BITS = {"x86-64-v3", "x86-64-v4"}


def compare(case, arrays):
    """Run ``case`` on every level; its outputs and gradients must agree. Returns the outputs of each level."""
    arrays = cast(arrays, "float32")
    results = {}
    for isa in LEVELS:
        program = OpProgram(case, arrays, dtype="float32", isa=isa, gradient=case.grad)
        directions = program.directions(np.random.default_rng(1)) if case.grad else None
        outputs, _, gradients = program.run(arrays, directions)
        results[isa] = (outputs, gradients)
    sizes = [a.shape for a in arrays]
    lowest = results[LEVELS[0]]
    for isa in LEVELS[1:]:
        for what, factor, got, wanted in zip(
            ("output", "gradient"), (2, 2 * GRADIENT_FACTOR), results[isa], lowest, strict=True
        ):
            for k, (a, b) in enumerate(zip(got, wanted, strict=True)):
                assert excess(a, b, factor * case.f32_rtol, factor * case.f32_atol) <= 1, (
                    f"{case} {sizes}: {what} {k} on {isa} is far from {LEVELS[0]}"
                )
    if set(results) >= SAME_BITS:
        for what, v3, v4 in zip(("output", "gradient"), results["x86-64-v3"], results["x86-64-v4"], strict=True):
            for k, (a, b) in enumerate(zip(v3, v4, strict=True)):
                assert same_bits(a, b), f"{case} {sizes}: {what} {k} has other bits on AVX2 than on AVX-512"
    return {isa: outputs for isa, (outputs, _) in results.items()}


@pytest.mark.skipif(len(LEVELS) < 2, reason="this machine runs one instruction set")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_levels_agree(case):
    compare(case, case.inputs(case_rng(case)))


@pytest.mark.parametrize("case", [c for c in CASES if c.sizes is not None], ids=str)
def test_every_tail(case):
    # All tails round one and several vectors of 4, 8 and 16 floats; also the double kernels, against float32.
    for n in range(1, 66):
        arrays = cast(case.sizes(case_rng(case), n), "float32")
        for isa, narrow in compare(case, arrays).items():
            wide = OpProgram(case, arrays, dtype="float64", isa=isa, gradient=False).run(arrays)[0]
            for a, b in zip(narrow, wide, strict=True):
                assert excess(a, b, case.f32_rtol, case.f32_atol) <= 1, f"{case} on {isa} at size {n}"
