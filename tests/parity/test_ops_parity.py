"""Every op that has a twin in PyTorch: values and gradients from the same inputs, in double and in float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from op_cases import CASES
from op_program import OpProgram, case_rng, cast, excess

TWINS = [case for case in CASES if case.torch is not None]
# Both libraries err in float32; the gradients' bound follows test_ops_float32.py.
GRADIENT_FACTOR = 4


def torch_results(case, arrays, directions, dtype):
    """The twin's outputs, and its gradients of sum(output * direction) with respect to the case's inputs."""
    tensors = [torch.from_numpy(np.array(a)) for a in cast(arrays, dtype)]
    wrt = case.differentiated(arrays) if case.grad else ()
    for i in wrt:
        tensors[i].requires_grad_(True)
    outputs = case.torch(*tensors, **case.attrs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    gradients = []
    if case.grad:
        loss = sum(
            (outputs[k] * torch.from_numpy(np.asarray(d, dtype))).sum()
            for k, d in zip(case.outputs, directions, strict=True)
        )
        found = torch.autograd.grad(loss, [tensors[i] for i in wrt], allow_unused=True)
        for i, g in zip(wrt, found, strict=True):
            g = torch.zeros_like(tensors[i]) if g is None else g
            gradients.append((g.to_dense() if g.is_sparse else g).numpy())
    return [y.detach().numpy() for y in outputs], gradients


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", TWINS, ids=str)
def test_same_as_torch(case, dtype):
    arrays = cast(cast(case.inputs(case_rng(case)), "float32"), "float64")
    program = OpProgram(case, arrays, dtype=dtype, gradient=case.grad)
    directions = program.directions(np.random.default_rng(1)) if case.grad else None
    outputs, _, gradients = program.run(arrays, directions)
    wanted_outputs, wanted_gradients = torch_results(case, arrays, directions, dtype)
    rtol, atol = (1e-12, 1e-12) if dtype == "float64" else (case.f32_rtol, case.f32_atol)
    assert 1 <= len(wanted_outputs) <= len(outputs)
    for k, (got, wanted) in enumerate(zip(outputs, wanted_outputs, strict=False)):
        assert got.shape == wanted.shape, f"{case}: output {k}"
        assert excess(got, wanted, rtol, atol) <= 1, f"{case}: output {k} in {dtype}"
    for i, got, wanted in zip(case.differentiated(arrays), gradients, wanted_gradients, strict=False):
        assert excess(got, wanted, GRADIENT_FACTOR * rtol, GRADIENT_FACTOR * atol) <= 1, (
            f"{case}: gradient of input {i} in {dtype}"
        )
