"""One case of one op. Gradient, ISA, property, float32 and parity tests all run over the same list of cases.

A case file holds the cases of the C++ file of the same name and starts with ``from op_cases.base import OpCase``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Inputs = Callable[[np.random.Generator], list[np.ndarray]]
SizedInputs = Callable[[np.random.Generator, int], list[np.ndarray]]


@dataclass(frozen=True)
class OpCase:
    """An op with attributes and inputs.

    ``inputs(rng)`` gives float64 arrays for float inputs and int64 arrays for integer ones, away from the op's kinks.
    """

    op: str
    id: str
    inputs: Inputs
    attrs: dict[str, Any] = field(default_factory=dict)
    # Inputs to differentiate; None: all float inputs.
    wrt: tuple[int, ...] | None = None
    # Differentiable outputs.
    outputs: tuple[int, ...] = (0,)
    # The same in PyTorch: torch(*tensors, **attrs) -> tensor or tuple of them (a prefix of the op's outputs).
    torch: Callable[..., Any] | None = None
    # float32 against float64 and one ISA against another: |a - b| <= atol * scale + rtol * |b|, where scale is the
    # largest magnitude of b, at least 1.
    f32_rtol: float = 1e-5
    f32_atol: float = 1e-6
    # Dim 0 of the inputs in `row_inputs` and of output 0 is a batch whose rows are independent.
    rows: bool = False
    row_inputs: tuple[int, ...] = (0,)
    # Inputs that must be Params (running statistics, a table with sparse gradients).
    param: tuple[int, ...] = ()
    # Input -> index of elements that the op reads but takes as constant by definition (an embedding's padding row).
    held: dict[int, Any] = field(default_factory=dict)
    training: bool = True
    grad: bool = True
    # Optional: inputs whose vectorised extent is n, for n round every vector tail (1..65).
    sizes: SizedInputs | None = None

    def differentiated(self, arrays: list[np.ndarray]) -> tuple[int, ...]:
        """The inputs to differentiate."""
        if self.wrt is not None:
            return self.wrt
        return tuple(i for i, a in enumerate(arrays) if a.dtype.kind == "f")

    def __str__(self) -> str:
        return f"{self.op}-{self.id}"
