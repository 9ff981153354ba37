"""Every op in float32 against the same source in double, on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest
from op_cases import CASES
from op_program import OpProgram, case_rng, cast, excess

from pybackprop import _core

# A gradient goes through the forward's rounding and then its own, and through the products with the directions.
GRADIENT_FACTOR = 4


@pytest.mark.parametrize("case", CASES, ids=str)
def test_float32_is_near_double(case):
    # Rounded to float32 first, so that both see the same numbers.
    arrays = cast(cast(case.inputs(case_rng(case)), "float32"), "float64")
    witness = OpProgram(case, arrays, gradient=case.grad)
    directions = witness.directions(np.random.default_rng(1)) if case.grad else None
    if directions is not None:
        directions = cast(cast(directions, "float32"), "float64")
    outputs, _, gradients = witness.run(arrays, directions)
    for isa in _core.isa_names():
        got_outputs, _, got_gradients = OpProgram(case, arrays, dtype="float32", isa=isa, gradient=case.grad).run(
            arrays, directions
        )
        for k, (got, wanted) in enumerate(zip(got_outputs, outputs, strict=True)):
            assert excess(got, wanted, case.f32_rtol, case.f32_atol) <= 1, f"{case} on {isa}, output {k}"
        for i, got, wanted in zip(case.differentiated(arrays), got_gradients, gradients, strict=False):
            assert got.dtype == np.float32
            bound = excess(got, wanted, GRADIENT_FACTOR * case.f32_rtol, GRADIENT_FACTOR * case.f32_atol)
            assert bound <= 1, f"{case} on {isa}, gradient of input {i}"
